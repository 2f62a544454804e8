"""What data sets look like on disk, and how one picture is read."""

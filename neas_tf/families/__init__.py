"""The operator families that come with the framework, one file each."""

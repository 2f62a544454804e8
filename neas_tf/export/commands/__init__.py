"""The export commands: flags, and one call each."""

"""The detection commands: flags, and what they do."""

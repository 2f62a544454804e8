"""A run: its stages, and the pipeline that takes them in order."""

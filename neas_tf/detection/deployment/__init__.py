"""A trained detector as a SavedModel or TFLite file, and running one."""

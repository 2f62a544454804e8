"""Commands that turn a trained ensemble into deployable files."""

"""Studies of how supernets learn."""

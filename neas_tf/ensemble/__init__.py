"""The stand-alone ensemble: its network, its exact rewrites, its folder on disk (paper 3.1)."""

"""Shrinking the space by a K-DPP diversity score (paper 3.2, Algorithm 1)."""

"""What is searched: operators of each layer, architectures, and which combinations are alive (paper 3.1, 4.1)."""

"""The K-path supernet: weights of every operator, the architecture as a tensor (paper 3.3)."""

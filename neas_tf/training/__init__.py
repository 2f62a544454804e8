"""Training steps, checkpoints and exact resume, for the supernet and the ensemble (paper 3.4, 4.1)."""

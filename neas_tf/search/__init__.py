"""Evolution under a budget and the evaluation of its candidates (paper 3.4, Algorithm 2)."""

"""What the stages of a run are made of."""

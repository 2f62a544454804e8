"""The stages of a run: supernet, search, retrain, export. Each goes on from the one before."""

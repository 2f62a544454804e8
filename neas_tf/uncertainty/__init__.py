"""What an ensemble knows of its own errors: calibration, disagreement, refusing, corruptions."""

"""What the tasks' steps are made of."""

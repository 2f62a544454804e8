"""What an ensemble costs, and how ensembles are drawn under a budget."""

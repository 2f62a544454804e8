"""From a trained ensemble to files for servers and phones."""

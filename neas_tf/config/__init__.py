"""Settings: their dataclasses, how they are read, the registered experiments."""

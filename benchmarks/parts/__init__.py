"""What the programs share: arguments, processes that take turns, cases, pictures."""

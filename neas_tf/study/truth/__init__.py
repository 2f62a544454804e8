"""How sharp the truth is that supernets are judged by."""

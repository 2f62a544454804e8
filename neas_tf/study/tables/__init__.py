"""One study of the paper's a file, and the plan of all of them."""

"""Loading the parts of a model from names, folders and files, and saving them."""

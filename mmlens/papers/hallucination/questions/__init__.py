"""What is asked of a model about one picture: what its caption names."""

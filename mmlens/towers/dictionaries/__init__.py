"""Dictionaries, as parts of a tower: sparse autoencoders and transcoders, and their hook points."""

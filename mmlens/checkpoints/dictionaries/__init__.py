"""Dictionaries from and to files, in the formats of the packages that train them."""

"""One kind of figure per file, named like the function that draws it."""

"""From names, folders and files to the parts of a model, and back: loading and saving."""

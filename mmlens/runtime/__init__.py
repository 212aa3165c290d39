"""How a forward pass is run: whose turn it is, which prompt is read, dtypes, gradients, memory.

Nothing here knows what a tower is.
"""

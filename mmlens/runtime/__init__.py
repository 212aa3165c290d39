"""Running a forward pass: locks, the prompt being read, dtypes, gradients, memory.

Nothing here depends on towers.
"""

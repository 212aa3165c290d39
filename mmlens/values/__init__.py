"""Plain values: what is asked, what stands where, numbers with labels, and the errors.

Nothing here has met a model; torch is imported only inside functions.
"""

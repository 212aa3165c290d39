"""Plain values: prompts, labels, sites, edits, scores, and the errors.

Nothing here depends on a model; torch is imported only inside functions.
"""

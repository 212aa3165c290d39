"""Towers joined into one hooked model: prompts, hooks, edits, generation, targets."""

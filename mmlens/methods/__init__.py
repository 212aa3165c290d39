"""Questions to a model: one function in one file each, `(model, prompt, ...) -> Scores | DataFrame`."""

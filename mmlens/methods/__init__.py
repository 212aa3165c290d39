"""Questions to a model, one function per file: `(model, prompt, ...) -> Scores | DataFrame`."""

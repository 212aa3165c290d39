"""Methods, one function per file: `(model, prompt, ...) -> Scores | DataFrame`."""

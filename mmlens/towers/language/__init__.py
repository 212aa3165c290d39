"""The language model: a TransformerLens model that reads soft prompts, and what it can do."""

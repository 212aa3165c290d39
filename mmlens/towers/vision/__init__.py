"""The vision encoder: a module of transformers, open_clip or timm under TransformerLens' names."""

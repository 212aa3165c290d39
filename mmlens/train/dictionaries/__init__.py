"""Training a dictionary on a model's activations (`mmlens train-sae`)."""

"""What the causal methods share: pairs of runs, places, variants in one batch, reuse, silencing."""

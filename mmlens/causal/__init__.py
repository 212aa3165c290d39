"""Shared parts of the causal methods: pairs, places, variants in a batch, reuse, ablation."""

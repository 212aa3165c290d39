"""What is asked of every lens: `words_at_patches.lens_words`, of one picture, and its summary."""

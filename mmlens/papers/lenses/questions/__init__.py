"""What is asked of every lens: `readings.lens_words`, of one picture, and its summary."""

"""What the study asks: pictures of concepts by format, published words of units, experiments."""

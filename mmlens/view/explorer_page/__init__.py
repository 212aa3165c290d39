"""The page of `view.explore`: pictures to explore, in one HTML file."""

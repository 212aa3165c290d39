"""The page of `view.explore`: pictures to look around in, in one HTML file."""

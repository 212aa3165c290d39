"""The static site of a microscope: every unit of a tower, opened without a server."""

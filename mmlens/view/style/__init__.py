"""Shared parts of figures: colours, titles, overlays on photos, HTML, checks of arguments."""

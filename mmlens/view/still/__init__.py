"""Figures as still pictures, SVG and PNG, drawn without a browser."""

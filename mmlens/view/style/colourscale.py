"""Colour scales of plotly as numbers; and black or white text on a colour."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import ImageColor

Stops = tuple[np.ndarray, np.ndarray]
"""Positions Float[stop] from 0 to 1, and colours Float[stop, 3] from 0 to 255."""


def read(scale: Any) -> Stops:
    """A plotly colour scale, [(place, colour), ...], as numbers."""
    places = np.array([float(place) for place, _ in scale])
    colours = np.array([ImageColor.getrgb(colour)[:3] for _, colour in scale], float)
    return places, colours


def rgb(stops: Stops, parts: Any) -> np.ndarray:
    """Float[..., 3]: the colours at these parts (0 to 1) of the scale."""
    places, colours = stops
    return np.stack([np.interp(parts, places, colours[:, i]) for i in range(3)], -1)


def on(stops: Stops, part: float) -> str:
    """The colour at one part of the scale, as `#rrggbb`."""
    r, g, b = (round(float(x)) for x in rgb(stops, part))
    return f"#{r:02x}{g:02x}{b:02x}"


def ink_on(colour: str) -> str:
    """Black or white, whichever contrasts more with a colour (WCAG)."""
    parts = np.array(ImageColor.getrgb(colour)[:3]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    light = float(linear @ np.array([0.2126, 0.7152, 0.0722]))
    return "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#ffffff"

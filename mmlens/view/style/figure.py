"""A plotly figure that a notebook stores in two forms: interactive, and as a still picture.

Jupyter stores a plotly figure as JSON that only a front end with plotly can draw; nbconvert's HTML,
GitHub and other readers show nothing in its place. A `Figure` is a `go.Figure` that can be edited
like any other, and stores a drawing of itself (SVG, `view.still.drawing`) beside that JSON; front
ends that support plotly draw the JSON. So nothing is set when mmlens is imported, and no page
carries 5 MB of plotly.js.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

from mmlens.values.errors import CapabilityError

_JSON = "application/vnd.plotly.v1+json"
_BARE = {"plotly_mimetype", "jupyterlab", "nteract", "vscode"}
"""Renderers that store the JSON and nothing else."""


class Figure(go.Figure):
    """A plotly figure, with all of plotly's methods."""

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None, validate: bool = True, **kwargs: Any
    ) -> dict[str, Any]:
        """The output of the user's plotly renderer; if that is only JSON, with a still picture."""
        if not pio.renderers.default:
            return {"text/plain": repr(self)}
        bundle = dict(super()._repr_mimebundle_(include, exclude, validate, **kwargs))
        if set(bundle) == {_JSON}:
            from mmlens.view.still.drawing import svg

            with suppress(CapabilityError):  # edited to something that only plotly draws
                bundle["image/svg+xml"] = svg(self)
        return bundle

    def _ipython_display_(self) -> None:
        """Display it as plotly does, with the still picture where only JSON would be stored."""
        chosen = set((pio.renderers.default or "").split("+"))
        if not chosen or not chosen <= _BARE or not pio.renderers.render_on_display:
            super()._ipython_display_()
            return
        from IPython.display import display

        display(self._repr_mimebundle_(), raw=True)

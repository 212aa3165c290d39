"""What a notebook shows by itself, and the one switch that changes more.

Scores show themselves as `view.show` would, once `mmlens.view` is imported: Scores lie below views
and know nothing of them, so the view tells them how. `view.notebook()` is a switch and not a side
effect of an import, because it changes how pandas' tables are displayed and puts a script into the
page.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mmlens.values.errors import CapabilityError, MMLensError
from mmlens.values.scores import Scores


def notebook() -> None:
    """From now on, in this notebook: tables of neurons show themselves, CircuitsVis is there once.

    A table of neurons is shown as `view.show(table)` over the table itself; other tables stay as
    they are. Figures need no switch: each carries a still picture for readers without plotly.

    Raises:
        CapabilityError: there is no notebook.
    """
    shell = _shell()
    if shell is None:
        raise CapabilityError(
            "There is no notebook here: view.notebook() belongs into a cell of Jupyter, VS Code or"
            " Colab; in a script write view.save(view.show(x), 'page.html')."
        )
    import pandas as pd
    from IPython.display import display

    from mmlens.view.figures import attention_text

    display(attention_text.loader())
    attention_text.in_notebook = True
    shell.display_formatter.ipython_display_formatter.for_type(pd.DataFrame, _table)


def of_scores(scores: Scores) -> dict[str, Any]:
    """What a notebook stores of Scores: the view that fits and, always, their text."""
    from mmlens.view.choose import show

    text = {"text/plain": repr(scores)}
    try:
        shown = show(scores)
        if hasattr(shown, "_repr_mimebundle_"):
            return {**shown._repr_mimebundle_(), **text}
        return {"text/html": str(shown), **text}
    except MMLensError:  # nothing fits: they are still Scores
        return text


def _table(table: Any) -> None:
    """Display a table of neurons as its view over itself, others as pandas does."""
    from IPython.display import HTML, display

    from mmlens.view.choose import is_neurons, show

    if is_neurons(table):
        with suppress(MMLensError):  # its rows are of no neurons: it is still a table
            display(show(table))
    html = table._repr_html_()
    display(HTML(html) if html is not None else repr(table))


def _shell() -> Any:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()

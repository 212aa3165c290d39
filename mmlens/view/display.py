"""The notebook display of results, and the switch that extends it.

Scores are displayed as by `view.show` once `mmlens.view` is imported: Scores cannot import views,
so the view registers itself. `view.notebook()` is a switch and not a side effect of an import,
because it changes how pandas' tables are displayed and puts a script into the page.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mmlens.values.errors import CapabilityError, MMLensError
from mmlens.values.scores import Scores


def notebook() -> None:
    """From now on, in this notebook, display tables of neurons as views and load CircuitsVis once.

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
    """The MIME bundle of Scores for a notebook: the fitting view and, always, their text."""
    from mmlens.view.choose import show

    text = {"text/plain": repr(scores)}
    try:
        shown = show(scores)
        if hasattr(shown, "_repr_mimebundle_"):
            return {**shown._repr_mimebundle_(), **text}
        return {"text/html": str(shown), **text}
    except MMLensError:  # no view fits: the text remains
        return text


def _table(table: Any) -> None:
    """Display a table of neurons as its view over itself, others as pandas does."""
    from IPython.display import HTML, display

    from mmlens.view.choose import is_neurons, show

    if is_neurons(table):
        with suppress(MMLensError):  # its rows are not neurons: the plain table remains
            display(show(table))
    html = table._repr_html_()
    display(HTML(html) if html is not None else repr(table))


def _shell() -> Any:
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()

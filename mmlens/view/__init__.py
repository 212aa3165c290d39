"""Pictures of results: functions of labelled numbers that return figures and never meet a model.

    view.on_image(photo, scores)     Scores over patches, on the photo
    view.heatmap(scores)             Scores of two axes
    view.bars(scores)                Scores of one axis
    view.neurons(table)              a table of neurons
    view.tokens(words, values)       coloured words
    view.show(x)                     whichever of these fits the axes and labels

Figures are plain plotly figures to edit; `view.save(figure, "page.html")` writes one file that
needs no network. Blue raises, red lowers, everywhere.
"""

from typing import TYPE_CHECKING

from mmlens.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.view.choose import show
    from mmlens.view.grid import bars, heatmap
    from mmlens.view.photo import on_image
    from mmlens.view.table import neurons
    from mmlens.view.theme import save, use_theme
    from mmlens.view.words import tokens

_HOME = {
    "on_image": "photo",
    "heatmap": "grid",
    "bars": "grid",
    "neurons": "table",
    "tokens": "words",
    "show": "choose",
    "save": "theme",
    "use_theme": "theme",
}
__all__ = ["bars", "heatmap", "neurons", "on_image", "save", "show", "tokens", "use_theme"]

__getattr__, __dir__ = on_first_use(__name__, _HOME)

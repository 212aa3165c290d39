"""Views of results: functions of labelled numbers that return figures and need no model.

    view.show(x, photo)                  whichever of these fits the axes and labels
    view.on_image(scores, photo)         Scores over patches, on the photo
    view.panels(scores, photo)           one such picture per token, layer, head or neuron
    view.heatmap(scores)                 Scores of two axes
    view.bars(scores)                    Scores of one axis
    view.curves(scores)                  lines over k or layer, with intervals
    view.lens(table)                     words at each layer and position, or at each patch
    view.tokens(words, values)           coloured words
    view.neurons(table)                  neurons as points, layer by unit
    view.cards(table)                    neurons as cards: words, and where they activate
    view.gallery(table, pictures)        the top pictures of each neuron
    view.graph(table)                    what feeds a word: units, neurons, as columns of nodes
    view.head_texts(table)               the texts that attention heads vary along
    view.visualisations(made)            pictures made by optimisation, a row per unit
    view.attention_on_image(s, photo)    attention from one position to patches
    view.attention_text(scores)          attention from word to word
    view.compare({"a": s, "b": t})       several models on one scale
    view.conditional(table)              labels given a unit's activation, and the reverse
    view.explore(seen)                   pictures to explore, one HTML file

The numbers stand first and the picture second in all of them. Figures are plain plotly figures
that can be edited, or HTML; `view.save(figure, "page.html")` writes one file that needs no network,
`.svg`, `.pdf` and `.png` a still picture without a browser, `.csv` its numbers. Blue raises, red
lowers, everywhere. Scores show themselves in a notebook; `view.notebook()` does the same for
tables.
"""

from typing import TYPE_CHECKING, Any

from mmlens.values import scores as _scores
from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.view.choose import show as show
    from mmlens.view.display import notebook as notebook
    from mmlens.view.explorer_page.page import explore as explore
    from mmlens.view.figures.attention_on_image import attention_on_image as attention_on_image
    from mmlens.view.figures.attention_text import attention_text as attention_text
    from mmlens.view.figures.cards import cards as cards
    from mmlens.view.figures.cards import gallery as gallery
    from mmlens.view.figures.compare import compare as compare
    from mmlens.view.figures.conditional import conditional as conditional
    from mmlens.view.figures.curves import curves as curves
    from mmlens.view.figures.graph import graph as graph
    from mmlens.view.figures.head_texts import head_texts as head_texts
    from mmlens.view.figures.heatmap import bars as bars
    from mmlens.view.figures.heatmap import heatmap as heatmap
    from mmlens.view.figures.lens import lens as lens
    from mmlens.view.figures.neurons import neurons as neurons
    from mmlens.view.figures.on_image import on_image as on_image
    from mmlens.view.figures.panels import panels as panels
    from mmlens.view.figures.tokens import tokens as tokens
    from mmlens.view.figures.visualisations import visualisations as visualisations
    from mmlens.view.style.theme import use_theme as use_theme
    from mmlens.view.write import save as save
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)


def _shown(scores: _scores.Scores) -> dict[str, Any]:
    from mmlens.view.display import of_scores

    return of_scores(scores)


_scores.shown_by(_shown)

"""Word probe: which written words excite each unit of a vision tower.

    response[w, u] = mean over sizes of the max over places of unit u's response to Img(w)

"Activations averaged over font sizes, max over word positions" (Goh et al. 2021, "Multimodal
Neurons in Artificial Neural Networks", Distill, on region neurons). Img(w) is the word alone, black
on white; a unit's response to one picture is its maximum over the picture's positions. The paper
gives neither font nor sizes nor places: here they are DejaVu Sans, two sizes and four places, and
all of them are arguments. The pictures have the encoder's own size, so no word is cropped away.

Axes: (word, unit). `top_words` lists the strongest words of each unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from mmlens.datasets.written_words import written
from mmlens.methods.unit_responses import (
    TOWER,
    chunks,
    read_site,
    respond,
    whole_layer,
)
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.values.arguments import count, number, several, text
from mmlens.values.errors import AddressError
from mmlens.values.labels import Neuron
from mmlens.values.scores import Scores
from mmlens.values.unit_lists import units_in

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel

SIZES = (0.12, 0.2)
"""Of the font, as shares of the picture's height."""
PLACES = ((0.5, 0.5), (0.1, 0.15), (0.9, 0.35), (0.35, 0.9))
"""(x, y) within the room that the word leaves (`mmlens.datasets.written_words.written`)."""


@needs("pictures")
def word_probe(
    model: HookedModel,
    words: Sequence[str],
    *,
    layer: int = -1,
    site: str | None = None,
    over: str = "max",
    pos: Any = None,
    sizes: Sequence[float] = SIZES,
    at: Sequence[tuple[float, float]] = PLACES,
    batch: int = 64,
) -> Scores:
    """The response of every unit of a layer to every written word: Scores(word, unit).

    Args:
        words: as they are drawn; each once.
        layer: of the vision tower.
        site: by default the units of the layer's MLP, or the channels of its map.
        over: "max" or "mean" over the positions of a picture.
        pos: these positions only, such as `Patch`; by default all, CLS and registers included.
        sizes: of the font, as shares of the picture's height.
        at: (x, y) of the word, 0 to 1, within the room that it leaves.
        batch: pictures that are read side by side.

    Raises:
        ArgumentError: no words, or a size or place that cannot be. AddressError: no such layer.
    """
    listed = distinct(words)
    heights = [number(one, "sizes", above=0, most=1) for one in several(sizes, "sizes")]
    spots = several(at, "at")
    count(layer, "layer", least=-(10**6), most=10**6)
    where = read_site(model, layer, site)
    groups = max(1, count(batch, "batch") // len(spots))
    canvas = word_canvas(model.towers[TOWER])
    asked = ((word, size) for word in range(len(listed)) for size in heights)
    summed: torch.Tensor | None = None
    for some in chunks(asked, groups):
        drawn = [canvas(listed[word], size, spot) for word, size in some for spot in spots]
        found = respond(model, drawn, where, layer, over, pos).values
        best = found.unflatten(0, (len(some), len(spots))).amax(1).float()
        if summed is None:
            summed = best.new_zeros(len(listed), best.shape[-1])
        rows = torch.tensor([word for word, _ in some], device=best.device)
        summed.index_add_(0, rows, best)
    assert summed is not None
    told = about(
        model, method="word_probe", site=where, tower=TOWER, layer=whole_layer(model, layer),
        over=over, sizes=tuple(heights), at=tuple(map(tuple, spots)),
    )  # fmt: skip
    return Scores(summed / len(heights), ("word", "unit"), {"word": tuple(listed)}, told)


def top_words(scores: Scores, k: int = 10, *, neurons: Any = None) -> pd.DataFrame:
    """The `k` words of largest response per unit: neuron, rank, word, value.

    Args:
        scores: Scores(word, unit), as `word_probe` gives them.
        neurons: a Neuron or several; all units of the layer when left out.

    Raises:
        AddressError: scores of other axes, or a neuron that is not in them.
    """
    import pandas as pd

    check_words(scores)
    layer = int(scores.about.get("layer") or 0)
    n, width = scores.shape
    listed = (
        [Neuron(layer, unit, TOWER) for unit in range(width)]
        if neurons is None
        else units_in(neurons, "neurons", Neuron, least=1)
    )
    for one in listed:
        if (one.layer, one.tower) != (layer, TOWER) or not 0 <= one.unit < width:
            raise AddressError(
                f"{one} is none of these units: they are {Neuron(layer, 0, TOWER)} to"
                f" {Neuron(layer, width - 1, TOWER)}."
            )
    k = min(count(k, "k"), n)
    units = torch.tensor([one.unit for one in listed], device=scores.values.device)
    value, at = scores.values[:, units].topk(k, dim=0)
    names = scores.of("word")
    return pd.DataFrame(
        {
            "neuron": [one for one in listed for _ in range(k)],
            "rank": [rank for _ in listed for rank in range(k)],
            "word": [names[i] for i in at.T.flatten().tolist()],
            "value": value.T.flatten().tolist(),
        }
    )


def check_words(scores: Any) -> Scores:
    """Scores(word, unit), or AddressError."""
    if not isinstance(scores, Scores) or scores.axes != ("word", "unit"):
        raise AddressError(
            f"{scores!r} are no responses to words: give what word_probe(model, words) returns."
        )
    return scores


def distinct(words: Any) -> list[str]:
    """The words, each once, in order."""
    listed = [text(one, "words", empty=False) for one in several(words, "words")]
    return list(dict.fromkeys(listed))


def word_canvas(tower: Any) -> Any:
    """A function (word, size, place, ink) to a picture of which the encoder sees all of the word.

    Encoders resize a picture and cut its border away. So the word is drawn at the size that is
    read, and padded with paper to the size from which the encoder cuts.
    """
    pixels = getattr(tower, "pixels", None)
    rows, cols = tower.image_size
    scale = getattr(pixels, "scale", None) or (rows, cols)
    window = getattr(pixels, "window", lambda width, height: (width, height, 0, 0))
    wide, high, left, top = window(scale[1], scale[0])
    outer = (wide, high) == (scale[1], scale[0]) and (left > 0 or top > 0)

    def draw(word: str, size: float, place: tuple[float, float], ink: str = "black") -> Image.Image:
        inner = written(word, (cols, rows), size=size, at=place, ink=ink)
        if not outer:
            return inner
        whole = Image.new("RGB", (wide, high), "white")
        whole.paste(inner, (left, top))
        return whole

    return draw


def words_of(scores: Scores, chosen: Sequence[str]) -> Iterator[int]:
    """The places of words on the axis.

    Raises:
        AddressError: a word that was not probed.
    """
    names = {name: i for i, name in enumerate(scores.of("word"))}
    for word in chosen:
        if text(word, "word") not in names:
            raise AddressError(f"The word {word!r} was not probed: add it to word_probe's words.")
        yield names[word]

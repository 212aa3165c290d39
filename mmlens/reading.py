"""One picture, read through the model: what it says, which neurons made it say so, where they look.

    seen = look(model, "scene.png")
    seen.caption                     # ' a dog and a bicycle.'
    seen.neurons                     # the neurons behind ' dog': neuron, patch, score, words, ...
    seen.maps.sel(token=" dog")      # Scores(pos): what each patch did for the word
    seen.save("scene.html")          # the same as a page

One forward pass and one backward pass per caption token (gradient x activation, see
`mmlens.methods.attribute`), reduced as it comes; one more forward pass for the activation maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from mmlens.english import is_english
from mmlens.errors import PromptError, TargetError
from mmlens.methods.attribute import products
from mmlens.methods.decode import decode
from mmlens.neurons import Neuron
from mmlens.pictures import open_picture
from mmlens.prompt import Patch, Prompt, SoftPrompt, Token
from mmlens.provenance import about
from mmlens.scores import Scores
from mmlens.sites import SITES
from mmlens.targets import aim_caption

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model import HookedVLM

_WORDS = """
the and with picture drawing word photo photograph image painting sketch icon symbol sign
two three four five some many several small large big little left right top bottom front back
next near under over behind above below between his her its their this that these those there
are was were has have had for from into onto out off not black white red orange yellow green
blue purple pink brown grey gray background standing sitting lying holding showing"""
NO_THINGS = frozenset(_WORDS.split())
"""Words of captions that name no thing; the first other word is explained by default."""


@dataclass(frozen=True, eq=False)
class Look:
    """What `look` found.

    Attributes:
        picture: RGB.
        prompt: the words after the picture.
        caption: what was explained: the model's own words, or those given.
        tokens: its tokens.
        target: the token that `neurons` explains.
        maps: Scores(token, pos): the score of every patch for every token, summed over all layers
            and units. A sum over layers counts an effect once per layer that it passes through.
        table: the top neurons of every token: token, neuron, patch (where its score is highest),
            score, words, probs, interpretable.
        activations: Scores(neuron, pos): how active each neuron of the table is at each patch.
        box: (x0, y0, x1, y1), the pixels of the picture that the encoder sees.
        about: provenance.
    """

    picture: Image.Image = field(repr=False)
    prompt: str
    caption: str
    tokens: tuple[Token, ...] = field(repr=False)
    target: Token
    maps: Scores
    table: pd.DataFrame = field(repr=False)
    activations: Scores
    box: tuple[float, float, float, float] = field(repr=False)
    about: Mapping[str, Any] = field(repr=False)

    @property
    def neurons(self) -> pd.DataFrame:
        """The rows of `table` that explain the target, the largest score first."""
        rows: Any = self.table[self.table["token"] == self.target]
        return rows.drop(columns="token").reset_index(drop=True)

    def to_html(self, title: str = "A picture, read by the model") -> str:
        """One HTML page with everything in it; it needs no network."""
        from mmlens.view.page import page

        return page(
            self.picture,
            self.maps,
            self.table,
            self.activations,
            target=self.target,
            prompt=self.prompt,
            title=title,
            box=self.box,
            about=self.about,
        )

    def save(self, path: str | Path, title: str | None = None) -> Path:
        """Write `to_html`; the title is the file's stem unless given."""
        path = Path(path)
        path.write_text(self.to_html(title or path.stem), encoding="utf-8")
        return path


def look(
    model: HookedVLM,
    picture: Any,
    prompt: str = "A picture of",
    *,
    target: str | None = None,
    words: str | None = None,
    k: int = 10,
    max_new_tokens: int = 30,
) -> Look:
    """Caption a picture and explain every token of the caption by its `k` strongest neurons.

    A neuron counts once per token, by its largest score over the patches.

    Args:
        picture: anything that `open_picture` reads.
        prompt: the words between the picture and the caption.
        target: a word of the caption, with or without its leading space; by default the first that
            names a thing.
        words: explain these words instead of the model's own caption.
        max_new_tokens: length of that caption at most.

    Raises:
        PictureError: it cannot be read. PromptError: the model sees no pictures, or `k` is below 1.
        NumericsError: NaN in the attribution.
        TargetError: the caption is empty, or the word is not one of its tokens.
    """
    if k < 1:
        raise PromptError(f"At least one neuron has to be shown, and {k} were asked for.")
    photo = open_picture(picture)
    soft, targets = aim_caption(
        model, Prompt(photo, prompt), words=words, max_new_tokens=max_new_tokens
    )
    tokens = tuple(aimed.token for aimed in targets if aimed.token is not None)
    chosen = choose(model, tokens, target)

    labels = soft.labels[0]
    places = [i for i, label in enumerate(labels) if isinstance(label, Patch)]
    patches = tuple(labels[i] for i in places)
    at = torch.tensor(places, device=model.lm.device)
    maps = torch.zeros(len(tokens), len(places))
    best = [_Strongest(k) for _ in tokens]

    def receive(index: int, layer: int, product: torch.Tensor) -> None:
        seen = product[at].float()
        maps[index] += seen.sum(-1).cpu()
        best[index].add(layer, seen)

    products(model, soft, targets, receive)
    told = about(model, method="attribute", target="logit", point="pre", prompt=soft)
    table = _table(model, tokens, [one.rows() for one in best], patches)
    neurons = tuple(dict.fromkeys(table["neuron"]))
    width, height = photo.size
    rows, cols = model.vision.grid
    first = model.vision.box(0, 0, width, height)
    last = model.vision.box(rows - 1, cols - 1, width, height)
    return Look(
        photo,
        prompt,
        "".join(token.text for token in tokens),
        tokens,
        chosen,
        Scores(maps, ("token", "pos"), {"token": tokens, "pos": patches}, told),
        table,
        Scores(
            _activations(model, soft, neurons, at),
            ("neuron", "pos"),
            {"neuron": neurons, "pos": patches},
            about(model, method="activations", site="neurons", prompt=soft),
        ),
        (*first[:2], *last[2:]),
        told,
    )


def choose(model: HookedVLM, tokens: tuple[Token, ...], word: str | None = None) -> Token:
    """The caption token to explain: `word`, or the first that names a thing by itself.

    Raises:
        TargetError: `word` is several tokens, or none of the caption.
    """
    if word is not None:
        exact = [token for token in tokens if token.text == word]
        near = [token for token in tokens if token.text.strip() == word.strip()]
        if exact or near:
            return (exact or near)[0]
        model.to_single_token(word if word.startswith(" ") else f" {word}")
        there = ", ".join(repr(token.text) for token in tokens)
        raise TargetError(
            f"The model does not say {word!r} here: choose one of its tokens ({there}),"
            " or give other words to explain."
        )
    whole = [
        token
        for token, after in zip(tokens, [*(t.text for t in tokens[1:]), ""], strict=True)
        if token.text.strip().isalpha() and not after[:1].isalpha()
    ]
    things = [
        token
        for token in whole
        if is_english(token.text) and token.text.strip().lower() not in NO_THINGS
    ]
    long = [token for token in whole if len(token.text.strip()) >= 3]
    return (things or long or whole or list(tokens))[0]


class _Strongest:
    """The k neurons of largest score seen so far, each at its best patch."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.found: list[tuple[float, int, int, int]] = []

    def add(self, layer: int, product: torch.Tensor) -> None:
        """Take in a layer's product Float[patch, unit]."""
        values, patch = product.max(0)
        top = values.topk(min(self.k, len(values)))
        units = top.indices.tolist()
        new = zip(top.values.tolist(), patch[top.indices].tolist(), units, strict=True)
        self.found += [(value, layer, unit, place) for value, place, unit in new]
        self.found = sorted(self.found, key=lambda row: -row[0])[: self.k]

    def rows(self) -> list[tuple[float, Neuron, int]]:
        """(score, neuron, index of the patch), the largest first."""
        return [(value, Neuron(layer, unit), place) for value, layer, unit, place in self.found]


def _table(
    model: HookedVLM,
    tokens: tuple[Token, ...],
    found: list[list[tuple[float, Neuron, int]]],
    patches: tuple[Any, ...],
) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {"token": token, "neuron": neuron, "patch": patches[place], "score": score}
        for token, top in zip(tokens, found, strict=True)
        for score, neuron, place in top
    ]
    table = pd.DataFrame(rows, columns=["token", "neuron", "patch", "score"])
    return table.merge(decode(model, table["neuron"]), on="neuron", how="left")


def _activations(
    model: HookedVLM, soft: SoftPrompt, neurons: tuple[Neuron, ...], at: torch.Tensor
) -> torch.Tensor:
    """Float[neuron, patch], from one forward pass up to the highest layer needed."""
    values = torch.zeros(len(neurons), len(at))
    layers = sorted({neuron.layer for neuron in neurons})

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        here = [i for i, neuron in enumerate(neurons) if neuron.layer == hook.layer()]
        units = torch.tensor([neurons[i].unit for i in here], device=tensor.device)
        values[here] = tensor[0, at][:, units].T.float().cpu()

    stop = layers[-1] + 1 if layers[-1] + 1 < model.cfg.n_layers else None
    names = [SITES["neurons"].at(layer) for layer in layers]
    with torch.no_grad(), model.hooks(fwd_hooks=[(name, keep) for name in names]):
        model(soft, return_type=None, stop_at_layer=stop)
    return values

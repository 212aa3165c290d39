"""Zero-shot classification: how well each text fits each picture (Radford et al. 2021, 3.1.2).

    model = mm.load("pictos-clip")
    found = zero_shot(model, photo, ["a photo of a dog", "a photo of a cat"])
    found.sel(quantity="probability").to_frame()         # Scores(picture, text)
    zero_shot(model, photo, {"dog": ["a photo of a dog", "a drawing of a dog"], "cat": "a cat"})

A class may have several texts, as in the last line; its embedding is then the mean of their unit
embeddings, made a unit vector again, as CLIP's authors did with 80 templates (3.1.4).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.embed import embed
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.values.arguments import several, text
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder

QUANTITIES = ("cosine", "logit", "probability")


@needs("similarity")
def zero_shot(
    model: HookedDualEncoder,
    pictures: Any,
    texts: Sequence[str] | Mapping[str, str | Sequence[str]],
    *,
    batch: int = 32,
) -> Scores:
    """How well each text fits each picture: Scores(quantity, picture, text).

    Args:
        pictures: a picture, or a list of them.
        texts: one text per class, or class names with a text or several texts each.
        batch: how many pictures (or texts) are run at once.

    Returns:
        "cosine" in [-1, 1]; "logit", which is scale * cosine + bias; "probability", a softmax over
        the texts, or in a model with a bias (SigLIP) the sigmoid of each logit by itself.

    Raises:
        PictureError: something that is no picture. ArgumentError: something that is no text.
    """
    _, groups = _classes(texts)
    many = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
    seen = embed(model, [Prompt(open_picture(one)) for one in many], batch=batch)
    names, rows = class_embeddings(model, texts, batch)
    cosines = seen @ rows.T
    logits = model.logits(cosines)
    values = torch.stack([cosines, logits, model.probabilities(logits)])
    labels = {"quantity": QUANTITIES, "text": names}
    told = about(model, method="zero_shot", texts=groups, sigmoid=model.sigmoid)
    return Scores(values, ("quantity", "picture", "text"), labels, told)


def class_embeddings(
    model: HookedDualEncoder, texts: Any, batch: int = 32
) -> tuple[tuple[str, ...], Float[Tensor, "text d_embed"]]:
    """The name of each class, and the unit vector along the mean of its texts' embeddings.

    Args:
        texts: as `zero_shot` takes them.
    """
    names, groups = _classes(texts)
    every = embed(model, [one for some in groups for one in some], batch=batch)
    means = [part.mean(0) for part in every.split([len(some) for some in groups])]
    return names, F.normalize(torch.stack(means), dim=-1)


def _classes(texts: Any) -> tuple[tuple[str, ...], list[list[str]]]:
    """The name of each class, and its texts."""
    if isinstance(texts, Mapping):
        names, given = tuple(map(str, texts)), list(texts.values())
    else:
        given = several([texts] if isinstance(texts, str) else texts, "texts")
        names = tuple(map(str, given))
    groups = [[one] if isinstance(one, str) else several(one, "texts") for one in given]
    several(groups, "texts")
    return names, [[text(one, "texts", empty=False) for one in some] for some in groups]

"""How good a map of relevance is: where the truth is a mask, and where it is what covering does.

Of a map S over patches and a mask M of the thing that the word names, with c the share of a patch
that M covers,

    energy     sum_p max(S, 0) c / sum_p max(S, 0)          (Wang et al. 2020, arXiv 1910.01279)
    pointing   c at the strongest patch >= 1/2              (Zhang et al. 2016, arXiv 1608.00507)

Both have the mask's share of the picture, `area`, as what a map without information gets. A mask
says where the thing is, and not what the model reads: a model may know a dog by its leash. So

    deletion   y while patches are covered, the strongest first    (lower is better)
    insertion  y while patches are shown, the strongest first      (higher is better)

(Petsiuk et al. 2018, arXiv 1806.07421, section 4.2), each as the mean over the curve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmlens.causal.picture_boxes import Box, patch_boxes
from mmlens.methods.picture_places import baseline_of, place_in
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, finite
from mmlens.runtime.autograd import ordinary
from mmlens.values.arguments import count, instance, shown
from mmlens.values.errors import AddressError, PictureError
from mmlens.values.labels import Patch
from mmlens.values.pictures import open_picture
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

CURVES = ("deletion", "insertion")
MOST = 10_000
"""Points of a curve beyond which nothing is seen."""


@needs("pictures")
def in_mask(model: HookedModel, scores: Scores, mask: Any, picture: Any) -> dict[str, float]:
    """The share of a map that lies on a thing, whether its peak does, and the thing's area.

    Args:
        scores: a map of this model, Scores(pos); labels that are no patches are left out.
        mask: Bool[height, width] of the picture.

    Returns:
        "energy" from 0 to 1 (NaN of a map without positive values), "pointing" 0 or 1, and "area",
        the mask's share of what the model reads of the picture.

    Raises:
        AddressError: no map of patches. PictureError: a mask of another size.
    """
    photo = open_picture(picture)
    array = np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask)
    if array.shape != (photo.height, photo.width) or array.dtype.kind not in "biuf":
        raise PictureError(
            f"mask={shown(mask)} is no mask of this picture: give Bool[{photo.height},"
            f" {photo.width}]."
        )
    cells = _cells(model, scores, photo)
    covered = np.array([_mean(array > 0, box) for box, _ in cells])
    sizes = np.array([(x1 - x0) * (y1 - y0) for (x0, y0, x1, y1), _ in cells], dtype=float)
    values = np.array([value for _, value in cells])
    raised = values.clip(min=0)
    total = raised.sum()
    energy = float((raised * covered).sum() / total) if total > 0 else float("nan")
    area = float((covered * sizes).sum() / sizes.sum())
    return {"energy": energy, "pointing": float(covered[values.argmax()] >= 0.5), "area": area}


@needs("pictures")
@ordinary()
def covering_curves(
    model: HookedModel,
    prompt: Any,
    scores: Scores,
    of: Any = None,
    *,
    target: str | Number = "prob",
    after: str | None = None,
    at: str | None = "pixels",
    baseline: float | None = None,
    steps: int = 10,
    batch: int = 8,
) -> Scores:
    """y while patches are covered or shown in the order of a map: Scores(curve, step).

    Args:
        scores: a map of this prompt, Scores(pos); of another grid it is read at each patch's place.
        of, target, after: as in `attribute`; of a class or a word its probability by default.
        at, baseline: where patches are covered, and with what, as in `attribute_picture`.
        steps: points of a curve, from nothing done to everything.

    Returns:
        curve "deletion" and "insertion"; their means over `step` are the areas under them.

    Raises:
        AddressError: no map of patches, or of several pictures.
    """
    steps = count(steps, "steps", least=2, most=MOST)
    place = place_in(model, prompt, of, target, after, at)
    x = place.read()
    base = baseline_of(x, baseline, place.at)
    pictures = [picture for one in place.soft.prompts for picture in one.pictures]
    if len(pictures) != 1 or len(x) != 1:
        raise AddressError(
            f"The curves are those of one picture that is read at once, and here are"
            f" {len(pictures)} pictures in {len(x)} crops: give a Prompt with one."
        )
    order = _ranking(model, scores, place.labels(), pictures[0])
    n = len(order)
    done = torch.linspace(0, n, steps).round().long()
    rank = torch.empty(n, dtype=torch.long)
    rank[order] = torch.arange(n)
    first = rank[None] < done[:, None]  # the strongest so many
    y = place.shown(x, base, torch.cat([~first, first]), batch).unflatten(0, (2, steps))
    told = about(model, method="covering_curves", prompt=place.soft, of=place.aimed.token,
                 target=target, at=place.at, map=str(scores.about.get("method", "")))  # fmt: skip
    labels = {"curve": CURVES, "step": tuple(round(float(k) / n, 3) for k in done)}
    return Scores(finite(y, "the curves"), ("curve", "step"), labels, told)


def _cells(model: HookedModel, scores: Scores, photo: Any) -> list[tuple[Box, float]]:
    """The box of each patch of a map in pixels of the picture, and its value.

    A map with the grid of the model's positions has their boxes; another grid divides what they
    cover.
    """
    instance(scores, "scores", Scores, "Scores(pos), as rollout gives")
    if scores.axes != ("pos",):
        raise AddressError(f"{scores!r} is no map: give Scores(pos), as relevance.rollout returns.")
    found = [
        (label, float(value))
        for label, value in zip(scores.of("pos"), scores.numpy(), strict=True)
        if isinstance(label, Patch)
    ]
    if not found:
        raise AddressError(f"{scores!r} has no patches, so it is no map of a picture.")
    boxes = patch_boxes(model, photo)
    grid = [1 + max(getattr(label, side) for label, _ in found) for side in ("row", "col")]
    if all(label in boxes for label, _ in found) and len(boxes) == len(found):
        return [(boxes[label], value) for label, value in found]
    left, top, right, bottom = (
        end(box[i] for box in boxes.values()) for i, end in enumerate((min, min, max, max))
    )
    wide, high = (right - left) / grid[1], (bottom - top) / grid[0]
    return [
        (
            (
                round(left + wide * label.col), round(top + high * label.row),
                round(left + wide * (label.col + 1)), round(top + high * (label.row + 1)),
            ),
            value,
        )
        for label, value in found
    ]  # fmt: skip


def _mean(array: np.ndarray, box: Box) -> float:
    """The mean over a box, at least one pixel; beyond the picture it is 0."""
    x0, y0, x1, y1 = box
    inside = array[max(0, y0) : max(y1, y0 + 1), max(0, x0) : max(x1, x0 + 1)]
    return float(inside.sum()) / max(1, (x1 - x0) * (y1 - y0))


def _ranking(model: HookedModel, scores: Scores, labels: Any, photo: Any) -> Tensor:
    """The places of these patches, the strongest first; equal ones in their order."""
    cells = _cells(model, scores, photo)
    known = dict(zip(scores.of("pos"), scores.numpy().tolist(), strict=True))
    if all(label in known for label in labels) and len(cells) == len(labels):
        values = [known[label] for label in labels]
    else:
        boxes = patch_boxes(model, photo)
        values = []
        for label in labels:
            x0, y0, x1, y1 = boxes[label]
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            here = [v for (a, b, c, d), v in cells if a <= x < c and b <= y < d]
            values.append(here[0] if here else -np.inf)
    return torch.tensor(values).argsort(descending=True, stable=True)

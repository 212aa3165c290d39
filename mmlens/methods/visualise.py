"""Feature visualisation: the picture that a unit, a class or a word answers to most, optimised.

    made = visualise(model, Neuron(5, 17, "vision"))       # a Visualisation: pictures, activations
    made = visualise(model, [Neuron(5, 17, "vision"), Neuron(5, 30, "vision")], variants=3)
    made = visualise(classifier, "tabby")                  # whatever of= and target= can name

A spectrum per picture climbs the gradient of what is asked for, on views of the picture that are
turned, zoomed and shifted anew in every step, without which the result is noise that only this
network answers to (Olah et al., Feature Visualization, Distill 2017). Several variants of one unit
are kept apart by the mean cosine of their Gram matrices at the unit's layer (same source). All
pictures of a batch are optimised in one forward and one backward pass a step; each has random
numbers of its own, so that it does not depend on what is made beside it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmlens.methods.facets import Facet
from mmlens.methods.fourier_pictures import as_seen, moves, pictures, start
from mmlens.methods.picture_goals import Answer, Goal, ReadoutGoal, UnitGoal
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, finite
from mmlens.model.vision_pass import VISION
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.chunks import in_chunks
from mmlens.runtime.seeding import seed_of
from mmlens.values.arguments import SEEDS, choice, count, instance, number, text
from mmlens.values.labels import Neuron
from mmlens.values.unit_lists import has_units, units_in
from mmlens.values.visualisation import Visualisation

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

_RATE = 0.2  # of Adam at the start, falling to 0: Lucid takes 0.05 and four times the steps
_LONGEST = 100_000  # steps, and variants
_NOTHING = 1e-6  # of the layer's largest activation: a unit that moves less is dead


@needs("pictures")
@ordinary()
def visualise(
    model: HookedModel,
    of: Any = None,
    *,
    site: str | None = None,
    target: str | Number = "logit",
    prompt: str = "",
    after: str | None = None,
    pos: Any = None,
    sign: int = 1,
    variants: int = 1,
    diversity: float | int = 1.0,
    facet: Facet | None = None,
    robustness: float | int = 1.0,
    size: int | None = None,
    steps: int = 128,
    seed: int = 0,
    batch: int = 16,
) -> Visualisation:
    """Pictures that raise what is asked for as far as optimisation gets.

    Args:
        of: a Neuron of the vision tower, or a list or table of them, made side by side; or what
            `attribute` explains: a class, a word, a text, a unit of another tower.
        site: of the Neurons, any site of the vision tower ("vision.resid_post"); by default its MLP
            units, or the channels of its maps. With the hook name of one layer, `of` may be numbers
            of units. Units of heads are counted through: head * d_head + dim.
        target: as in `attribute`; of units "mean" (the default) over positions, "max" or "sum".
        prompt, after: the words after the picture, and those between them and the explained word.
        pos: the positions of units that count, as in `Scores.sel`: a Patch, a Marker (CLS).
        sign: 1 to raise it, -1 to lower it.
        variants: how many pictures of each.
        diversity: how much variants of a unit are kept apart, in shares of its activation.
        facet: what the pictures are pulled towards (`mmlens.methods.facets`).
        robustness: how far views are moved; 1 for at most 8 degrees, a tenth, a sixteenth.
        size: of the shorter side in pixels, 16 to the encoder's own, which is the default.
        steps: of Adam. batch: pictures computed side by side (halved when memory runs out).

    Returns:
        The pictures with their activations, measured again on each 8-bit picture as the encoder
        reads it. Units that nothing moved are marked as dead, with a warning.

    Raises:
        TargetError, SiteError, AddressError: no such class, word, site, layer, unit or position.
        ArgumentError: an option out of range.
        NumericsError: NaN in activations or gradients.
    """
    steps = count(steps, "steps", most=_LONGEST)
    variants = count(variants, "variants", most=_LONGEST)
    batch, seed = count(batch, "batch"), count(seed, "seed", least=0, most=SEEDS)
    sign = choice(sign, "sign", (1, -1))
    diversity = number(diversity, "diversity", least=0)
    robustness = number(robustness, "robustness", least=0)
    if facet is not None:
        instance(facet, "facet", Facet, "what mmlens.methods.facets.facet returns")
    goal = _goal(model, of, site, target, text(prompt, "prompt"), after, pos)
    tower = model.towers[VISION]
    climb = _Climb(goal, tower, _shape(tower, size), sign, diversity, facet, robustness, steps)
    each = [(i, v) for i in range(len(goal.labels)) for v in range(variants)]
    seeds = [seed_of(seed, f"{goal.labels[i]} {v}") for i, v in each]

    def work(first: int, last: int) -> list[np.ndarray]:
        part = slice(first * variants, last * variants)
        return climb.run([i for i, _ in each[part]], seeds[part])

    units = max(1, batch // variants)
    parts = list(in_chunks(len(goal.labels), units, work))
    pixels, final, begun, curve, still = (np.concatenate(one) for one in zip(*parts, strict=True))
    grid = (len(goal.labels), variants)
    dead: Any = still.reshape(grid).all(1)
    told = about(model, method="visualise", of=list(map(str, goal.labels)), site=site,
                 target=target, prompt=prompt, after=after, pos=pos, sign=sign, variants=variants,
                 diversity=diversity, robustness=robustness, steps=steps, seed=seed,
                 facet=None if facet is None else dict(facet.about) or facet)  # fmt: skip
    _say_dead([label for label, is_dead in zip(goal.labels, dead, strict=True) if is_dead])
    return Visualisation(
        pixels.reshape(*grid, *pixels.shape[1:]), goal.labels, final.reshape(grid),
        begun.reshape(grid), curve.reshape(*grid, steps), dead, told,
    )  # fmt: skip


def _goal(
    model: HookedModel, of: Any, site: str | None, target: Any, prompt: str, after: Any, pos: Any
) -> Goal:
    """What is asked for: units of the vision tower, or a readout of the model."""
    of = units_in(of, "of") if has_units(of) and not isinstance(of, Neuron) else of
    several = list(of) if isinstance(of, Sequence) and not isinstance(of, str) else [of]
    of = several[0] if len(several) == 1 else of
    neurons = [isinstance(one, Neuron) and one.tower == VISION for one in several]
    if site is not None or (several and all(neurons)):
        if not several or any(one is None for one in several):
            count(None, "of")
        return UnitGoal(model, several, site, target, pos)
    return ReadoutGoal(model, of, target, prompt, after)


def _shape(tower: Any, size: int | None) -> tuple[int, int]:
    """Rows and columns of the pictures: those of the encoder, scaled to the size."""
    rows, cols = tower.image_size
    short = min(rows, cols)
    size = short if size is None else count(size, "size", least=min(16, short), most=short)
    return round(rows * size / short), round(cols * size / short)


def _say_dead(dead: list[Any]) -> None:
    if dead:
        names = ", ".join(map(str, dead[:5])) + (", ..." if len(dead) > 5 else "")
        are = f"{len(dead)} units are" if len(dead) > 1 else "One unit is"
        warnings.warn(
            f"{are} dead to every picture that was tried, which stayed noise: {names}.",
            stacklevel=4,
        )


class _Climb:
    """The optimisation of one batch of pictures."""

    def __init__(
        self, goal: Goal, tower: Any, shape: tuple[int, int], sign: int, diversity: float,
        facet: Facet | None, robustness: float, steps: int,
    ) -> None:  # fmt: skip
        self.goal, self.tower, self.shape, self.sign = goal, tower, shape, sign
        self.diversity, self.facet, self.steps = diversity, facet, steps
        self.robustness = robustness

    def run(self, which: list[int], seeds: list[int]) -> list[np.ndarray]:
        """Pixels, activation, that of the start, the curve, and whether it never moved."""
        place = {"device": self.tower.device}
        spectra = start(seeds, self.shape).to(**place)
        begun, first = self._measure(spectra, which)[:2]
        moved = moves(seeds, self.steps, self.robustness).to(**place)
        curve = torch.zeros(len(which), self.steps)
        adam = torch.optim.Adam([spectra.requires_grad_()], lr=_RATE, eps=1e-16)
        large = first
        for step in range(self.steps):
            adam.param_groups[0]["lr"] = _RATE * (1 + math.cos(math.pi * step / self.steps)) / 2
            with torch.enable_grad():
                seen = as_seen(pictures(spectra, self.shape), self.tower.pixels, moved[step])
                answer = self.goal(seen.to(self.tower.dtype), which, self.facet)
                loss = -self._gain(answer, which).sum()
                (spectra.grad,) = torch.autograd.grad(loss, spectra)
            adam.step()
            curve[:, step] = answer.number.detach().float().cpu()
            large = max(large, answer.large)
        finite(curve, "the activations that are optimised")
        finite(spectra.detach(), "the spectra of the pictures")
        final, _, pixels = self._measure(spectra.detach(), which)
        span = torch.cat([curve, begun[:, None], final[:, None]], 1)
        still = (span.amax(1) - span.amin(1)) <= _NOTHING * large
        return [pixels, final.numpy(), begun.numpy(), curve.numpy(), still.numpy()]

    def _gain(self, answer: Answer, which: list[int]) -> Float[Tensor, " picture"]:
        """What is climbed, picture by picture."""
        gain = self.sign * answer.climbed.float()
        if answer.facet is not None:
            gain = gain + self.sign * answer.facet.float()
        if self.diversity and len(set(which)) < len(which):
            for rows, maps in answer.maps:
                alike = likeness(maps.float(), [which[row] for row in rows])
                share = self.diversity * gain[rows].detach().abs()
                gain = gain.index_add(0, torch.tensor(rows).to(gain.device), -share * alike)
        return gain

    @torch.no_grad()
    def _measure(self, spectra: Tensor, which: list[int]) -> tuple[Tensor, float, np.ndarray]:
        """The activation of each picture as 8-bit values, the layer's largest, and these values."""
        rgb = pictures(spectra, self.shape)
        pixels = (rgb * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        read = torch.stack([self.tower.preprocess(Image.fromarray(one)) for one in pixels])
        answer = self.goal(read.to(self.tower.device, self.tower.dtype), which, None)
        return answer.number.float().cpu(), answer.large, pixels


def likeness(
    maps: Float[Tensor, "picture pos unit"], which: Sequence[int]
) -> Float[Tensor, " picture"]:
    """The mean cosine of each picture's Gram matrix with those of the others of its unit.

    <X'X, Y'Y> = |X Y'|^2, so that a matrix per pair is of positions and not of units.
    """
    x = maps / torch.linalg.matrix_norm(maps @ maps.mT).clamp(min=1e-12).sqrt()[:, None, None]
    out = []
    for i, goal in enumerate(which):
        others = [j for j, other in enumerate(which) if other == goal and j != i]
        if not others:
            out.append(maps.new_zeros(()))
            continue
        out.append((x[i] @ x[others].mT).square().sum((-2, -1)).mean())
    return torch.stack(out)

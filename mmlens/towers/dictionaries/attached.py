"""A dictionary inside a tower: hook points at its code, while the model computes what it computes.

At the hook point where the dictionary is attached, with x what it reads and y what it reconstructs
(y = x but for a transcoder),

    f  = code(x)                     e  = y - x^(f)                   what it finds, and leaves out
    f* = hooks of "sae" of f         e* = hooks of "sae_error" of e
    y* = y + (f* - f) @ W_dec + (e* - e)            the same sum x^(f*) + e*, exact without hooks

so the error term is kept: without hooks and edits at its sites y* is y to the bit, and where a unit
is changed the error stays the constant that it was (Marks et al. 2024, arXiv 2403.19647).

Gradients. Of a unit it is that of y* along its row of W_dec, with the error constant. What lies
before the dictionary has two routes, through the code and through the error. error="live" (the
default) adds both, which is the gradient of the model without the dictionary and is what an edit
there does, because code and error are both computed anew; the code of Marks et al. passes gradients
straight through, too. error="constant" cuts the second route: what is left goes through the code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmlens.runtime.hook_calls import Hook
from mmlens.towers.attention import warm
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.towers.fingerprints import few_numbers
from mmlens.values.errors import SiteError
from mmlens.values.labels import LM
from mmlens.values.sites import SITES

ERRORS = ("live", "constant")
"""Whether the error term is computed with or without a gradient."""


class Attached:
    """One dictionary in one layer of a tower.

    Attributes:
        dictionary: the dictionary.
        at, out: the hook points that it reads, and whose values it reconstructs.
        points: its own hook points by their full names.
        constant: whether the error has no gradient.
    """

    def __init__(
        self, dictionary: Dictionary, tower: str, layer: int, at: str, out: str, error: str
    ) -> None:
        from transformer_lens.hook_points import HookPoint

        self.dictionary, self.tower, self.layer = dictionary, tower, layer
        self.at, self.out, self.constant = at, out, error == "constant"
        self.points: dict[str, Any] = {}
        self._point: dict[str, Any] = {}
        for name in ("sae", "sae_pre", "sae_error"):
            full = SITES[name if tower == LM else f"{tower}.{name}"].at(layer)
            self._point[name] = self.points[full] = point = HookPoint()
            point.name = full

    def hooks(self) -> list[Hook]:
        """The hooks of one run, for behind the edits of the points where it is attached."""
        one = _Splice(self, self._point)
        if self.at == self.out:
            return [Hook(self.at, one.both)]
        return [Hook(self.at, one.read), Hook(self.out, one.write)]

    def told(self) -> dict[str, Any]:
        """What results depend on beside the weights, for provenance."""
        found = {"at": self.at, "units": self.dictionary.n_units, "kind": self.dictionary.kind}
        found |= {"error": "constant" if self.constant else "live"}
        few, code = slice(8), self.dictionary
        found |= {"weights": few_numbers([code.W_dec[few], code.W_enc[:, few].T])}
        return found | ({"out": self.out} if self.out != self.at else {})

    def check_width(self, name: str, values: Tensor) -> None:
        """Refuse vectors Float[..., d] of other widths than it reads at `at`, or writes at `out`.

        Raises:
            SiteError: another width.
        """
        one = self.dictionary
        for point, width, does in ((self.at, one.d_in, "reads"), (self.out, one.d_out, "writes")):
            if point == name and values.shape[-1] != width:
                raise SiteError(
                    f"At {name!r} stand vectors of {values.shape[-1]} coordinates, and the"
                    f" dictionary {does} {width}: attach it where it was trained."
                )


class _Splice:
    """What a run does at the points of one dictionary."""

    def __init__(self, attached: Attached, points: dict[str, Any]) -> None:
        self.attached, self.points, self.x = attached, points, None

    def both(self, x: Tensor, hook: Any) -> Tensor | None:
        """The hook of a dictionary that reconstructs what it reads."""
        self.x = x
        return self.write(x, hook)

    def read(self, x: Tensor, hook: Any) -> None:
        """The hook at what a transcoder reads."""
        self.x = x

    def write(self, y: Tensor, hook: Any) -> Tensor | None:
        """The hook at what is reconstructed: None where nothing changes it."""
        constant = self.attached.constant and torch.is_grad_enabled()
        if not constant and not any(map(warm, self.points.values())):
            return None
        if self.x is None:
            raise SiteError(
                f"{self.attached.at!r} did not run before {self.attached.out!r}: attach a"
                " transcoder at what it reads, and out= at what it reconstructs behind it."
            )
        x, wide = flat(self.x), flat(y)
        self.attached.check_width(self.attached.at, x)
        self.attached.check_width(self.attached.out, wide)
        change = self._change(x, wide)
        if change is None:
            return None
        base = y.detach() if constant else y
        return base + change.to(y.dtype).view_as(y)

    def _change(self, x: Tensor, y: Tensor) -> Tensor | None:
        """What hooks at the code and at the error add to y, with its gradient."""
        one, constant = self.attached.dictionary, self.attached.constant
        read = one.normed(x)
        pre, gate = one.pre(read), one.gate(read)
        before = one.code(pre, gate)
        if warm(self.points["sae_pre"]):
            now = one.code(self.points["sae_pre"](pre.clone()), gate)
        else:
            now = before.clone()
        now = self.points["sae"](now)
        missed = warm(self.points["sae_error"])
        if not missed and not torch.is_grad_enabled() and torch.equal(now, before):
            return None
        change = one.written(now - (before.detach() if constant else before), x)
        if missed:
            error = y.to(one.dtype) - one.decode(before, x)
            error = error.detach() if constant else error
            change = change + self.points["sae_error"](error.clone()) - error
        return change


def flat(values: Tensor) -> Tensor:
    """[batch, pos, ...] as [batch, pos, d]: heads one after the other."""
    return values.flatten(2) if values.ndim > 3 else values

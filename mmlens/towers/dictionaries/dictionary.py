"""A dictionary: activations as sparse sums of directions (sparse autoencoders, transcoders).

    x'   = norm(x) - b_in                                  b_in is zero or b_dec, as it was trained
    pre  = gain * (x' @ W_enc) + b_enc                     [..., unit]
    f    = s(pre)                                          the code, mostly zeros
    x^   = norm^-1(f @ W_dec + b_dec + x @ W_skip)         the reconstruction

(Bricken et al. 2023; Cunningham et al. 2023, arXiv 2309.08600.) `s` is what the kinds differ in:

    relu        max(pre, 0)
    topk        the k largest of max(pre, 0) at each position (Gao et al. 2024, arXiv 2406.04093)
    threshold   pre where pre > threshold, else 0: jump ReLU (Rajamanoharan et al. 2024, arXiv
                2407.14435), and BatchTopK when it is not trained (Bussmann et al. 2024)
    gate        max(pre, 0) where x' @ W_enc + b_gate > 0 (Rajamanoharan et al. 2024, arXiv
                2404.16014)

A transcoder (Dunefsky et al. 2024, arXiv 2406.11944) reads one place and reconstructs another. How
activations were scaled in training is either folded into the weights by whoever loads them, or one
of two norms that depend on each vector: "layer_norm" and "unit_norm" (length sqrt(d_in)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlens.values.arguments import choice, count, instance, number, text
from mmlens.values.errors import ArgumentError

NORMS = ("none", "layer_norm", "unit_norm")
EPS = 1e-5
"""Added to the standard deviation by "layer_norm", not inside of its root."""


@dataclass(frozen=True)
class Normed:
    """An activation as the encoder reads it, and how to get back.

    Attributes:
        values: Float[..., d_in].
        scale, shift: what a reconstruction is multiplied by, and what is added.
    """

    values: Tensor
    scale: Tensor | float = 1.0
    shift: Tensor | float = 0.0


class Dictionary(nn.Module):
    """Weights of a dictionary, frozen, and what it computes.

    Args:
        W_enc: Float[d_in, unit].
        W_dec: Float[unit, d_out]: what each unit writes per unit of activation.
        b_enc: Float[unit]; zeros where left out.
        b_dec: Float[d_out]; zeros where left out.
        b_in: Float[d_in], subtracted from what is read; zeros where left out.
        k: how many units a position keeps (topk).
        threshold: Float[unit], or one number, below which (and at which) a unit is 0.
        b_gate: Float[unit], of the gate; `gain` is exp(r_mag) then.
        gain: Float[unit].
        W_skip: Float[d_in, d_out], of a skip transcoder.
        norm: one of `NORMS`.
        at: the hook name of what it was trained to read, where that is known.
        out: the hook name of what a transcoder reconstructs.
        about: where it comes from.

    Raises:
        ArgumentError: shapes that don't fit each other.
    """

    W_enc: Tensor
    W_dec: Tensor
    b_enc: Tensor
    b_dec: Tensor
    b_in: Tensor
    threshold: Tensor | None
    b_gate: Tensor | None
    gain: Tensor | None
    W_skip: Tensor | None

    def __init__(
        self,
        W_enc: Tensor,
        W_dec: Tensor,
        *,
        b_enc: Tensor | None = None,
        b_dec: Tensor | None = None,
        b_in: Tensor | None = None,
        k: int | None = None,
        threshold: Tensor | float | None = None,
        b_gate: Tensor | None = None,
        gain: Tensor | None = None,
        W_skip: Tensor | None = None,
        norm: str = "none",
        at: str | None = None,
        out: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        given = {"b_enc": b_enc, "b_dec": b_dec, "b_in": b_in, "b_gate": b_gate, "gain": gain}
        tensors = {name: one for name, one in given.items() if one is not None}
        tensors |= {} if W_skip is None else {"W_skip": W_skip}
        for name, one in {"W_enc": W_enc, "W_dec": W_dec, **tensors}.items():
            instance(one, name, torch.Tensor, "a tensor")
        if W_enc.ndim != 2 or W_dec.ndim != 2 or W_enc.shape[1] != W_dec.shape[0]:
            raise ArgumentError(
                f"W_enc {tuple(W_enc.shape)} and W_dec {tuple(W_dec.shape)} are no dictionary: they"
                " are [d_in, unit] and [unit, d_out]."
            )
        (d_in, n), d_out = W_enc.shape, W_dec.shape[1]
        if threshold is not None and not isinstance(threshold, torch.Tensor):
            threshold = torch.full((n,), number(threshold, "threshold"))
        sizes = {
            "W_enc": (W_enc, (d_in, n)), "W_dec": (W_dec, (n, d_out)),
            "b_enc": (W_enc.new_zeros(n) if b_enc is None else b_enc, (n,)),
            "b_dec": (W_enc.new_zeros(d_out) if b_dec is None else b_dec, (d_out,)),
            "b_in": (W_enc.new_zeros(d_in) if b_in is None else b_in, (d_in,)),
            "threshold": (threshold, (n,)), "b_gate": (b_gate, (n,)), "gain": (gain, (n,)),
            "W_skip": (W_skip, (d_in, d_out)),
        }  # fmt: skip
        for name, (value, shape) in sizes.items():
            if value is not None and tuple(value.shape) != shape:
                raise ArgumentError(f"{name} is {tuple(value.shape)}, and {shape} fits W_enc.")
            kept = None if value is None else value.detach().to(W_enc).clone()
            self.register_buffer(name, kept)
        self.k = None if k is None else count(k, "k", most=n)
        nonlinear = {"k": k, "threshold": threshold, "b_gate": b_gate}
        several = [name for name, one in nonlinear.items() if one is not None]
        if len(several) > 1:
            raise ArgumentError(f"A dictionary has one nonlinearity, not {' and '.join(several)}.")
        self.norm = choice(norm, "norm", NORMS)
        for name, hook in (("at", at), ("out", out)):
            if hook is not None:
                text(hook, name)
        self.at, self.out = at, out
        self.about = {} if about is None else dict(instance(about, "about", Mapping, "a mapping"))

    # -- what it is ---------------------------------------------------------------------------

    @property
    def d_in(self) -> int:
        """Coordinates of what it reads."""
        return int(self.W_enc.shape[0])

    @property
    def d_out(self) -> int:
        """Coordinates of what it reconstructs."""
        return int(self.W_dec.shape[1])

    @property
    def n_units(self) -> int:
        """How many directions it has."""
        return int(self.W_enc.shape[1])

    @property
    def dtype(self) -> torch.dtype:
        """The number format of its weights, in which it computes."""
        return self.W_enc.dtype

    @property
    def kind(self) -> str:
        """Its nonlinearity: "gate", "topk", "threshold" or "relu"."""
        if self.b_gate is not None:
            return "gate"
        return "topk" if self.k is not None else "relu" if self.threshold is None else "threshold"

    def __repr__(self) -> str:
        where = f", at={self.at!r}" if self.at else ""
        more = f", out={self.out!r}" if self.out else ""
        k = f" {self.k}" if self.k else ""
        return f"Dictionary({self.n_units} units of {self.d_in}, {self.kind}{k}{where}{more})"

    # -- what it computes ---------------------------------------------------------------------

    def normed(self, x: Float[Tensor, "... d_in"]) -> Normed:
        """What the encoder reads, before `b_in`, and how a reconstruction gets back."""
        x = x.to(self.dtype)
        if self.norm == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            spread = (x - mean).std(-1, keepdim=True)
            return Normed((x - mean) / (spread + EPS), spread, mean)
        if self.norm == "unit_norm":
            size = x.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
            return Normed(x * (self.d_in**0.5 / size), size / self.d_in**0.5)
        return Normed(x)

    def pre(self, x: Normed) -> Float[Tensor, "... unit"]:
        """What the nonlinearity reads."""
        read = (x.values - self.b_in) @ self.W_enc
        return (read if self.gain is None else read * self.gain) + self.b_enc

    def gate(self, x: Normed) -> Bool[Tensor, "... unit"] | None:
        """Which units the gate lets through; None without a gate."""
        if self.b_gate is None:
            return None
        return (x.values - self.b_in) @ self.W_enc + self.b_gate > 0

    def code(
        self, pre: Float[Tensor, "... unit"], gate: Bool[Tensor, "... unit"] | None = None
    ) -> Float[Tensor, "... unit"]:
        """The activations of the units."""
        f = pre.relu()
        if gate is not None:
            f = f * gate
        if self.threshold is not None:
            f = f * (pre > self.threshold)
        if self.k is None or self.k == self.n_units:
            return f
        best = f.topk(self.k, dim=-1)
        return torch.zeros_like(f).scatter(-1, best.indices, best.values)

    def encode(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... unit"]:
        """The code of activations."""
        read = self.normed(x)
        return self.code(self.pre(read), self.gate(read))

    def decode(
        self, f: Float[Tensor, "... unit"], x: Float[Tensor, "... d_in"]
    ) -> Float[Tensor, "... d_out"]:
        """The reconstruction from a code.

        Args:
            x: what was read: a norm and a skip connection need it.
        """
        read = self.normed(x)
        plain = f @ self.W_dec + self.b_dec
        if self.W_skip is not None:
            plain = plain + x.to(self.dtype) @ self.W_skip
        return plain if self._crosses else plain * read.scale + read.shift

    def written(
        self, change: Float[Tensor, "... unit"], x: Float[Tensor, "... d_in"]
    ) -> Float[Tensor, "... d_out"]:
        """What a change of the code changes in the reconstruction: it is linear in the code."""
        out = change @ self.W_dec
        return out if self._crosses or self.norm == "none" else out * self.normed(x).scale

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """The reconstruction of activations."""
        return self.decode(self.encode(x), x)

    @property
    def _crosses(self) -> bool:
        """Whether it reconstructs another place, whose scale is not that of what was read."""
        return self.out is not None or self.d_in != self.d_out

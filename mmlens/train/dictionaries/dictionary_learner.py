"""A dictionary that learns: its weights, its losses, its dead latents.

    pre = (s x - b) W_enc + b_enc         s, b: so that rows have mean 0 and mean length sqrt(d)
    f   = the k largest (topk), or the k * rows largest of the batch (batchtopk)
    L   = mean over prefixes m of  |s x - b - f[:m] W_dec[:m]|^2 / d   +   a / 32 of the same of the
          error of the whole, reconstructed by the largest dead latents alone (AuxK)

b is learned and is subtracted, too; s is measured on the first buffer and stays. The threshold of
batchtopk at inference is the running mean of the smallest activation that a batch kept. What comes
out has s folded into its weights: it reads and writes activations as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.train.dictionaries.dictionary_recipe import DictionaryRecipe
from mmlens.values.errors import NumericsError

_STEADY = 0.99
"""How much of the running threshold stays in a step."""


class DictionaryLearner:
    """Weights, optimizer and what is known of the latents.

    Args:
        rows: of the first buffer, from which mean and scale are measured.
    """

    def __init__(self, recipe: DictionaryRecipe, rows: Float[Tensor, "row d"]) -> None:
        self.recipe, d = recipe, rows.shape[1]
        draw = torch.Generator().manual_seed(recipe.seed)
        mean = rows.mean(0)
        self.scale = float(d**0.5 / (rows - mean).norm(dim=1).mean().clamp(min=1e-12))
        W_dec = nn.functional.normalize(torch.randn(recipe.units, d, generator=draw), dim=1)
        start = {"W_enc": W_dec.T.contiguous(), "W_dec": W_dec, "b_dec": mean * self.scale,
                 "b_enc": torch.zeros(recipe.units)}  # fmt: skip
        self.weights = {
            name: value.to(rows.device, torch.float32).clone().requires_grad_()
            for name, value in start.items()
        }
        self.adam = torch.optim.Adam(list(self.weights.values()), lr=recipe.lr, eps=1e-8)
        self.step, self.threshold = 0, -1.0
        self.idle = torch.zeros(recipe.units, dtype=torch.long, device=rows.device)

    # -- one step -----------------------------------------------------------------------------

    def learn(self, rows: Float[Tensor, "row d"]) -> dict[str, Any]:
        """One step of the optimizer; its losses.

        Raises:
            NumericsError: the loss is NaN or infinite.
        """
        x = rows.to(torch.float32) * self.scale
        pre = (x - self.weights["b_dec"]) @ self.weights["W_enc"] + self.weights["b_enc"]
        f = self._kept(pre.relu())
        loss, whole = self._reconstructed(x, f)
        again = self._revived(x, whole, pre)
        total = loss + self.recipe.auxiliary * again
        if not bool(torch.isfinite(total)):
            raise NumericsError(f"The loss is {float(total)} at step {self.step + 1}: lower lr=.")
        for group in self.adam.param_groups:
            group["lr"] = self.recipe.lr * self.recipe.rate(self.step)
        self.adam.zero_grad()
        total.backward()
        self._adjust()
        self.adam.step()
        with torch.no_grad():
            self.weights["W_dec"].copy_(nn.functional.normalize(self.weights["W_dec"], dim=1))
            self._note(f)
        self.step += 1
        spread = (x - x.mean(0)).square().sum()
        missing = float((x - whole).detach().square().sum() / spread)
        active = float((f > 0).sum(1).float().mean())
        dead = float((self.idle >= self.recipe.dead_after).float().mean())
        return {"step": self.step, "loss": float(total.detach()), "explained": 1 - missing,
                "l0": active, "dead": dead}  # fmt: skip

    def _kept(self, f: Float[Tensor, "row unit"]) -> Tensor:
        """The code: the largest of each row, or of the whole batch."""
        flat = f if self.recipe.kind == "topk" else f.reshape(1, -1)
        k = self.recipe.k if self.recipe.kind == "topk" else self.recipe.k * len(f)
        best = flat.topk(min(k, flat.shape[1]), dim=-1)
        return torch.zeros_like(flat).scatter(-1, best.indices, best.values).view_as(f)

    def _reconstructed(self, x: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of all prefixes, and the reconstruction by all units."""
        W_dec, out, before, losses = self.weights["W_dec"], self.weights["b_dec"], 0, []
        for m in self.recipe.prefixes:
            out = out + f[:, before:m] @ W_dec[before:m]
            losses.append((x - out).square().mean())
            before = m
        return torch.stack(losses).mean(), out

    def _revived(self, x: Tensor, whole: Tensor, pre: Tensor) -> Tensor:
        """The loss of the error's reconstruction by dead latents; 0 where there are none."""
        dead = (self.idle >= self.recipe.dead_after).nonzero()[:, 0]
        if not len(dead) or not self.recipe.auxiliary:
            return x.new_zeros(())
        error, f = (x - whole).detach(), pre[:, dead].relu()
        best = f.topk(min(len(dead), max(1, x.shape[1] // 2)), dim=-1)
        f = torch.zeros_like(f).scatter(-1, best.indices, best.values)
        return (error - f @ self.weights["W_dec"][dead]).square().mean()

    def _adjust(self) -> None:
        """Cut long gradients, and those that would only change the length of a row."""
        W_dec = self.weights["W_dec"]
        grad: Any = W_dec.grad
        grad -= (grad * W_dec.detach()).sum(1, keepdim=True) * W_dec.detach()
        nn.utils.clip_grad_norm_(list(self.weights.values()), 1.0)

    def _note(self, f: Tensor) -> None:
        """How many rows each latent has been idle for, and the running threshold."""
        active = (f > 0).any(0)
        self.idle = torch.where(active, torch.zeros_like(self.idle), self.idle + len(f))
        if self.recipe.kind != "topk" and bool((f > 0).any()):
            least = float(f[f > 0].min())
            steady = _STEADY if self.threshold >= 0 else 0.0
            self.threshold = steady * self.threshold + (1 - steady) * least

    # -- what it has learned ------------------------------------------------------------------

    def dictionary(self, at: str, about: Mapping[str, Any]) -> Dictionary:
        """The dictionary as it is now, of activations as they are."""
        w, s = {name: value.detach() for name, value in self.weights.items()}, self.scale
        topk = self.recipe.kind == "topk"
        k, threshold = (self.recipe.k, None) if topk else (None, self.threshold)
        # s x -> x: the code stays as it was learned
        back = w["b_dec"] / s
        return Dictionary(w["W_enc"] * s, w["W_dec"] / s, b_enc=w["b_enc"], b_dec=back, b_in=back,
                          k=k, threshold=threshold, at=at, about=about)  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "weights": {name: value.detach() for name, value in self.weights.items()},
            "adam": self.adam.state_dict(), "step": self.step, "scale": self.scale,
            "threshold": self.threshold, "idle": self.idle,
        }  # fmt: skip

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(state["weights"][name])
        self.adam.load_state_dict(state["adam"])
        self.step, self.scale = int(state["step"]), float(state["scale"])
        self.threshold, self.idle = float(state["threshold"]), state["idle"].to(self.idle.device)

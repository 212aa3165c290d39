"""The attention lens: what each attention head says, by maps into the vocabulary that are trained.

    logits_h = a_h @ L_h + b / n_heads,        a_h = z_h @ W_O[h]
    minimise KL( model's logits || sum over heads of logits_h )

Sakarvadia et al. 2023 ("Attention Lens"), as its published code computes it: one affine map per
head of a layer, which begin as the unembedding, are trained together by the KL divergence at the
last position, and have no final norm before them. Since a_h is a product with W_O[h], only
W_O[h] @ L_h matters, so that is what is trained and kept: maps[h], Float[d_head, word], which are
the same functions with d_model / d_head times fewer numbers. Only the sum of the heads' biases is
determined; each head gets an equal part.

`head_lens` reads a prompt with it; without one it reads a_h @ W_U directly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.jacobian_lens import found_in, progress_of, prompts_in
from mmlens.methods.stream_map import layer_of
from mmlens.methods.translators import fingerprint, same_state, same_weights
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.runtime.autograd import ordinary
from mmlens.towers.fingerprints import few_numbers
from mmlens.towers.language.head_weights import head_weights
from mmlens.values.arguments import SEEDS, count, number
from mmlens.values.arguments import path as path_of
from mmlens.values.errors import CapabilityError, CheckpointError, NumericsError, reason
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.sites import SITES
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """Maps from what the heads of one layer hold (`z`) to logits of words.

    Attributes:
        layer: whose heads.
        maps: Float[head, d_head, word], float32 on the CPU.
        bias: Float[word], of all heads together.
        about: provenance; "loss" is the mean KL of the last tenth of the steps, in nats, and
            "loss_before" that of the first step.
    """

    layer: int
    maps: Float[Tensor, "head d_head word"] = field(repr=False)
    bias: Float[Tensor, " word"] = field(repr=False)
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def logits(self, z: Float[Tensor, "*lead head d_head"]) -> Float[Tensor, "*lead head word"]:
        """What each head says; the sum over heads is what is trained."""
        each = torch.einsum("...hd,hdw->...hw", z, self.maps.to(z))
        return each + self.bias.to(z) / len(self.maps)

    def check(self, model: HookedVLM) -> None:
        """Refuse a model that these were not trained for.

        Raises:
            CheckpointError: other weights, among them those of the layer's heads; other edits, or
                another dictionary.
        """
        heads = self.about.get("heads")
        if not same_weights(self.about.get("weights"), fingerprint(model)) or (
            heads and not same_weights(heads, _of_heads(model, self.layer))
        ):
            raise CheckpointError(
                f"This attention lens was made for {self.about.get('model', 'another model')!r},"
                f" and {model.name!r} has other weights: train one with mm.attention_lens(model,"
                " prompts, layer=...)."
            )
        if not same_state(self.about, about(model)):
            raise CheckpointError(
                "This attention lens was trained with other edits, dictionaries or rewritten"
                f" weights than {model.name!r} has now: train one with mm.attention_lens(model,"
                " prompts, layer=...), or leave through= out."
            )

    def save(self, path: str | Path) -> Path:
        """Write them as safetensors."""
        from safetensors.torch import save

        told = {"layer": str(self.layer), "about": json.dumps(dict(self.about), default=str)}
        parts = {"maps": self.maps.contiguous(), "bias": self.bias.contiguous()}
        return write_whole(path, save(parts, told))

    @classmethod
    def load(cls, path: str | Path) -> HeadMaps:
        """What `save` wrote.

        Raises:
            CheckpointError: it is no attention lens.
        """
        from safetensors import SafetensorError, safe_open

        place = path_of(path, "path").expanduser()
        try:
            with safe_open(place, "pt") as file:
                told = file.metadata() or {}
                maps, bias = file.get_tensor("maps"), file.get_tensor("bias")
                return cls(int(told["layer"]), maps, bias, json.loads(told["about"]))
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(
                f"{place.name!r} is no attention lens that mmlens wrote: {reason(error)}"
            ) from error


@ordinary()
@needs("unembed")
def attention_lens(
    model: HookedVLM,
    prompts: Sequence[Any] | Prompt | SoftPrompt | str,
    *,
    layer: int,
    pos: Any = -1,
    steps: int = 200,
    batch: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> HeadMaps:
    """Train a map for every attention head of a layer.

    Args:
        prompts: texts, or prompts with pictures.
        pos: positions that are trained on, as in `Scores.sel`; by default the last, as published.
        steps: steps of Adam; the learning rate falls to zero.
        batch: positions per step.
        lr: the initial learning rate.
        seed: of the positions drawn in each step.
        progress: called with the steps done and their number.

    Raises:
        AddressError: no such layer or position. CapabilityError: what the heads write is no sum.
        NumericsError: it diverges. PromptError: no prompt.
    """
    steps, batch = count(steps, "steps", most=100_000), count(batch, "batch", most=100_000)
    seed, rate = count(seed, "seed", least=0, most=SEEDS), number(lr, "lr", above=0)
    called, here = progress_of(progress), layer_of(model, layer, "layer")
    start = direct_maps(model, here)
    z, wanted = _positions(model, prompts_in(prompts), pos, start)
    change = torch.zeros_like(start.maps).to(z.device).requires_grad_()
    bias = torch.zeros_like(start.bias).to(z.device).requires_grad_()
    adam = torch.optim.Adam([change, bias], rate)
    draw, kept = torch.Generator().manual_seed(seed), []
    first = start.maps.to(z.device)
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        at = torch.randint(len(z), (batch,), generator=draw).to(z.device)
        with torch.enable_grad():
            said = torch.einsum("nhd,hdw->nw", z[at], first + change) + bias
            loss = _divergence(wanted[at], said)
            adam.zero_grad()
            loss.backward()
        adam.step()
        kept.append(float(loss.detach()))
        called(step + 1, steps)
    end = sum(kept[-max(1, steps // 10) :]) / max(1, steps // 10)
    if end != end:
        raise NumericsError(f"The attention lens of layer {here} diverges: lower lr={rate:g}.")
    told = about(model, method="attention_lens", layer=here, positions=len(z), steps=steps,
                 batch=batch, lr=rate, seed=seed, loss=end, loss_before=kept[0])  # fmt: skip
    told |= {"weights": fingerprint(model), "heads": _of_heads(model, here)}
    return HeadMaps(here, (first + change).detach().cpu(), bias.detach().cpu(), told)


def direct_maps(model: HookedVLM, layer: int) -> HeadMaps:
    """The untrained lens: W_O[h] @ W_U for every head of a layer, without a final norm.

    Raises:
        CapabilityError: the layer has no attention heads that are read, or they have no W_O.
    """
    here = f"layer {layer} of {model.name!r}"
    there = SITES["z"].at(layer) in hooking.points(model)
    weight = head_weights(model.root.blocks[layer] if there else None, here)
    with torch.no_grad():
        words = model.root.W_U[:, : model.lm.n_words].float()
        maps = torch.einsum("hdm,mw->hdw", weight.float(), words)
    told = about(model) | {"weights": fingerprint(model)}
    return HeadMaps(layer, maps.cpu(), torch.zeros(maps.shape[-1]), told)


def _of_heads(model: HookedVLM, layer: int) -> list[float]:
    """A few numbers that depend on what every head of a layer writes by."""
    weight = head_weights(model.root.blocks[layer], f"layer {layer} of {model.name!r}")
    return few_numbers([weight.detach().float().mean(1)])


def heads_at(
    model: HookedVLM, soft: SoftPrompt, layer: int, at: list[int]
) -> tuple[Float[Tensor, "pos head d_head"], Float[Tensor, "pos d_vocab"]]:
    """What the heads of a layer hold at some positions, and the model's logits there.

    Raises:
        CapabilityError: z @ W_O, summed over heads, is not what attention writes.
    """
    held, wrote = SITES["z"].at(layer), SITES["attn_out"].at(layer)
    place = torch.tensor(at, device=model.lm.device)
    with torch.no_grad(), capture(model, [held, wrote], lambda x: x[0, at].float()) as kept:
        logits = model.run(soft, at=place)[0]
    attention = model.root.blocks[layer].attn
    weight = head_weights(model.root.blocks[layer], f"layer {layer} of {model.name!r}")
    out = torch.einsum("phd,hdm->pm", kept[held], weight.float())
    bias = getattr(attention, "b_O", None)
    out = out + bias.float() if isinstance(bias, Tensor) else out
    off, size = (out - kept[wrote]).abs().max(), kept[wrote].abs().max()
    if float(off) > 2e-3 * float(size) + 8 * torch.finfo(model.lm.dtype).eps * float(size):
        raise CapabilityError(
            f"The heads of layer {layer} of {model.name!r} do not add up to what attention writes"
            f" (off by {float(off):.3g} of {float(size):.3g}; a norm or a scale is between)."
        )
    z = finite(kept[held], f"what the heads of layer {layer} hold")
    return z, logits[:, : model.lm.n_words].float()


def _positions(
    model: HookedVLM, prompts: list[Any], pos: Any, start: HeadMaps
) -> tuple[torch.Tensor, torch.Tensor]:
    """z Float[position, head, d_head] and the model's log probabilities Float[position, word]."""
    found = []
    for prompt in prompts:
        soft = one(model, prompt)
        found.append(heads_at(model, soft, start.layer, found_in(soft, pos, "pos")))
    z, logits = zip(*found, strict=True)
    return torch.cat(z), torch.cat(logits).log_softmax(-1)


def _divergence(wanted: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """KL from the model's log probabilities to these logits, in nats, mean over positions."""
    return (wanted.exp() * (wanted - said.log_softmax(-1))).sum(-1).mean()

"""The mean Jacobian J_l from a layer's residual stream to the last layer's.

    J_l = mean over prompts and positions t of  sum over t' >= t of  d final[t'] / d resid_l[t]

The Jacobian lens of TransformerLens 4 (Gurnee et al. 2026) is the same mean over positions of text;
here prompts may have pictures, so the positions may be patches alone (`pos=Patch`), and the
destination may be the last position alone, the position that predicts the next token
(`destination=-1`). A row of a batch computes the gradient of one coordinate of the final stream,
for all layers at once: a prompt costs d_model rows, and no tensor is larger than these rows. The
vocabulary is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.translators import Translators, fingerprint
from mmlens.model.capabilities import needs
from mmlens.model.prompt_tokens import rows
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import wide
from mmlens.runtime.chunks import in_chunks
from mmlens.values.addresses import places
from mmlens.values.arguments import count, function, several
from mmlens.values.errors import AddressError, PromptError
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@ordinary()
@needs("unembed")
def jacobian_lens(
    model: HookedVLM,
    prompts: Sequence[Any] | Prompt | SoftPrompt | str,
    *,
    pos: Any = None,
    destination: Any = None,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Translators:
    """The mean Jacobian from every layer's stream to the last one's, over positions of prompts.

    Args:
        prompts: one or several; each counts as much as the others.
        pos: source positions, as in `Scores.sel`; by default all.
        destination: positions where the final stream is read, summed; by default all.
        batch: coordinates computed side by side (halved when memory runs out).
        progress: called with the prompts done and their number.

    Raises:
        AddressError: a prompt without such positions. NumericsError: NaN in the gradients.
        PromptError: no prompt.
    """
    batch = count(batch, "batch", most=model.cfg.d_model)
    called = progress_of(progress)
    many = prompts_in(prompts)
    last = model.cfg.n_layers - 1
    if last < 1:
        raise AddressError(f"{model.name!r} has one layer, and no layer after it.")
    width = model.cfg.d_model
    total = torch.zeros(last, width, width)
    for done, prompt in enumerate(many):
        soft = one(model, prompt)
        total += _of_one(model, soft, found_in(soft, pos, "pos"), destination, batch)
        called(done + 1, len(many))
    told = about(model, method="jacobian_lens", prompts=len(many), pos=pos, destination=destination)
    told |= {"weights": fingerprint(model)}
    return Translators("jacobian", total / len(many), torch.zeros(last, width), told)


def progress_of(progress: Any) -> Callable[[int, int], Any]:
    """What is called with (done, of): the caller's function, or one that does nothing."""
    if progress is None:
        return lambda done, of: None
    return function(progress, "progress", "a function of (done, of)", takes=2)


def prompts_in(prompts: Any) -> list[Any]:
    """One prompt or several, as a list.

    Raises:
        PromptError: there is none.
    """
    alone = isinstance(prompts, (str, Prompt, SoftPrompt, torch.Tensor))
    return [prompts] if alone else several(prompts, "prompts", error=PromptError)


def found_in(soft: SoftPrompt, address: Any, name: str) -> list[int]:
    """The positions of a prompt that an address names, at least one.

    Raises:
        AddressError: none.
    """
    found = places(soft.labels[0], address, name)
    if not found:
        raise AddressError(f"{name}={address!r} names no position of this prompt.")
    return found


def _of_one(
    model: HookedVLM, soft: SoftPrompt, source: list[int], destination: Any, batch: int
) -> torch.Tensor:
    """Float[layer, d_model, d_model] of one prompt, for rows that are multiplied from the left."""
    last, width = model.cfg.n_layers - 1, model.cfg.d_model
    to = found_in(soft, destination, "destination")
    found = torch.empty(last, width, width)
    run: dict[int, list[torch.Tensor]] = {}  # by rows: one forward pass serves many coordinates

    def work(start: int, stop: int) -> None:
        n = stop - start
        if n not in run:
            run.clear()
            run[n] = _streams(model, soft, n)
        *streams, final = run[n]
        with torch.enable_grad():
            chosen = final[:, to].sum(1)  # row i: the coordinate start + i
            number = chosen[:, start:stop].diagonal().sum()
            grads = torch.autograd.grad(number, streams, retain_graph=stop < width)
        for layer, grad in enumerate(grads):
            mean = wide(grad)[:, source].mean(1)
            found[layer, :, start:stop] = finite(mean, f"the Jacobian of layer {layer}").T.cpu()

    list(in_chunks(width, batch, work))
    return found


def _streams(model: HookedVLM, soft: SoftPrompt, n: int) -> list[torch.Tensor]:
    """The residual stream after every layer in `n` equal rows, with the graph from the first on."""
    names = [SITES["resid_post"].at(layer) for layer in range(model.cfg.n_layers)]
    kept: list[torch.Tensor] = []

    def tap(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        tensor = tensor if kept else tensor.detach().requires_grad_()  # the graph begins here
        kept.append(tensor)
        return tensor

    end = torch.tensor([soft.ids.shape[1] - 1], device=model.lm.device)
    with torch.enable_grad(), model.hooks(fwd_hooks=[(name, tap) for name in names]):
        model.run(rows(soft, [0] * n), at=end)
    return kept

"""The tuned lens: affine translators per layer, trained to predict the model's final logits.

    t_l(h) = h + h A_l + b_l,      minimise KL( final logits || unembed(norm(t_l(h))) )

Belrose et al. 2023 ("Eliciting Latent Predictions from Transformers with the Tuned Lens", eq. 4 and
section 3): the translator of a layer is trained on the streams of text, the model is frozen, and
A_l and b_l start at 0, which is the logit lens. Prompts are run once; training then uses the kept
streams of a few positions per step, layer by layer, so that no tensor has both layers and
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.jacobian_lens import found_in, progress_of, prompts_in
from mmlens.methods.translators import Translators, fingerprint
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import one
from mmlens.runtime.autograd import ordinary
from mmlens.values.arguments import SEEDS, count, number
from mmlens.values.errors import AddressError, NumericsError
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@ordinary()
@needs("unembed")
def tuned_lens(
    model: HookedVLM,
    prompts: Sequence[Any] | Prompt | SoftPrompt | str,
    *,
    pos: Any = None,
    steps: int = 200,
    batch: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Translators:
    """Train a translator for every layer except the last.

    Args:
        prompts: texts, or prompts with pictures; their streams are kept in memory.
        pos: positions that are trained on, as in `Scores.sel`; by default all.
        steps: steps of Adam per layer; the learning rate falls to zero.
        batch: positions per step.
        lr: the initial learning rate.
        seed: of the positions drawn in each step.
        progress: called with the layers done and their number.

    Returns:
        Translators; `about["loss"]` has every layer's mean KL of the last tenth, in nats, and
        `about["logit_lens_loss"]` that of the logit lens on the same positions.

    Raises:
        AddressError: no such positions, or a model of one layer. NumericsError: it diverges.
        PromptError: no prompt.
    """
    steps, batch = count(steps, "steps", most=100_000), count(batch, "batch", most=100_000)
    seed, rate = count(seed, "seed", least=0, most=SEEDS), number(lr, "lr", above=0)
    called, last = progress_of(progress), model.cfg.n_layers - 1
    if last < 1:
        raise AddressError(f"{model.name!r} has one layer, and no layer after it.")
    streams = _streams(model, prompts_in(prompts), pos)
    trained = []
    for layer in range(last):
        trained.append(_trained(model, streams, layer, steps, batch, rate, seed))
        called(layer + 1, last)
    matrices, biases, before, losses = zip(*trained, strict=True)
    told = about(model, method="tuned_lens", positions=streams.shape[1], steps=steps, batch=batch,
                 lr=rate, seed=seed)  # fmt: skip
    told |= {"loss": list(losses), "logit_lens_loss": list(before), "weights": fingerprint(model)}
    return Translators("tuned", torch.stack(matrices), torch.stack(biases), told)


def _streams(model: HookedVLM, prompts: list[Any], pos: Any) -> torch.Tensor:
    """Float[layer, position, d_model] of all prompts: the residual stream after every layer."""
    names = [SITES["resid_post"].at(layer) for layer in range(model.cfg.n_layers)]
    found = []
    for prompt in prompts:
        soft = one(model, prompt)
        at = found_in(soft, pos, "pos")
        end = torch.tensor([soft.ids.shape[1] - 1], device=model.lm.device)
        with torch.no_grad(), capture(model, names, lambda x, at=at: x[0, at].float()) as kept:
            model.run(soft, at=end)
        found.append(torch.stack([kept[name] for name in names]))
    return torch.cat(found, 1)


def _trained(
    model: HookedVLM,
    streams: torch.Tensor,
    layer: int,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor, float, float]:
    """Matrix (with the identity), bias, and the KL of the first and last tenth of the steps."""
    width = streams.shape[-1]
    change = torch.zeros(width, width, device=streams.device, requires_grad=True)
    bias = torch.zeros(width, device=streams.device, requires_grad=True)
    adam = torch.optim.Adam([change, bias], lr)
    draw, last = torch.Generator().manual_seed(seed), len(streams) - 1
    kept: list[float] = []
    with torch.no_grad():
        start = float(_loss(model, streams[layer, :batch], streams[last, :batch]))
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * (1 - step / steps)
        at = torch.randint(streams.shape[1], (batch,), generator=draw).to(streams.device)
        resid = streams[layer, at]
        with torch.enable_grad():
            loss = _loss(model, resid + resid @ change + bias, streams[last, at])
            adam.zero_grad()
            loss.backward()
        torch.nn.utils.clip_grad_norm_([change, bias], 1.0)
        adam.step()
        kept.append(float(loss.detach()))
    end = sum(kept[-max(1, steps // 10) :]) / max(1, steps // 10)
    if end != end:
        raise NumericsError(f"Layer {layer} diverges: lower lr={lr:g}.")
    whole = change.detach() + torch.eye(width, device=change.device)
    return whole.cpu(), bias.detach().cpu(), start, end


def _loss(model: HookedVLM, resid: torch.Tensor, final: torch.Tensor) -> torch.Tensor:
    """KL from the model's predictions to the translated stream's, in nats, mean over positions."""
    dtype = model.lm.dtype
    with torch.no_grad():
        wanted = model.lm.logits_of(final.to(dtype)).float().log_softmax(-1)
    said = model.lm.logits_of(resid.to(dtype)).float().log_softmax(-1)
    return (wanted.exp() * (wanted - said)).sum(-1).mean()

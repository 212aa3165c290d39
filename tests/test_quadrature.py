"""Integrated gradients add up, also where a norm follows the MLP; what is missing is said."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from bridges import off, prompt
from patching_twins import twin

import mmlens as mm
from mmlens import patching
from mmlens.causal import measures
from mmlens.methods.quadrature import gauss_legendre
from mmlens.values.errors import AddressError

CLEAN, CORRUPT = prompt((2, 1)), prompt((0, 3))
BEHIND = ["Olmo2", "Gemma2", "Gemma3"]
"""Classes with a norm behind the MLP: it keeps what the units add up to from growing with them."""


def logit(model: Any, **silenced: Any) -> float:
    """The logit of " dog", with these units silenced."""
    edited = model.edit(mm.Edit("neurons", 0.0, **silenced)) if silenced else model
    with torch.no_grad():
        return float(edited(CLEAN)[0, -1, model.to_single_token(" dog")])


@pytest.mark.parametrize("stem", BEHIND)
def test_integrated_gradients_add_up_with_a_norm_behind_the_mlp(stem):
    model = twin(stem)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = mm.integrated_gradients(model, CLEAN, " dog", after="")
    sums = scores.sum("pos", "unit").values
    for layer in range(3):
        change = logit(model) - logit(model, layer=layer)
        assert float(sums[layer]) == pytest.approx(change, rel=0.01, abs=1e-3), layer
        told = {name: scores.about[name][str(layer)] for name in ("change", "missing", "nodes")}
        assert told["change"] == pytest.approx(change, abs=1e-4)
        assert told["change"] - told["missing"] == pytest.approx(float(sums[layer]), abs=1e-4)
        assert told["nodes"] > 16  # 16 were not enough, and more were taken


def test_each_unit_gets_what_a_fine_integral_on_hugging_face_s_own_modules_gives():
    model = twin("Olmo2")
    ours = mm.integrated_gradients(model, CLEAN, " dog", after="", layer=1).values[0]
    down, vectors = model.lm.hf.model.layers[1].mlp.down_proj, model.embed(CLEAN).vectors
    token = model.to_single_token(" dog")
    seen: list[torch.Tensor] = []

    def run(units: torch.Tensor | None) -> torch.Tensor:
        def put(module: Any, args: Any) -> Any:
            seen.append(args[0].detach())
            return args if units is None else (units,)

        handle = down.register_forward_pre_hook(put)
        try:
            return model.lm.hf(inputs_embeds=vectors).logits[0, -1, token]
        finally:
            handle.remove()

    with torch.no_grad():
        run(None)
    z, total = seen[0], torch.zeros_like(seen[0])
    for exponent in range(14):  # each octave of the way by itself: the number changes close to 0
        high = 2.0**-exponent
        low = high / 2 if exponent < 13 else 0.0
        for t, weight in zip(*gauss_legendre(6, z), strict=True):
            units = ((low + (high - low) * t) * z).requires_grad_()
            total += (high - low) * weight * torch.autograd.grad(run(units), units)[0]
    assert off(ours, (z * total)[0]) < 5e-3 * float((z * total).abs().max())


def test_what_is_missing_is_said():
    model = twin("Gemma2")
    with pytest.warns(UserWarning, match=r"layer 1 add up to .* is missing, .* more steps than 1"):
        scores = mm.integrated_gradients(model, CLEAN, " dog", after="", layer=1, steps=1)
    change = logit(model) - logit(model, layer=1)
    missing = change - scores.sum().item()
    assert scores.about["missing"]["1"] == pytest.approx(missing, abs=1e-4)
    assert abs(missing) > 0.02 * abs(change)


def test_integrated_attribution_says_how_far_it_is_from_patching_the_layer():
    model = twin("Gemma2")
    metric = measures.logit_difference(model, " dog", " cat")
    pair = patching.Pair(CLEAN, CORRUPT)
    guess = patching.attribution_patching(model, pair, metric, "mlp_out", steps=8)
    true = patching.patch(model, pair, metric, "mlp_out", by="layer")
    for layer, value in enumerate(true.values.tolist()):
        change = value - true.about["corrupt"]
        assert guess.about["change"][str(layer)] == pytest.approx(change, abs=1e-4)
        left = guess.about["change"][str(layer)] - guess.about["missing"][str(layer)]
        assert guess.sel(layer=layer).sum().item() == pytest.approx(left, abs=1e-4)
    assert "missing" not in patching.attribution_patching(model, pair, metric, "mlp_out").about


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"steps": 0}, "steps=0: write a whole number from 1 to 1000"),
        ({"batch": 0}, "batch=0"),
        ({"layer": []}, "names nothing"),
        ({"baseline": float("nan")}, "baseline=nan"),
        ({"baseline": mm.Scores(torch.zeros(3, 7), ("layer", "unit"))}, "does not fit units"),
    ],
)
def test_integrals_over_nothing_are_refused_in_one_sentence(options, sentence):
    with pytest.raises(mm.MMLensError, match=sentence):
        mm.integrated_gradients(twin("Llama"), CLEAN, " dog", after="", **options)


def test_nodes_integrate_polynomials_and_powers_of_them():
    for power in (1, 4):
        nodes, weights = gauss_legendre(8, torch.zeros(1), power)
        assert float((weights * nodes**3).sum()) == pytest.approx(1 / 4, abs=1e-6)
    with pytest.raises(AddressError, match="steps=0"):
        gauss_legendre(0, torch.zeros(1))

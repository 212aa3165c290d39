"""Least squares of centred rows: no answer hangs on rounding, in the helper or in what uses it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mmlens as mm
from mmlens.families import toy, toy_cross
from mmlens.methods.rewrite import least_change
from mmlens.values.least_squares import least_squares

PLANTED = (*(f"toy-{kind}-planted" for kind in toy.KINDS), "toy-cross-planted")


def centred(rows: int, width: int, seed: int) -> torch.Tensor:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.layer_norm(x, (width,))


def rounded(x: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """The same rows as another machine would compute them: off by float32's last digit."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return x * (1 + 1e-7 * noise.to(x))


def test_it_is_the_shortest_answer_and_the_same_for_rows_off_by_rounding():
    x = centred(200, 16, seed=0)
    y = x @ torch.randn(16, 3, generator=torch.Generator().manual_seed(2)) + 0.1 * x[:, :3].sin()
    found = least_squares(x, y)
    assert (x.T @ (x @ found - y)).abs().max() < 1e-3 * y.abs().max()  # the normal equations
    assert found.sum(0).abs().max() < 1e-4  # nothing along the direction that no row has
    again = least_squares(rounded(x), y)
    assert torch.allclose(found, again, atol=1e-5)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_model_has_the_same_weights_on_every_machine(name, monkeypatch):
    one = weights(mm.load(name))
    jittered: list[int] = []

    def off(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        jittered.append(len(x))
        return least_squares(rounded(x), y)

    for module in (toy, toy_cross):
        monkeypatch.setattr(module, "least_squares", off)
    other = weights(mm.families.load(name))
    assert jittered and one.keys() == other.keys()
    for key, value in one.items():
        assert (value - other[key]).abs().max() < 1e-4 * value.abs().max().clamp(min=1), key


def weights(model: Any) -> dict[str, torch.Tensor]:
    """All that the language model computes with, by name."""
    return {k: v.double() for k, v in model.lm.hf.state_dict().items() if v.is_floating_point()}


def test_prompts_that_are_one_but_for_rounding_ask_for_a_small_change():
    active = torch.randn(6, generator=torch.Generator().manual_seed(3))
    towards = torch.randn(5, generator=torch.Generator().manual_seed(4))
    twice = [(active, towards, -1.0), (rounded(active), towards, -0.5)]
    once = least_change(twice[:1], [], 1.0)
    assert least_change(twice, [], 1.0).norm() < 2 * once.norm()

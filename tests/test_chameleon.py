"""Chameleon: what a class that never says some words needs, and its larger checkpoints."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
import transformers as hf
from bridges import off
from native_twins import awake, photo, token, twin
from packaging.version import Version

import mmlens as mm
from mmlens.causal.prefix_reuse import BOTH, measured
from mmlens.doctor.live_bytes import LiveBytes
from mmlens.families.native import SINCE
from mmlens.towers.language.measured import apart
from mmlens.values.errors import TargetError

CODE = "<|visual token 000003|>"


@cache
def parts() -> tuple[Any, Any, Any]:
    if Version(hf.__version__) < Version(SINCE["chameleon"]):
        pytest.skip("read with a later transformers")
    whole, processor = twin("chameleon")
    return whole, processor, mm.from_model(whole, processor, name="chameleon")


def prompt(seed: int = 0, **options: Any) -> mm.Prompt:
    return mm.Prompt(photo(60, 40, seed), "A picture of", **options)


def test_two_routes_are_compared_by_words_that_are_said():
    lowest = torch.finfo(torch.float32).min
    a, b = torch.tensor([1.0, 2.0, lowest]), torch.tensor([1.0, 2.5, lowest])
    assert apart(a, b) == pytest.approx(0.2)
    assert apart(a, a) == 0.0 and apart(torch.tensor([1.0, 2.0, 3.0]), a) == 1.5


@torch.no_grad()
def test_a_code_is_never_said_by_the_model_or_a_lens_and_is_not_explained():
    model = parts()[2]
    code = token(CODE)
    lens = mm.logit_lens(model, prompt(), [code, 5], pos=-1)
    assert float(lens.values[..., 0].max()) == 0.0 and float(lens.values[..., 1].min()) > 0.0
    assert bool((model(prompt())[0, :, code] == torch.finfo(torch.float32).min).all())
    with pytest.raises(TargetError, match="a code of a picture"):
        mm.attribute(model, prompt(), code, after="")


@torch.no_grad()
def test_prefixes_are_reused_exactly_and_every_point_acts():
    model = parts()[2]
    assert measured(model) == BOTH and model.lm.can.lens_error < 1e-5
    pair = mm.patching.Pair(prompt(), prompt(1))
    found = mm.patching.patch(model, pair, lambda logits: logits[5], site="resid_pre")
    value = mm.activations(model, pair.clean, "resid_pre", layer=1).sel(pos=-2).values
    edited = model.edit(mm.Edit("resid_pre", value, layer=1, pos=-2))
    truth = float(edited(pair.corrupt)[0, -1, 5])
    assert float(found.sel(layer=1, pos=-2).values) == pytest.approx(truth, abs=1e-5)


def test_hook_points_of_the_language_model_act():
    points = mm.audit(parts()[2], mm.Prompt("A dog"))
    lively = points[points["fires"] & points["differentiable"]]
    assert lively["acts"].mean() > 0.8


@torch.no_grad()
def test_norms_behind_attention_and_mlp_give_the_classs_logits():
    whole, processor, _ = parts()
    config = copy.deepcopy(whole.config)
    config.swin_norm = True
    larger = awake(hf.ChameleonForConditionalGeneration(config), 0.15)
    model = mm.from_model(larger, processor)
    one = prompt()
    assert off(model(one), larger(**model.prompt_reader.inputs(one)).logits) < 1e-5
    assert model.lm.units.normed == [0, 1, 2]


def test_a_turn_ends_with_a_token_of_its_own_and_bare_words_do_not():
    model = parts()[2]
    assert model.to_str_tokens(prompt())[-1] == "<|extra_201|>"
    assert model.to_str_tokens(prompt(template=False))[-1] == " of"
    assert model.to_str_tokens(mm.Prompt("A dog"))[-1] == "<|extra_201|>"


def test_a_plan_is_what_a_forward_pass_takes(tmp_path):
    whole, _, model = parts()
    whole.config.save_pretrained(tmp_path)
    soft = model.read(mm.Prompt(photo(60, 40), "A picture of " * 20))
    plan = mm.plan(tmp_path, n_pos=soft.ids.shape[1])
    weights = [*model.root.parameters(), *model.root.buffers()]
    with torch.no_grad(), LiveBytes(*weights) as forward:
        model(soft)
    assert 0.7 < plan.forward / forward.peak < 1.4

"""To TransformerLens an mmlens model is one of its own: protocols, patching, analysis, caches."""

from __future__ import annotations

import inspect
import sys

import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm
from mmlens.values.errors import PromptError, SiteError

CLEAN, CORRUPT = prompt((2, 1)), prompt((0, 3))


@pytest.fixture(params=["gpt2", "gptj", "llama"])
def model(request):
    """A planted bridge of three classes: serial, parallel, gated."""
    return bridge(f"toy-{request.param}-planted")


def dog_logit(model):
    """A metric: the logit of " dog" at the last position."""
    dog = model.to_single_token(" dog")
    return lambda logits: logits[0, -1, dog]


def test_it_satisfies_transformer_lens_protocols(model):
    protocol = pytest.importorskip(
        "transformer_lens.model_protocol", reason="TransformerLens 4 brought it"
    )
    assert isinstance(model, protocol.TransformerLensModel)
    whole = protocol.TransformerLensModelWithWeights
    assert isinstance(model, whole)
    members = whole.__protocol_attrs__ if sys.version_info >= (3, 12) else ()
    for name in (*members, "blocks", "ln_final", "accumulated_bias", "to_single_token"):
        inspect.getattr_static(type(model), name)  # 3.12 does not ask __getattr__


@torch.no_grad()
def test_activation_patching_runs_on_pictures_and_equals_patching_by_hand(model):
    from transformer_lens import patching

    metric = dog_logit(model)
    _, cache = model.run_with_cache(CLEAN)
    grid = patching.get_act_patch_resid_pre(model, model.to_tokens(CORRUPT), cache, metric)
    assert grid.shape == (3, 19)
    clean = mm.activations(model, CLEAN, "resid_pre")
    # the clean white patch carried into the corrupt run: positions of the patch and of its rival
    for layer, pos in ((0, 9), (1, 3), (2, 18)):
        edit = mm.Edit("resid_pre", clean.sel(layer=layer, pos=[pos]), layer=layer)
        assert float(grid[layer, pos]) == pytest.approx(
            float(metric(model.edit(edit)(CORRUPT))),
            abs=1e-4,  # planted: rounding times 45
        )
    heads = patching.get_act_patch_attn_head_out_all_pos(
        model, model.to_tokens(CORRUPT), cache, metric
    )
    assert heads.shape == (3, 4)


def test_attribution_patching_runs_on_pictures(model):
    from transformer_lens.tools.analysis import attribution_patching

    metric = dog_logit(model)
    result = attribution_patching.attribution_patch(
        model, model.to_tokens(CLEAN), model.to_tokens(CORRUPT), metric
    )
    assert result is not None


@torch.no_grad()
def test_transformer_lens_own_logit_lens_agrees(model):
    tool = pytest.importorskip(
        "transformer_lens.tools.analysis.logit_lens", reason="TransformerLens 4 brought it"
    )
    _, cache = model.run_with_cache(CLEAN)
    theirs = tool.logit_lens(model, cache=cache)
    assert theirs is not None
    ours = mm.logit_lens(model, CLEAN, [" dog"], quantity="logit").values[..., 0]
    dog = model.to_single_token(" dog")
    resid = cache.accumulated_resid(layer=-1, apply_ln=True)
    logits = (resid @ model.W_U + model.b_U)[1:, 0, :, dog]
    assert off(ours[-1], logits[-1]) < 1e-4


def test_a_cache_of_some_positions_is_a_part_of_the_whole_cache(model):
    wanted = ("resid_post", "hook_post", "hook_z", "pattern", "projection.hook_out")
    chosen = {"names_filter": lambda name: name.endswith(wanted)}
    _, whole = model.run_with_cache(CLEAN, return_cache_object=False, **chosen)
    _, part = model.run_with_cache(CLEAN, return_cache_object=False, pos_slice=[2, 5], **chosen)
    assert part.keys() == whole.keys() and len(part) > 12
    for name, tensor in part.items():
        kept, axis = whole[name], 2 if name.endswith("pattern") else 1
        if not name.startswith(("vision.", "projection.")):  # patches of the picture stay whole
            kept = kept.index_select(axis, torch.tensor([2, 5]))
        assert torch.equal(tensor, kept), name


@torch.no_grad()
def test_cache_methods_run_on_pictures(model):
    _, cache = model.run_with_cache(CLEAN)
    heads = cache.stack_head_results(layer=2)
    assert heads.shape == (8, 1, 19, 32)
    neurons = cache.get_neuron_results(1, neuron_slice=[5])
    values = mm.activations(model, CLEAN, "neurons", mm.Neuron(1, 5)).values
    assert off(neurons[0, :, 0], values[:, None] * model.blocks[1].mlp.W_out[5]) < 1e-5
    alone = cache.apply_slice_to_batch_dim(0)
    assert alone["resid_post", 2].shape == (19, 32)


@torch.no_grad()
def test_ids_keep_their_pictures_through_copies_and_refuse_to_lose_them(model):
    model = mm.load(model.name).double()  # but for rotary frequencies, which stay float32
    tokens = model.to_tokens([CLEAN, CORRUPT])
    logits = model(tokens)
    for same in (tokens.clone(), tokens.to("cpu"), tokens[:], tokens.detach()):
        assert off(model(same), logits) == 0.0
    assert off(model(tokens[1:]), model(CORRUPT)) < 1e-6
    assert off(model(torch.cat([tokens, tokens])), torch.cat([logits, logits])) < 1e-6
    assert off(model(tokens[:, :5]), logits[:, :5]) < 1e-6
    with pytest.raises(PromptError, match="lost the pictures"):
        model(tokens + 1)
    with pytest.raises(PromptError, match="picture was lost"):
        model(torch.tensor(tokens.tolist()))


@torch.no_grad()
def test_what_it_does_not_define_is_the_language_models_own(model):
    assert model.W_out.shape[0] == model.cfg.n_layers
    assert model.W_E.shape[1] == model.W_U.shape[0] == 32
    assert model.OV is not None
    with pytest.raises(AttributeError):
        _ = model.no_such_thing


@torch.no_grad()
def test_switches_open_the_hook_points_that_wait_for_them():
    model = mm.load("toy-llama")
    name = "blocks.0.attn.hook_result"
    with pytest.raises(SiteError, match=r"waits for a set_use_"):
        model.run_with_cache(CLEAN, names_filter=name)
    model.set_use_attn_result(True)
    _, cache = model.run_with_cache(CLEAN, names_filter=name)
    assert cache[name].shape == (1, 19, 4, 32)

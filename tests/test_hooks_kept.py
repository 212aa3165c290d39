"""Hooks as TransformerLens has them, kept by the model that they were given to."""

from __future__ import annotations

import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm
from mmlens.values.errors import AddressError, SiteError

POINT = "blocks.1.hook_resid_pre"


@pytest.fixture
def model():
    """A bridge of its own, whose hook points nobody else shares."""
    return mm.load("toy-gptj")


def nothing(tensor, hook):
    """A hook that wipes what it sees."""
    return tensor * 0


def seen(model):
    """The logits, and what Hugging Face's own forward says of the same vectors."""
    soft = model.embed(prompt())
    return model(prompt()), model.lm.hf(inputs_embeds=soft.vectors).logits


@torch.no_grad()
def test_a_permanent_hook_stays_until_permanent_ones_are_removed(model):
    plain = model(prompt())
    before = model.edit()
    model.add_perma_hook(POINT, nothing)
    wiped = model(prompt())
    assert off(wiped, plain) > 1e-3
    assert off(before(prompt()), plain) == 0.0  # a copy made before has no part in it
    after = model.edit()
    model.reset_hooks()
    assert off(model(prompt()), wiped) == 0.0
    model.reset_hooks(including_permanent=True)
    assert off(model(prompt()), plain) == 0.0
    assert off(after(prompt()), wiped) == 0.0  # a copy made of it later took it along
    after.remove_all_hook_fns(including_permanent=True)
    assert off(after(prompt()), plain) == 0.0


@pytest.mark.parametrize(
    "clear",
    [
        lambda m: m.remove_all_hook_fns(including_permanent=True),
        lambda m: m.reset_hooks(including_permanent=True),
        lambda m: m.root.reset_hooks(including_permanent=True),
        lambda m: m.root.remove_all_hook_fns("fwd", including_permanent=True),
        lambda m: m.hook_embed.remove_hooks("both", including_permanent=True),
        lambda m: m.hook_embed._forward_hooks.clear(),
    ],
)
@torch.no_grad()
def test_a_model_sees_its_picture_whatever_hooks_were_removed(model, clear):
    plain = model(prompt())
    clear(model)
    ours, hugging_face = seen(model)
    assert off(ours, plain) == 0.0
    assert off(ours, hugging_face) < 1e-5
    assert off(model(prompt((0, 0))), plain) > 1e-3


@torch.no_grad()
def test_a_hook_put_on_a_point_by_hand_goes_with_the_others(model):
    plain = model(prompt())
    model.blocks[1].hook_resid_pre.add_hook(nothing)
    model.vision.hook_dict["hook_features"].add_hook(nothing)
    assert off(model(prompt()), plain) > 1e-3
    model.reset_hooks()
    assert off(model(prompt()), plain) == 0.0


@torch.no_grad()
def test_levels_and_directions_choose_which_hooks_are_reset(model):
    calls = []

    def note(name):
        return lambda tensor, hook: calls.append(name)

    model.add_hook(POINT, note("added"))
    model.add_hook(POINT, note("first"), prepend=True)
    with model.hooks([(POINT, note("outer"))]):
        with model.hooks([(POINT, note("inner"))]):
            assert model.context_level == 2
            model(prompt())
            assert calls == ["first", "added", "outer", "inner"]
            model.reset_hooks(level=1)
            calls.clear()
            model(prompt())
            assert calls == ["first", "added", "inner"]
            model.reset_hooks(direction="bwd")
            calls.clear()
            model(prompt())
            assert calls == ["first", "added", "inner"]
            model.reset_hooks()
        calls.clear()
        model(prompt())
    model(prompt())
    assert calls == [] and model.context_level == 0 and model.list_hooks() == {}


@torch.no_grad()
def test_hooks_that_are_not_reset_at_the_end_stay_and_are_listed(model):
    plain = model(prompt())
    with model.hooks([(POINT, nothing)], reset_hooks_end=False):
        wiped = model(prompt())
    assert off(model(prompt()), wiped) == 0.0
    model.add_perma_hook("vision.hook_features", nothing)
    listed = model.list_hooks()
    assert [hook.call for hook in listed[POINT]] == [nothing]
    assert listed["vision.hook_features"][0].is_permanent
    assert list(model.list_hooks(including_permanent=False)) == [POINT]
    assert list(model.list_hooks(lambda name: "vision" in name)) == ["vision.hook_features"]
    assert model.list_hooks(POINT, dir="bwd") == {}
    model.reset_hooks(including_permanent=True)
    assert off(model(prompt()), plain) == 0.0


def test_a_backward_hook_gets_the_gradient_and_may_replace_it(model):
    kept: list[torch.Tensor] = []

    def keep(grad, hook):
        assert hook.layer() == 1
        kept.append(grad.clone())

    model.run_with_hooks(prompt(), bwd_hooks=[(POINT, keep)], return_type="loss").backward()
    assert len(kept) == 1 and kept[0].shape == (1, 19, 32)
    generator = torch.Generator().manual_seed(0)
    step = torch.randn(kept[0].shape, generator=generator, dtype=torch.float64) * 1e-2
    with torch.no_grad():
        up, down = (
            model.run_with_hooks(
                prompt(), [(POINT, lambda x, hook, s=sign: x + s * step.to(x))], return_type="loss"
            )
            for sign in (1, -1)
        )
    assert float((kept[0] * step).sum()) == pytest.approx(float(up - down) / 2, rel=1e-2)

    def gradient(*hooks):
        found = {}
        _, found = model.run_with_cache(
            prompt(), names_filter="hook_embed", incl_bwd=True, return_type="loss"
        )
        return found["hook_embed_grad"]

    plain = gradient()
    model.add_hook(POINT, lambda grad, hook: grad * 2, dir="bwd")
    assert off(gradient(), 2 * plain) < 1e-6  # GPT-J's only way from layer 0 on is the stream
    model.reset_hooks(direction="fwd")
    assert off(gradient(), 2 * plain) < 1e-6
    model.reset_hooks(direction="bwd")
    assert off(gradient(), plain) == 0.0


def test_caching_hooks_fill_their_cache_in_every_run(model):
    with torch.no_grad():
        _, wanted = model.run_with_cache(prompt(), names_filter=[POINT, "projection.hook_out"])
        cache = model.add_caching_hooks([POINT, "projection.hook_out"])
        model(prompt((0, 0)))
        model(prompt())
    assert set(cache) == {POINT, "projection.hook_out"}
    assert all(off(cache[name], wanted[name]) == 0.0 for name in cache)
    model.reset_hooks()
    kept, fwd, bwd = model.get_caching_hooks(POINT, incl_bwd=True, pos_slice=-1)
    with model.hooks(fwd, bwd):
        model(prompt(), return_type="loss").backward()
    assert kept[POINT].shape == kept[POINT + "_grad"].shape == (1, 1, 32)
    assert off(kept[POINT][:, 0], wanted[POINT][:, -1]) == 0.0


@torch.no_grad()
def test_what_hooks_keep_in_their_context_is_cleared_when_asked(model):
    def count(tensor, hook):
        hook.ctx["n"] = hook.ctx.get("n", 0) + 1

    for wanted in (1, 2):
        model.run_with_hooks(prompt(), [(POINT, count)])
        assert model.hook_dict[POINT].ctx == {"n": wanted}
    model.run_with_hooks(prompt(), [(POINT, count)], clear_contexts=True)
    assert model.hook_dict[POINT].ctx == {}
    model.run_with_hooks(prompt(), [(POINT, count)])
    model.reset_hooks()
    assert model.hook_dict[POINT].ctx == {}


def half(x, hook):
    """The first half of the positions."""
    return x[:, : x.shape[1] // 2]


@pytest.mark.parametrize(
    ("hook", "sentence"),
    [
        ((POINT, half), r"'half' at .*resid_pre' returned a tensor of shape \(1, 9, 32\) for"),
        ((POINT, lambda x, hook: "zero"), "returned 'zero': return the new tensor"),
        ((POINT, lambda x, hook: (x,)), "returned .*: return the new tensor"),
        ((POINT, lambda x, hook: x.double()), r"float64 on cpu for torch.float32.*\.to\(tensor\)"),
        ((POINT, lambda x: x), r"cannot be called as fn\(tensor, hook=...\)"),
        ((POINT, 3), "is 3: give a function"),
        ((3, nothing), "3 names no hook"),
        ((lambda name: name == "resid_pre", nothing), "finds none of the .* hook points"),
        (("blocks.1.hook_resid_pr", nothing), "did you mean 'blocks.1.hook_resid_pre'"),
        ((POINT,), "is no list of hooks"),
        (POINT, "is no list of hooks"),
    ],
)
@torch.no_grad()
def test_a_hook_that_could_not_act_is_named_in_a_sentence(hook, sentence):
    model = bridge("toy-gptj")
    with pytest.raises(SiteError, match=sentence):
        model.run_with_hooks(prompt(), [hook])
    assert not model.list_hooks() and model.context_level == 0


def broken(values):
    """A function that raises."""
    raise ValueError("no luck")


@torch.no_grad()
def test_an_edit_whose_value_cannot_stand_there_is_refused_where_it_is_made():
    model = bridge("toy-gptj")
    for value in ("zero", None, {}, ["a"], True):
        with pytest.raises(AddressError, match="give a number, a tensor, Scores, or a function"):
            mm.Edit("neurons", value, layer=0)
    with pytest.raises(AddressError, match="raised ValueError for values .*no luck") as caught:
        model.edit(mm.Edit("neurons", broken, layer=0))(prompt())
    assert isinstance(caught.value.__cause__, ValueError)
    three = torch.arange(3.0)
    for same in (three.tolist(), three.numpy(), lambda x: three.to(x)):
        changed = model.edit(mm.Edit("resid_pre", same, layer=0, dim=[0, 1, 2], pos=0))
        _, cache = changed.run_with_cache(prompt(), names_filter="blocks.0.hook_resid_pre")
        assert cache["blocks.0.hook_resid_pre"][0, 0, :3].tolist() == [0.0, 1.0, 2.0]


def test_a_direction_that_does_not_exist_is_refused():
    model = bridge("toy-gptj")
    for ask in (
        lambda: model.add_hook(POINT, nothing, dir="sideways"),
        lambda: model.add_perma_hook(POINT, nothing, dir="sideways"),
        lambda: model.reset_hooks(direction="sideways"),
        lambda: model.list_hooks(dir="sideways"),
    ):
        with pytest.raises(SiteError, match="there is 'fwd', 'bwd'"):
            ask()
    assert not model.list_hooks()

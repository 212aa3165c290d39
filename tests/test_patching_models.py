"""The bench on grouped-query attention and on windows of attention, against Hugging Face's own."""

from __future__ import annotations

import random
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from bridges import off, prompt
from patching_twins import twin

import mmlens as mm
from mmlens import patching
from mmlens.causal import measures, prefix_reuse
from mmlens.values.errors import AddressError

CLEAN, CORRUPT = prompt((2, 1)), prompt((0, 3))
PAIR = patching.Pair(CLEAN, CORRUPT)
OBJECT = [mm.Patch(3, 2), mm.Patch(3, 3)]
WINDOW = 6
WINDOWED: dict[str, dict[str, Any]] = {
    "Mistral": {"sliding_window": WINDOW},
    "Phi3": {"sliding_window": WINDOW, "num_key_value_heads": 4},
    "Gemma2": {"sliding_window": WINDOW},
    "Gemma3": {"sliding_window": WINDOW, "sliding_window_pattern": 2},
}
windowed = pytest.mark.parametrize("stem", WINDOWED)


def to_cat(model: Any) -> Any:
    """A metric: how much more " dog" than " cat"."""
    return measures.logit_difference(model, " dog", " cat")


# -- grouped-query attention ------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("into", ["q", "k", "v"])
def test_a_path_into_a_head_of_a_group_goes_through_what_the_group_shares(into):
    """Against the three runs of path patching made on Hugging Face's modules."""
    model = twin("Llama")
    metric, sender = to_cat(model), mm.Head(0, 1)
    for head in (0, 1, 3):
        row = head if into == "q" else head // 2
        cut = slice(8 * row, 8 * row + 8)  # d_head is 8
        ours = patching.path_patching(model, PAIR, metric, [sender], mm.Head(2, head), into)
        theirs = _path_by_hand(model, sender, into, cut)
        assert float(ours.values[0]) == pytest.approx(float(metric(theirs)), abs=1e-5), head
    moved = [
        float(patching.path_patching(model, PAIR, metric, [sender], mm.Head(2, h), into).values[0])
        for h in range(4)
    ]
    assert (moved[0] == moved[1]) == (into != "q") and moved[1] != moved[2]
    with pytest.raises(AddressError, match="no head 4"):
        patching.path_patching(model, PAIR, metric, [sender], mm.Head(2, 4), into)


def _path_by_hand(model: Any, sender: mm.Head, into: str, cut: slice) -> torch.Tensor:
    """Logits of the last position, with Hugging Face's modules and hooks of torch alone."""
    hf = model.lm.hf
    layers = hf.model.layers
    clean, corrupt = (model.embed(p).vectors for p in (CLEAN, CORRUPT))
    outs: dict[Any, torch.Tensor] = {}

    def run(vectors: torch.Tensor, *hooks: Any) -> torch.Tensor:
        with ExitStack() as stack:
            for module, kind, call in hooks:
                stack.callback(getattr(module, f"register_forward_{kind}")(call).remove)
            return hf(inputs_embeds=vectors).logits[0, -1]

    def note(name: Any) -> Any:
        return lambda module, args, out: outs.__setitem__(
            name, (out[0] if isinstance(out, tuple) else out).clone()
        )

    def instead(name: Any) -> Any:
        return lambda module, args, out: (
            (outs[name], *out[1:]) if isinstance(out, tuple) else outs[name]
        )

    written = [(layer.self_attn, "hook", note(("attn", n))) for n, layer in enumerate(layers)]
    written += [(layer.mlp, "hook", note(("mlp", n))) for n, layer in enumerate(layers)]
    o_proj, piece = (
        layers[sender.layer].self_attn.o_proj,
        slice(8 * sender.head, 8 * sender.head + 8),
    )
    run(clean, (o_proj, "pre_hook", lambda m, args: outs.__setitem__("z", args[0].clone())))
    run(corrupt, *written)

    def send(module: Any, args: Any) -> Any:
        z = args[0].clone()
        z[..., piece] = outs["z"][..., piece]
        return (z,)

    frozen = [(layers[n].self_attn, "hook", instead(("attn", n))) for n in (1,)]
    frozen += [(layers[n].mlp, "hook", instead(("mlp", n))) for n in (0, 1)]
    reads = getattr(layers[2].self_attn, f"{into}_proj")
    run(corrupt, (o_proj, "pre_hook", send), *frozen, (reads, "hook", note("arrived")))

    def arrive(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[..., cut] = outs["arrived"][..., cut]
        return out

    return run(corrupt, (reads, "hook", arrive))


@torch.no_grad()
@pytest.mark.parametrize("site", ["k", "v"])
def test_a_head_at_keys_or_values_is_the_one_that_it_reads(site):
    """In edits, activations, Scores, patching, ablation and means alike."""
    model = twin("Llama")
    metric = to_cat(model)
    projection = getattr(model.lm.hf.model.layers[1].self_attn, f"{site}_proj")
    for head, row in ((0, 0), (1, 0), (2, 1), (3, 1)):
        cut = slice(8 * row, 8 * row + 8)

        def silence(module: Any, args: Any, out: torch.Tensor, cut: slice = cut) -> torch.Tensor:
            out = out.clone()
            out[..., cut] = 0
            return out

        handle = projection.register_forward_hook(silence)
        try:
            wanted = model.lm.hf(inputs_embeds=model.embed(CLEAN).vectors).logits
        finally:
            handle.remove()
        one = mm.Head(1, head)
        for edit in (mm.Edit(site, 0.0, one), mm.Edit(site, 0.0, [one]), mm.Edit(site, 0.0, layer=1, head=row)):  # noqa: E501  # fmt: skip
            assert off(model.edit(edit)(CLEAN), wanted) < 1e-5, edit
        ablated = patching.ablate(model, CLEAN, metric, site, 0.0, [one])
        assert float(ablated.values[0]) == pytest.approx(float(metric(wanted[0, -1])), abs=1e-5)
        whole = mm.activations(model, CLEAN, site)
        there = mm.activations(model, CLEAN, site, one).values
        assert torch.equal(there, whole.sel(one).values)
        assert torch.equal(there, whole.values[1, :, row])
        grid = patching.patch(model, PAIR, metric, site)
        single = patching.patch(model, PAIR, metric, site, [one])
        assert single.labels["head"] == (one,)
        assert off(single.values[0], grid.values[1, row]) < 1e-6
        assert off(grid.sel(one).values, grid.values[1, row]) == 0
        guess = patching.attribution_patching(model, PAIR, metric, site)
        assert torch.equal(guess.sel(one).values, guess.values[1, :, row])
        mean = patching.mean_over(model, [CLEAN], site)
        assert torch.equal(mean.sel(one).values, mean.values[1, row])
    for edit in (mm.Edit(site, 0.0, mm.Head(1, 4)), mm.Edit(site, 0.0, [mm.Head(1, 4)])):
        with pytest.raises(AddressError, match="There is no head 4: there are 4"):
            model.edit(edit)


# -- windows of attention ---------------------------------------------------------------------


@windowed
@torch.no_grad()
def test_a_cut_hits_the_same_keys_with_a_cache_of_a_window(windowed_edits, stem):
    model = twin(stem, **WINDOWED[stem])
    assert model.embed(CLEAN).ids.shape[1] > WINDOW
    different = 0
    plain = _said(model)
    for edit in windowed_edits:
        edited = model.edit(edit)
        with_cache, without = _said(edited), _said(edited, use_past_kv_cache=False)
        assert with_cache == without, edit
        different += with_cache != plain
    assert different >= 3  # the cuts can be seen


@pytest.fixture
def windowed_edits() -> list[mm.Edit]:
    """Cuts of keys just inside the window, of the last words, in some heads, at every step."""
    up = torch.randn(32, generator=torch.Generator().manual_seed(1))
    return [
        patching.knockout([-2, -3], None),
        patching.knockout([mm.Patch(3, 3), -3, -2], -1),
        patching.knockout([-2, -3], slice(-2, None), layer=[0, 2], head=[0, 3]),
        mm.Edit.steer("resid_post", up, layer=1, pos=-1),
        mm.Edit("v", 0.0, layer=1, pos=[-1, -2]),
    ]


def _said(model: Any, **options: Any) -> list[int]:
    new = model.generate(CLEAN, 7, return_type="tokens", stop_at_eos=False, **options)
    return new[0].tolist()


@torch.no_grad()
def test_a_cut_in_a_window_gives_the_logits_of_a_mask_made_by_hand():
    """Step by step: whole texts through Hugging Face, with the window and the cut in one mask."""
    model = twin("Mistral", **WINDOWED["Mistral"])
    soft = model.embed(CLEAN)
    n = soft.ids.shape[1]
    said = _said(model.edit(patching.knockout([-2, -3], -1)))
    vectors = torch.cat([soft.vectors, model.lm.embed(torch.tensor([said]))], 1)
    total, floor = vectors.shape[1], torch.finfo(torch.float32).min
    query, key = torch.arange(total)[:, None], torch.arange(total)[None]
    seen = (key <= query) & (key > query - WINDOW)
    seen &= ~((query >= n - 1) & ((key == n - 2) | (key == n - 3)))
    mask = torch.zeros(total, total).masked_fill(~seen, floor)
    place = {"position_ids": torch.arange(total)[None]}
    by_hand = model.lm.hf(inputs_embeds=vectors, attention_mask=mask[None, None], **place).logits
    assert by_hand[0, n - 1 : -1].argmax(-1).tolist() == said
    assert said != _said(model)


@torch.no_grad()
def test_the_last_position_is_cut_at_every_step_of_a_caption():
    """`captions(knockout(dog, -1))`: no word of the caption sees the dog, not the first alone."""
    model = twin("Llama", seed=3)
    cut = patching.knockout(mm.Patch, -1)
    soft = model.embed(CLEAN)
    n, picture = soft.ids.shape[1], soft.is_picture[0]
    table = patching.captions(model, CLEAN, {"cut": cut}, max_new_tokens=7, stop_at_eos=False)
    said = _said(model.edit(cut))
    assert table["caption"][1] == model.tokenizer.decode(said, skip_special_tokens=True)
    vectors = torch.cat([soft.vectors, model.lm.embed(torch.tensor([said]))], 1)
    total, floor = vectors.shape[1], torch.finfo(torch.float32).min
    mask = torch.full((total, total), floor).triu(1)
    mask[n - 1 :, :n][:, picture] = floor
    by_hand = model.lm.hf(inputs_embeds=vectors, attention_mask=mask[None, None]).logits
    assert by_hand[0, n - 1 : -1].argmax(-1).tolist() == said
    first = torch.full((total, total), floor).triu(1)
    first[n - 1, :n][picture] = floor
    once = model.lm.hf(inputs_embeds=vectors, attention_mask=first[None, None]).logits
    assert once[0, n - 1 : -1].argmax(-1).tolist() != said  # it makes a difference here


# -- reuse ------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("stem", [*WINDOWED, "Llama", "Olmo2", "Cohere"])
def test_the_grid_is_the_plain_loop_beyond_a_window_and_with_grouped_heads(stem):
    model = twin(stem, **WINDOWED.get(stem, {}))
    metric, draw = to_cat(model), random.Random(0)
    for site in ("resid_pre", "mlp_out", "v"):
        grid = patching.patch(model, PAIR, metric, site)
        assert (
            grid.about["reuse"] == prefix_reuse.BOTH
        )  # else this would compare a loop with a loop
        for _ in range(4):
            at = {axis: draw.randrange(len(grid.of(axis))) for axis in grid.axes}
            source = mm.activations(model, CLEAN, site, layer=at["layer"])
            source = source.sel(**{axis: [i] for axis, i in at.items() if axis != "layer"})
            edited = model.edit(mm.Edit(site, source, layer=at["layer"]))
            looped = float(metric(edited(CORRUPT)[0, -1]))
            assert looped == pytest.approx(float(grid.values[tuple(at.values())]), abs=1e-5)


@torch.no_grad()
def test_reuse_is_measured_at_the_length_of_the_prompt():
    """An attention that goes wrong with a cache, from the tenth position on."""
    model = twin("Llama", seed=5)

    def late(module: Any, args: Any, options: dict[str, Any]) -> Any:
        mask = options["attention_mask"]
        queries, keys = mask.shape[-2:]
        if keys > max(10, queries):
            options["attention_mask"] = mask[..., :1] * 0 - 5.0 * torch.arange(keys)
        return args, options

    handle = model.root.blocks[1].attn.register_forward_pre_hook(late, with_kwargs=True)
    try:
        assert prefix_reuse.measured(model, 8) == prefix_reuse.BOTH
        assert prefix_reuse.measured(model, 19) == prefix_reuse.LAYERS
        metric = to_cat(model)
        grid = patching.patch(model, PAIR, metric)
        assert grid.about["reuse"] == prefix_reuse.LAYERS
        source = mm.activations(model, CLEAN, "resid_pre", layer=1).sel(pos=[12])
        edited = model.edit(mm.Edit("resid_pre", source, layer=1))
        assert float(grid.values[1, 12]) == pytest.approx(
            float(metric(edited(CORRUPT)[0, -1])), abs=1e-5
        )
    finally:
        handle.remove()
        twin.cache_clear()

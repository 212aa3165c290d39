"""Grad-ECLIP: its formula by another route, finite differences, and a patch that was planted."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from bridges import bridge, off, prompt
from dual_twins import hf_clip, siglip_like
from PIL import Image

import mmlens as mm
from mmlens import relevance
from mmlens.families import toy
from mmlens.values.errors import MMLensError
from mmlens.values.labels import Patch, Token

PHOTO = toy.picture()
TEXT = "a photo of a dog"
LAST = 2


@pytest.fixture(scope="module")
def twin() -> tuple[Any, Any]:
    model, _, tokenizer = hf_clip()
    return model, tokenizer


def clip_of(twin: tuple[Any, Any], change: Any = None, double: bool = False) -> Any:
    """The twin with its last layer of vision changed."""
    model, tokenizer = copy.deepcopy(twin[0]), twin[1]
    if change is not None:
        with torch.no_grad():
            change(model.vision_model)
    return mm.from_model(model.double() if double else model, None, tokenizer)


def test_it_is_the_formula_on_the_modules_of_the_model_itself(twin):
    clip = clip_of(twin)
    found = relevance.grad_eclip(clip, PHOTO, TEXT, signed=True)
    model = copy.deepcopy(twin[0])
    attention, kept = model.vision_model.encoder.layers[LAST].self_attn, {}

    def began(module: Any, args: Any) -> Any:
        kept["z"] = args[0].detach().requires_grad_()
        return (kept["z"],)

    attention.out_proj.register_forward_pre_hook(began)
    for name in ("q_proj", "k_proj", "v_proj"):
        getattr(attention, name).register_forward_hook(
            lambda module, args, out, name=name: kept.update({name: out.detach()[0].double()})
        )
    read = clip.read(mm.Prompt(PHOTO, TEXT))
    out = model(input_ids=read.ids, attention_mask=read.mask, pixel_values=read.pixels)
    w = torch.autograd.grad(out.logits_per_image[0, 0], kept["z"])[0][0, 0].double()
    q, k, v = (kept[name] for name in ("q_proj", "k_proj", "v_proj"))
    cosine = (q[0] @ k[1:].T) / q[0].norm() / k[1:].norm(dim=1)
    scale = (cosine - cosine.min()) / (cosine.max() - cosine.min())
    expected = (scale * (v[1:] @ w)).float()
    assert off(found.values, expected) < 1e-4 * float(expected.abs().max())
    assert found.of("pos") == tuple(Patch(row, col) for row in range(4) for col in range(4))
    cut = relevance.grad_eclip(clip, PHOTO, TEXT)
    assert off(cut.values, found.values.clamp(min=0)) == 0 and float(found.values.min()) < 0


def test_where_nothing_is_asked_for_every_value_counts_as_it_moves_the_answer(twin):
    """Without queries attention is even, and nothing tells patches apart: map = 17 dy / da."""

    def no_query(tower: Any) -> None:
        tower.encoder.layers[LAST].self_attn.q_proj.weight.zero_()
        tower.encoder.layers[LAST].self_attn.q_proj.bias.zero_()

    clip = clip_of(twin, no_query, double=True)
    found = relevance.grad_eclip(clip, PHOTO, TEXT, signed=True)
    step = 1e-4

    def logit(patch: Patch, by: float) -> float:
        more = clip.edit(mm.Edit("vision.v", lambda v: v * by, layer=LAST, pos=patch))
        with torch.no_grad():
            return float(more.run(mm.Prompt(PHOTO, TEXT))[0, 0])

    for patch in (Patch(0, 0), Patch(2, 1), Patch(3, 2)):
        moved = (logit(patch, 1 + step) - logit(patch, 1 - step)) / (2 * step)
        assert float(found.sel(pos=patch).values) == pytest.approx(17 * moved, rel=1e-4)


def test_a_layer_that_is_named_twice_counts_once(twin):
    clip = clip_of(twin)
    once, twice = (
        relevance.grad_eclip(clip, PHOTO, TEXT, layer=at, signed=True) for at in ([1, 2], [1, 2, 1])
    )
    assert off(once.values, twice.values) == 0 and float(once.values.abs().max()) > 0


def planted(tower: Any) -> None:
    """Layers write nothing until the last, whose values are nothing at plain ground."""
    tower.embeddings.position_embedding.weight.zero_()
    for layer in tower.encoder.layers[:LAST]:
        for part in (layer.self_attn.out_proj, layer.mlp.fc2):
            part.weight.zero_()
            part.bias.zero_()
    tower.encoder.layers[LAST].self_attn.v_proj.bias.zero_()


def plain_but_one() -> Image.Image:
    """Grey, and Patch(2, 1) is white."""
    picture = Image.new("RGB", (32, 32), (90, 90, 90))
    picture.paste((255, 255, 255), (8, 16, 16, 24))
    return picture


def ground_taken_out(twin: tuple[Any, Any], turned: float) -> Any:
    """A CLIP whose one bright patch alone has a value; `turned` is the sign of its queries."""
    plain = clip_of(twin, planted)
    kept: list[torch.Tensor] = []
    point = f"vision.blocks.{LAST}.hook_resid_pre"
    with torch.no_grad():
        plain.run_with_hooks(
            plain_but_one(), fwd_hooks=[(point, lambda x, hook: kept.append(x[0]))]
        )

    def change(tower: Any) -> None:
        planted(tower)
        last = tower.encoder.layers[LAST]
        ground = last.layer_norm1(kept[0][1])  # Patch(0, 0)
        value = last.self_attn.v_proj.weight
        value -= (value @ ground)[:, None] * ground / (ground @ ground)
        last.self_attn.q_proj.weight *= turned
        last.self_attn.q_proj.bias *= turned

    return clip_of(twin, change)


def test_a_planted_patch_is_found_and_plain_ground_has_nothing(twin):
    seen, picture = [], plain_but_one()
    for turned in (1.0, -1.0):
        clip = ground_taken_out(twin, turned)
        toward = torch.eye(clip.d_embed)[0]
        towards, away = (
            relevance.grad_eclip(clip, picture, of=sign * toward, signed=True)
            for sign in (1.0, -1.0)
        )
        assert off(towards.values, -away.values) < 1e-6
        size = towards.values.abs()
        bright = size[towards.of("pos").index(Patch(2, 1))]
        seen.append((float(bright), float(size.sum() - bright)))
        if float(bright) > 1e-3:
            up = towards if float(towards.sel(pos=Patch(2, 1)).values) > 0 else away
            assert up.argmax() == {"pos": Patch(2, 1)}
    # the two kinds of patches are the most and the least alike to what is asked for
    (least, most), ground = sorted(bright for bright, _ in seen), max(rest for _, rest in seen)
    assert least < 1e-4 * most and ground < 1e-4 * most and most > 1e-3


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_in_a_language_model_layers_are_summed_before_what_lowers_is_cut(kind):
    model, asked, word = bridge(f"toy-{kind}"), prompt(), 7
    found = relevance.grad_eclip(model, asked, word, after="", signed=True)
    added: dict[str, torch.Tensor] = {}

    def add(x: torch.Tensor, hook: Any) -> torch.Tensor:
        added[hook.name] = torch.zeros_like(x).requires_grad_()
        return x + added[hook.name]

    names = [f"blocks.{n}.attn.hook_z" for n in range(3)]
    with torch.enable_grad():
        model.run_with_hooks(asked, fwd_hooks=[(n, add) for n in names])[0, -1, word].backward()
    total = np.zeros(len(found.of("pos")))
    for n in range(3):
        q, k, v = (mm.activations(model, asked, site, layer=n).values.double() for site in "qkv")
        w = torch.Tensor(added[names[n]].grad)[0, -1].double()
        k, v = (one.repeat_interleave(q.shape[1] // one.shape[1], 1) for one in (k, v))
        last, keys = q[-1].flatten().numpy(), k.flatten(1).numpy()
        cosine = keys @ last / np.linalg.norm(keys, axis=1) / np.linalg.norm(last)
        scale = (cosine - cosine.min()) / (cosine.max() - cosine.min())
        total += scale * (v.flatten(1) @ w.flatten()).numpy()
    assert np.allclose(found.values, total, rtol=1e-3, atol=1e-4 * np.abs(total).max())
    one = relevance.grad_eclip(model, asked, word, after="", layer=1, signed=True)
    rest = relevance.grad_eclip(model, asked, word, after="", layer=[0, 2], signed=True)
    assert off(one.values + rest.values, found.values) < 1e-5
    assert one.about["layer"] == "1" and isinstance(found.of("pos")[-1], Token)


def test_of_the_patches_of_a_prompt_the_planted_one_is_first():
    model = bridge("toy-gptj-planted")
    found = relevance.grad_eclip(model, prompt(), " dog", after="").sel(pos=Patch)
    assert found.argmax() == {"pos": Patch(2, 1)}


def test_a_text_is_read_at_its_end_and_what_follows_it_is_not_there(twin):
    clip = clip_of(twin)
    found = relevance.grad_eclip(clip, TEXT, PHOTO)
    assert [one.text for one in found.of("pos")] == [
        "[BOS]",
        "a",
        "photo",
        "of",
        "a",
        "dog",
        "[EOS]",
    ]
    assert found.about["layer"] == "0, 1, 2" and float(found.values.max()) > 0


def test_across_the_keys_are_the_pictures():
    model = bridge("toy-cross")
    found = relevance.grad_eclip(model, prompt(), 7, after="")
    keys, words = found.sel(pos=Patch), found.sel(pos=Token)
    assert keys.shape == (16,) and float(keys.values.max()) > 0 and words.shape == (3,)
    cut = model.edit(mm.Edit("cross_v", 0.0))
    assert float(relevance.grad_eclip(cut, prompt(), 7, after="").sel(pos=Patch).values.max()) == 0


def test_what_has_no_single_place_or_no_sum_is_refused(twin):
    clip = clip_of(twin)
    made, _, tokenizer = siglip_like()
    with pytest.raises(MMLensError, match="is read from several positions"):
        relevance.grad_eclip(mm.from_model(made, None, tokenizer), PHOTO, TEXT)
    with pytest.raises(MMLensError, match="never holds an attention pattern"):
        relevance.grad_eclip(mm.load("pictos-clip"), PHOTO, "a dog")
    with pytest.raises(MMLensError, match="no unit can be explained by it"):
        relevance.grad_eclip(clip, PHOTO, mm.Neuron(1, 5, "vision"))
    other = clip.edit(mm.Edit("vision.z", lambda z: z + 1, layer=LAST))
    with pytest.raises(MMLensError, match="is not the sum of values by their pattern"):
        relevance.grad_eclip(other, PHOTO, TEXT)
    with pytest.raises(MMLensError, match="names nothing"):
        relevance.grad_eclip(clip, PHOTO, TEXT, layer=[])

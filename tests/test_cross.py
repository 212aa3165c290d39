"""Pictures that are no positions: keys of cross-attention, labelled, edited, cut and attributed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mmlens as mm
from mmlens import patching, view
from mmlens.families import toy, toy_cross
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.image_reader import CrossReader
from mmlens.towers.language.crossing import Crossing
from mmlens.values.errors import (
    AddressError,
    CapabilityError,
    CheckpointError,
    PromptError,
    SiteError,
)
from mmlens.values.labels import Padding

WORDS = "A picture of a"
WIDE, HIGH = (64, 32), (32, 64)
GRID, SIDE = toy_cross.GRID, toy_cross.SIDE


def photo(size: tuple[int, int] = WIDE, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).random((size[1] // 4, size[0] // 4, 3)) * 255
    return Image.fromarray(noise.astype("uint8")).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def model() -> HookedVLM:
    return mm.load("toy-cross")


@pytest.fixture(scope="module")
def planted() -> HookedVLM:
    return mm.load("toy-cross-planted")


@pytest.fixture(scope="module")
def whole() -> Any:
    return toy_cross.parts()


@pytest.fixture(scope="module")
def prompt() -> mm.Prompt:
    return mm.Prompt(photo(), WORDS)


def ids_of(model: HookedVLM) -> torch.Tensor:
    return torch.tensor([model.tokenizer(WORDS)["input_ids"]])


def tile(number: int) -> list[mm.Patch]:
    return [mm.Patch(row, col, 0, number) for row in range(GRID) for col in range(GRID)]


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


@torch.no_grad()
def features(whole: Any, model: HookedVLM, picture: Image.Image) -> torch.Tensor:
    """Hugging Face's own encoder and projection, the tiles behind each other."""
    tiles = torch.stack(model.image_reader.crops(model.vision, picture))
    seen = whole.encoder(pixel_values=tiles).last_hidden_state
    return whole.enc_to_dec_proj(seen).flatten(0, 1)[None]


# -- the whole model --------------------------------------------------------------------------


def test_one_tile_gives_the_logits_of_a_vision_encoder_decoder_of_hugging_face(model, whole):
    picture = photo((SIDE, SIDE))
    pixels = model.image_reader.crops(model.vision, picture)[0][None]
    with torch.no_grad():
        truth = whole(pixel_values=pixels, decoder_input_ids=ids_of(model)).logits
    assert near(model(mm.Prompt(picture, WORDS)), truth)


@pytest.mark.parametrize("size", [WIDE, HIGH])
def test_tiles_give_the_logits_of_hugging_faces_decoder_beside_them(model, whole, size):
    picture = photo(size)
    keys = features(whole, model, picture)
    with torch.no_grad():
        truth = whole.decoder(ids_of(model), encoder_hidden_states=keys).logits
        ours = model(mm.Prompt(picture, WORDS))
        words = model(WORDS)
    assert near(ours, truth) and not near(words, truth, 0.05)
    with torch.no_grad():
        assert near(words, whole.decoder(ids_of(model)).logits)


def test_the_picture_has_no_positions_and_its_keys_have_labels(model, prompt):
    soft = model.read(prompt)
    assert all(isinstance(label, mm.Token) for label in soft.labels[0])
    keys = soft.picture_keys
    assert keys.labels == ((*tile(0), *tile(1)),) and keys.vectors.shape == (1, 32, 32)
    two = model.read(mm.Prompt(photo((SIDE, SIDE)), " and ", photo(WIDE, 1)))
    assert [label.image for label in two.picture_keys.labels[0]] == [0] * 16 + [1] * 32


def test_a_batch_gives_the_numbers_of_its_single_prompts(model, prompt, whole):
    other = mm.Prompt(photo((SIDE, SIDE), 3), "A dog")
    keys, mask = features(whole, model, photo()), torch.arange(32)[None] < 16
    with torch.no_grad():
        masked, cut = (
            whole.decoder(ids_of(model), encoder_hidden_states=some, encoder_attention_mask=how)
            for some, how in ((keys, mask.long()), (keys[:, :16], None))
        )
    assert model.lm.crossing.masks == near(masked.logits, cut.logits)
    if not model.lm.crossing.masks:  # transformers 5.9
        with pytest.raises(PromptError, match="have 32, 16 keys, and the language model"):
            model([prompt, other])
        return
    soft = model.read([prompt, other])
    assert soft.picture_keys.labels[1][:16] == tuple(Padding(i) for i in range(16))
    both = model([prompt, other])
    for row, one in enumerate((prompt, other)):
        alone = model(one)[0]
        assert near(both[row, -len(alone) :], alone)
    with pytest.raises(PromptError, match="pictures and others none"):
        model([prompt, "A dog"])


@pytest.mark.parametrize("beams", [1, 2])
def test_generation_says_the_same_with_and_without_a_cache_and_as_hugging_face(
    model, whole, prompt, beams
):
    edited = model.edit(mm.Edit("cross_pattern", 0.0, layer=1, key=tile(1)))
    assert model.lm.caching.exact
    for one in (model, edited):
        said = [one.generate(prompt, 8, use_past_kv_cache=cached, return_type="tokens",
                             num_beams=beams, stop_at_eos=False)
                for cached in (True, False)]  # fmt: skip
        assert torch.equal(*said)
    own = whole.decoder.generate(
        ids_of(model), encoder_hidden_states=features(whole, model, photo()), max_new_tokens=8,
        do_sample=False, use_cache=False, num_beams=beams, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    plain = model.generate(prompt, 8, return_type="tokens", num_beams=beams, stop_at_eos=False)
    assert torch.equal(own[:, ids_of(model).shape[1] :], plain)


def test_reading_on_from_a_cache_is_reading_the_whole_prompt(model, prompt):
    logits, cache = model.forward(prompt, return_type="logits_and_cache")
    assert near(logits, model(prompt))
    more = model.forward(" dog", past_key_values=cache)
    assert near(more, model(prompt + " dog")[:, -1:])
    with pytest.raises(PromptError, match="cannot come after"):
        model.forward(mm.Prompt(photo(), " dog"), past_key_values=cache)


def test_patched_runs_that_reuse_their_prefix_are_the_plain_edited_run(model, prompt):
    pair = patching.Pair(prompt, mm.Prompt(photo(WIDE, 5), WORDS))
    found = patching.patch(model, pair, lambda logits: logits[7], layer=1)
    assert found.about["reuse"] == "layers and positions"
    there = mm.activations(model, pair.clean, "resid_pre", layer=1, pos=2)
    edited = model.edit(mm.Edit("resid_pre", there, layer=1, pos=2))
    with torch.no_grad():
        wanted = float(edited(pair.corrupt)[0, -1, 7])
    assert float(found.sel(pos=2).values.squeeze()) == pytest.approx(wanted, abs=1e-4)


# -- sites of cross-attention -----------------------------------------------------------------


def test_patterns_have_the_labels_of_words_and_of_patches(model, prompt, whole):
    soft = model.read(prompt)
    pattern = mm.activations(model, prompt, "cross_pattern", layer=1)
    assert pattern.axes == ("head", "query", "key")
    assert (
        pattern.of("query") == soft.labels[0] and pattern.of("key") == soft.picture_keys.labels[0]
    )
    kept: list[torch.Tensor] = []
    module, beside = whole.decoder.transformer.h[1].crossattention, features(whole, model, photo())
    handle = module.register_forward_pre_hook(lambda m, args: kept.append(args[0]))
    with torch.no_grad():
        whole.decoder(ids_of(model), encoder_hidden_states=beside)
        query, key = module.q_attn(kept[0]), module.c_attn(beside).split(module.split_size, 2)[0]
    handle.remove()
    q, k = (x[0].unflatten(-1, (module.num_heads, -1)).transpose(0, 1) for x in (query, key))
    assert near(pattern.values, (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1))
    third = pattern.sel(key=tile(1), query=-1, head=2)
    assert torch.equal(third.values, pattern.values[2, -1, 16:])
    assert patching.attention(model, prompt, layer=1, across=True).values.equal(pattern.values)
    with pytest.raises(PromptError, match="this prompt has none"):
        mm.activations(model, WORDS, "cross_pattern")
    with pytest.raises(CapabilityError, match="no pictures by cross-attention"):
        patching.attention(mm.load("toy-gpt2"), prompt, layer=1, across=True)


def test_every_site_of_cross_attention_acts_has_a_gradient_and_a_row_in_the_table(model, prompt):
    table = model.sites.set_index("site")
    names = [name for name in table.index if name.startswith("cross_")]
    assert len(names) == 7 and all(table.loc[name, "writable"] for name in names)
    assert table.loc["cross_k", "axes"] == ("key", "head", "dim")
    with torch.no_grad():
        plain = model(prompt)
        for name in names:
            halved = model.edit(mm.Edit(name, lambda x: x * 0.5, layer=1))
            assert (halved(prompt) - plain).abs().max() > 1e-4, name
    for name in names:
        scores = mm.attribute(model, prompt, 7, after="", site=name)
        assert all(bool((scores.sel(layer=at).values != 0).any()) for at in range(3)), name
    with pytest.raises(SiteError):
        mm.load("toy-gpt2").edit(mm.Edit("cross_z", 0.0))


def test_an_edit_at_a_patch_changes_its_key_alone(model, prompt):
    patch = mm.Patch(2, 3, 0, 1)
    edited = model.edit(mm.Edit("cross_k", 0.0, layer=1, key=patch))
    keys = mm.activations(edited, prompt, "cross_k", layer=1)
    plain = mm.activations(model, prompt, "cross_k", layer=1)
    at = plain.of("key").index(patch)
    assert float(keys.sel(key=patch).values.abs().max()) == 0.0
    rest = [i for i in range(32) if i != at]
    assert torch.equal(keys.values[rest], plain.values[rest])
    scores = mm.activations(edited, prompt, "cross_attn_scores", layer=1)
    assert float(scores.sel(key=patch).values.abs().max()) == 0.0
    with pytest.raises(AddressError, match="no axis 'pos'"):
        model.edit(mm.Edit("cross_k", 0.0, patch))


def test_another_runs_pattern_is_put_in_by_its_labels(model, prompt):
    other = mm.Prompt(photo(WIDE, 9), WORDS)
    theirs = mm.activations(model, other, "cross_pattern", layer=1, key=tile(1))
    edited = model.edit(mm.Edit("cross_pattern", theirs, layer=1))
    now = mm.activations(edited, prompt, "cross_pattern", layer=1)
    own = mm.activations(model, prompt, "cross_pattern", layer=1)
    assert torch.equal(now.sel(key=tile(1)).values, theirs.values)
    assert torch.equal(now.sel(key=tile(0)).values, own.sel(key=tile(0)).values)


def test_a_knockout_from_text_to_a_tile_leaves_what_hugging_face_says_beside_the_other_tile(
    model, prompt, whole
):
    quiet = model.edit(patching.knockout(tile(1), slice(None), across=True))
    first = features(whole, model, photo())[:, :16]
    with torch.no_grad():
        truth = whole.decoder(ids_of(model), encoder_hidden_states=first).logits
    assert near(quiet(prompt), truth) and not near(model(prompt), truth, 1e-3)
    routes = {"tile": (tile(1), slice(None)), "text": (mm.Token, -1), "picture": (mm.Patch, -1)}
    if not model.can("write:attn_mask"):  # transformers 5.9: a route between words cannot be cut
        with pytest.raises(CapabilityError, match="ignores cuts in its attention mask"):
            patching.knockouts(model, prompt, lambda logits: logits[7], routes)
        del routes["text"]
    found = patching.knockouts(model, prompt, lambda logits: logits[7], routes)
    assert float(found.sel(route="tile").values) == pytest.approx(float(truth[0, -1, 7]), abs=1e-4)
    with pytest.raises(AddressError):
        patching.knockouts(model, prompt, lambda x: x[7], {"none": ([mm.Patch(0, 0, 0, 9)], -1)})


def test_words_that_are_cut_off_from_every_patch_read_nothing_across(model, prompt):
    cut = model.edit(patching.knockout(mm.Patch, slice(None), across=True))
    assert float(mm.activations(cut, prompt, "cross_z").values.abs().max()) == 0.0
    silent = model.edit(mm.Edit("cross_z", 0.0))
    assert near(cut(prompt), silent(prompt))
    gradient = mm.attribute(cut, prompt, 7, after="", site="cross_k")
    assert float(gradient.values.abs().max()) == 0.0


# -- what comes from where --------------------------------------------------------------------


def difference(model: HookedVLM, prompt: mm.Prompt, site: str, at: dict[str, Any]) -> float:
    """The change of a logit by a hundredth of what stands at an address, per hundredth."""
    step = 1e-2
    moved = [
        model.edit(mm.Edit(site, lambda x, by=by: x * by, **at)) for by in (1 + step, 1 - step)
    ]
    with torch.no_grad():
        more, less = (float(one(prompt)[0, -1, 7]) for one in moved)
    return (more - less) / (2 * step)


def test_gradient_times_activation_of_patches_is_the_finite_difference(model, prompt):
    scores = mm.attribute(model, prompt, 7, after="", site="soft_prompt").sum("dim")
    assert scores.shape == (2, 16)  # a row per tile
    one_tile = mm.Prompt(photo((SIDE, SIDE)), WORDS)
    by_patch = mm.attribute(model, one_tile, 7, after="", site="soft_prompt").sum("dim")
    for patch in (mm.Patch(0, 1), mm.Patch(3, 2)):
        moved = difference(model, one_tile, "soft_prompt", {"pos": patch})
        assert float(by_patch.sel(pos=patch).values) == pytest.approx(moved, rel=2e-2, abs=1e-4)
    keys = mm.attribute(model, prompt, 7, after="", site="cross_k").sum("dim").sum("head")
    assert keys.of("key") == model.read(prompt).picture_keys.labels[0]
    for patch in (mm.Patch(1, 1, 0, 1), mm.Patch(3, 0)):
        moved = difference(model, prompt, "cross_k", {"key": patch, "layer": 2})
        assert float(keys.sel(layer=2, key=patch).values) == pytest.approx(
            moved, rel=2e-2, abs=1e-4
        )


def test_attributions_of_the_picture_sum_to_what_its_baseline_changes(model, prompt):
    for at in ("soft_prompt", "features", "pixels"):
        scores = mm.attribute_picture(model, prompt, 7, after="", at=at)
        assert scores.of("pos") == (*tile(0), *tile(1))
        assert scores.about["sum"] == pytest.approx(scores.about["change"], rel=2e-2, abs=1e-3)
    covered = mm.attribute_picture(model, prompt, 7, after="", attribution="occlusion")
    kept = model.read(prompt).picture_keys
    mean = kept.vectors[0, :16].mean(0)
    hidden = kept.vectors.clone()
    hidden[0, 5] = mean
    changed = copy.copy(model.read(prompt))
    object.__setattr__(changed, "picture_keys", type(kept)(hidden, kept.mask, kept.labels))
    with torch.no_grad():
        drop = float(model(prompt)[0, -1, 7] - model(changed)[0, -1, 7])
    assert float(covered.values[5]) == pytest.approx(drop, abs=1e-4)


def test_shares_of_a_logit_count_what_is_read_across(model, prompt):
    shares = patching.direct_logits(model, prompt, 7)
    assert [name for name in shares.of("part") if name.startswith("cross")] == [
        "cross 0", "cross 1", "cross 2",
    ]  # fmt: skip
    total = float(shares.values.sum()) + shares.about["bias"]
    with torch.no_grad():
        assert total == pytest.approx(float(model(prompt)[0, -1, 7]), abs=1e-3)
    assert not any(
        p.startswith("cross") for p in patching.direct_logits(model, WORDS, 7).of("part")
    )


def test_a_direct_path_leaves_out_what_later_layers_read_across(model, prompt):
    pair = patching.Pair(prompt, mm.Prompt(photo(WIDE, 5), WORDS))
    head = mm.Head(1, 2)
    found = patching.path_patching(model, pair, lambda logits: logits[7], [head])
    sent = mm.activations(model, pair.clean, "z", layer=1, head=[2])
    z, corrupt = (mm.activations(model, pair.corrupt, "z", layer=1, head=[2]), pair.corrupt)
    weight = model.root.blocks[1].attn.W_O[2]
    write = (sent.values[-1, 0] - z.values[-1, 0]) @ weight  # the last position alone is read
    last = mm.activations(model, corrupt, "resid_post", layer=2, pos=-1).values
    with torch.no_grad():
        wanted = model.lm.logits_of((last + write)[None])[0, 7]
    assert float(found.values[0]) == pytest.approx(float(wanted), abs=1e-4)


def test_noise_falls_on_the_keys_of_the_picture(model, prompt):
    soft: Any = model.read(prompt)
    noisy: Any = patching.soft_noise(model, prompt, pos=tile(1))
    assert torch.equal(noisy.vectors, soft.vectors)
    moved = (noisy.picture_keys.vectors - soft.picture_keys.vectors)[0].norm(dim=-1)
    assert float(moved[:16].max()) == 0.0 and float(moved[16:].min()) > 0
    assert not near(model(noisy), model(prompt), 1e-3)


# -- the planted head, and the painted square -------------------------------------------------


@pytest.mark.parametrize("patch", [mm.Patch(1, 2, 0, 0), mm.Patch(3, 0, 0, 1)])
def test_a_painted_square_moves_its_tile_and_is_where_the_planted_head_looks(planted, patch):
    dark = Image.fromarray(np.random.default_rng(0).integers(0, 60, (32, 64, 3), dtype=np.uint8))
    painted = dark.copy()
    box = tuple(round(v) for v in planted.image_reader.box(planted.vision, patch, *dark.size))
    painted.paste((255, 255, 255), box)
    assert patching.patches_under(planted, np.array(painted)[..., 0] == 255, dark) == [patch]
    before, after = (planted.read(mm.Prompt(one, WORDS)).picture_keys for one in (dark, painted))
    change = (after.vectors - before.vectors)[0].norm(dim=-1)
    assert after.labels[0][int(change.argmax())] == patch
    others = [i for i, label in enumerate(after.labels[0]) if label.crop != patch.crop]
    assert float(change[others].max()) == 0.0
    prompt, head = mm.Prompt(painted, WORDS), toy_cross.PLANTED
    assert planted.provenance["planted"] == str(head)
    pattern = mm.activations(planted, prompt, "cross_pattern", head, query=-1)
    assert pattern.of("key")[int(pattern.values.argmax())] == patch
    assert float(pattern.values.max()) > 0.9
    scores = mm.attribute_picture(planted, prompt, " dog", after="", baseline=0.0)
    assert scores.of("pos")[int(scores.values.argmax())] == patch


def test_the_planted_head_says_its_word_and_cut_off_from_its_patch_it_does_not(planted):
    prompt = mm.Prompt(toy.picture((2, 1)), WORDS)
    assert planted.generate(prompt, 1) == " dog"
    dog = planted.to_single_token(" dog")
    best = mm.attribute(planted, prompt, " dog", after="", site="cross_z").sum("dim").sum("pos")
    assert divmod(int(best.values.argmax()), 4) == (toy_cross.PLANTED.layer, toy_cross.PLANTED.head)
    logit = lambda logits: logits[dog]  # noqa: E731
    routes = {"white": ([mm.Patch(2, 1)], -1), "dark": ([mm.Patch(0, 0)], -1)}
    cut = patching.knockouts(planted, prompt, logit, routes)
    white, dark = (cut.about["clean"] - float(cut.sel(route=r).values) for r in routes)
    assert white > 1 and abs(dark) < 0.1 * white


def test_views_draw_what_the_sites_give(planted):
    picture = toy.picture((2, 1))
    prompt = mm.Prompt(picture, WORDS)
    pattern = mm.activations(planted, prompt, "cross_pattern", layer=1)
    drawn = view.attention_on_image(pattern.sel(head=2, query=[-1]), picture)
    assert "Where each position attends" in drawn and len(drawn) > 2000
    assert view.heatmap(pattern.sel(head=2)).data
    assert view.on_image(mm.attribute_picture(planted, prompt, " dog", after=""), picture).data


# -- what is kept, and what is refused --------------------------------------------------------


def test_copies_keep_the_reader_and_say_the_same(model, prompt):
    again = copy.deepcopy(model)
    assert type(again.image_reader) is toy_cross.TileKeys
    assert torch.equal(again(prompt), model(prompt))


def test_what_would_lose_the_picture_is_refused(model, prompt, tmp_path):
    with pytest.raises(CheckpointError, match="TileKeys"):
        model.save(tmp_path / "saved")
    with pytest.raises(CapabilityError, match="token ids cannot carry them"):
        model.to_tokens(prompt)
    with pytest.raises(CapabilityError, match="none that can be opened"):
        HookedVLM(model.vision, model.projection, mm.load("toy-gptj").lm, name="x",
                  image_reader=CrossReader())  # fmt: skip
    soft: Any = model.read(prompt)
    with pytest.raises(PromptError, match="no cross-attention that could read them"):
        mm.load("toy-gpt2")(soft)
    short = copy.copy(soft)
    object.__setattr__(short, "picture_keys", soft.picture_keys.rows([]))
    with pytest.raises(PromptError, match="do not fit it"):
        model(short)


def test_a_text_model_with_cross_attention_reads_text(model):
    assert isinstance(model.lm.crossing, Crossing)
    words = HookedVLM(None, None, model.lm, name="words")
    assert torch.equal(words(WORDS), model(WORDS))
    assert model.generate(WORDS, 3) == words.generate(WORDS, 3)


def test_a_picture_without_words_is_read_beside_the_first_token(model):
    picture = photo()
    assert [str(label) for label in model.read(mm.Prompt(picture)).labels[0]] == ["<eos>"]
    acts = mm.activations(model, mm.Prompt(picture), "vision.neurons", layer=0)
    assert acts.axes == ("picture", "pos", "unit") and acts.shape[:2] == (2, 16)

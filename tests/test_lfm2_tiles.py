"""LFM2-VL with several tiles and a thumbnail of another size: logits, labels, boxes, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
from bridges import off
from native_twins import photo, twin
from PIL import Image

import mmlens as mm
from mmlens import patching
from mmlens.model.reading import see
from mmlens.values.errors import AddressError, PromptError
from mmlens.values.labels import Token
from mmlens.values.sites import SITES

WIDE, HIGH, LONG, SQUARE, SMALL = (100, 60), (48, 112), (160, 36), (64, 64), (32, 32)
CUT = {WIDE: (2, 3, (2, 3)), HIGH: (5, 2, (4, 1)), LONG: (1, 4, (1, 5)), SQUARE: (2, 2, (2, 2))}
"""Rows and columns of tiles, and the grid of the thumbnail, by the size of the picture."""
WORDS = "A picture of"


@pytest.fixture(scope="module")
def parts():
    import transformers as hf

    whole, processor = twin("lfm2_vl")
    processor.image_processor = hf.Lfm2VlImageProcessor(
        encoder_patch_size=8, tile_size=32, min_image_tokens=4, max_image_tokens=8,
        max_pixels_tolerance=1.0,
    )  # fmt: skip
    return whole, mm.from_model(whole, processor, name="lfm2")


@pytest.fixture(scope="module")
def model(parts):
    return parts[1]


def prompt(size, words: str = WORDS, seed: int = 0) -> mm.Prompt:
    return mm.Prompt(photo(*size, seed), words)


@torch.no_grad()
def theirs(parts, one: mm.Prompt) -> torch.Tensor:
    whole, model = parts
    return whole(**model.prompt_reader.inputs(one)).logits


@pytest.mark.parametrize("size", [*CUT, SMALL])
@torch.no_grad()
def test_logits_are_those_of_the_class_and_a_batch_gives_those_of_its_prompts(parts, size):
    model, one = parts[1], prompt(size)
    assert off(model(one), theirs(parts, one)) < 1e-5
    assert off(model(one), model(prompt(size, seed=1))) > 1e-3
    two = mm.Prompt(photo(*size), "and", photo(*WIDE, 1), "Both show")
    assert off(model(two), theirs(parts, two)) < 1e-5
    batch = [one, prompt(HIGH, "What is this?"), mm.Prompt("A dog")]
    for row, each in zip(model(batch), batch, strict=True):
        alone = model(each)[0]
        assert off(row[-len(alone) :], alone) < 1e-5


@torch.no_grad()
def test_a_text_is_that_of_the_class_with_a_cache_and_without(parts):
    whole, model = parts
    one = prompt(WIDE)
    inputs = model.prompt_reader.inputs(one)
    plain = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    truth = whole.generate(**inputs, **plain)[:, inputs["input_ids"].shape[1] :]
    options = {"stop_at_eos": False, "return_type": "tokens"}
    assert torch.equal(model.generate(one, 8, **options), truth)
    assert torch.equal(model.generate(one, 8, use_past_kv_cache=False, **options), truth)


@pytest.mark.parametrize("size", CUT)
def test_tiles_come_row_by_row_and_the_thumbnail_last_each_with_its_grid(model, size):
    rows, cols, small = CUT[size]
    crops = model.image_reader.layout(model.vision, *size).crops
    assert [one.name for one in crops] == ["tile"] * (rows * cols) + ["thumbnail"]
    assert [one.grid for one in crops] == [(2, 2)] * (rows * cols) + [small]
    wide, high = size[0] / cols, size[1] / rows
    for at, one in enumerate(crops[:-1]):
        row, col = divmod(at, cols)
        assert one.box == pytest.approx(
            (col * wide, row * high, (col + 1) * wide, (row + 1) * high)
        )
    assert crops[-1].box == (0, 0, *size)
    read = model.image_reader.crops(model.vision, photo(*size))
    assert [one.shape[1:] for one in read] == [(16 * r, 16 * c) for r, c in (x.grid for x in crops)]
    labels = model.embed(prompt(size)).labels[0]
    patches = [one for one in labels if isinstance(one, mm.Patch)]
    expected = [
        mm.Patch(row, col, 0, at)
        for at, one in enumerate(crops)
        for row in range(one.grid[0])
        for col in range(one.grid[1])
    ]
    assert patches == expected and len(set(labels)) == len(labels)
    assert all(isinstance(one, mm.Patch | Token) for one in labels)
    with pytest.raises(AddressError, match="no crop 99"):
        model.image_reader.box(model.vision, mm.Patch(0, 0, 0, 99), *size)


@pytest.mark.parametrize("size", [*CUT, SMALL])
@torch.no_grad()
def test_a_painted_square_changes_the_position_whose_box_it_is(model, size):
    picture, reader = photo(*size), model.image_reader
    labels = reader.labels(model.vision, picture, 0)
    painted = [picture]
    for patch in labels:
        box = tuple(round(edge) for edge in reader.box(model.vision, patch, *size))
        new = copy.copy(picture)
        new.paste(Image.new("RGB", (box[2] - box[0], box[3] - box[1]), (255, 0, 255)), box[:2])
        painted.append(new)
    plain, *changed = see(model, [mm.Prompt(one) for one in painted])
    for at, vectors in enumerate(changed):
        change = (vectors - plain).norm(dim=-1)
        same = [i for i, one in enumerate(labels) if one.crop == labels[at].crop]
        assert max(same, key=lambda i: float(change[i])) == at, labels[at]


def test_units_patches_and_tiles_are_asked_in_the_language_model(model):
    one = prompt(WIDE)
    scores = mm.attribute(model, one, 5, after="", point="post")
    assert scores.about["crops"][0]["size"] == [*WIDE]
    assert len(scores.sel(pos=mm.Patch).of("pos")) == 6 * 4 + 6
    best = mm.top_neurons(scores, 1).iloc[0]
    shrunk = model.edit(mm.Edit("neurons", lambda x: x * 0.98, best.neuron, pos=best.patch))
    with torch.no_grad():
        moved = float(model(one)[0, -1, 5].double() - shrunk(one)[0, -1, 5].double())
    assert moved / 0.02 == pytest.approx(float(best.score), abs=1e-4, rel=0.05)
    patches = scores.sel(pos=mm.Patch).of("pos")
    pair = patching.Pair(one, prompt(WIDE, seed=1))
    tiles = {f"crop {n}": [x for x in patches if x.crop == n] for n in range(7)}
    found = patching.patch(model, pair, lambda logits: logits[5], layer=1, pos=tiles)
    assert found.of("pos") == tuple(tiles)


@torch.no_grad()
def test_edits_of_the_encoder_act_in_crops_of_every_size_as_hooks_of_the_class_do(parts):
    """The class reads all crops as one padded batch [crop, patch, ...]."""
    whole, model = parts
    one, unit, tile = prompt(WIDE), mm.Neuron(0, 3, "vision"), mm.Patch(1, 2, crop=4)
    layers = whole.model.vision_tower.encoder.layers
    fc2 = layers[0].mlp.fc2

    def of_class(part, change):
        with part.register_forward_pre_hook(lambda module, args: (change(args[0].clone()),)):
            return theirs(parts, one)

    def unit_off(x):
        x[..., 3] = 0
        return x

    def thumbnail_off(x):
        x[6, :, 3] = 0
        return x

    def patch_off(x):
        x[4, 4 * 1 + 2] = 0
        return x

    every = model.edit(mm.Edit("vision.neurons", 0.0, unit))
    assert off(every(one), of_class(fc2, unit_off)) < 1e-5
    assert off(every(one), model(one)) > 1e-3
    small = list(model.picture_rows([one], SITES["vision.neurons"], 0)[6])
    assert {x.crop for x in small} == {6} and len(small) == 24
    last = model.edit(mm.Edit("vision.neurons", 0.0, unit, pos=small))
    assert off(last(one), of_class(fc2, thumbnail_off)) < 1e-5
    assert off(last(one), every(one)) > 1e-4
    patch = model.edit(mm.Edit("vision.neurons", 0.0, layer=0, pos=tile))
    assert off(patch(one), of_class(fc2, patch_off)) < 1e-5
    gone = model.edit(mm.Edit("soft_prompt", 0.0))
    assert off(gone(one), model.edit(mm.Edit("embed", 0.0, pos=mm.Patch))(one)) < 1e-6
    assert gone.generate(one, 4) == gone.generate(one, 4, use_past_kv_cache=False)
    two = mm.Prompt(photo(*WIDE), "and", photo(*HIGH, 1), "Both show")
    one_tile = mm.Patch(0, 1, image=1, crop=2)
    vectors = model.edit(mm.Edit("soft_prompt", 0.0, pos=one_tile)).embed(two)
    plain = model.embed(two)
    changed = (vectors.vectors != plain.vectors).any(-1)[0]
    assert [x for x, new in zip(plain.labels[0], changed, strict=True) if new] == [one_tile]
    batch = [one, prompt(HIGH, "What is this?"), mm.Prompt("A dog"), prompt(SMALL)]
    for row, each in zip(every(batch), batch, strict=True):
        alone = every(each)[0]
        assert off(row[-len(alone) :], alone) < 1e-5
    with pytest.raises(AddressError, match="no pos"):
        model.edit(mm.Edit("vision.neurons", 0.0, layer=0, pos=mm.Patch(9, 9)))(one)


@torch.no_grad()
def test_activations_of_one_crop_are_those_of_the_class(parts):
    """The class reads all crops as one padded batch: six tiles of 16 patches and a thumbnail."""
    whole, model = parts
    one, layers = prompt(WIDE), whole.model.vision_tower.encoder.layers
    read = {}
    with layers[1].mlp.fc2.register_forward_pre_hook(lambda m, args: read.update(units=args[0])):
        theirs(parts, one)
    for crop, n in ((0, 16), (4, 16), (6, 24), (-1, 24)):
        found = mm.activations(model, one, "vision.neurons", layer=1, picture=crop)
        assert found.shape == (n, read["units"].shape[-1])
        assert off(found.values, read["units"][crop, :n]) < 1e-5
        assert {label.crop for label in found.of("pos")} == {crop % 7}
    unit = mm.activations(model, one, mm.Neuron(1, 3, "vision"), picture=6)
    assert torch.equal(unit.values, found.sel(unit=3).values)
    both = mm.activations(model, one, "vision.resid_post", picture=6)
    assert both.axes == ("layer", "pos", "dim")
    pattern = mm.activations(model, one, "vision.pattern", layer=0, picture=6)
    assert pattern.shape[-2:] == (24, 24)
    with pytest.raises(PromptError, match="7 pictures or crops of several sizes"):
        mm.activations(model, one, "vision.neurons", layer=1)
    with pytest.raises(PromptError, match="7 pictures or crops of several sizes"):
        mm.activations(model, one, "vision.neurons", layer=1, picture=7)
    # a hook of the caller's, which does not ask which crops it sees, is refused as before
    with (
        model.hooks([("vision.hook_embed", lambda x, hook: x)]),
        pytest.raises(PromptError, match="see all crops at once"),
    ):
        mm.activations(model, one, "vision.neurons", layer=1, picture=0)


def test_hooks_of_the_encoder_are_refused_where_crops_have_several_sizes_and_act_elsewhere(parts):
    whole, model = parts
    for ask in (
        lambda one: mm.attribute_picture(model, one, 5, after="", at="pixels"),
        lambda one: mm.attribute_picture(model, one, 5, after=""),
        lambda one: model.run_with_hooks(one, [("vision.hook_embed", lambda x, hook: x)]),
    ):
        with pytest.raises(PromptError, match="of 100 x 60 pixels is cut into tiles and a thumb"):
            ask(prompt(WIDE))
    square = mm.activations(model, prompt(SQUARE), "vision.resid_post", layer=1)
    assert square.axes == ("picture", "pos", "dim") and square.values.shape == (5, 16, 24)
    pixels = mm.attribute_picture(model, prompt(SQUARE), 5, after="", at="pixels")
    assert len(pixels.of("pos")) == 5 * 4 and float(pixels.values.abs().sum()) > 0
    processor = copy.deepcopy(model.prompt_reader.processor)
    processor.image_processor.use_thumbnail = False
    tiled = mm.from_model(whole, processor)
    seen = mm.activations(tiled, prompt(WIDE), "vision.resid_post", layer=1)
    assert seen.values.shape == (6, 16, 24)
    assert off(tiled(prompt(WIDE)), theirs((whole, tiled), prompt(WIDE))) < 1e-5


def test_a_setting_that_leaves_pictures_whole_gives_one_grid(parts):
    whole, model = parts
    processor = copy.deepcopy(model.prompt_reader.processor)
    processor.image_processor.do_image_splitting = False
    plain = mm.from_model(whole, processor)
    assert plain.can("grid") and not model.can("grid")
    [crop] = plain.image_reader.layout(plain.vision, *WIDE).crops
    assert (
        crop.name == "picture"
        and off(plain(prompt(WIDE)), theirs((whole, plain), prompt(WIDE))) < 1e-5
    )

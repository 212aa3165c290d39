"""Layouts that are no single grid: tiles and newlines are labelled, edited and knocked out."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from dual_twins import DUALS
from packaging.version import Version
from PIL import Image
from verb_calls import KINDS, calls, refusals, verbs

import mmlens as mm
from mmlens import patching, view
from mmlens.families.llava_next import AnyResolution
from mmlens.families.toy_tiled import GRID, twin
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.patching import only_at, patches_under, shuffled
from mmlens.values.errors import AddressError, MMLensError
from mmlens.values.labels import Marker

WORDS = " A picture of"
TL3 = Version(version("transformer-lens")) < Version("4")
EDGES = "granularity='node' only" if TL3 else "n_key_value_heads=2"
"""Why edge attribution refuses the tiled toy: TransformerLens 3 attributes to nodes alone."""
WIDE, HIGH = (64, 32), (32, 64)


def photo(size: tuple[int, int], seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).random((size[1] // 4, size[0] // 4, 3)) * 255
    return Image.fromarray(noise.astype("uint8")).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def parts() -> tuple[Any, HookedVLM, Any]:
    return twin()


@pytest.fixture(scope="module")
def model(parts) -> HookedVLM:
    return parts[1]


@pytest.mark.parametrize("size", [WIDE, HIGH])
def test_logits_are_those_of_the_whole_model(parts, size):
    whole, model, processor = parts
    picture = photo(size)
    seen = processor.image_processor(picture, return_tensors="pt")
    crops = torch.stack(model.image_reader.crops(model.vision, picture))[None]
    assert torch.equal(crops, seen["pixel_values"])
    ids = torch.tensor(model.tokenizer(WORDS, add_special_tokens=False)["input_ids"])
    n = len(model.image_reader.labels(model.vision, picture, 0))
    ids = torch.cat([torch.full((n,), whole.config.image_token_index), ids])[None]
    with torch.no_grad():
        truth = whole(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=crops,
            image_sizes=seen["image_sizes"],
        ).logits  # fmt: skip
        ours = model(mm.Prompt(picture, WORDS))
    assert ours.shape == truth.shape
    assert (ours - truth).abs().max() <= 1e-5 * truth.abs().max()


def test_every_position_has_its_label_in_the_order_of_the_layout(model):
    labels = model.embed(mm.Prompt(photo(WIDE), WORDS)).labels[0]
    base, tiled = labels[: GRID * GRID], labels[GRID * GRID :]
    assert base[5] == mm.Patch(1, 1) and all(one.crop == 0 for one in base)
    row = tiled[: 2 * GRID + 1]
    assert [one.crop for one in row[: 2 * GRID]] == [1] * GRID + [2] * GRID
    assert isinstance(row[-1], Marker) and str(row[-1]) == "[newline]"
    assert [str(Marker(name, 3)) for name in ("query", "latent")] == ["[query 3]", "[latent 3]"]
    assert sum(isinstance(one, Marker) for one in labels) == GRID
    assert str(mm.Patch(0, 3, 0, 2)) == "(0, 3) of crop 2"


def crop_of(label: Any) -> int | None:
    return label.crop if isinstance(label, mm.Patch) else None


def test_a_painted_square_changes_the_patches_whose_box_it_is_and_no_newline(model):
    picture = photo(WIDE)
    before = model.embed(mm.Prompt(picture))
    reader = model.image_reader
    for patch in (mm.Patch(0, 0, 0, 1), mm.Patch(2, 3, 0, 2), mm.Patch(3, 0)):
        box = tuple(round(v) for v in reader.box(model.vision, patch, *picture.size))
        painted = copy.copy(picture)
        painted.paste((255, 0, 255), box)
        change = (model.embed(mm.Prompt(painted)).vectors - before.vectors)[0].norm(dim=-1)
        same = [i for i, one in enumerate(before.labels[0]) if crop_of(one) == patch.crop]
        best = max(same, key=lambda i: float(change[i]))
        assert before.labels[0][best] == patch
        markers = [i for i, one in enumerate(before.labels[0]) if isinstance(one, Marker)]
        assert float(change[markers].max()) == 0.0


def test_masks_and_corrupters_meet_the_tiles_of_a_picture_where_they_lie(model):
    picture = photo(WIDE)
    mask = np.zeros((picture.height, picture.width), bool)
    mask[8:16, 40:48] = True  # a square of the second tile, which the base grid sees half as wide
    found = patches_under(model, mask, picture)
    assert mm.Patch(1, 1, 0, 2) in found and all(one.crop in (0, 2) for one in found)
    change = only_at(model, lambda image: Image.new("RGB", image.size, (255, 0, 255)), found[-1:])
    pixels = np.asarray(change(picture)) != np.asarray(picture)
    assert pixels.any(-1).any() and not pixels.any(-1)[~mask].any()
    mixed = np.asarray(shuffled(model)(picture)).reshape(-1, 3)
    assert sorted(map(tuple, mixed)) == sorted(map(tuple, np.asarray(picture).reshape(-1, 3)))


def test_a_knockout_from_text_to_a_tile_cuts_that_tile_alone(model):
    prompt = mm.Prompt(photo(WIDE), WORDS)
    soft = model.embed(prompt)
    tile = [one for one in soft.labels[0] if isinstance(one, mm.Patch) and one.crop == 2]
    cut = model.edit(patching.knockout(tile, -1))
    pattern = mm.activations(cut, prompt, "pattern", layer=1, query=-1)
    there = pattern.sel(key=tile).values.abs().max()
    other = [one for one in soft.labels[0] if isinstance(one, mm.Patch) and one.crop == 1]
    assert float(there) < 1e-30 and float(pattern.sel(key=other).values.min()) > 0
    assert not torch.equal(cut(prompt)[0, -1], model(prompt)[0, -1])


def test_an_edit_inside_the_encoder_reaches_the_crop_that_it_names(model):
    prompt = mm.Prompt(photo(WIDE), WORDS)
    edited = model.edit(mm.Edit("vision.resid_post", 0.0, layer=0, pos=mm.Patch(1, 2, 0, 2)))
    kept: list[torch.Tensor] = []
    edited.run_with_hooks(
        prompt, [("vision.blocks.0.hook_resid_post", lambda x, hook: kept.append(x))]
    )
    zero = (kept[0] == 0).all(-1).nonzero().tolist()
    assert zero == [[2, 1 + 1 * GRID + 2]]  # crop 2, behind CLS


def test_attribution_labels_its_positions_by_the_layout(model):
    prompt = mm.Prompt(photo(WIDE), WORDS)
    scores = mm.attribute(model, prompt, of=5, after="", point="post")
    assert scores.of("pos") == model.embed(prompt).labels[0]
    tiles = scores.sel(pos=mm.Patch)
    assert len(tiles.of("pos")) == 3 * GRID * GRID
    best = scores.to_frame(1).iloc[0]
    unit, at = mm.Neuron(int(best["layer"]), int(best["unit"])), best["pos"]
    shrunk = model.edit(mm.Edit("neurons", lambda x: x * 0.999, unit, pos=at))
    change = (model(prompt) - shrunk(prompt))[0, -1, 5].item() / 1e-3
    assert change == pytest.approx(float(best["score"]), rel=2e-2)


def test_the_vision_tower_reads_a_row_per_crop(model):
    prompt = mm.Prompt(photo(WIDE), WORDS)
    acts = mm.activations(model, prompt, "vision.neurons", layer=0)
    assert acts.axes == ("picture", "pos", "unit") and acts.shape[0] == 3
    assert isinstance(model.image_reader, AnyResolution)


COMPARES = "a model that compares pictures with texts"
NAMES = "neither compares pictures with texts nor has classes"
SUMS = (
    "mmlens.bilinear_attribution",
    "mmlens.decompose",
    "mmlens.head_moments",
    "mmlens.text_span",
)
DENOISES = {"mmlens.cross_attention_maps": "a model that makes pictures or sounds out of noise"}
SIMILAR = (
    dict.fromkeys(
        ("mmlens.embed", "mmlens.picture_similarity", "mmlens.zero_shot", *SUMS), COMPARES
    )
    | dict.fromkeys(("mmlens.blank_check", "mmlens.stroop", "mmlens.typographic_attack"), NAMES)
    | DENOISES
)

REFUSED = {
    "toy-tiled": {
        **SIMILAR,
        "mmlens.patching.edge_attribution": EDGES,
        "mmlens.relevance.covering_curves": "1 pictures in 3 crops",
    },
    "toy-cross": {
        **SIMILAR,
        "mmlens.alignment": "every picture among the positions",
        "mmlens.look": "every picture among the positions",
        "mmlens.projection_probe": "every picture among the positions",
        "mmlens.modality_importance": "of the modality 'picture'",
        "mmlens.neuron_graph": "every picture among the positions",
        "mmlens.attribution_graph": "every picture among the positions",
        "mmlens.attribute_caption": "pictures of 'toy-cross' are no positions",
        "mmlens.patching.edge_attribution": "every picture among the positions",
        "mmlens.patching.project_away": "every picture among the positions",
        "mmlens.relevance.covering_curves": "1 pictures in 2 crops",
        "mmlens.relevance.lens_map": "every picture among the positions",
        "mmlens.relevance.noise_map": "every picture among the positions",
        "mmlens.relevance.lrp": "every picture among the positions",
        "mmlens.relevance.tam": "every picture among the positions",
        "mmlens.top_images": "neurons of its encoder",
    },
}
"""Per toy, the verbs that do not take its layout, and a part of the sentence that says so."""
WORDS_ALONE = {
    **DENOISES,
    **dict.fromkeys(
        ("mmlens.attribute_caption", "mmlens.attribution_graph", "mmlens.contributions",
         "mmlens.neuron_graph", "mmlens.module_influence", "mmlens.next_labels",
         "mmlens.patching.edge_attribution", "mmlens.patching.knockouts",
         "mmlens.patching.path_patching", "mmlens.patching.rewrite",
         "mmlens.patching.rewrite_in_sequence", "mmlens.patching.soft_noise",
         "mmlens.patching.thing_pairs", "mmlens.relevance.noise_map",
         "mmlens.relevance.tam", "mmlens.stream_before",
         "mmlens.projection_probe", "mmlens.text_neurons"),
        "needs a model that predicts the next token",
    ),
    **dict.fromkeys(
        ("mmlens.attention_lens", "mmlens.contextual_index", "mmlens.contextual_neighbours",
         "mmlens.decode", "mmlens.head_lens", "mmlens.logit_lens", "mmlens.jacobian_lens",
         "mmlens.nearest_tokens", "mmlens.patchscope", "mmlens.stream_map", "mmlens.tuned_lens",
         "mmlens.patching.direct_logits", "mmlens.patching.project_away",
         "mmlens.patching.word", "mmlens.patching.word_state", "mmlens.relevance.lens_map"),
        "needs a model that has an unembedding",
    ),
    **dict.fromkeys(
        ("mmlens.active_share", "mmlens.modality_importance", "mmlens.sink_units"),
        "needs a model that has MLP units in its language model",
    ),
    **dict.fromkeys(
        ("mmlens.patching.captions", "mmlens.compare_outputs", "mmlens.hallucination",
         "mmlens.decoding.contrast", "mmlens.decoding.trust_penalty"),
        "needs a model that generates text",
    ),
    "mmlens.patching.attention": "needs a model that has a language model or a denoiser",
    **dict.fromkeys(
        ("mmlens.alignment", "mmlens.patching.written_by"),
        "needs a model that has a language model of blocks",
    ),
}  # fmt: skip
"""What only a model with a language model answers."""
NO_ATTENTION = dict.fromkeys(
    (
        "mmlens.relevance.chefer",
        "mmlens.relevance.grad_eclip",
        "mmlens.relevance.lrp",
        "mmlens.relevance.rollout",
    ),
    "never holds an attention pattern",
)
CLASSES = dict.fromkeys(("mmlens.blank_check", "mmlens.typographic_attack"), "No class is called")
ENCODERS: dict[str, dict[str, str]] = {
    "transformers CLIP": WORDS_ALONE,
    "pictos-clip": WORDS_ALONE
    | dict.fromkeys(("mmlens.head_moments", "mmlens.text_span"), "has no 'vision.attn_out'")
    | NO_ATTENTION,
    "classes": WORDS_ALONE
    | dict.fromkeys(
        ("mmlens.embed", "mmlens.picture_similarity", "mmlens.zero_shot", *SUMS), COMPARES
    )
    | {"mmlens.stroop": "No class is called"}
    | CLASSES
    | NO_ATTENTION,
}
"""The same of encoders; classes of a classifier have names of their own."""


def encoder(name: str) -> Any:
    if name == "classes":
        torch.manual_seed(0)
        small = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_classes": 9}
        net = pytest.importorskip("timm").create_model("convnext_atto", **small)
        return mm.from_parts(vision=net.eval())
    pytest.importorskip("open_clip")
    return mm.load(name) if name not in DUALS else mm.from_model(*DUALS[name](), name=name)


@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_has_a_call_that_the_models_are_asked(kind):
    assert set(calls(kind)) == set(verbs())


@pytest.mark.parametrize("name", REFUSED | ENCODERS)
@pytest.mark.filterwarnings("ignore")
def test_every_verb_answers_on_a_layout_or_refuses_it_in_one_sentence(name, monkeypatch):
    model = mm.load(name) if name in REFUSED else encoder(name)
    kind = "words" if name in REFUSED else "classes" if name == "classes" else "similarity"
    refused = refusals(model, monkeypatch, kind)
    expected = (REFUSED | ENCODERS)[name]
    assert set(refused) == set(expected), {k: v for k, v in refused.items() if k not in expected}
    for verb, sentence in expected.items():
        assert sentence in refused[verb]


@pytest.mark.parametrize("name", REFUSED)
def test_boxes_of_patches_are_those_of_the_layout(name):
    model = mm.load(name)
    tiles = 1 if name == "toy-tiled" else 0  # behind the thumbnail
    patch = mm.Patch(1, 2, 0, tiles + 1)
    picture = photo(WIDE)
    there = (32 + 2 * 8, 8, 32 + 3 * 8, 16)
    mask = np.zeros((32, 64), bool)
    mask[there[1] : there[3], there[0] : there[2]] = True
    assert patch in patching.patches_under(model, mask, picture)
    changed = patching.only_at(model, patching.grey(), [patch])(picture)
    different = (np.asarray(changed) != np.asarray(picture)).any(-1)
    assert different[mask].any() and not different[~mask].any()
    mixed = np.asarray(patching.shuffled(model)(picture)).reshape(-1, 3)
    plain = np.asarray(picture).reshape(-1, 3)
    assert np.array_equal(np.sort(mixed, 0), np.sort(plain, 0))  # the same pixels elsewhere
    with pytest.raises(AddressError, match="outside the grid of 4 x 4"):
        patching.only_at(model, patching.grey(), [mm.Patch(9, 9)])(picture)


@pytest.fixture(scope="module")
def scores(model) -> mm.Scores:
    return mm.attribute_picture(model, mm.Prompt(photo(WIDE), WORDS), 5, after="")


def test_tiles_are_drawn_where_they_lie_in_the_picture(model, scores):
    picture, reader = photo(WIDE), model.image_reader
    drawn = view.on_image(scores, picture).data[0]  # a heat map in pixels of the picture
    assert drawn.z.shape == (GRID, 2 * GRID)
    tiles = [one for one in scores.of("pos") if one.crop]
    for patch in tiles:
        x0, y0, x1, y1 = reader.box(model.vision, patch, *picture.size)
        col, row = (list(axis).index((a + b) / 2) for axis, a, b in
                    ((drawn.x, x0, x1), (drawn.y, y0, y1)))  # fmt: skip
        assert drawn.z[row, col] == pytest.approx(float(scores.sel(patch).values))
    told = view.on_image(scores, picture).layout.title.subtitle.text.replace("<br>", " ")
    assert "drawn: the tiles" in told


def test_the_thumbnail_or_one_tile_is_drawn_by_name(scores):
    picture = photo(WIDE)
    small = view.on_image(scores, picture, crop="thumbnail").data[0]
    assert small.z.shape == (GRID, GRID) and small.x[0] == 32 / GRID  # over the whole picture
    one = view.on_image(scores, picture, crop=2).data[0]
    assert one.x[0] == 32 + 16 / GRID and one.x[-1] < 64
    with pytest.raises(AddressError, match="'tiles', 'thumbnail', or write the number"):
        view.on_image(scores, picture, crop="tile")
    bare = mm.Scores(scores.values, scores.axes, scores.labels)
    with pytest.raises(AddressError, match="does not say where they lie: choose one"):
        view.on_image(bare, picture)
    assert view.on_image(bare, picture, crop=2, box=(32, 0, 64, 32)).data


def test_views_of_tiles_survive_saving_and_other_sizes_of_the_photo(scores, tmp_path):
    again = mm.Scores.load(scores.save(tmp_path / "scores.safetensors"))
    large = photo(WIDE).resize((256, 128))
    assert view.on_image(large, again).data[0].x[-1] == 256 - 128 / GRID / 2


def test_look_shows_tiles_and_thumbnail_and_queries_as_a_list(model):
    seen = mm.look(model, photo(WIDE), WORDS, caption=" dog", full=True)
    page = json.loads(seen.to_html().split('id="p0">')[1].split("</script>")[0])
    names = {one["name"]: one for one in page["levels"]}
    assert list(names) == ["tiles", "thumbnail"] and names["tiles"]["grid"] == [GRID, 2 * GRID]
    assert names["tiles"]["window"] == names["thumbnail"]["window"] == [0, 0, 100, 100]
    cells = [one["patches"] for one in page["levels"]]
    assert all((a is None) != (b is None) for a, b in zip(*cells, strict=True))
    queries = tuple(Marker("query", at) for at in range(10))
    maps = mm.Scores(torch.rand(1, 10), ("token", "pos"), {"token": (seen.token,), "pos": queries})
    acts = mm.Scores(torch.rand(1, 10), ("neuron", "pos"),
                     {"neuron": (mm.Neuron(0, 1),), "pos": queries})  # fmt: skip
    table = seen.table.head(1).assign(patch=[queries[3]], neuron=[mm.Neuron(0, 1)])
    listed = replace(seen, maps=maps, activations=acts, table=table, lens=None, firing=None,
                     decoded=None, without=None)  # fmt: skip
    page = json.loads(listed.to_html().split('id="p0">')[1].split("</script>")[0])
    (one,) = page["levels"]
    assert one["name"] == "list" and one["grid"] == [2, 8] and one["patches"][9] == [1, 1]
    assert page["tops"][0][0]["at"] == 3


def test_copies_keep_how_pictures_are_read_and_saving_says_that_it_cannot(model, tmp_path):
    again = copy.deepcopy(model)
    prompt = mm.Prompt(photo(WIDE), WORDS)
    assert torch.equal(again(prompt), model(prompt))
    with pytest.raises(MMLensError, match="is not saved here: write save_pretrained"):
        model.save(tmp_path / "saved")

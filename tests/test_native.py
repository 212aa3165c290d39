"""Whole vision-language models of transformers: what must hold of the twin of every family."""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from bridges import off
from native_rows import native_row, stored_rows
from native_twins import CROSSING, TWINS, photo, twin
from packaging.version import Version
from PIL import Image
from verb_calls import calls, refusals, verbs

import mmlens as mm
from mmlens.families.blip2 import PictureFirst
from mmlens.families.native import since
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.reading import see
from mmlens.values.errors import (
    AddressError,
    CapabilityError,
    MMLensError,
    ModelError,
    PromptError,
)
from mmlens.values.labels import Marker, Token

WIDE, HIGH, SQUARE = (60, 40), (40, 72), (32, 32)
WORDS = "A picture of"
every_family = pytest.mark.parametrize("name", [one for one in TWINS if one not in CROSSING])
every_twin = pytest.mark.parametrize("name", TWINS)


@cache
def parts(name: str) -> tuple[Any, Any, HookedVLM]:
    """A twin, its processor, and the hooked model of both; made once."""
    whole, processor = twin(name)
    if Version(transformers.__version__) < Version(since(whole.config)):
        pytest.skip(f"read with transformers {since(whole.config)} or later")
    return whole, processor, mm.from_model(whole, processor, name=name)


asked = cache(calls)
"""What every verb is asked, made once."""


def prompt(size: tuple[int, int] = WIDE, words: str = WORDS, seed: int = 0) -> mm.Prompt:
    return mm.Prompt(photo(*size, seed), words)


@torch.no_grad()
def theirs(name: str, one: mm.Prompt) -> torch.Tensor:
    """The logits of the class's own forward pass, pixels and all."""
    whole, _, model = parts(name)
    return whole(**model.prompt_reader.inputs(one)).logits


def with_units(model: HookedVLM) -> list[int]:
    """The layers that have MLP units; others are mixtures of experts."""
    return [at for at, layer in enumerate(model.lm.units.layers) if layer.width]


def seen_by(model: HookedVLM) -> type:
    """The kind of label that the positions of pictures have."""
    return mm.Patch if model.image_reader.placed else Marker


@every_twin
@torch.no_grad()
def test_logits_are_those_of_the_class_itself_at_every_aspect_ratio(name):
    model = parts(name)[2]
    for size in (WIDE, HIGH, SQUARE):
        one = prompt(size)
        assert off(model(one), theirs(name, one)) < 1e-5
    assert off(model(prompt()), model(prompt(seed=1))) > 1e-3
    other = WIDE if model.image_reader.coded else HIGH  # a class of codes pads them to one size
    two = mm.Prompt(photo(*WIDE), "and", photo(*other, seed=1), "Both show")
    if isinstance(model.prompt_reader, PictureFirst):
        with pytest.raises(PromptError, match="reads one picture, before the words"):
            model(two)
        return
    assert off(model(two), theirs(name, two)) < 1e-5


@every_family
@torch.no_grad()
def test_a_batch_gives_the_numbers_of_its_prompts_alone(name):
    model = parts(name)[2]
    batch = [prompt(WIDE), prompt(HIGH, "What is this?"), mm.Prompt("A dog")]
    together = model(batch)
    for row, one in zip(together, batch, strict=True):
        alone = model(one)[0]
        assert off(row[-len(alone) :], alone) < 1e-5


@pytest.mark.parametrize("name", ["llava", "gemma3", "mllama", "idefics", "qwen3_vl_moe"])
@torch.no_grad()
def test_a_batch_in_double_precision_is_its_prompts_alone(name):
    """Kernels whose softmax is in float32 make -inf of the lowest float64: NaN for padding.

    And the grouped product of experts takes no float64.
    """
    parts(name)  # or skip
    whole, processor = twin(name)
    model = mm.from_model(whole, processor, dtype="float64")
    assert model.lm.dtype == torch.float64 and model.lm.padded.error < 1e-6
    batch = [prompt(), prompt(words="What is this?"), prompt(words="A")]
    for row, one in zip(model(batch), batch, strict=True):
        alone = model(one)[0]
        assert off(row[-len(alone) :], alone) < 1e-5
    cast = mm.from_model(whole, processor).to(torch.float64)
    assert off(cast(batch[0]), model(batch[0])) < 1e-5


@every_family
def test_cached_generation_is_that_of_the_class_and_of_no_cache(name):
    whole, _, model = parts(name)
    one = prompt()
    inputs = model.prompt_reader.inputs(one)
    plain = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
    truth = whole.generate(**inputs, **plain)[:, inputs["input_ids"].shape[1] :]
    options = {"stop_at_eos": False, "return_type": "tokens"}
    assert torch.equal(model.generate(one, 20, **options), truth)
    uncached = model.generate(one, 8, use_past_kv_cache=False, **options)
    assert torch.equal(uncached, truth[:, :8])
    site = "neurons" if model.can("neurons") else "mlp_out"  # of a mixture of experts
    edited = model.edit(mm.Edit(site, 0.0, layer=0, pos=seen_by(model)))
    said = [edited.generate(one, 6, use_past_kv_cache=cached) for cached in (True, False)]
    assert said[0] == said[1]
    pair = [one, prompt(HIGH, "What is this?")]
    assert model.generate(pair, 6) == [model.generate(each, 6) for each in pair]


def coded_by(model: HookedVLM, prompts: list[mm.Prompt]) -> list[torch.Tensor]:
    """What codes are chosen by, at each position of a picture; a change may leave the code.

    Random kernels move what they see, so that only their centres are kept, or squares where they
    go in steps of two.
    """
    reader, found = model.image_reader, []
    model = copy.deepcopy(model)
    for conv in model.vision.module.modules():
        if getattr(conv, "kernel_size", ())[-2:] == (3, 3):
            centre = conv.weight[..., 1:2, 1:2].clone()
            square = slice(2) if conv.stride == (2, 2) else slice(1, 2)  # all that it skips over
            conv.weight.zero_()[..., square, square] = centre
    for one in prompts:
        [picture] = one.pictures
        patches = [isinstance(x, mm.Patch) for x in reader.labels(model.vision, picture, 0)]
        features = model.vision(torch.stack(reader.crops(model.vision, picture)))[0]
        found.append(torch.zeros(len(patches), features.shape[1]))
        found[-1][patches] = features
    return found


@every_family
@torch.no_grad()
@pytest.mark.parametrize("size", [WIDE, HIGH])
def test_a_painted_square_changes_the_position_whose_box_it_is(name, size):
    model = parts(name)[2]
    picture = photo(*size)
    if not model.image_reader.placed:
        with pytest.raises(AddressError, match="lies nowhere in it"):
            model.image_reader.box(model.vision, mm.Patch(0, 0), *size)
        return
    labels = model.image_reader.labels(model.vision, picture, 0)
    patches = {at: one for at, one in enumerate(labels) if isinstance(one, mm.Patch)}
    painted, asked = [picture], []
    for at, patch in patches.items():
        box = model.image_reader.box(model.vision, patch, *size)
        inside = [round(min(max(edge, 0), size[i % 2])) for i, edge in enumerate(box)]
        area = (inside[2] - inside[0]) * (inside[3] - inside[1])
        if area < 0.5 * (box[2] - box[0]) * (box[3] - box[1]):
            continue  # mostly padding
        new = copy.copy(picture)
        old = new.crop(tuple(inside))
        paint = Image.new("RGB", old.size, (255, 0, 255))
        mild = model.image_reader.coded  # whose norms are over the whole picture
        new.paste(Image.blend(old, paint, 0.1) if mild else paint, tuple(inside[:2]))
        painted, asked = [*painted, new], [*asked, at]
    look = coded_by if model.image_reader.coded else see
    plain, *changed = look(model, [mm.Prompt(one) for one in painted])
    markers = [at for at, one in enumerate(labels) if isinstance(one, Marker)]
    assert len(asked) >= 4
    for at, vectors in zip(asked, changed, strict=True):
        change = (vectors - plain).norm(dim=-1)
        same = [i for i, one in patches.items() if one.crop == patches[at].crop]
        assert max(same, key=lambda i: float(change[i])) == at, patches[at]
        assert not markers or float(change[markers].max()) == 0.0


@every_family
def test_every_kind_of_position_has_its_label(name):
    _, processor, model = parts(name)
    one = prompt()
    ids = model.prompt_reader.inputs(one)["input_ids"][0].tolist()
    labels = model.embed(one).labels[0]
    pictured = model.prompt_reader.pictured(ids)
    assert all(seen for seen, token in zip(pictured, ids, strict=True)
               if token == model.prompt_reader.image_id)  # fmt: skip
    for at, (token, seen, label) in enumerate(zip(ids, pictured, labels, strict=True)):
        if seen:
            assert isinstance(label, mm.Patch | Marker)
        else:
            assert isinstance(label, Token) and label.at == at
            assert label.text.strip() in processor.tokenizer.decode([token])
    assert len(set(labels)) == len(labels)


@every_family
def test_attribution_is_the_effect_and_reaches_the_pixels(name):
    model, one = parts(name)[2], prompt()
    if model.can("neurons"):
        scores = mm.attribute(model, one, 5, after="", point="post", layer=with_units(model))
        best = mm.top_neurons(scores, 1).iloc[0]
        shrunk = model.edit(mm.Edit("neurons", lambda x: x * 0.98, best.neuron, pos=best.patch))
        with torch.no_grad():
            moved = float(model(one)[0, -1, 5].double() - shrunk(one)[0, -1, 5].double())
        assert moved / 0.02 == pytest.approx(float(best.score), abs=1e-4, rel=0.05)
    if model.image_reader.coded:
        with pytest.raises(CapabilityError, match="through which no gradient passes"):
            mm.attribute_picture(model, one, 5, after="", at="pixels")
    options = {"at": "pixels", "attribution": "occlusion"} if model.image_reader.coded else {}
    pixels = mm.attribute_picture(model, one, 5, after="", **{"at": "pixels", **options})
    assert torch.isfinite(pixels.values).all() and pixels.values.abs().max() > 0


@every_family
@torch.no_grad()
def test_patching_everything_gives_the_other_run_and_the_last_lens_the_model(name):
    model = parts(name)[2]
    one, other = prompt(), prompt(seed=1)
    last = model.cfg.n_layers - 1
    clean = mm.activations(model, one, "resid_post", layer=last)
    assert off(model.edit(mm.Edit("resid_post", clean, layer=last))(other), model(one)) < 1e-5
    lens = mm.logit_lens(model, one, [5], layer=last, pos=-1)
    truth = float(model(one)[0, -1].softmax(-1)[5])
    assert lens.values.item() == pytest.approx(truth, abs=1e-6)


@every_family
@torch.no_grad()
def test_hooks_of_vision_and_projection_and_edits_at_patches_act(name):
    model, one = parts(name)[2], prompt()
    plain = model(one)
    every = [h for h in model.hook_dict if h.startswith(("vision", "projection"))]
    for hook in (*every[::5], *every[-2:]):
        draw = torch.Generator().manual_seed(0)

        def change(x, hook, draw=draw):
            return x * (0.5 + torch.rand(x.shape, generator=draw))

        assert off(model.run_with_hooks(one, [(hook, change)]), plain) > 0, hook
    zero = model.edit(mm.Edit("embed", 0.0, pos=seen_by(model)))
    logits, kept = zero.run_with_cache(one)
    patches = [isinstance(label, seen_by(model)) for label in model.embed(one).labels[0]]
    assert kept["hook_embed"][0, patches].abs().max() == 0
    assert kept["hook_embed"][0, -1].abs().max() > 0
    assert off(logits, plain) > 1e-3


@every_family
def test_a_chat_is_read_as_the_checkpoints_template_writes_it(name):
    model = parts(name)[2]
    processor = model.prompt_reader.processor  # with the counts of the model's config
    chat = mm.Prompt.chat([photo(*WIDE), "What is this?"], "A dog.", "Which?", system="Be brief.")
    if not model.prompt_reader.templated:
        with pytest.raises(PromptError, match="no chat template"):
            model.embed(chat)
        return
    pic = {"type": "image", "image": photo(*WIDE)}
    text = lambda words: {"type": "text", "text": words}  # noqa: E731
    said = [
        {"role": "system", "content": [text("Be brief.")]},
        {"role": "user", "content": [pic, text("What is this?")]},
        {"role": "assistant", "content": [text("A dog.")]},
        {"role": "user", "content": [text("Which?")]},
    ]
    truth = processor.apply_chat_template(
        said, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )["input_ids"][0]
    ours = model.to_tokens(chat)[0].as_subclass(torch.Tensor)
    pictured = torch.tensor(model.prompt_reader.pictured(truth.tolist()))
    assert torch.equal(ours, truth.masked_fill(pictured, ours.min())) and pictured.any()
    assert int(ours.min()) < 0  # no id of a word
    raw = mm.Prompt(photo(*WIDE), "What is this?", template=False)
    assert len(model.embed(raw).labels[0]) < len(
        model.embed(prompt(words="What is this?")).labels[0]
    )


@every_twin
@torch.no_grad()
def test_a_folder_of_save_pretrained_is_the_model(name, tmp_path):
    whole, processor, model = parts(name)
    whole.save_pretrained(tmp_path / name)
    processor.save_pretrained(tmp_path / name)
    again = mm.load(tmp_path / name)
    assert torch.equal(again(prompt()), model(prompt()))
    assert again.name == name and again.provenance["source"] == name


@pytest.mark.parametrize("name", ["llava_next", "qwen2_5_vl", "gemma3"])
@torch.no_grad()
def test_copies_agree_and_casts_keep_what_transformers_keeps(name):
    model = parts(name)[2]
    assert torch.equal(copy.deepcopy(model)(prompt()), model(prompt()))
    half = mm.from_model(*twin(name), dtype="bfloat16")
    assert half.lm.dtype == half.vision.dtype == torch.bfloat16
    assert off(half(prompt()).float(), model(prompt())) < 0.3
    kept = [b.dtype for n, b in half.root.named_buffers() if "inv_freq" in n]
    assert kept and set(kept) == {torch.float32}


@every_twin
def test_the_table_of_the_documentation_is_true(name):
    stored = {**stored_rows()[name]}
    refused = stored.pop("refused")
    assert native_row(parts(name)[2]) == stored
    assert "mmlens.patching.patch" not in refused
    model = parts(name)[2]
    every = len(with_units(model)) == model.cfg.n_layers  # of a mixture with dense layers, some
    assert ("mmlens.attribute" not in refused) == every
    assert model.can("neurons") == bool(with_units(model))


def reason_of(sentence: str) -> str:
    """Without TransformerLens' own words, and without figures that each processor rounds anew."""
    return re.sub(r"-?\d+\.\d+", "#", sentence.split("refuses:")[0])


@pytest.mark.parametrize("name", ["gemma3"])  # test_layouts asks a LLaVA-NeXT, toy-tiled
@pytest.mark.filterwarnings("ignore")
def test_every_verb_answers_or_refuses_in_the_sentence_of_the_table(name):
    found, stored = refusals(parts(name)[2], pytest.MonkeyPatch), stored_rows()[name]["refused"]
    assert set(found) == set(stored)
    for verb, sentence in found.items():  # what TransformerLens says depends on its version
        assert reason_of(sentence) == reason_of(stored[verb]), verb


@every_family
@pytest.mark.filterwarnings("ignore")
def test_what_a_family_lacks_is_refused_as_the_table_says(name):
    model, stored = parts(name)[2], stored_rows()[name]["refused"]
    needs = {verb: getattr(call, "needs", ()) for verb, call in verbs().items()}
    lacking = {verb for verb, what in needs.items() if not all(model.can(one) for one in what)}
    assert lacking <= set(stored) <= set(needs)
    for verb, sentence in stored.items():
        args, options = asked()[verb]
        with pytest.raises(MMLensError) as refused:
            verbs()[verb](model, *args, **options)
        assert reason_of(str(refused.value)) == reason_of(sentence)


@pytest.mark.parametrize(
    "name", [one for one, row in stored_rows().items() if "mmlens.look" not in row["refused"]]
)
def test_what_is_looked_at_lies_in_the_picture(name):
    model = parts(name)[2]
    seen = mm.look(model, photo(*WIDE), WORDS, caption=" dog", k=2)
    (page,) = [json.loads(part.split("</script>")[0]) for part in
               seen.to_html().split('id="p0">')[1:]]  # fmt: skip
    drawn = [cell for one in page["levels"] for cell in one["patches"] if cell is not None]
    assert len(drawn) == len(seen.maps.of("pos"))  # every position in one level
    first = page["levels"][0]
    rows, cols = first["grid"]
    left, top, wide, high = first["window"]
    patch = next(i for i, cell in enumerate(first["patches"]) if cell is not None)
    if isinstance(seen.maps.of("pos")[patch], Marker):
        assert first["name"] == "list"  # queries lie nowhere
        return
    box = model.image_reader.box(model.vision, seen.maps.of("pos")[patch], *WIDE)
    row, col = first["patches"][patch]
    assert (left + col * wide / cols) * WIDE[0] / 100 == pytest.approx(box[0], abs=0.01)
    assert (top + row * high / rows) * WIDE[1] / 100 == pytest.approx(box[1], abs=0.01)


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "gemma3", "paligemma"])
def test_what_the_language_model_is_told_of_pictures_matters(name, monkeypatch):
    model = parts(name)[2]
    told = model(prompt())
    monkeypatch.setattr(type(model.lm.telling), "arguments", lambda *args: {})
    assert off(model(prompt()), told) > 0.02


@torch.no_grad()
@pytest.mark.parametrize("name", ["gemma3", "paligemma"])
def test_patching_where_attention_looks_both_ways_is_the_edit(name):
    model = parts(name)[2]
    pair = mm.patching.Pair(prompt(), prompt(seed=1))
    found = mm.patching.patch(model, pair, lambda logits: logits[5], site="resid_pre")
    clean = mm.activations(model, pair.clean, "resid_pre", layer=1)
    for label in (mm.Patch(1, 0), mm.Patch(0, 1)):
        value = clean.sel(pos=label).values
        edited = model.edit(mm.Edit("resid_pre", value, layer=1, pos=label))
        truth = float(edited(pair.corrupt)[0, -1, 5])
        assert float(found.sel(layer=1, pos=label).values) == pytest.approx(truth, abs=1e-5)


def test_a_grid_of_too_many_patches_is_scaled_down_and_several_pictures_are_not_cut():
    model = parts("llava_onevision")[2]
    crops = model.image_reader.layout(model.vision, *WIDE).crops
    assert [one.name for one in crops] == ["thumbnail", *["tile"] * 5]
    assert crops[-1].grid == (4, 6)  # 6 x 8 patches of four tiles, two tiles' worth at most
    two = model.embed(mm.Prompt(photo(*WIDE), photo(*HIGH), "Both")).labels[0]
    assert sum(isinstance(one, mm.Patch) for one in two) == 2 * 16
    assert sum(isinstance(one, Marker) for one in two) == 2


@torch.no_grad()
def test_pictures_of_different_sizes_are_edited_and_refused_where_hooks_would_miss_some():
    model = parts("qwen2_vl")[2]
    two = mm.Prompt(photo(*WIDE), photo(*HIGH), "Both show")
    assert model(two).isfinite().all()
    with pytest.raises(PromptError, match="give pictures of one size"):
        model.run_with_hooks(two, [("vision.hook_embed", lambda x, hook: x)])

    def pictured(changed, one):
        soft = changed.embed(one)
        return soft.vectors[soft.is_picture]

    unit = mm.Neuron(1, 3, "vision")
    for edit in (mm.Edit("vision.neurons", 0.0, unit), mm.Edit("soft_prompt", 0.0)):
        less = model.edit(edit)  # edits know which picture they change
        alone = torch.cat([pictured(less, prompt(WIDE)), pictured(less, prompt(HIGH))])
        assert off(pictured(less, two), alone) < 1e-5
        assert off(alone, pictured(model, two)) > 1e-3
        assert off(less([two, prompt(HIGH)])[1, -1], less(prompt(HIGH))[0, -1]) < 1e-5
    second = mm.Patch(1, 0, image=1)
    read = pictured(model.edit(mm.Edit("soft_prompt", 0.0, pos=second)), two)
    changed = (read != pictured(model, two)).any(-1)
    labels = [one for one in model.embed(two).labels[0] if isinstance(one, mm.Patch)]
    assert [one for one, new in zip(labels, changed, strict=True) if new] == [second]
    acts = mm.activations(model, prompt(HIGH), "vision.resid_post", layer=0)
    rows, cols = model.image_reader.grid(model.vision, photo(*HIGH))
    assert acts.of("pos")[-1] == mm.Patch(2 * rows - 1, 2 * cols - 1)


def test_a_prompt_of_paligemma_is_one_line_and_a_typed_placeholder_is_refused():
    with pytest.raises(PromptError, match="its newline ends it"):
        parts("paligemma")[2].embed(mm.Prompt(photo(*WIDE), "a\nb"))
    with pytest.raises(PromptError, match="hold '<image>'"):
        parts("llava")[2].embed(mm.Prompt(photo(*WIDE), "What is <image>?"))


def test_a_name_without_a_network_is_one_sentence():
    with pytest.raises(ModelError, match="'llava-hf/llava-1.5-7b-hf' could not be fetched"):
        mm.load("llava-hf/llava-1.5-7b-hf")


@pytest.mark.parametrize("name", ["gpt-4v", "GPT-4o", "unified-io-2", "allenai/uio2-large"])
def test_a_model_that_nobody_can_load_names_the_nearest(name):
    with pytest.raises(ModelError, match=r"nearest open models are Emu3 .* and Janus"):
        mm.load(name)


def test_classes_without_a_family_name_the_nearest():
    import transformers as hf

    from mmlens.families.native import family_of

    with pytest.raises(CapabilityError, match="it has an encoder for words and a decoder"):
        family_of("florence2", "Florence2ForConditionalGeneration")
    with pytest.raises(CapabilityError, match="Llama 4's own forward pass raises"):
        family_of("llama4", "Llama4ForConditionalGeneration")
    with pytest.raises(CapabilityError, match="did you mean 'llava'"):
        family_of("llavva", "LlavvaForConditionalGeneration")
    gpt = hf.GPT2LMHeadModel(hf.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(CapabilityError, match="neither a dual encoder nor a whole"):
        mm.from_model(gpt)
    with pytest.raises(CapabilityError, match="through its processor"):
        mm.from_model(twin("llava")[0])

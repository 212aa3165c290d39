"""CoCa as a captioner: two text decoders and a pooler's queries, against open_clip's own class."""

from __future__ import annotations

import copy
import json
import pickle
from functools import cache
from typing import Any

import pytest
import torch
import transformers as hf
from bridges import off
from coca_twins import MIXED, POOLED, TEXT, VISION, coca
from dual_twins import open_clip_twin
from native_rows import native_row, stored_rows
from native_twins import photo
from packaging.version import Version
from verb_calls import calls, verbs

import mmlens as mm
from mmlens import patching
from mmlens.families.coca import SINCE
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.reading import see
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    CheckpointError,
    MMLensError,
    PromptError,
)
from mmlens.values.labels import Marker

WORDS, SIZE = "a photo of", (32, 32)
CROSSING = (3, 5)
"""The layers that read pictures, behind two of the unimodal decoder and one block between them."""
poolers = pytest.mark.parametrize("pool", [True, False, "parallel", "cascade"])
both = pytest.mark.parametrize("pool", [True, False])


@cache
def parts(pool: Any) -> tuple[Any, Any, HookedVLM]:
    """A CoCa, its tokenizer, and its captioner; made once."""
    if Version(hf.__version__) < Version(SINCE["coca"]):
        pytest.skip("read with a later transformers")
    whole, words = coca(pool)
    return whole, words, mm.from_model(whole, None, words, captions=True, name="coca")


def prompt(words: str = WORDS, seed: int = 0) -> mm.Prompt:
    return mm.Prompt(photo(*SIZE, seed), *([words] if words else []))


@torch.no_grad()
def theirs(one: mm.Prompt, pool: Any = True, whole: Any = None, after: Any = ()) -> torch.Tensor:
    """open_clip's own logits Float[pos, token] of a prompt and of the ids that follow it."""
    own, words, model = parts(pool)
    ids = words(one.text, add_special_tokens=False)["input_ids"] if one.text else []
    pixels = model.vision.preprocess(one.pictures[0])[None]
    ids = torch.tensor([[words.bos_token_id, *ids, *after]])
    return (whole or own)(pixels, ids, output_labels=False)["logits"][0]


@poolers
@torch.no_grad()
def test_logits_are_open_clips_own_with_all_points_hooked_and_in_a_batch(pool):
    model = parts(pool)[2]
    for one in (prompt(), prompt(""), prompt("two cats", 1)):
        assert off(model.run_with_cache(one)[0][0], theirs(one, pool)) < 1e-5
    assert off(model(prompt()), model(prompt(seed=1))) > 1e-3
    batch = [prompt(), prompt("two cats", 1), prompt("")]
    for row, one in zip(model(batch), batch, strict=True):
        assert off(row[-len(theirs(one, pool)) :], theirs(one, pool)) < 1e-5


@both
def test_every_greedy_token_is_the_argmax_of_open_clips_logits_with_a_cache_and_without(pool):
    model, one = parts(pool)[2], prompt("a")
    truth: list[int] = []
    for _ in range(10):
        truth.append(int(theirs(one, pool, after=truth)[-1].argmax()))
    assert len(set(truth)) > 1
    options = {"stop_at_eos": False, "return_type": "tokens"}
    for cached in (True, False):
        said = model.generate(one, 10, use_past_kv_cache=cached, **options)
        assert said[0].tolist() == truth
    edited = model.edit(mm.Edit("cross_k", 0.5, layer=CROSSING[0], key=2))
    said = [edited.generate(one, 6, use_past_kv_cache=cached) for cached in (True, False)]
    assert said[0] == said[1]
    pair = [one, prompt("two cats", 1)]
    assert model.generate(pair, 6) == [model.generate(each, 6) for each in pair]


@torch.no_grad()
def test_patterns_go_from_words_to_queries_which_lie_nowhere():
    whole, _, model = parts(True)
    pattern = mm.activations(model, prompt(), "cross_pattern", layer=CROSSING[1])
    assert pattern.axes == ("head", "query", "key")
    assert pattern.of("key") == tuple(Marker("query", at) for at in range(1, 9))
    block, weights = whole.text_decoder.cross_attn[1], list[torch.Tensor]()

    def weigh(module: Any, args: Any, options: Any) -> Any:
        return args, options | {"need_weights": True, "average_attn_weights": False}

    handles = [
        block.attn.register_forward_pre_hook(weigh, with_kwargs=True),
        block.attn.register_forward_hook(lambda m, args, out: weights.append(out[1])),
    ]
    theirs(prompt())
    for handle in handles:
        handle.remove()
    assert off(pattern.values, weights[0][0]) < 1e-5
    with pytest.raises(AddressError, match="queries"):
        model.image_reader.box(model.vision, mm.Patch(0, 0), *SIZE)
    assert mm.activations(model, prompt(), "features").of("pos")[0] == Marker("CLS", 0)
    assert mm.activations(model, prompt(), "soft_prompt").of("pos") == pattern.of("key")


@torch.no_grad()
def test_without_a_pooler_keys_are_patches_and_a_painted_square_moves_its_own():
    model = parts(False)[2]
    picture = photo(*SIZE)
    labels = model.read(prompt()).picture_keys.labels[0]
    assert labels == tuple(mm.Patch(row, col) for row in range(4) for col in range(4))
    painted = []
    for patch in labels:
        new = copy.copy(picture)
        box = model.image_reader.box(model.vision, patch, *SIZE)
        new.paste((255, 0, 255), tuple(round(edge) for edge in box))
        painted.append(new)
    plain, *changed = see(model, [mm.Prompt(one) for one in (picture, *painted)])
    for at, vectors in enumerate(changed):
        assert int((vectors - plain).norm(dim=-1).argmax()) == at


@both
def test_a_neurons_score_is_what_silencing_it_takes_in_both_decoders(pool):
    model, one = parts(pool)[2], prompt()
    scores = mm.attribute(model, one, of=" dog", after="", point="post")
    word = model.to_single_token(" dog")
    for layer in range(model.cfg.n_layers):
        at = scores.sel(layer=layer)
        best = at.values.abs().flatten().argmax()
        pos, unit = divmod(int(best), at.values.shape[1])
        edit = mm.Edit("neurons", lambda x: x * 0.98, layer=layer, unit=unit, pos=pos)
        with torch.no_grad():
            moved = model(one)[0, -1, word].double() - model.edit(edit)(one)[0, -1, word].double()
        score = float(at.values[pos, unit])
        assert float(moved) / 0.02 == pytest.approx(score, rel=0.05, abs=1e-4), layer


@both
def test_attribution_to_keys_queries_and_pixels_is_the_finite_difference(pool):
    whole, _, model = parts(pool)
    one, word = prompt(), model.to_single_token(" dog")
    keys = mm.attribute(model, one, of=" dog", after="", site="cross_k", layer=list(CROSSING))
    for layer in CROSSING:
        each = keys.sel(layer=layer).sum("dim").sum("head")
        key = each.of("key")[int(each.values.abs().argmax())]
        with torch.no_grad():
            moved = [
                model.edit(mm.Edit("cross_k", lambda x, by=by: x * by, layer=layer, key=key))(one)
                for by in (1.01, 0.99)
            ]
        change = float(moved[0][0, -1, word] - moved[1][0, -1, word]) / 0.02
        assert change == pytest.approx(float(each.sel(key=key).item()), rel=0.05, abs=1e-4)
    where = mm.attribute_picture(model, one, of=" dog", after="", at="soft_prompt")
    assert where.of("pos") == model.read(one).picture_keys.labels[0]
    pixels = model.vision.preprocess(one.pictures[0])[None].requires_grad_()
    found = mm.attribute(model, one, of=" dog", after="", site="pixels")
    ids = torch.tensor([model.read(one).ids[0].tolist()])
    logit = whole(pixels, ids, output_labels=False)["logits"][0, -1, word]
    (grad,) = torch.autograd.grad(logit, pixels)
    assert off(found.values, (grad * pixels)[0].detach()) < 1e-4
    spot = mm.attribute_picture(model, one, of=" dog", after="", at="pixels")
    assert spot.of("pos")[0] == mm.Patch(0, 0) and float(spot.values.abs().max()) > 0


@torch.no_grad()
def test_a_picture_that_is_cut_off_is_a_layer_that_reads_nothing():
    whole, _, model = parts(True)
    keys = list(model.read(prompt()).picture_keys.labels[0])
    cut = model.edit(patching.knockout(keys, slice(None), across=True))
    deaf = copy.deepcopy(whole)
    for block in deaf.text_decoder.cross_attn:
        block.attn.out_proj.weight.zero_()
    assert off(cut(prompt())[0], theirs(prompt(), whole=deaf)) < 1e-5
    assert off(model(prompt()), cut(prompt())) > 1e-3
    silent = model.edit(*(mm.Edit("cross_attn_out", 0.0, layer=layer) for layer in CROSSING))
    for block in deaf.text_decoder.cross_attn:
        block.attn.out_proj.bias.zero_()
    assert off(silent(prompt())[0], theirs(prompt(), whole=deaf)) < 1e-5
    routes = {"a query": ([Marker("query", 3)], -1), "first word": (0, -1)}
    found = patching.knockouts(model, prompt(), lambda logits: logits[5], routes)
    assert found.values.abs().min() > 0 and found.values[0] != found.about["clean"]


@torch.no_grad()
def test_the_last_lens_is_the_model_and_patching_everything_gives_the_other_run():
    model = parts(True)[2]
    one, other, last = prompt(), prompt(seed=1), model.cfg.n_layers - 1
    clean = mm.activations(model, one, "resid_post", layer=last)
    assert off(model.edit(mm.Edit("resid_post", clean, layer=last))(other), model(one)) < 1e-5
    lens = mm.logit_lens(model, one, [5], layer=last, pos=-1)
    truth = float(theirs(one)[-1].softmax(-1)[5])
    assert lens.values.item() == pytest.approx(truth, abs=1e-6)
    first = mm.activations(model, one, "resid_post", layer=1)  # the unimodal decoder's end
    same = mm.activations(model, other, "resid_post", layer=1)
    assert torch.equal(first.values, same.values)  # no word has seen a picture yet


def test_a_unit_is_decoded_and_what_draws_positions_is_refused():
    model = parts(True)[2]
    best = mm.top_neurons(mm.attribute(model, prompt(), of=" dog", after=""), 3)
    table = mm.decode(model, list(best.neuron))
    assert len(table) > 0
    with pytest.raises(CapabilityError, match="among the positions"):
        mm.look(model, photo(*SIZE), WORDS)


@torch.no_grad()
def test_the_shares_of_a_logit_and_the_paths_to_it_skip_no_block_that_reads_pictures():
    model, word = parts(True)[2], 5
    shares = patching.direct_logits(model, prompt(), word)
    logit = float(theirs(prompt())[-1, word])
    assert float(shares.values.sum()) + shares.about["bias"] == pytest.approx(logit, abs=1e-5)
    assert {"cross 3", "cross 5", "attn 4"} <= set(shares.of("part"))
    assert "attn 3" not in shares.of("part")
    heads = patching.direct_logits(model, prompt(), word, by="head")
    assert heads.of("layer") == (0, 1, 2, 4)
    pair = patching.Pair(prompt("a photo of"), prompt("two cats of"))
    every = [mm.Head(4, head) for head in (0, 1)]
    paths = patching.path_patching(pair=pair, model=model, metric=lambda x: x[word], senders=every)
    assert paths.values.isfinite().all()


@pytest.mark.filterwarnings("ignore")
def test_the_table_of_the_documentation_is_true():
    stored = {**stored_rows()["coca"]}
    refused = stored.pop("refused")
    model, asked = parts(True)[2], calls()
    assert native_row(model) == stored
    for verb, sentence in refused.items():
        args, options = asked[verb]
        with pytest.raises(MMLensError) as said:
            verbs()[verb](model, *args, **options)
        assert str(said.value) == sentence


def test_the_dual_encoder_and_the_captioner_share_their_weights():
    whole, words, model = parts(True)
    dual = mm.from_model(whole, None, words)
    assert dual.can("similarity") and not dual.can("logits") and model.can("logits")
    attention = model.lm.hf.model.decoder.layers[0].self_attn
    assert attention.v_proj.weight.untyped_storage().data_ptr() == (
        whole.text.transformer.resblocks[0].attn.in_proj_weight.untyped_storage().data_ptr()
    )
    with torch.no_grad():
        for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert off(again(prompt()), model(prompt())) < 1e-6
        half = mm.from_model(whole, None, words, captions=True, dtype="bfloat16")
        assert half(prompt()).dtype == torch.bfloat16
        assert off(half(prompt()).float(), model(prompt())) < 0.1
    assert next(whole.parameters()).dtype == torch.float32


def test_a_folder_of_open_clip_is_read_with_its_own_tokenizer(tmp_path):
    parts(True)  # or the test is left out
    import open_clip
    from safetensors.torch import save_file

    sizes = {"vocab_size": 49408}
    config = {"embed_dim": 16, "vision_cfg": VISION | POOLED, "text_cfg": TEXT | sizes,
              "multimodal_cfg": MIXED | sizes, "custom_text": True}  # fmt: skip
    torch.manual_seed(0)
    whole = open_clip.CoCa(**{k: v for k, v in config.items() if k != "custom_text"})
    torch.nn.init.normal_(whole.text_decoder.text_projection, std=0.1)
    told = {"model_cfg": config, "preprocess_cfg": {"size": 32}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(told))
    save_file({k: v.contiguous() for k, v in whole.state_dict().items()},
              tmp_path / "open_clip_model.safetensors")  # fmt: skip
    model = mm.load(tmp_path, captions=True)
    spelled = open_clip.SimpleTokenizer()
    text = "Two koalas, isn't it 42?"
    one = mm.Prompt(photo(*SIZE), text)
    ids = model.read(one).ids[0].tolist()
    assert ids == [spelled.sot_token_id, *spelled.encode(text)]
    assert model.to_str_tokens(one)[:3] == ["<start_of_text>", " two", " ko"]
    pixels = model.vision.preprocess(one.pictures[0])[None]
    with torch.no_grad():
        own = whole.eval()(pixels, torch.tensor([ids]), output_labels=False)["logits"]
    assert off(model(one), own) < 1e-5
    assert mm.load(tmp_path).can("similarity")


def test_what_is_no_captioner_is_refused_in_a_sentence(tmp_path):
    whole, words, model = parts(True)
    clip = open_clip_twin({k: v for k, v in VISION.items() if k != "output_tokens"})[0]
    with pytest.raises(CapabilityError, match="A CLIP has no text decoder"):
        mm.from_model(clip, captions=True)
    with pytest.raises(CapabilityError, match="without a \\[CLS\\] of its own"):
        mm.from_model(coca(text={"embed_cls": False})[0], None, words, captions=True)
    with pytest.raises(CapabilityError, match="do not run together"):
        mm.from_model(coca(False, width=24)[0], None, words, captions=True)
    with pytest.raises(CapabilityError, match="layer scale"):
        mm.from_model(coca(text={"ls_init_value": 0.1})[0], None, words, captions=True)
    with pytest.raises(CapabilityError, match="several kinds"):
        mm.from_model(coca(text={"heads": 4})[0], None, words, captions=True)
    with pytest.raises(ArgumentError, match="spell a caption"):
        mm.from_model(whole, None, lambda texts: texts, captions=True)
    with pytest.raises(PromptError, match="which CoCa reads as padding"):
        model(prompt("a [PAD] dog"))
    with pytest.raises(CheckpointError, match="open_clip writes it"):
        model.save(tmp_path / "coca")
    with pytest.raises(PromptError, match="has 24"):
        model(prompt("a " * 30))


def test_ids_alone_are_read_where_there_is_no_tokenizer():
    whole = parts(True)[0]
    model = mm.from_model(whole, captions=True)
    ids = torch.tensor([[16, 3, 4]])
    assert model(ids).shape == (1, 3, 32)
    with pytest.raises(PromptError, match="no tokenizer"):
        model(prompt())

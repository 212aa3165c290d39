"""Dictionaries as sites: the model answers as before, and units are attributed, edited, decoded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from dual_twins import hf_clip

import mmlens as mm
from mmlens import patching
from mmlens.datasets.sample import Sample, Samples
from mmlens.families import toy
from mmlens.families.toy_tiled import twin
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    MMLensError,
    SiteError,
)

KOALA = Path(__file__).parents[1] / "scenes" / "koala.png"
PROMPT = mm.Prompt(KOALA, "A picture of")
AT = "blocks.1.hook_resid_post"
WORD = {"of": 5, "after": ""}


def dictionary(d_in: int, n: int = 96, d_out: int | None = None, **more: Any) -> mm.Dictionary:
    draw = torch.Generator().manual_seed(0)
    d_out = d_out or d_in
    weight = lambda *shape: torch.randn(*shape, generator=draw) / shape[0] ** 0.5  # noqa: E731
    given = {"b_enc": weight(n), "b_dec": weight(d_out)} | more
    return mm.Dictionary(weight(d_in, n), weight(n, d_out), **given)


@pytest.fixture(scope="module")
def plain() -> Any:
    return mm.load("toy-gptj")


@pytest.fixture(scope="module")
def model(plain) -> Any:
    return plain.attach(dictionary(plain.cfg.d_model, k=12), at=AT)


def logit(model: Any, prompt: Any = PROMPT) -> float:
    return float(model.run(prompt)[0, -1, WORD["of"]])


def test_a_model_with_a_dictionary_answers_as_before_also_while_its_code_is_read(plain, model):
    before = plain(PROMPT)
    assert torch.equal(model(PROMPT), before)
    after, cache = model.run_with_cache(PROMPT)
    assert torch.equal(after, plain.run_with_cache(PROMPT)[0])
    code = cache["blocks.1.sae.hook_acts_post"]
    assert code.shape[-1] == 96 and int((code > 0).sum(-1).max()) <= 12
    assert "sae" not in set(plain.sites["site"]) and "sae" in set(model.sites["site"])


@pytest.mark.parametrize("kind", ["relu", "topk", "threshold", "gate", "layer_norm", "unit_norm"])
def test_without_its_error_the_model_reads_the_reconstruction(plain, kind):
    n = 96
    draw = torch.Generator().manual_seed(1)
    more: dict[str, Any] = {
        "topk": {"k": 12}, "threshold": {"threshold": torch.rand(n, generator=draw)},
        "gate": {"b_gate": torch.randn(n, generator=draw), "gain": torch.rand(n, generator=draw)},
        "layer_norm": {"norm": "layer_norm"}, "unit_norm": {"norm": "unit_norm"}, "relu": {},
    }[kind]  # fmt: skip
    one = dictionary(plain.cfg.d_model, n, **more)
    alone = plain.attach(one, at=AT).edit(mm.Edit("sae_error", 0.0))(PROMPT)
    by_hand = plain.run_with_hooks(PROMPT, fwd_hooks=[(AT, lambda x, hook: one(x))])
    assert torch.allclose(alone, by_hand, atol=2e-5)
    assert (alone - plain(PROMPT)).abs().max() > 0.1


def test_silencing_a_unit_takes_its_row_of_the_decoder_away(plain, model):
    one = model.lm.dictionaries[1].dictionary
    code = mm.activations(model, PROMPT, "sae", layer=1)
    unit = mm.Neuron(1, int(code.values.sum(0).argmax()), "sae")
    silent = model.edit(mm.Edit("sae", 0.0, unit, pos=mm.Patch))
    at = [isinstance(label, mm.Patch) for label in code.of("pos")]
    lost = code.values[:, unit.unit, None] * one.W_dec[unit.unit] * torch.tensor(at)[:, None]
    by_hand = plain.run_with_hooks(PROMPT, fwd_hooks=[(AT, lambda x, hook: x - lost)])
    assert torch.allclose(silent(PROMPT), by_hand, atol=1e-5)
    assert (by_hand - plain(PROMPT)).abs().max() > 1e-3
    assert float(mm.activations(silent, PROMPT, "sae", unit).sel(pos=mm.Patch).values.max()) == 0


def test_a_score_is_what_silencing_a_small_part_of_a_unit_takes_to_first_order(model):
    double = copy.deepcopy(model).to(torch.float64)
    scores = mm.attribute(double, PROMPT, site="sae", **WORD)
    assert scores.axes == ("layer", "pos", "unit") and scores.of("layer") == (1,)
    best = mm.top_neurons(scores, 3)
    assert str(best["neuron"][0]).startswith("sae.L1.")
    for neuron, patch, score in zip(best["neuron"], best["patch"], best["score"], strict=True):
        ends = [
            logit(double.edit(mm.Edit("sae", lambda x, f=f: x * f, neuron, pos=patch)))
            for f in (1 + 1e-2, 1 - 1e-2)  # attention of GPT-J rounds to float32
        ]
        assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(score, rel=1e-3)


def test_gradients_pass_a_live_error_and_a_constant_one_cuts_them_to_the_code(plain, model):
    before = {"site": "resid_post", "layer": 0, **WORD}
    whole = mm.attribute(plain, PROMPT, **before).values
    assert torch.allclose(mm.attribute(model, PROMPT, **before).values, whole, atol=1e-6)
    one = model.lm.dictionaries[1].dictionary
    cut = plain.attach(one, at=AT, error="constant")
    assert torch.equal(cut(PROMPT), plain(PROMPT))
    found = mm.attribute(cut, PROMPT, **before).values

    def explained(x: torch.Tensor, hook: Any) -> torch.Tensor:
        held = (x - one(x)).detach()
        return one(x) + held

    with plain.hooks(fwd_hooks=[(AT, explained)]):
        by_hand = mm.attribute(plain, PROMPT, **before).values
    assert torch.allclose(found, by_hand, atol=1e-6)
    assert (found - whole).abs().max() > 1e-3


def test_a_planted_unit_is_found_first_and_says_its_word(plain):
    """Unit 7 reads what stands at one patch, and writes what raises one word."""
    stream = mm.activations(plain, PROMPT, "resid_post", layer=2)
    spot = next(label for label in stream.of("pos") if isinstance(label, mm.Patch))
    read = stream.sel(pos=spot).values
    others = torch.stack([r for r, at in zip(stream.values, stream.of("pos"), strict=True)
                          if at != spot])  # fmt: skip
    answers = torch.tensor([[1.0], *[[0.0]] * len(others)])
    key = torch.linalg.lstsq(torch.cat([read[None], others]), answers).solution[:, 0]
    d, n = plain.cfg.d_model, 40
    W_enc, W_dec = torch.zeros(d, n), torch.zeros(n, d)
    W_enc[:, 7], W_dec[7] = key, mm.patching.word(plain, 5).values * 3
    planted = plain.attach(mm.Dictionary(W_enc, W_dec), at="blocks.2.hook_resid_post")
    code = mm.activations(planted, PROMPT, "sae", layer=2).values
    assert code.argmax() == stream.of("pos").index(spot) * n + 7
    assert float(code.max()) == pytest.approx(1.0, abs=1e-3)
    word = mm.decode(planted, mm.Neuron(2, 7, "sae"), k=1)["words"][0][0]
    assert word == plain.tokenizer.decode([5]).strip() or word == plain.tokenizer.decode([5])
    written = mm.patching.written_by(planted, mm.Neuron(2, 7, "sae")).values
    assert torch.allclose(written, W_dec[7])


def test_every_route_to_a_unit_without_gradients_agrees(model):
    code = mm.activations(model, PROMPT, "sae", layer=1)
    ranked = mm.top_neurons(mm.attribute(model, PROMPT, site="sae", **WORD), 4, rank_by="max")
    units = list(ranked["neuron"])
    metric = lambda logits: logits[WORD["of"]]  # noqa: E731
    by_edit = [logit(model.edit(mm.Edit("sae", 0.0, one))) for one in units]
    ablated = patching.ablate(model, PROMPT, metric, "sae", 0.0, units)
    assert ablated.values.tolist() == pytest.approx(by_edit, abs=1e-4)
    curve = patching.ablation_curve(model, PROMPT, metric, units, k=(0, 1), randoms=1)
    assert float(curve.sel(arm="ranked", k=1).values) == pytest.approx(by_edit[0], abs=1e-4)
    assert float(curve.sel(arm="ranked", k=0).values) == pytest.approx(logit(model), abs=1e-4)
    read = mm.activations(model, PROMPT, units).values
    assert torch.equal(read, code.values.T[[one.unit for one in units]])
    assert torch.equal(mm.activations(model, PROMPT, "sae.L1.3").values, code.values[:, 3])


def test_patching_a_unit_puts_the_other_pictures_activation_there(plain, model):
    other = mm.Prompt(KOALA.with_name("dog-and-bicycle.png"), "A picture of")
    pair = patching.Pair(PROMPT, other)
    metric = lambda logits: logits[WORD["of"]]  # noqa: E731
    here, there = (mm.activations(model, one, "sae", layer=1) for one in (PROMPT, other))
    unit = mm.Neuron(1, int((here.values - there.values).abs().sum(0).argmax()), "sae")
    patched = patching.patch(model, pair, metric, "sae", [unit])
    given = here.values[:, unit.unit, None]
    by_edit = logit(model.edit(mm.Edit("sae", given, unit)), other)
    assert float(patched.values[0]) == pytest.approx(by_edit, abs=1e-4)


def test_a_cut_upstream_changes_the_code_as_it_changes_the_stream(model):
    cut = model.edit(patching.knockout(mm.Patch, -1, layer=[0, 1]))
    one = model.lm.dictionaries[1].dictionary
    stream = mm.activations(cut, PROMPT, "resid_post", layer=1)
    assert torch.allclose(
        mm.activations(cut, PROMPT, "sae", layer=1).values, one.encode(stream.values), atol=1e-5
    )
    whole = mm.activations(model, PROMPT, "sae", layer=1)
    assert not torch.allclose(whole.values[-1], one.encode(stream.values)[-1], atol=1e-3)


def test_a_steered_unit_writes_while_a_caption_is_generated(model):
    plain_words = model.generate(PROMPT, 4)
    strong = model.edit(mm.Edit("sae", 40.0, mm.Neuron(1, 5, "sae")))
    kept, again = (strong.generate(PROMPT, 4, use_past_kv_cache=how) for how in (True, False))
    assert kept == again != plain_words


def test_a_transcoder_reads_one_place_and_reconstructs_another(plain):
    d = plain.cfg.d_model
    reads, writes = "blocks.1.ln1.hook_normalized", "blocks.1.hook_mlp_out"
    one = dictionary(d, out=writes, at=reads)
    model = plain.attach(one)
    assert torch.equal(model(PROMPT), plain(PROMPT))
    read, wrote = (mm.activations(plain, PROMPT, name).values for name in (reads, writes))
    code = mm.activations(model, PROMPT, "sae", layer=1).values
    assert torch.allclose(code, one.encode(read), atol=1e-5)
    error = mm.activations(model, PROMPT, "sae_error", layer=1).values
    assert torch.allclose(error + one(read), wrote, atol=1e-5)
    replaced = model.edit(mm.Edit("sae_error", 0.0))(PROMPT)
    by_hand = plain.run_with_hooks(PROMPT, fwd_hooks=[(writes, lambda x, hook: one(read)[None])])
    assert torch.allclose(replaced, by_hand, atol=1e-5)


def test_units_of_attention_are_read_with_the_heads_one_after_the_other(plain):
    heads = plain.cfg.n_heads * plain.cfg.d_head
    model = plain.attach(dictionary(heads), at="blocks.1.attn.hook_z")
    z = mm.activations(plain, PROMPT, "z", layer=1).values
    code = mm.activations(model, PROMPT, "sae", layer=1).values
    assert torch.allclose(code, model.lm.dictionaries[1].dictionary.encode(z.flatten(1)), atol=1e-5)
    assert torch.equal(model(PROMPT), plain(PROMPT))


def test_dictionaries_in_several_layers_are_layers_of_one_site(plain, model):
    both = model.attach(dictionary(plain.cfg.d_model), at="blocks.2.hook_resid_post")
    scores = mm.attribute(both, PROMPT, site="sae", **WORD)
    assert scores.of("layer") == (1, 2) and scores.shape[-1] == 96
    # of a unit of the later one, in units of the earlier one
    later = mm.activations(both, PROMPT, "sae", layer=2)
    neuron = mm.Neuron(2, int(later.values.sum(0).argmax()), "sae")
    fed = mm.attribute(both, PROMPT, neuron, target="sum", site="sae", layer=1)
    best: Any = mm.top_neurons(fed, 1, rank_by="sum", pos=slice(None))
    whole = float(later.values[:, neuron.unit].sum())
    step = lambda x: x * (1 - 1e-3)  # noqa: E731
    less = both.edit(mm.Edit("sae", step, best["neuron"][0]))
    moved = whole - float(mm.activations(less, PROMPT, "sae", neuron).values.sum())
    assert moved / 1e-3 == pytest.approx(float(best["score"][0]), rel=0.05)


def test_copies_keep_their_dictionaries_and_share_nothing(model):
    copied = copy.deepcopy(model)
    assert torch.allclose(copied(PROMPT), model(PROMPT), atol=1e-5)
    ours, theirs = (one.lm.dictionaries[1].dictionary for one in (model, copied))
    assert ours.W_dec.data_ptr() != theirs.W_dec.data_ptr()
    copied.to(torch.bfloat16)
    assert theirs.dtype == torch.bfloat16 and ours.dtype == torch.float32
    assert torch.isfinite(mm.activations(copied, PROMPT, "sae", layer=1).values).all()


@pytest.mark.parametrize("kind", ["dual encoder", "bridge"])
def test_units_of_a_dictionary_on_a_vision_tower(plain, kind):
    whole: Any = plain if kind == "bridge" else mm.from_model(*hf_clip(), name="clip")
    d: int = whole.vision.d_vision
    prompt = PROMPT if kind == "bridge" else mm.Prompt(KOALA)
    model = whole.attach(dictionary(d, 64), at="vision.blocks.0.hook_resid_post")
    of = WORD if kind == "bridge" else {"of": "a dog"}
    answer = lambda one: one.run(prompt if kind == "bridge" else [prompt, "a dog"])  # noqa: E731
    assert torch.equal(answer(model), answer(whole))
    code = mm.activations(model, prompt, "vision.sae", layer=0)
    stream = mm.activations(whole, prompt, "vision.resid_post", layer=0)
    one = model.vision.dictionaries[0].dictionary
    assert code.of("pos") == stream.of("pos")
    assert torch.allclose(code.values, one.encode(stream.values), atol=1e-5)
    scores = mm.attribute(model, prompt, site="vision.sae", **of)
    neuron = mm.top_neurons(scores, 1, rank_by="max")["neuron"][0]
    assert str(neuron).startswith("vision.sae.L0.")
    silent = model.edit(mm.Edit("vision.sae", 0.0, neuron))
    assert (answer(silent) - answer(whole)).abs().max() > 1e-5
    assert float(mm.activations(silent, prompt, neuron).values.abs().max()) == 0
    pictures = [toy.picture(at) for at in ((2, 1), (0, 3))]
    several = [Sample(key, one) for key, one in zip("ab", pictures, strict=True)]
    data = Samples("two", ["a", "b"], several.__getitem__, "hash")
    top: Any = mm.top_images(model, data, [neuron], k=1)
    peaks = [
        float(mm.activations(model, mm.Prompt(one), neuron, pos=mm.Patch).values.max())
        for one in pictures
    ]
    assert float(top["value"][0]) == pytest.approx(max(peaks), abs=1e-5)
    assert top["neuron"][0] == neuron


def test_a_native_vision_language_model_takes_dictionaries_on_both_towers():
    _, plain, _ = twin()
    photo = mm.Prompt(toy.picture((2, 1)).resize((64, 32)), " A picture of")
    one = dictionary(plain.cfg.d_model)
    eye = dictionary(plain.vision.d_vision)
    model = plain.attach(one, at=AT).attach(eye, at="vision.blocks.0.hook_resid_post")
    assert torch.equal(model(photo), plain(photo))
    for site, name, made in (
        ("sae", AT, one),
        ("vision.sae", model.vision.dictionaries[0].at, eye),
    ):
        hooks = [(name, lambda x, hook, made=made: made(x))]
        by_hand = plain.run_with_hooks(photo, fwd_hooks=hooks)
        replaced = model.edit(mm.Edit(f"{site}_error", 0.0))(photo)
        assert torch.allclose(replaced, by_hand, atol=1e-4)
        assert (by_hand - plain(photo)).abs().max() > 1e-3
    scores = mm.attribute(model, photo, of=5, after="", site="sae")
    assert scores.of("pos") == mm.activations(model, photo, "sae", layer=1).of("pos")


def test_a_microscope_shows_the_units_of_a_dictionary(model, tmp_path):
    pictures = [toy.picture(at) for at in ((2, 1), (0, 3))]
    several = [Sample(key, one) for key, one in zip("ab", pictures, strict=True)]
    data = Samples("two", ["a", "b"], several.__getitem__, "hash")
    page = mm.microscope(model, data, tmp_path / "site", tower="sae", k=1)
    assert page.is_file() and list((tmp_path / "site" / "units" / "sae.L1").glob("units-*.js"))
    top: Any = mm.Sweep(tmp_path / "site" / "work" / "sweep").tallies("L1")[0]
    codes = [mm.activations(model, mm.Prompt(one), "sae", layer=1, pos=mm.Patch).values
             for one in pictures]  # fmt: skip
    peaks = torch.stack([code.amax(0) for code in codes]).amax(0)
    assert torch.allclose(top.values.values[:, 0].float(), peaks, atol=1e-5)


def test_a_printed_unit_is_read_back():
    for neuron in (mm.Neuron(3, 17, "sae"), mm.Neuron(3, 17, "vision.sae")):
        assert (
            mm.Neuron(str(neuron)) == neuron and eval(repr(neuron), {"Neuron": mm.Neuron}) == neuron
        )


REFUSED: dict[str, tuple[type[MMLensError], Any]] = {
    "without it": (CapabilityError, lambda m: m.attach(dictionary(32), at=AT)),
    "names none": (SiteError, lambda m: m.attach(dictionary(32), at="resid_post")),
    "coordinates": (
        SiteError, lambda m: m.attach(dictionary(8), at="blocks.0.hook_resid_post")
        .run_with_cache(PROMPT)),
    "one vector at each": (
        CapabilityError, lambda m: m.attach(dictionary(32), at="blocks.0.attn.hook_pattern")),
    "does not say": (ArgumentError, lambda m: m.attach(dictionary(32))),
    "There is no hook": (SiteError, lambda m: m.attach(dictionary(32), at="blocks.9.hook_mlp_out")),
    "transcoder": (
        ArgumentError, lambda m: m.attach(dictionary(32, 40, 8), at="blocks.0.hook_mlp_out")),
    "one layer": (
        SiteError, lambda m: m.attach(dictionary(32), at="blocks.0.hook_resid_pre",
                                      out="blocks.2.hook_mlp_out")),
    "last unit": (AddressError, lambda m: mm.decode(m, mm.Neuron(1, 96, "sae"))),
    "of layers 1": (AddressError, lambda m: mm.decode(m, mm.Neuron(0, 5, "sae"))),
    "is in the tower": (
        AddressError, lambda m: mm.Edit("sae", 0.0, mm.Neuron(1, 5))),
    "none of its weights": (CapabilityError, lambda m: m.save("/tmp/never")),
    "no dictionary": (ArgumentError, lambda m: m.attach("sae", at=AT)),
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_is_not_there_is_refused_in_a_sentence(model, said):
    kind, ask = REFUSED[said]
    with pytest.raises(kind) as error:
        ask(model)
    assert said in str(error.value) or said == "no dictionary", str(error.value)


def test_a_model_without_a_dictionary_says_how_to_attach_one(plain):
    with pytest.raises(SiteError, match="model.attach"):
        mm.activations(plain, PROMPT, "sae")


@pytest.mark.parametrize(
    ("width", "out", "at"),
    [(33, None, AT), (32, 33, "blocks.1.ln2.hook_normalized"), (31, None, "blocks.0.attn.hook_z"),
     (32, None, "blocks.2.mlp.hook_post"), (33, None, "vision.blocks.0.hook_resid_post")],
)  # fmt: skip
def test_a_dictionary_of_other_vectors_is_refused_when_it_is_attached(width, out, at):
    bridge = mm.load("toy-llama")
    behind = "blocks.1.hook_mlp_out" if out else None
    told = rf"At '{(behind or at)}' stand vectors of \d+ .* the dictionary (reads|writes) 3[123]:"
    with pytest.raises(SiteError, match=told):
        bridge.attach(dictionary(width, d_out=out), at=at, out=behind)


def test_attaching_leaves_hooks_of_the_caller_and_what_a_run_keeps_as_they_are(plain):
    seen: list[str] = []
    with plain.hooks(fwd_hooks=[(AT, lambda x, hook: seen.append(hook.name))]):
        held = plain.attach(dictionary(plain.cfg.d_model), at=AT)
        seen.clear()
        plain.run(PROMPT)
    assert seen == [AT]
    assert torch.equal(held(PROMPT), plain(PROMPT))

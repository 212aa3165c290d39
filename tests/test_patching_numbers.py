"""Half precision, devices without doubles, NaN that leaves, functions that give no number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridges import bridge, off, prompt
from patching_twins import twin

import mmlens as mm
from mmlens import patching
from mmlens.causal import measures
from mmlens.methods import direct_logits
from mmlens.values.errors import CapabilityError, MMLensError, NumericsError, TargetError

CLEAN, CORRUPT = prompt((2, 1)), prompt((0, 3))
PAIR = patching.Pair(CLEAN, CORRUPT)
NAN = float("nan")


def to_cat(model: Any) -> Any:
    """A metric: how much more " dog" than " cat"."""
    return measures.logit_difference(model, " dog", " cat")


# -- half precision ---------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stem", ["Llama", "Qwen2", "Gemma2", "Phi3", "Starcoder2", "StableLm"])
def test_direct_shares_in_half_precision_are_those_of_float32(stem, dtype):
    """As closely as the dtype rounds: 8 digits of a binary number, or 11."""
    half, whole = twin(stem, dtype=dtype), twin(stem)
    close = 6 * torch.finfo(dtype).eps
    for by in ("part",) if stem == "Gemma2" else ("part", "head", "neuron"):
        ours, true = (patching.direct_logits(m, CLEAN, " dog", by=by) for m in (half, whole))
        assert off(ours.values, true.values) < close * float(true.values.abs().sum()), by
    logit = float(half(CLEAN)[0, -1, half.to_single_token(" dog")])
    parts = patching.direct_logits(half, CLEAN, " dog")
    assert parts.about["logit"] == pytest.approx(logit, abs=1e-6)
    assert parts.sum().item() + parts.about["bias"] == pytest.approx(logit, abs=0.05)


@torch.no_grad()
def test_shares_that_miss_a_scale_are_refused_in_half_precision_too():
    for dtype in (torch.bfloat16, torch.float32):
        model = twin("Cohere", dtype=dtype, logit_scale=0.25)
        with pytest.raises(CapabilityError, match="do not give its own logit"):
            patching.direct_logits(model, CLEAN, " dog")


@torch.no_grad()
def test_direct_shares_need_no_double_precision(monkeypatch):
    """As on Apple's MPS, where every `.double()` raises."""
    model = bridge("toy-gptj")
    true = {by: patching.direct_logits(model, CLEAN, " dog", by=by) for by in ("part", "head", "neuron")}  # noqa: E501  # fmt: skip

    def none(self: torch.Tensor) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch.Tensor, "double", none)
    monkeypatch.setattr(direct_logits, "_NO_DOUBLE", ("mps", "cpu"))
    for by, scores in true.items():
        assert off(patching.direct_logits(model, CLEAN, " dog", by=by).values, scores.values) < 1e-5


# -- NaN --------------------------------------------------------------------------------------

VERBS: dict[str, Any] = {
    "attribute": lambda m: mm.attribute(m, CLEAN, " dog", after=""),
    "attribute_caption": lambda m: mm.attribute_caption(m, CLEAN, caption=" dog"),
    "integrated_gradients": lambda m: mm.integrated_gradients(m, CLEAN, " dog", after=""),
    "attribute_picture": lambda m: mm.attribute_picture(m, CLEAN, " dog", after=""),
    "occlusion": lambda m: mm.attribute_picture(
        m, CLEAN, " dog", after="", attribution="occlusion"
    ),
    "logit_lens of a word": lambda m: mm.logit_lens(m, CLEAN, " dog"),
    "logit_lens": lambda m: mm.logit_lens(m, CLEAN),
    "activations": lambda m: mm.activations(m, CLEAN, "resid_post"),
    "patch": lambda m: patching.patch(m, PAIR, to_cat(m)),
    "attribution_patching": lambda m: patching.attribution_patching(m, PAIR, to_cat(m)),
    "integrated patching": lambda m: patching.attribution_patching(m, PAIR, to_cat(m), steps=2),
    "direct_logits": lambda m: patching.direct_logits(m, CLEAN, " dog"),
    "direct_logits of heads": lambda m: patching.direct_logits(m, CLEAN, " dog", by="head"),
    "direct_logits of neurons": lambda m: patching.direct_logits(m, CLEAN, " dog", by="neuron"),
    "knockouts": lambda m: patching.knockouts(m, CLEAN, to_cat(m), {"a": (mm.Patch, -1)}),
    "ablate": lambda m: patching.ablate(m, CLEAN, to_cat(m)),
    "ablation_curve": lambda m: patching.ablation_curve(m, CLEAN, to_cat(m), [mm.Neuron(0, 1)], k=(1,)),  # noqa: E501
    "path_patching": lambda m: patching.path_patching(m, PAIR, to_cat(m), [mm.Head(0, 1)], mm.Head(2, 0)),  # noqa: E501
    "mean_over": lambda m: patching.mean_over(m, [CLEAN], "resid_post"),
    "mean_difference": lambda m: patching.mean_difference(m, [CLEAN], [CORRUPT], layer=2),
    "kl": lambda m: patching.patch(bridge("toy-gpt2"), PAIR, measures.kl(m, CLEAN)),
    "captions": lambda m: patching.captions(m, CLEAN, {}),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_nan_never_leaves_as_a_number(verb):
    model = bridge("toy-gpt2")
    broken = {
        "in the middle": mm.Edit("mlp_out", NAN, layer=1),
        "at the end": mm.Edit("resid_post", NAN, layer=2, pos=-1),
        "in the soft prompt": mm.Edit("soft_prompt", NAN),
    }
    for where, edit in broken.items():
        edited = model.edit(edit)
        with pytest.raises(NumericsError, match=r"NaN or infini"):
            print(where, VERBS[verb](edited))  # shown when it fails


def test_nan_of_the_soft_prompt_attention_and_metric_is_named():
    model = bridge("toy-gpt2")
    with pytest.raises(NumericsError, match="vectors of the soft prompt"):
        mm.nearest_tokens(model.edit(mm.Edit("soft_prompt", NAN)), CLEAN)
    with pytest.raises(NumericsError, match="'pattern' in layer 2"):
        patching.attention(model.edit(mm.Edit("mlp_out", NAN, layer=1)), CLEAN)
    with pytest.raises(NumericsError, match="what the metric gives"):
        patching.patch(model, PAIR, lambda logits: logits[0] * NAN)
    patching.attention(model.edit(patching.knockout(mm.Patch, -1)), CLEAN)  # -inf is no such thing
    mm.activations(model, CLEAN, "attn_scores")


# -- functions of the logits ------------------------------------------------------------------

FUNCTIONS: dict[str, tuple[Any, str]] = {
    "a vector": (lambda x: x[:3], "3 numbers for one row of logits: reduce them to one"),
    "nothing": (lambda x: x[:0], "0 numbers"),
    "None": (lambda x: None, "gives None, which is no real number"),
    "text": (lambda x: "dog", "gives 'dog', which is no real number"),
    "a failure": (lambda x: 1 / 0, r"failed \(ZeroDivisionError: division by zero\)"),
    "an index": (lambda x: x[0, 5], r"failed \(IndexError: .*Float\[d_vocab\]"),
    "a wrong type": (lambda x: x["dog"], r"failed \(.*Float\[d_vocab\]"),
    "another's error": (lambda x: x.reshape(7, 11), r"failed \(RuntimeError"),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_metric_that_gives_no_number_is_refused_in_one_sentence(kind):
    function, sentence = FUNCTIONS[kind]
    model = bridge("toy-gpt2")
    for ask in (
        lambda: patching.patch(model, PAIR, function),
        lambda: patching.ablate(model, CLEAN, function),
        lambda: patching.knockouts(model, CLEAN, {"own": function}, {"a": (mm.Patch, -1)}),
        lambda: patching.attribution_patching(model, PAIR, function),
        lambda: patching.path_patching(model, PAIR, function, [mm.Head(0, 0)]),
        lambda: mm.attribute(model, CLEAN, target=function, after=""),
        lambda: mm.integrated_gradients(model, CLEAN, target=function, after=""),
        lambda: mm.attribute_picture(model, CLEAN, target=function, after=""),
    ):
        with pytest.raises(TargetError, match=sentence):
            ask()


def test_a_number_without_a_gradient_will_do_where_none_is_needed():
    model = bridge("toy-gpt2")
    true = patching.patch(model, PAIR, to_cat(model), by="layer").values
    for plain in (lambda x: float(to_cat(model)(x)), lambda x: to_cat(model)(x).detach().numpy()):
        assert off(patching.patch(model, PAIR, plain, by="layer").values, true) < 1e-6
        for steps in (0, 2):
            with pytest.raises(NumericsError, match="no gradient"):
                patching.attribution_patching(model, PAIR, plain, steps=steps)
        for ask in (mm.attribute, mm.integrated_gradients, mm.attribute_picture):
            with pytest.raises(MMLensError, match="gradient"):
                ask(model, CLEAN, target=plain, after="")
    counts = patching.patch(model, PAIR, lambda x: (x > 0).sum(), by="layer")
    assert counts.values.dtype == torch.float32


# -- contexts and prompts ---------------------------------------------------------------------


def test_inference_mode_around_a_question_changes_no_answer():
    model = bridge("toy-gptj")
    asks = {
        "patch": lambda: patching.patch(model, PAIR, to_cat(model), by="layer"),
        "ablate": lambda: patching.ablate(model, CLEAN, to_cat(model), by="layer"),
        "estimate": lambda: patching.attribution_patching(model, PAIR, to_cat(model)),
        "integrated": lambda: patching.attribution_patching(model, PAIR, to_cat(model), steps=2),
        "attribute": lambda: mm.attribute(model, CLEAN, " dog", after=""),
        "gradients": lambda: mm.integrated_gradients(model, CLEAN, " dog", after="", layer=1),
        "picture": lambda: mm.attribute_picture(model, CLEAN, " dog", after=""),
    }
    for name, ask in asks.items():
        true = ask().values
        with torch.inference_mode():
            assert off(ask().values, true) < 1e-6, name
    with torch.inference_mode():
        soft = model.embed(CLEAN)
    assert (
        off(mm.attribute(model, soft, " dog", after="").values, asks["attribute"]().values) < 1e-6
    )


@torch.no_grad()
def test_a_path_between_prompts_of_other_words_is_sent_position_by_position():
    model = bridge("toy-gpt2")
    pair, metric, sender = patching.Pair("a dog", "a cat"), to_cat(model), mm.Head(1, 2)
    got = patching.path_patching(model, pair, metric, [sender])
    z = [mm.activations(model, p, "z", layer=1, head=2, pos=-1).values for p in ("a dog", "a cat")]
    resid = mm.activations(model, "a cat", "resid_post", layer=2, pos=-1).values
    written = (z[0] - z[1]) @ model.root.blocks[1].attn.W_O[2]
    wanted = float(metric(model.lm.logits_of(resid + written)))
    assert float(got.values[0]) == pytest.approx(wanted, abs=1e-4)

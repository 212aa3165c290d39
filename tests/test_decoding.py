"""Decoding against hallucination: each method is its formula, with and without the cache."""

from __future__ import annotations

import math
from inspect import unwrap
from typing import Any

import numpy as np
import pytest
import torch
from bridges import bridge, prompt
from PIL import Image

import mmlens as mm
from mmlens import decoding
from mmlens.families import toy
from mmlens.methods.contrastive_decoding import Contrast
from mmlens.methods.shift_steering import principal
from mmlens.methods.trust_penalty import over_trust
from mmlens.model.logits_processors import listed
from mmlens.model.targets import extend
from mmlens.values.errors import (
    AddressError,
    ArgumentError,
    CapabilityError,
    NumericsError,
    PromptError,
)

KINDS = ("gptj", "llama", "gpt2")
STEPS = 6


def tokens(model: Any, given: Any, **how: Any) -> list[list[int]]:
    """The new tokens of a generation that ends nowhere."""
    how = {"return_type": "tokens", "stop_at_eos": False, **how}
    return model.generate(given, STEPS, **how).tolist()


def noised(at: tuple[int, int] = (2, 1)) -> mm.Prompt:
    return mm.Prompt(decoding.diffusion_noise(700)(toy.picture(at)), "A picture of")


@torch.no_grad()
def last(model: Any, given: Any, said: list[int]) -> torch.Tensor:
    """The logits behind a prompt and these tokens, by one pass over all of it."""
    return model(extend(model, model.embed(given), said))[0, -1]


# -- logits processors ----------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_a_processor_sees_the_new_tokens_alone_and_what_it_returns_is_generated(cached):
    model, seen = bridge("toy-llama"), []

    def counting(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        seen.append(ids.tolist())
        out = torch.full_like(logits, -math.inf)
        out[:, 7 + ids.shape[1]] = 0.0
        return out

    found = tokens(model, prompt(), logits_processor=counting, use_past_kv_cache=cached)
    assert found == [[7 + i for i in range(STEPS)]]
    assert seen == [[[7 + i for i in range(n)]] for n in range(STEPS)]


def test_several_processors_act_one_after_the_other():
    model = bridge("toy-llama")

    def only(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return torch.full_like(logits, -math.inf).index_fill(1, torch.tensor([3, 9]), 0.0)

    def not_three(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_fill(1, torch.tensor([3]), -math.inf)

    assert tokens(model, prompt(), logits_processor=[only, not_three]) == [[9] * STEPS]


@pytest.mark.parametrize(
    "given", [lambda ids, logits: None, lambda ids, logits: logits[:, :5]], ids=["None", "few"]
)
def test_what_gives_no_logits_is_refused(given):
    with pytest.raises(ArgumentError, match="must return logits of shape"):
        bridge("toy-llama").generate(prompt(), 2, logits_processor=given, repetition_penalty=1.1)


@pytest.mark.parametrize("given", [3, [None], "noise"])
def test_what_is_no_processor_is_refused(given):
    with pytest.raises(ArgumentError, match="give a function of"):
        listed(given)


# -- contrast (VCD, PAI) --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cached", [True, False])
def test_nothing_contrasted_is_the_greedy_text(kind, cached):
    model = bridge(f"toy-{kind}")
    nothing = decoding.contrast(model, noised(), alpha=0.0, beta=0.3)
    assert tokens(model, prompt(), logits_processor=nothing, use_past_kv_cache=cached) == tokens(
        model, prompt()
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", ["noise", "words"])
def test_a_contrast_is_the_formula_on_the_logits_of_two_runs(kind, other):
    model, alpha, beta = bridge(f"toy-{kind}"), 3.0, 0.4
    against = noised() if other == "noise" else "A picture of"
    said: list[int] = []
    for _ in range(STEPS):
        one, two = last(model, prompt(), said), last(model, against, said)
        p = one.softmax(-1)
        odds = (1 + alpha) * one.log_softmax(-1) - alpha * two.log_softmax(-1)
        said.append(int(torch.where(p >= beta * p.max(), odds, -math.inf).argmax()))
    assert said != tokens(model, prompt())[0]  # it changes this text
    processor = decoding.contrast(model, against, alpha=alpha, beta=beta)
    for how in ({}, {"use_past_kv_cache": False}, {}):  # one processor, several texts
        assert tokens(model, prompt(), logits_processor=processor, **how) == [said]
    processor.second.cached = False  # as on a model whose cache is not exact
    assert tokens(model, prompt(), logits_processor=processor) == [said]


def test_of_a_batch_each_text_is_contrasted_with_its_own_prompt():
    model, both = bridge("toy-gptj"), [prompt((2, 1)), prompt((0, 3), "A longer picture of")]
    others = [noised((2, 1)), noised((0, 3))]
    alone = [
        tokens(model, one, logits_processor=decoding.contrast(model, other, alpha=3.0))[0]
        for one, other in zip(both, others, strict=True)
    ]
    together = decoding.contrast(model, others, alpha=3.0)
    assert tokens(model, both, logits_processor=together) == alone


def test_the_other_run_has_the_edits_of_the_model_that_runs_it():
    model = bridge("toy-gptj")
    blind = model.edit(mm.Edit("soft_prompt", 0.0))
    seen = decoding.contrast(blind, prompt(), alpha=3.0)
    right = decoding.contrast(model, noised(), alpha=3.0)
    ids, logits = torch.zeros(1, 0, dtype=torch.long), last(model, prompt(), [])[None]
    by_hand = 4.0 * logits - 3.0 * last(blind, prompt(), [])
    kept = torch.isfinite(seen(ids, logits))
    assert torch.allclose(seen(ids, logits)[kept], by_hand[kept], atol=1e-4)
    assert not torch.allclose(right(ids, logits)[kept], by_hand[kept], atol=1e-3)


def test_tokens_below_the_share_of_the_best_are_left_out():
    class Flat:
        def __call__(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.zeros(1, 4)

    p = torch.tensor([[0.5, 0.26, 0.14, 0.1]])
    flat: Any = Flat()
    left = Contrast(flat, 1.0, 0.5)(torch.zeros(1, 0), p.log())
    assert left.isfinite().tolist() == [[True, True, False, False]]
    assert Contrast(flat, 1.0, 0.0)(torch.zeros(1, 0), p.log()).isfinite().all()


def test_noise_is_that_of_the_diffusion():
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    spread = {step: float(np.asarray(decoding.diffusion_noise(step)(grey)).std()) / 127.5
              for step in (0, 100, 200)}  # fmt: skip
    for step, found in spread.items():
        rates = torch.sigmoid(torch.linspace(-6, 6, 1000, dtype=torch.double)) * (5e-3 - 1e-5)
        gone = 1 - float(torch.log1p(-(rates + 1e-5))[: step + 1].sum().exp())
        assert found == pytest.approx(math.sqrt(gone), rel=0.05, abs=0.003)
    far = np.asarray(decoding.diffusion_noise(999)(Image.new("RGB", (60, 60), (255, 0, 0))), float)
    assert abs(far[..., 0].mean() - far[..., 1].mean()) < 90  # red is nearly gone
    again = decoding.diffusion_noise(500, seed=3)(grey)
    assert again.tobytes() == decoding.diffusion_noise(500, seed=3)(grey).tobytes()


def test_a_share_of_the_patches_is_covered_by_the_mean_colour():
    model, photo = bridge("toy-gptj"), toy.picture((2, 1))
    before = np.asarray(photo.convert("RGB"), int)
    hidden = np.asarray(decoding.covered(model, 0.5, seed=1)(photo), int)
    mean = np.round(before.mean((0, 1)))
    cells = lambda x: x.reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, -1, 3)  # noqa: E731
    flat = [bool((cell == mean).all()) for cell in cells(hidden)]
    assert sum(flat) == 8
    kept = [i for i, one in enumerate(flat) if not one]
    assert np.array_equal(cells(hidden)[kept], cells(before)[kept])
    assert np.array_equal(np.asarray(decoding.covered(model, 0.0)(photo)), before)


# -- amplified attention (PAI) --------------------------------------------------------------------


def test_amplified_attention_is_the_softmax_by_hand():
    model, alpha, layer = bridge("toy-gpt2"), 0.7, 1
    q, k = (mm.activations(model, prompt(), site, layer=layer) for site in "qk")
    asked = q.values[-1]  # head, dim
    scores = torch.einsum("hd,phd->hp", asked, k.values) / math.sqrt(asked.shape[-1])
    is_picture = torch.tensor([isinstance(one, mm.Patch) for one in q.of("pos")])
    scores = torch.where(is_picture, scores + alpha * scores.abs(), scores)
    more = model.edit(decoding.amplify(layer=layer, alpha=alpha))
    found = mm.activations(more, prompt(), "pattern", layer=layer)
    assert torch.allclose(found.values[:, -1], scores.softmax(-1), atol=1e-5)
    plain = mm.activations(model, prompt(), "pattern", layer=layer)
    assert torch.equal(found.values[:, :-1], plain.values[:, :-1])  # no other query


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_attends_more_to_the_picture_whatever_the_sign_of_its_scores(kind):
    model = bridge(f"toy-{kind}")
    share = lambda m: (  # noqa: E731
        mm.activations(m, prompt(), "pattern", layer=0, query=-1, key=mm.Patch).values.sum(-1)
    )
    assert bool((share(model.edit(decoding.amplify(layer=0, alpha=1.0))) > share(model)).all())
    assert bool((share(model.edit(decoding.amplify(layer=0, alpha=-1.0))) < share(model)).all())


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_amplified_at_every_new_token_with_and_without_the_cache(kind):
    model = bridge(f"toy-{kind}")
    assert tokens(model.edit(decoding.amplify(alpha=0.0)), prompt()) == tokens(model, prompt())
    more = model.edit(decoding.amplify(alpha=8.0))
    assert tokens(more, prompt()) == tokens(more, prompt(), use_past_kv_cache=False)
    both = {"logits_processor": decoding.contrast(model, "A picture of", alpha=2.0)}
    assert tokens(more, prompt(), **both) == tokens(more, prompt(), use_past_kv_cache=False, **both)
    said = tokens(more, prompt())[0]  # each later query is amplified as well: by one pass over all
    whole = extend(model, model.embed(prompt()), said[:-1])
    n = len(said)
    every = model.edit(decoding.amplify(destination=slice(-n, None), alpha=8.0))
    assert every(whole)[0, -n:].argmax(-1).tolist() == said


def test_keys_of_cross_attention_are_amplified_across():
    model = bridge("toy-cross")
    photo = mm.Prompt(toy.picture().resize((64, 32)), " A picture of")
    site = next(at for at in range(model.cfg.n_layers)
                if f"blocks.{at}.cross_attn.hook_pattern" in model.hook_dict)  # fmt: skip
    read = lambda m: (  # noqa: E731
        mm.activations(m, photo, "cross_attn_scores", layer=site, query=-1).values
    )
    plain = read(model)
    more = read(model.edit(decoding.amplify(layer=site, alpha=0.5, across=True)))
    assert torch.allclose(more, plain + 0.5 * plain.abs(), atol=1e-6)


# -- a penalty on over-trust (OPERA) --------------------------------------------------------------


def by_loops(pattern: torch.Tensor, scale: float, window: int) -> float:
    """phi of one row of attention [head, query, key], as the paper writes it."""
    n = pattern.shape[1]
    weight = pattern.max(0).values
    products = []
    for c in range(max(0, n - window), n):
        product = 1.0
        for i in range(c, n):
            row = weight[i] / weight[i].sum()
            product *= scale * float(row[pattern.shape[2] - n + c])
        products.append(product)
    return max(products)


@pytest.mark.parametrize("window", [1, 3, 16])
def test_over_trust_is_the_largest_product_down_a_column(window):
    torch.manual_seed(0)
    raw = torch.randn(4, 3, 5, 9).masked_fill(~torch.ones(5, 9).tril(4).bool(), -math.inf)
    pattern = raw.softmax(-1)
    found = over_trust(pattern, 8.0, window)
    right = [by_loops(one, 8.0, window) for one in pattern]
    assert found.tolist() == pytest.approx(right, rel=1e-4)


def test_attention_that_all_goes_to_one_token_is_over_trust():
    even = torch.ones(1, 1, 6, 6).tril()
    even = even / even.sum(-1, keepdim=True)
    summary = torch.zeros(1, 1, 6, 6)
    summary[..., 0] = 1.0
    trusted = over_trust(torch.cat([even, summary]), 2.0, 16)
    assert trusted[1] == pytest.approx(2.0**6) and trusted[1] > 5 * trusted[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_penalty_of_a_candidate_is_that_of_the_text_with_it(kind):
    model, said, k = bridge(f"toy-{kind}"), [5, 9, 11], 4
    processor = decoding.trust_penalty(model, prompt(), alpha=0.3, k=k, scale=20.0, layer=-1)
    logits = last(model, prompt(), said)
    found = processor(torch.tensor([said]), logits[None])[0]
    best = logits.topk(k).indices.tolist()
    assert sorted(found.isfinite().nonzero()[:, 0].tolist()) == sorted(best)
    start = len(model.embed(prompt()).labels[0])
    for token in best:
        whole = extend(model, model.embed(prompt()), [*said, token])
        pattern = mm.activations(model, whole, "pattern", layer=model.cfg.n_layers - 1)
        phi = by_loops(pattern.values[:, start:], 20.0, 16)
        assert float(found[token]) == pytest.approx(float(logits[token]) - 0.3 * phi, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_without_weight_the_penalty_leaves_the_greedy_text_and_with_it_the_cache_changes_nothing(
    kind,
):
    model = bridge(f"toy-{kind}")
    none = decoding.trust_penalty(model, prompt(), alpha=0.0)
    assert tokens(model, prompt(), logits_processor=none) == tokens(model, prompt())
    much = decoding.trust_penalty(model, prompt(), alpha=5.0, k=3)
    changed = tokens(model, prompt(), logits_processor=much)
    assert changed != tokens(model, prompt())
    assert tokens(model, prompt(), logits_processor=much, use_past_kv_cache=False) == changed
    two = [prompt(), prompt((0, 3), "A longer picture of")]
    both = decoding.trust_penalty(model, two, alpha=5.0, k=3)
    assert tokens(model, two, logits_processor=both)[0] == changed[0]


# -- steering along shifts (VTI) ------------------------------------------------------------------


def test_the_planted_direction_of_many_pairs_is_found_with_its_sign():
    torch.manual_seed(0)
    d = torch.nn.functional.normalize(torch.randn(3, 24), dim=-1)
    much = 4 + torch.rand(3, 40, 1)
    shifts = much * d[:, None] + 0.2 * torch.randn(3, 40, 24)
    for sign in (1.0, -1.0):
        found, share = principal(sign * shifts)
        assert bool((torch.cosine_similarity(found, sign * d, dim=-1) > 0.99).all())
        assert torch.allclose(found.norm(dim=-1), much.mean((1, 2)), atol=0.1)
        assert bool((share > 0.9).all()) and bool((share <= 1).all())


def test_of_one_pair_the_direction_is_its_shift():
    model = bridge("toy-gptj")
    one, other = prompt((2, 1)), prompt((0, 3))
    found = decoding.shift_directions(model, [one], [other])
    plain = [mm.activations(model, p, "resid_post", pos=-1).values for p in (one, other)]
    assert found.axes == ("layer", "dim") and found.about["share"] == pytest.approx(1.0)
    assert torch.allclose(found.values, plain[0] - plain[1], atol=1e-5)
    seen = decoding.shift_directions(
        model, [[one, other]], [other], "vision.resid_post", each=True, layer=[1]
    )
    values = [mm.activations(model, p, "vision.resid_post", layer=1).values for p in (one, other)]
    assert seen.axes == ("layer", "pos", "dim")
    assert torch.allclose(seen.values[0], (values[0] - values[1]) / 2, atol=1e-5)


def test_steering_turns_towards_the_direction_and_keeps_the_length():
    model = bridge("toy-gptj")
    found = decoding.shift_directions(model, [prompt((2, 1))], [prompt((0, 3))])
    d = found.sel(layer=1).values
    read = lambda m: mm.activations(m, prompt(), "resid_post", layer=1).values  # noqa: E731
    before, last_angle = read(model), None
    for scale in (0.0, 0.1, 0.5, 4.0):
        x = read(model.edit(*decoding.steer_along("resid_post", found.sel(layer=[1]), scale=scale)))
        assert torch.allclose(x.norm(dim=-1), before.norm(dim=-1), rtol=1e-5)
        angle = torch.cosine_similarity(x, d, dim=-1)
        if last_angle is None:
            assert torch.allclose(x, before, atol=1e-6)
        else:
            assert bool((angle > last_angle).all())
        last_angle = angle


def test_each_patch_of_an_encoder_is_steered_by_its_own_direction():
    model = bridge("toy-gptj")
    seen = decoding.shift_directions(
        model, [prompt((2, 1))], [prompt((0, 3))], "vision.resid_post", each=True, layer=[0]
    )
    x = mm.activations(model, prompt((1, 1)), "vision.resid_post", layer=0).values
    edited = model.edit(*decoding.steer_along("vision.resid_post", seen, scale=0.5))
    found = mm.activations(edited, prompt((1, 1)), "vision.resid_post", layer=0).values
    unit = lambda v: v / v.norm(dim=-1, keepdim=True).clamp(min=1e-12)  # noqa: E731
    right = x.norm(dim=-1, keepdim=True) * unit(unit(x) + 0.5 * unit(seen.values[0]))
    assert torch.allclose(found, right, atol=1e-5)


@pytest.mark.parametrize("each", [False, True])
def test_a_map_of_a_convolution_is_turned_patch_by_patch(each):
    torch.manual_seed(0)
    small = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_classes": 9}
    net = pytest.importorskip("timm").create_model("convnext_atto", **small)
    model: Any = mm.from_parts(vision=net.eval())
    one, other = (toy.picture(at).resize((64, 64)) for at in ((2, 1), (0, 3)))
    found = decoding.shift_directions(model, [one], [other], layer=[1], each=each)
    site = "vision.resid_post"
    edited = model.edit(*decoding.steer_along(site, found, scale=1.0))
    x, y = (mm.activations(m, one, site, layer=1, pos=mm.Patch).values for m in (model, edited))
    unit = lambda v: v / v.norm(dim=-1, keepdim=True).clamp(min=1e-12)  # noqa: E731
    right = x.norm(dim=-1, keepdim=True) * unit(unit(x) + unit(found.values[0]))
    assert found.axes == (("layer", "pos", "channel") if each else ("layer", "channel"))
    assert torch.allclose(y, right, atol=1e-5) and not torch.allclose(y, x, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_steered_text_is_the_same_with_and_without_the_cache(kind):
    model = bridge(f"toy-{kind}")
    found = decoding.shift_directions(model, [prompt((2, 1), "A dog of")], [prompt((2, 1))])
    steered = model.edit(*decoding.steer_along("resid_post", found, scale=2.0))
    assert tokens(steered, prompt()) != tokens(model, prompt())
    assert tokens(steered, prompt()) == tokens(steered, prompt(), use_past_kv_cache=False)


# -- refusals -------------------------------------------------------------------------------------


def measured() -> mm.Scores:
    """Directions of the stream between two patches of white, in three layers."""
    return decoding.shift_directions(bridge("toy-llama"), [prompt()], [prompt((0, 0))])


def test_edits_are_taken_one_by_one_and_in_lists():
    model, both = bridge("toy-llama"), decoding.steer_along("resid_post", measured())
    quiet = mm.Edit("mlp_out", 0.0, layer=0)
    many = model.edit(quiet, both).edits
    assert many == (quiet, *both) == model.edit([quiet, [*both]]).edits
    table = mm.patching.captions(model, prompt(), {"all": [both, quiet]}, max_new_tokens=1)
    assert len(table) == 2


def test_directions_act_where_they_were_measured_or_elsewhere_on_purpose():
    found = measured()
    assert found.about["site"] == "resid_post"
    with pytest.raises(AddressError, match="measured at 'resid_post', where 'mlp_out' holds"):
        decoding.steer_along("mlp_out", found)
    plain = mm.Scores(found.values, found.axes, found.labels)
    assert len(decoding.steer_along("mlp_out", plain)) == 3


def test_processors_and_edits_of_functions_are_shown_without_addresses():
    model = bridge("toy-llama")
    shown = repr(decoding.contrast(model, "A picture of", alpha=0.5))
    assert shown == "contrast('toy-llama', Prompt('A picture of'), alpha=0.5, beta=0.1)"
    shown = repr(decoding.trust_penalty(model, [prompt(), prompt()], k=3))
    assert shown.startswith("trust_penalty('toy-llama', [Prompt(") and "0x" not in shown
    assert shown.endswith("alpha=1.0, k=3, scale=50.0, window=16, layer=2)")
    edited = model.edit(decoding.steer_along("resid_post", measured(), scale=0.5))
    told = mm.activations(edited, prompt(), "resid_post", layer=0).about["edits"]
    assert all("_turned, Tensor" in one and "0.5)" in one and "0x" not in one for one in told)


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a list of directions": (
        lambda m: unwrap(mm.patching.steer)("resid_post", [torch.ones(2)]), ArgumentError,
        "an Edit has one direction"),
    "a list of directions to remove": (
        lambda m: unwrap(mm.patching.remove)("resid_post", [prompt()]), ArgumentError, "captions"),
    "patches that are no positions": (
        lambda m: bridge("toy-cross").edit(decoding.amplify()), AddressError, "across=True"),
    "routes from patches that are no positions": (
        lambda m: bridge("toy-cross").edit(mm.patching.knockout([mm.Patch(0, 0)], -1)),
        AddressError, "across=True"),
    "alpha of a contrast": (
        lambda m: decoding.contrast(m, prompt(), alpha=-1.0), ArgumentError, "alpha=-1.0"),
    "beta": (lambda m: decoding.contrast(m, prompt(), beta=2.0), ArgumentError, "beta=2.0"),
    "other numbers of prompts": (
        lambda m: m.generate([prompt()] * 2, 2, logits_processor=decoding.contrast(m, "A")),
        PromptError, "2 texts are generated and contrasted with 1 prompts"),
    "beams": (
        lambda m: m.generate(prompt(), 2, num_beams=2,
                             logits_processor=decoding.contrast(m, "A")),
        PromptError, "without beams"),
    "beams of a penalty": (
        lambda m: m.generate(prompt(), 2, num_beams=2,
                             logits_processor=decoding.trust_penalty(m, prompt())),
        PromptError, "without beams"),
    "no picture": (
        lambda m: m.edit(decoding.amplify()).generate("A picture of", 2), AddressError, "Patch"),
    "layer": (lambda m: decoding.trust_penalty(m, prompt(), layer=9), AddressError, "no layer 9"),
    "step": (lambda m: decoding.diffusion_noise(1000), ArgumentError, "step=1000"),
    "share": (lambda m: decoding.covered(m, 1.5), ArgumentError, "share=1.5"),
    "no pairs": (
        lambda m: decoding.shift_directions(m, [prompt()], [prompt()] * 2), AddressError,
        "are no pairs"),
    "equal sides": (
        lambda m: decoding.shift_directions(m, [prompt()], [prompt()]), NumericsError,
        "No pair differs"),
    "axes": (
        lambda m: decoding.steer_along("resid_post", mm.activations(m, prompt()).sel(layer=1)),
        AddressError, "layer, \\(pos,\\) dim"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_decoded_so_is_refused_in_one_sentence(name):
    call, error, told = WRONG[name]
    with pytest.raises(error, match=told):
        call(bridge("toy-llama"))


def test_an_encoder_generates_nothing_to_contrast():
    encoder: Any = mm.from_parts(vision=bridge("toy-gptj").vision)
    with pytest.raises(CapabilityError, match="generates text"):
        decoding.contrast(encoder, prompt())


# -- what a processor may do ----------------------------------------------------------------------


@pytest.mark.parametrize("cached", [True, False])
def test_a_processor_may_write_into_what_it_is_given(cached):
    def in_place(ids, logits):
        logits[:, first] = -torch.inf
        return logits

    def in_a_copy(ids, logits):
        return logits.index_fill(1, torch.tensor([first]), -torch.inf)

    model = bridge("toy-gptj")
    first = tokens(model, prompt())[0][0]
    how = {"use_past_kv_cache": cached}
    found = tokens(model, prompt(), logits_processor=in_place, **how)
    assert found == tokens(model, prompt(), logits_processor=in_a_copy, **how)
    assert first not in found[0]


@pytest.mark.parametrize("nothing", [float("nan"), -torch.inf])
def test_a_processor_that_leaves_no_token_is_named(nothing):
    def mine(ids, logits):
        return torch.full_like(logits, nothing)

    for how in ({}, {"do_sample": True}):
        with pytest.raises(ArgumentError, match=r"mine.*leaves no token"):
            bridge("toy-gptj").generate(prompt(), 2, logits_processor=mine, **how)


def test_models_of_two_vocabularies_are_not_contrasted():
    other = decoding.contrast(mm.load("pictos"), "A picture of")
    with pytest.raises(PromptError, match="one vocabulary"):
        bridge("toy-gptj").generate(prompt(), 2, logits_processor=other)

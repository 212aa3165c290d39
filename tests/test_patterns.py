"""Attention patterns are written on every architecture, also where TransformerLens only reads them.

There a bridge hands attention over to the module of transformers, which is opened in the bridge's
own copy. An edit is held against other routes to the same logits: the attention mask, the KV cache,
the Hugging Face model.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from language_models import N_WORDS, bare, make, soft

import mmlens as mm
from mmlens.towers.attention import openings
from mmlens.towers.language import attention_mask
from mmlens.towers.language.language_model import wrap_lm
from mmlens.towers.language.measured import apart

HANDED_OVER = ["gptj", "gpt-neo", "opt", "opt-350m", "xglm", "llama4", "bert"]
CUT = [kind for kind in HANDED_OVER if kind not in ("xglm", "bert")]
"""The attention of the others takes no mask with heads."""
handed_over = pytest.mark.parametrize("kind", HANDED_OVER)
IDS = torch.tensor([[5, 9, 3, 11, 7, 2, 30], [8, 1, 4, 40, 6, 21, 13]])
ONES = torch.ones_like(IDS)


@cache
def hooked(kind: str) -> tuple[Any, Any]:
    """The Hugging Face model and its wrapped language model."""
    if kind != "bert":
        hf = make(kind)
    else:
        config = transformers.BertConfig(
            vocab_size=N_WORDS, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=64, is_decoder=True, pad_token_id=0,
            initializer_range=0.2,
        )  # fmt: skip
        torch.manual_seed(0)
        hf = transformers.BertLMHeadModel(config).eval()
    return hf, wrap_lm(hf)


def name(layer: int, point: str = "hook_pattern") -> str:
    return f"blocks.{layer}.attn.{point}"


def kept(lm: Any, names: list[str], **options: Any) -> tuple[torch.Tensor, dict[str, list[Any]]]:
    """The logits, and what passes these points."""
    seen: dict[str, list[Any]] = {}
    hooks = [(n, lambda value, hook: seen.setdefault(hook.name, []).append(value)) for n in names]
    with lm.root.hooks(fwd_hooks=hooks):
        return lm.forward(IDS, ONES, **options), seen


@handed_over
@torch.no_grad()
def test_reading_scores_and_patterns_changes_no_bit_of_the_logits(kind):
    hf, lm = hooked(kind)
    names = [name(layer, p) for layer in (0, 1) for p in ("hook_pattern", "hook_attn_scores")]
    cold, (warm, seen) = lm.forward(IDS, ONES), kept(lm, names)
    assert torch.equal(cold, warm)
    assert apart(cold, hf(input_ids=IDS, attention_mask=ONES, use_cache=False).logits) < 1e-6
    assert {n: len(values) for n, values in seen.items()} == dict.fromkeys(names, 1)
    for layer in (0, 1):
        pattern, scores = (seen[name(layer, p)][0] for p in ("hook_pattern", "hook_attn_scores"))
        assert pattern.shape == scores.shape == (2, 4, 7, 7)
        assert (scores.softmax(-1) - pattern).abs().max() < 1e-6  # scores are masked, not patterns
        assert (pattern.sum(-1) - 1).abs().max() < 1e-6
        assert pattern.triu(1).abs().max() == 0.0


@handed_over
@torch.no_grad()
def test_the_pattern_is_the_one_that_transformers_returns(kind):
    hf, lm = hooked(kind)
    if kind != "xglm":  # it has one way to attend
        hf.set_attn_implementation("eager")
    own = hf(input_ids=IDS, attention_mask=ONES, use_cache=False, output_attentions=True).attentions
    _, seen = kept(lm, [name(0), name(1)])
    assert own is not None
    for layer in (0, 1):
        assert (seen[name(layer)][0] - own[layer]).abs().max() < 1e-6


@pytest.mark.parametrize("kind", CUT)
@torch.no_grad()
def test_a_written_pattern_gives_the_logits_of_the_mask_that_makes_it(kind):
    _, lm = hooked(kind)

    def cut(mask: torch.Tensor) -> torch.Tensor:
        mask = mask.clone()
        mask[:, 1, 4:, 2] = torch.finfo(mask.dtype).min  # head 1: late queries lose key 2
        return mask

    for layer in (0, 1):
        with attention_mask.tapped(lm, {layer: [cut]}):
            wanted, seen = kept(lm, [name(layer)])
        other = seen[name(layer)][0]
        assert other[:, 1, 4:, 2].abs().max() == 0.0
        with lm.root.hooks(fwd_hooks=[(name(layer), lambda value, hook, other=other: other)]):
            got = lm.forward(IDS, ONES)
        assert torch.equal(got, wanted)
        assert apart(got, lm.forward(IDS, ONES)) > 1e-3


@pytest.mark.parametrize("kind", CUT)
@torch.no_grad()
def test_written_scores_act_like_the_mask(kind):
    _, lm = hooked(kind)
    floor = torch.finfo(torch.float32).min

    def cut(value: torch.Tensor, hook: Any = None) -> torch.Tensor:
        value = value.clone()
        value[:, :, -1, 1] = floor
        return value

    with attention_mask.tapped(lm, {1: [cut]}):
        wanted = lm.forward(IDS, ONES)
    with lm.root.hooks(fwd_hooks=[(name(1, "hook_attn_scores"), cut)]):
        assert apart(lm.forward(IDS, ONES), wanted) < 1e-6


@handed_over
@torch.no_grad()
def test_a_written_pattern_acts_alike_with_and_without_a_cache(kind):
    _, lm = hooked(kind)
    if not lm.caching.exact:
        pytest.skip("these releases keep no cache for it")

    def no_first(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
        pattern = pattern.clone()
        pattern[:, 2, :, 0] = 0.0  # of all queries, cached or not
        return pattern

    def logits(cached: bool) -> torch.Tensor:
        out = lm.root.original_model.generate(
            input_ids=IDS, attention_mask=ONES, max_new_tokens=4, do_sample=False,
            use_cache=cached, output_logits=True, return_dict_in_generate=True, pad_token_id=0,
            eos_token_id=None,
        )  # fmt: skip
        return torch.stack(out.logits)

    plain = logits(True)
    with lm.root.hooks(fwd_hooks=[(name(layer), no_first) for layer in (0, 1)]):
        cached, full = logits(True), logits(False)
    assert apart(cached, full) < 1e-5
    assert apart(cached[:1], plain[:1]) > 1e-3


@handed_over
def test_no_edit_of_a_pattern_is_discarded_and_gradients_pass(kind):
    _, lm = hooked(kind)
    assert lm.can.pattern_writable
    leaf: list[torch.Tensor] = []

    def free(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
        leaf.append(pattern.detach().clone().requires_grad_())
        return leaf[0]

    with warnings.catch_warnings(), lm.root.hooks(fwd_hooks=[(name(0), free)]):
        warnings.simplefilter("error")
        logits = lm.forward(IDS, ONES)
    (grad,) = torch.autograd.grad(logits[:, -1].sum(), leaf)
    assert torch.isfinite(grad).all()
    assert grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["opt", "gptj"])
@torch.no_grad()
def test_in_half_precision_reading_a_pattern_changes_no_bit(kind):
    lm = wrap_lm(make(kind).to(torch.bfloat16))
    cold = lm.forward(IDS, ONES)
    warm, seen = kept(lm, [name(0), name(1)])
    assert len(seen) == 2
    assert torch.equal(cold, warm)
    with lm.root.hooks(fwd_hooks=[(name(0), lambda value, hook: value.flip(-1))]):
        assert apart(lm.forward(IDS, ONES), cold) > 1e-2


@torch.no_grad()
def test_edits_and_knockouts_of_a_pattern_reach_gptj():
    model = bare(make("gptj"), "tiny-gptj")
    prompt = soft(model)
    first, last = prompt.labels[0][1], prompt.labels[0][-1]
    edit = mm.Edit("pattern", 0.0, layer=1, head=2, query=last, key=first)
    before, after = model(prompt), model.edit(edit)(prompt)
    changed = (after - before).abs().amax(-1)[0]
    assert changed[-1] > 1e-4
    assert changed[:-1].max() == 0.0  # the last layer: only that query reads less


def test_the_callers_model_stays_as_it_is():
    hf = make("opt")
    own = hf(input_ids=IDS).logits
    lm = wrap_lm(hf)
    with lm.root.hooks(fwd_hooks=[(name(0), lambda value, hook: value * 0)]):
        lm.forward(IDS, ONES)
        assert torch.equal(hf(input_ids=IDS).logits, own)
    assert not openings(hf)
    assert openings(lm.root.original_model)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_what_transformer_lens_writes_itself_is_not_opened(kind):
    assert not openings(wrap_lm(make(kind)).root.original_model)

"""Generation: greedy is the argmax, the cache is measured, and options are checked."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

import mmlens as mm
from mmlens.towers.language.language_model import wrap_lm
from tests.bridges import KINDS, bridge, prompt
from tests.cache_names import rename_cache, unbridged

FILES = {
    "repetition_penalty": 1.5,
    "no_repeat_ngram_size": 1,
    "suppress_tokens": list(range(0, 400, 2)),
    "num_beams": 3,
    "forced_eos_token_id": 7,
    "min_new_tokens": 5,
    "temperature": 0.1,
    "do_sample": True,
}


def by_argmax(model: Any, soft: Any, steps: int) -> list[int]:
    """The greedy text by full forward passes of the hooked model, one per word."""
    said: list[int] = []
    for _ in range(steps):
        said.append(int(model(soft)[0, -1].argmax()))
        vectors = model.lm.embed(torch.tensor([[said[-1]]]))
        soft = soft.extend(torch.tensor([[said[-1]]]), vectors, [["x"]])
    return said


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "gptj"])
@pytest.mark.parametrize("key", FILES)
def test_greedy_is_the_argmax_whatever_generation_config_came_with_the_checkpoint(
    key: str, kind: str
):
    torch.manual_seed({"llama": 8, "gptj": 3}[kind])  # their argmax repeats itself
    hf: Any = LlamaForCausalLM(toy_llama()) if kind == "llama" else GPTJForCausalLM(toy_gptj())
    hf.generation_config = GenerationConfig(eos_token_id=399, **{key: FILES[key]})
    model = mm.HookedVLM(None, None, wrap_lm(hf, None), name="told")
    ids = torch.arange(1, 9).unsqueeze(0)
    right = by_argmax(model, model.embed(ids), 6)
    assert len(set(right)) < 6
    assert model.generate(ids, 6, return_type="tokens", stop_at_eos=False)[0].tolist() == right
    assert model.root.original_model.generation_config.eos_token_id == 399  # put back as it was


@torch.no_grad()
def test_a_setting_of_transformers_acts_when_the_caller_asks_for_it():
    model = bridge("toy-llama")
    plain = model.generate(prompt(), 6, return_type="tokens", stop_at_eos=False)
    assert len(set(plain[0].tolist())) < 6  # this toy repeats itself
    other = model.generate(
        prompt(), 6, return_type="tokens", stop_at_eos=False, no_repeat_ngram_size=1
    )
    assert len(set(other[0].tolist())) == 6


@torch.no_grad()
def test_a_text_ends_at_any_token_that_the_checkpoint_names_as_an_end():
    torch.manual_seed(0)
    hf = LlamaForCausalLM(toy_llama())
    ids = torch.arange(1, 9).unsqueeze(0)
    model = mm.HookedVLM(None, None, wrap_lm(hf, None), name="told")
    said = by_argmax(model, model.embed(ids), 6)
    third = next(i for i, token in enumerate(said) if i and token not in said[:i])
    model.root.original_model.generation_config.eos_token_id = [398, said[third]]
    new = model.generate(ids, 6, return_type="tokens")[0].tolist()
    assert new == said[: third + 1]


@pytest.mark.parametrize("kind", KINDS)
def test_cached_steps_give_the_logits_of_full_ones(kind: str):
    assert bridge(f"toy-{kind}").lm.caching.error < 1e-5


@torch.no_grad()
def test_a_cache_that_transformers_hands_over_under_another_name_is_found(
    monkeypatch: pytest.MonkeyPatch,
):
    rename_cache(monkeypatch, "some_new_name")
    model = mm.HookedVLM(None, None, wrap_lm(GPT2LMHeadModel(toy_gpt2())), name="renamed")
    assert model.lm.caching.exact
    assert model.lm.caching.renamed
    ids = torch.arange(1, 9).unsqueeze(0)
    said = model.generate(ids, 6, return_type="tokens", stop_at_eos=False)[0].tolist()
    assert said == by_argmax(model, model.embed(ids), 6)


@torch.no_grad()
def test_a_cache_that_never_reaches_the_attention_is_noticed_said_once_and_gone_without(
    monkeypatch: pytest.MonkeyPatch,
):
    rename_cache(monkeypatch, None)
    model = mm.HookedVLM(None, None, wrap_lm(GPT2LMHeadModel(toy_gpt2())), name="broken")
    assert not model.lm.caching.exact
    ids = torch.arange(1, 9).unsqueeze(0)
    with pytest.warns(UserWarning, match="generates without it.*mmlens doctor"):
        said = model.generate(ids, 6, return_type="tokens", stop_at_eos=False)[0].tolist()
    assert said == by_argmax(model, model.embed(ids), 6)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*generates without it.*")
        model.generate(ids, 2, return_type="tokens", stop_at_eos=False)


@torch.no_grad()
def test_a_cache_argument_that_is_renamed_back_is_measured_and_said_aloud(
    monkeypatch: pytest.MonkeyPatch,
):
    unbridged(monkeypatch)
    model = mm.HookedVLM(None, None, wrap_lm(GPT2LMHeadModel(toy_gpt2())), name="unbridged")
    ids = torch.arange(1, 9).unsqueeze(0)
    with pytest.warns(UserWarning, match="'unbridged' gives other logits than reading the whole"):
        said = model.generate(ids, 6, return_type="tokens", stop_at_eos=False)[0].tolist()
    assert said == by_argmax(model, model.embed(ids), 6)
    assert model.lm.caching.error > 0.01 and not model.lm.caching.exact
    with pytest.raises(mm.MMLensError, match="reading everything again .* leave it out"):
        model(ids, return_type="logits_and_cache")


@torch.no_grad()
def test_measuring_the_cache_in_the_middle_of_a_run_does_not_read_the_runs_prompt():
    model = mm.load("toy-gpt2")
    seen: list[float] = []
    calls: list[int] = []

    def measure(tensor: torch.Tensor, hook: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            seen.append(model.lm.caching.error)

    logits = model.run_with_hooks(prompt(), [("blocks.0.hook_resid_post", measure)])
    assert seen[0] == bridge("toy-gpt2").lm.caching.error
    assert torch.equal(logits, bridge("toy-gpt2")(prompt()))


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0: write a whole number from 1 on"),
        ({"temprature": 1.0}, "did you mean 'temperature'"),
        ({"temperature": 0.7}, "acts only when tokens are sampled"),
        ({"top_k": 0, "do_sample": True}, "top_k=0"),
        ({"top_p": 1.5, "do_sample": True}, "top_p=1.5"),
        ({"temperature": -1.0, "do_sample": True}, "temperature=-1.0"),
        ({"return_type": "string"}, "did you mean 'str'"),
        ({"seed": -1}, "seed=-1"),
        ({"num_beams": 0}, "transformers does not take these options"),
    ],
)
def test_an_option_of_generate_that_cannot_act_is_refused(options: dict[str, Any], sentence: str):
    with pytest.raises(mm.MMLensError) as caught:
        bridge("toy-gptj").generate(prompt(), **options)
    assert sentence in str(caught.value)


def toy_llama() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=400,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )


def toy_gptj() -> GPTJConfig:
    return GPTJConfig(
        vocab_size=400, n_embd=16, n_layer=2, n_head=2, rotary_dim=4, initializer_range=0.5
    )


def toy_gpt2() -> GPT2Config:
    return GPT2Config(
        vocab_size=400, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5
    )

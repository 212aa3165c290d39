"""Whole vision-language models in use: texts from elsewhere, memory, loading options, adapters."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import transformers
from bridges import off
from native_twins import photo, twin
from packaging.version import Version
from typer.testing import CliRunner

import mmlens as mm
from mmlens.cli.app import app
from mmlens.doctor.live_bytes import LiveBytes
from mmlens.families.native import since
from mmlens.papers.mmn.questions.ablation import ablations
from mmlens.papers.mmn.questions.decoded_units import neurons_of, ranked, scored, top_units
from mmlens.papers.mmn.questions.explained import explain
from mmlens.values.errors import (
    ArgumentError,
    CapabilityError,
    CheckpointError,
    MMLensError,
    ModelError,
)

WORDS = "What is this?"
run = CliRunner().invoke


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any, mm.HookedVLM]:
    whole, processor = twin("llava")
    return whole, processor, mm.from_model(whole, processor, name="llava")


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("llava")
    for part in parts[:2]:
        part.save_pretrained(place)
    return place


# -- texts from elsewhere ----------------------------------------------------------------------


@torch.no_grad()
def test_the_log_probability_of_a_text_is_that_of_the_class_itself(parts):
    whole, processor, model = parts
    table = mm.compare_outputs(
        model, [(photo(), {"gpt-4v": "a dog", "person": "our dog"})], WORDS, max_new_tokens=3
    )
    assert list(table["source"]) == ["llava", "gpt-4v", "person"]
    assert list(table["picture"]) == [0, 0, 0]
    for row in table.iloc[1:].itertuples():
        inputs = dict(model.prompt_reader.inputs(mm.Prompt(photo(), WORDS)))
        n = inputs["input_ids"].shape[1]
        said = processor.tokenizer(row.text, add_special_tokens=False, return_tensors="pt")
        inputs["input_ids"] = torch.cat([inputs["input_ids"], said["input_ids"]], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        logits = whole(**inputs).logits[0, n - 1 : -1].log_softmax(-1)
        truth = logits.gather(-1, said["input_ids"].T).sum()
        assert row.tokens == said["input_ids"].shape[1]
        assert row.logprob == pytest.approx(float(truth), abs=1e-4)
        assert row.per_token == pytest.approx(row.logprob / row.tokens)


@torch.no_grad()
def test_its_own_text_is_the_greedy_one_and_tables_and_paths_are_taken(parts, tmp_path):
    model, path = parts[2], str(tmp_path / "dog.png")
    photo().save(path)
    given = pd.DataFrame({"picture": [path], "source": ["someone"], "text": ["a dog"]})
    table = mm.compare_outputs(model, given, WORDS, max_new_tokens=3, stop=None)
    own = table[table["source"] == "llava"].iloc[0]
    said = model.generate(mm.Prompt(photo(), WORDS), 3, stop_at_eos=True)
    assert own["picture"] == "dog.png" and own["text"] == said
    same = mm.compare_outputs(model, {path: "a dog"}, WORDS, max_new_tokens=3, stop=None)
    assert list(same["logprob"]) == list(table["logprob"])


@pytest.mark.parametrize("texts", [[], {}, "a dog", [(photo(), {"a": ""})], [("only",)], 3])
def test_what_holds_no_texts_of_pictures_is_refused(parts, texts):
    with pytest.raises(MMLensError):
        mm.compare_outputs(parts[2], texts)


# -- memory ------------------------------------------------------------------------------------


def test_a_plan_is_what_the_model_takes(folder):
    model = mm.load(folder)
    soft = model.read(mm.Prompt(photo(), f"{WORDS} " * 20))
    plan = mm.plan(folder, n_pos=soft.ids.shape[1])
    weights = [*model.root.parameters(), *model.root.buffers()]
    on_disk = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert plan.weights == pytest.approx(on_disk, rel=0.1)  # names of tensors are in the file, too
    with torch.no_grad(), LiveBytes(*weights) as forward:
        model(soft)
    with LiveBytes(*weights) as explained:
        mm.attribute(model, soft, 5, after="")
    kept = model.run_with_cache(soft)[1]
    cache = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in kept.values()}
    for planned, measured in (
        (plan.forward, forward.peak),
        (plan.attribution, explained.peak),
        (plan.cache, sum(cache.values())),
    ):
        assert 0.8 < planned / measured < 1.35


def test_a_plan_grows_with_the_prompt_and_halves_with_the_weights(folder):
    one, two = mm.plan(folder, n_pos=100), mm.plan(folder, n_pos=200)
    assert one.weights == two.weights and one.parameters == two.parameters
    assert two.forward > 1.9 * one.forward and two.attribution > 1.9 * one.attribution
    half = mm.plan(folder, dtype="bfloat16", n_pos=100)
    assert half.weights == pytest.approx(one.weights / 2, rel=0.01)
    assert mm.plan(folder).n_pos == 64 + 16  # 32 x 32 pixels in patches of 8


def test_the_command_says_whether_it_fits_and_needs_no_weights(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    told = run(app, ["plan", str(tmp_path), "--memory", "24", "--positions", "100"])
    assert told.exit_code == 0 and "attribution: 0.0 of 24.0 GiB, fits" in told.stdout
    data = json.loads(run(app, ["plan", str(tmp_path), "--json"]).stdout)
    assert data["most"] > data["weights"] > 0


def test_a_plan_of_a_name_without_a_network_is_one_sentence():
    with pytest.raises(ModelError, match="could not be fetched"):
        mm.plan("llava-hf/llava-1.5-7b-hf")
    told = run(app, ["plan", "llava-hf/llava-1.5-7b-hf"])
    assert told.exit_code == 2 and told.stderr.count("\n") == 1


def test_models_are_listed_with_the_classes_that_they_take():
    told = run(app, ["models"]).stdout
    assert "LlavaForConditionalGeneration, such as llava-hf/llava-1.5-7b-hf" in told
    assert "Qwen2_5_VLForConditionalGeneration" in told


# -- loading, saving, adapters -----------------------------------------------------------------


@torch.no_grad()
def test_options_of_loading_act_or_are_refused(parts, folder):
    prompt = mm.Prompt(photo(), WORDS)
    for options in ({"attn": "eager"}, {"attn": "sdpa"}):
        assert off(mm.load(folder, **options)(prompt), parts[2](prompt)) < 1e-5
    with pytest.raises(ArgumentError, match="attn"):
        mm.load(folder, attn="flash")
    pytest.importorskip("accelerate")
    assert off(mm.load(folder, device_map="cpu")(prompt), parts[2](prompt)) < 1e-5
    spread = {"": "cpu", "lm_head": "disk"}
    with pytest.raises((CapabilityError, CheckpointError)):
        mm.load(folder, device_map=spread)


def test_saving_says_how_transformers_does_it(parts, tmp_path):
    with pytest.raises(CheckpointError, match="write save_pretrained"):
        parts[2].save(tmp_path / "saved")


@torch.no_grad()
def test_an_adapter_is_merged_into_what_is_read(parts):
    peft = pytest.importorskip("peft")
    whole, processor = twin("llava")
    config = peft.LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(whole, config)
    prompt = mm.Prompt(photo(), WORDS)
    model = mm.from_model(adapted.base_model.model, processor)
    truth = adapted(**model.prompt_reader.inputs(prompt)).logits
    assert off(model(prompt), truth) < 1e-5
    assert off(model(prompt), parts[2](prompt)) > 1e-4


def _read(kind: str) -> Any:
    whole, processor = twin(kind)
    if Version(transformers.__version__) < Version(since(whole.config)):
        pytest.skip(f"read with transformers {since(whole.config)} or later")
    return mm.from_model(whole, processor, name=kind)


BUT = {
    "emu3": ["vision.hook_pixels", "vision.hook_features"],  # no gradient goes through codes
    "mllama": ["blocks.1.ln1.hook_scale"],  # of a layer that crosses, which computes its own
}


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl_moe", "idefics2", "mllama", "emu3"])
def test_every_hook_point_of_a_whole_model_fires_acts_and_has_a_gradient(kind):
    """But for ids, positions, and what a router of experts tells beside its weights."""
    told = ("embed.hook_in", "rotary_emb.hook_in", "gate.hook_out", "hook_expert_indices")
    model = _read(kind)
    table: Any = mm.audit(model, mm.Prompt(photo(), WORDS))
    assert table["fires"].all()
    rest = table[[not name.endswith(told) for name in table["name"]]]
    idle = rest[~(rest["acts"] & rest["differentiable"])]
    assert len(rest) > 100 and list(idle["name"]) == BUT.get(kind, [])


@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl"])
def test_a_question_of_the_study_is_asked_of_a_whole_model_and_silencing_is_an_edit(kind):
    model = _read(kind)
    sample = mm.Sample("photo", photo())
    how: dict[str, Any] = {"noun": _letters, "max_new_tokens": 12}
    seen: Any = explain(model, sample, **how)
    order = ranked(scored(model, seen))
    table: Any = ablations(model, sample, ks=(0, 5), arms=("attributed",), **how)
    edit = mm.Edit("neurons", 0.0, neurons_of(model, order[:5]))
    for k, asked in ((0, model), (5, model.edit(edit))):
        with torch.no_grad():
            prob = float(asked.run(seen.soft)[0, -1].softmax(-1)[seen.token])
        assert table[table["k"] == k]["prob"].item() == pytest.approx(prob, rel=1e-4)
    assert {"words", "interpretable"} <= set(top_units(model, sample, k=3, **how).columns)


def _letters(text: str) -> list[str]:
    """A random model says no nouns: the first run of letters stands for one."""
    return re.findall(r"\w+", text)[:1]

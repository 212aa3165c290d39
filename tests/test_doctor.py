"""`mmlens doctor` and the measurements behind it."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge.generalized_components.joint_qkv_attention import (
    JointQKVAttentionBridge,
)
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

import mmlens as mm
from mmlens.cli.app import app
from mmlens.doctor import examine, machine
from mmlens.doctor.tested import TESTED
from mmlens.towers.language import attention_mask, measured
from mmlens.towers.language.language_model import LanguageModel, wrap_lm
from mmlens.values.errors import CapabilityError, NumericsError
from tests.bridges import KINDS, bridge, prompt
from tests.cache_names import rename_cache, unbridged


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *args])


def test_the_first_line_names_the_versions_and_can_be_pasted():
    line = run().output.splitlines()[0]
    for name in ("torch", "transformers", "transformer-lens"):
        assert f"{name} {version(name)}" in line
    assert f"mmlens {mm.__version__}" in line


def test_json_holds_what_the_tables_show():
    found = json.loads(run("--json").output)
    assert found["line"] in run().output
    by_name = {row["package"]: row for row in found["packages"]}
    assert by_name["torch"]["installed"] == version("torch")
    assert by_name["torch"]["tested"] == list(TESTED["torch"])
    assert {"here", "temporary files", "model cache"} == {f["folder"] for f in found["folders"]}


@pytest.mark.parametrize(
    "there, state",
    [
        ("1.9", "too old"),
        ("2.0", "tested"),
        ("2.5", "tested"),
        ("2.5+cpu", "tested"),
        ("2.6.0", "newer than tested"),
        (None, "not installed"),
    ],
)
def test_a_version_is_held_against_the_tested_range(there: str | None, state: str):
    assert machine._state(there, "2.0", "2.5") == state


@pytest.mark.skipif(
    os.environ.get("MMLENS_RESOLUTION") != "lowest", reason="runs where the lowest are installed"
)
def test_the_lowest_tested_versions_are_those_that_the_lowest_resolution_installs():
    assert {name: version(name) for name in TESTED} == {n: low for n, (low, _) in TESTED.items()}


def test_a_bundled_model_passes_every_check():
    out = run("pictos")
    assert out.exit_code == 0, out.output
    assert "NO" not in out.output


@pytest.mark.parametrize("kind", KINDS)
def test_padding_cuts_and_injection_are_exact_on_every_family(kind: str):
    lm = bridge(f"toy-{kind}").lm
    assert lm.padded.error < 1e-5
    assert lm.cut.error < 1e-5
    for route in (measured.hugging(lm), measured.injected(lm)):
        assert route is not None
        assert route.error < 1e-5


def test_a_cache_that_is_lost_on_the_way_is_said_with_what_still_works(
    monkeypatch: pytest.MonkeyPatch,
):
    rename_cache(monkeypatch, None)
    out = run("toy-gpt2")
    assert out.exit_code == 1
    assert "cached = full generation: no, so generate goes without the cache" in out.output
    found = {check["name"]: check["holds"] for check in examine("toy-gpt2")["model"]["checks"]}
    assert found.pop("cached = full generation") is False
    assert all(holds is not False for holds in found.values())  # the rest goes on


def test_a_cache_argument_that_is_renamed_back_is_said_with_what_still_works(
    monkeypatch: pytest.MonkeyPatch,
):
    unbridged(monkeypatch)
    out, told = run("toy-gpt2"), run("toy-gpt2", "--json")
    assert out.exit_code == told.exit_code == 1
    assert "cached = full generation: no, so generate goes without the cache" in out.output
    found = {check["name"]: check for check in json.loads(told.output)["model"]["checks"]}
    cached = found.pop("cached = full generation")
    assert cached["holds"] is False
    assert float(cached["measured"].split()[2].rstrip(",")) > 0.01
    assert all(check["holds"] is not False for check in found.values())
    works = ("logits are Hugging Face's own", "soft prompt = inputs_embeds", "hook points fire")
    assert [found[name]["holds"] for name in works] == [True] * 3
    assert out.output.count(": no, so ") == 1  # and nothing else is said to be wrong


def test_a_cache_argument_under_a_new_name_that_is_found_leaves_everything_well(
    monkeypatch: pytest.MonkeyPatch,
):
    rename_cache(monkeypatch, "some_new_name")
    out = run("toy-gpt2")
    assert out.exit_code == 0, out.output
    assert "NO" not in out.output


def test_a_model_that_ignores_the_padding_mask_is_noticed():
    class Deaf(LanguageModel):
        def forward(self, ids: torch.Tensor, mask: torch.Tensor, **options: Any) -> Any:
            return super().forward(ids, torch.ones_like(mask), **options)

    lm = bridge("toy-gptj").lm
    assert measured.padded(Deaf(lm.root, lm.hf, lm.tokenizer)).error > 0.1


def test_batches_of_unequal_prompts_are_refused_where_padding_is_not_exact():
    model = mm.load("toy-gptj")
    model.lm.__dict__["padded"] = measured.Measured(0.4, 1e-4)
    model([prompt(), prompt()])  # one length needs no padding
    with pytest.raises(CapabilityError, match="give prompts of one length, or one at a time"):
        model([prompt(), "A"])


def test_attention_that_does_not_obey_its_mask_is_noticed_and_knockout_refused(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(attention_mask, "through", lambda functions, mask: mask)
    model = mm.load("toy-gptj")
    assert model.lm.cut.error > 0.1
    with pytest.raises(CapabilityError, match="ignores cuts in its attention mask"):
        model.edit(mm.Edit("attn_mask", -1e9, query=-1, key=0))


def test_an_unwritable_folder_and_a_torchvision_of_another_build_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(machine, "_writable", lambda path: path != Path.cwd())
    assert run().exit_code == 1
    assert "here can be written: NO" in run().output
    monkeypatch.undo()

    def broken(*args: Any) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    import torchvision.ops

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    out = run()
    assert out.exit_code == 1
    assert "torch and torchvision fit: NO (operator torchvision::nms does not exist" in out.output


def test_a_model_that_does_not_exist_is_a_sentence():
    out = run("nope")
    assert out.exit_code != 0


def test_a_bridge_whose_logits_are_not_hugging_faces_is_refused_when_it_is_wrapped(
    monkeypatch: pytest.MonkeyPatch,
):
    own = JointQKVAttentionBridge.forward

    def otherwise(self: Any, *args: Any, **options: Any) -> Any:
        out, *rest = own(self, *args, **options)
        return (out * 1.1, *rest)

    hf = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2))  # dropout is on
    wrap_lm(hf)
    monkeypatch.setattr(JointQKVAttentionBridge, "forward", otherwise)
    with pytest.raises(CapabilityError, match="gives other logits than the model of transformers"):
        wrap_lm(hf)


def test_a_bridge_that_does_not_run_where_the_model_of_transformers_does_is_refused(
    monkeypatch: pytest.MonkeyPatch,
):
    def broken(self: Any, *args: Any, **options: Any) -> Any:
        raise RuntimeError("expected scalar type Float but found BFloat16")

    monkeypatch.setattr(JointQKVAttentionBridge, "forward", broken)
    hf = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2))
    with pytest.raises(CapabilityError, match="does not run where the model of transformers does"):
        wrap_lm(hf)


def test_a_model_whose_weights_are_nan_is_wrapped_and_refused_by_what_reads_it():
    hf = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2))
    hf.transformer.ln_f.weight.data.fill_(float("nan"))
    model = mm.HookedVLM(None, None, wrap_lm(hf), name="broken")
    with pytest.raises(NumericsError, match="NaN"):
        model.generate(torch.ones(1, 4, dtype=torch.long), 2, return_type="tokens")


def test_a_model_is_measured_in_the_dtype_that_is_asked():
    told = run("toy-gptj", "--dtype", "bfloat16", "--json").stdout
    checks = {one["name"]: one for one in json.loads(told)["model"]["checks"]}
    assert "at most 3e-02" in checks["cached = full generation"]["measured"]
    given, named = (examine(one)["model"] for one in (mm.load("toy-gptj"), "toy-gptj"))
    assert given["name"] == named["name"]
    assert [one["holds"] for one in given["checks"]] == [one["holds"] for one in named["checks"]]

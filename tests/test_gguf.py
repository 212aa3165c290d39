"""Language models in GGUF files: the same numbers as in transformers, or one sentence."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from gguf_twins import MODELS, tiny, write

from mmlens import Prompt, from_parts
from mmlens.checkpoints.folder import save
from mmlens.checkpoints.gguf import gguf_file, readable
from mmlens.checkpoints.gguf_header import read_header
from mmlens.checkpoints.language import find_lm, load_lm
from mmlens.families import load, smol_parts
from mmlens.families.toy import picture, tokenizer
from mmlens.values.errors import CapabilityError, CheckpointError, ModelError

IDS = torch.arange(1, 40)[None]
PROMPT = Prompt(picture(), "A picture of")

BY_ARCHITECTURE = not hasattr(transformers, "GgufConfig")
"""Before transformers read GGUF itself, a tokenizer's kind followed from the architecture."""
WORD_PIECES = ("gemma2", "phi3")
"""Architectures whose files it takes to hold pieces of SentencePiece; ours hold BPE's."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny("llama"), "llama")


@pytest.fixture(scope="module")
def eye():
    return load("toy-gpt2").vision


def bridge(eye, lm, **options):
    return from_parts(vision=eye, lm=lm, **options)


# -- the same numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_the_logits_of_the_model_that_it_was_written_from(name, tmp_path):
    hf = tiny(name)
    file = write(tmp_path / "tiny.gguf", hf, MODELS[name][1])
    lm = find_lm(file, tokenizer=tokenizer() if BY_ARCHITECTURE and name in WORD_PIECES else None)
    with torch.no_grad():
        theirs, ours = hf(IDS).logits, lm.root(IDS)
    assert torch.allclose(ours, theirs, atol=1e-4) and theirs.abs().max() > 1
    text = " a dog and a red cat"
    assert lm.tokenizer(text)["input_ids"] == tokenizer()(text)["input_ids"]
    assert len(lm.tokenizer) == len(tokenizer())
    assert type(lm.hf) is type(hf)
    if BY_ARCHITECTURE and name in WORD_PIECES:
        with pytest.raises(CheckpointError, match="give tokenizer="):
            find_lm(file)


def steps(kind: str, weight: torch.Tensor) -> torch.Tensor:
    """How far a format may move a weight [row, col], in blocks of 32 columns."""
    if kind in ("F16", "BF16"):
        return weight.abs() * 2.0 ** (-11 if kind == "F16" else -8) + 2.0**-25  # subnormal
    blocks = weight.unflatten(-1, (-1, 32))
    top, least = blocks.amax(-1, keepdim=True), blocks.amin(-1, keepdim=True)
    most = blocks.abs().amax(-1, keepdim=True)
    step = {"Q8_0": most / 127 / 2, "Q4_1": (top - least) / 15 / 2, "Q4_0": most / 8}[kind]
    return (1.02 * step + 1e-3 * most).expand(blocks.shape).flatten(-2)  # scales are float16


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_1", "Q4_0"])
def test_a_quantised_file_gives_each_weight_to_within_a_step_of_its_block(kind, tmp_path):
    hf = tiny("llama")
    file = write(tmp_path / "tiny.gguf", hf, "llama", kind)
    read = load_lm(file, dtype=torch.float32).state_dict()
    moved = 0.0
    for name, weight in hf.state_dict().items():
        off = (read[name] - weight).abs()
        moved = max(moved, float(off.max()))
        assert (off <= (steps(kind, weight) if weight.ndim > 1 else 0)).all(), name
    assert moved > 1e-4
    types = read_header(file).types
    assert types[kind] > types["F32"] == 5


def test_a_files_model_is_made_in_the_number_format_that_is_asked_for(llama):
    assert find_lm(llama).dtype == torch.float32
    assert find_lm(str(llama), dtype="bfloat16").dtype == torch.bfloat16
    assert find_lm(llama, tokenizer()).tokenizer.bos_token == "<eos>"


# -- in a bridge -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["file", "folder"])
def test_a_bridge_of_a_file_is_saved_and_loaded_to_the_bit(where, eye, llama, tmp_path):
    model = bridge(eye, llama if where == "file" else llama.parent, prepend_bos=True)
    model.save(tmp_path / "mine")
    again = load(tmp_path / "mine")
    with torch.no_grad():
        assert torch.equal(model(PROMPT), again(PROMPT))
    digest = hashlib.sha256(llama.read_bytes()).hexdigest()
    known = {"file": "tiny.gguf", "sha256": digest, "types": {"F32": 21}}
    assert model.provenance["gguf"] == again.provenance["gguf"] == known
    assert again.prepend_bos and str(again.read(PROMPT).labels[0][0]).startswith("<eos>")
    written = (path.read_text() for path in (tmp_path / "mine").rglob("*.json"))
    assert not any(str(llama.parent) in text for text in written)


def test_a_model_that_transformers_dequantised_for_the_user_is_saved(eye, llama, tmp_path):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        str(llama.parent), gguf_file=llama.name
    )
    bridge(eye, theirs, tokenizer=llama).save(tmp_path / "mine")
    config = json.loads((tmp_path / "mine/lm/config.json").read_text())
    assert "quantization_config" not in config
    if hasattr(transformers, "GgufConfig"):  # the caller's stays as it was
        assert theirs.config.quantization_config is not None


def test_a_file_is_named_by_a_bridge_that_lies_beside_it(eye, llama, tmp_path):
    place = tmp_path / "model.gguf"
    place.write_bytes(llama.read_bytes())
    model = bridge(eye, place)
    save(model, tmp_path / "mine", by_reference={"lm": str(place)})
    assert (
        json.loads((tmp_path / "mine/bridge.json").read_text())["lm"]["folder"] == "../model.gguf"
    )
    with torch.no_grad():
        assert torch.equal(model(PROMPT), load(tmp_path / "mine")(PROMPT))
    place.unlink()
    with pytest.raises(
        CheckpointError, match=r"names the file '../model.gguf', which is not there"
    ):
        load(tmp_path / "mine")


def test_a_prompt_begins_with_bos_where_that_is_asked_for_and_there_is_one(eye, llama):
    with_bos, without = bridge(eye, llama, prepend_bos=True), bridge(eye, llama)
    assert len(with_bos.read(PROMPT).labels[0]) == 1 + len(without.read(PROMPT).labels[0])
    bare = copy.deepcopy(tokenizer())
    bare.bos_token = None
    with pytest.raises(ModelError, match="prepend_bos=True asks for a BOS token"):
        bridge(eye, llama, tokenizer=bare, prepend_bos=True)


# -- from the hub ----------------------------------------------------------------------------------


def test_a_file_of_a_hub_repository_is_named_behind_hf(llama, monkeypatch):
    asked = []

    def given(repo, file, revision=None):
        asked.append((repo, file, revision))
        return str(llama)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", given)
    lm = find_lm("hf:me/tiny-GGUF/q8/tiny.gguf", revision="v1")
    assert set(asked) == {("me/tiny-GGUF", "q8/tiny.gguf", "v1")}
    assert lm.hf.config.hidden_size == 32


def test_a_file_that_the_hub_does_not_give_is_a_sentence_that_says_why():
    with pytest.raises(ModelError, match=r"'hf:me/tiny/t.gguf' could not be fetched \(offline"):
        find_lm("hf:me/tiny/t.gguf")
    with pytest.raises(ModelError, match="names no file of a repository"):
        find_lm("hf:me/t.gguf")


# -- refused ---------------------------------------------------------------------------------------


def damaged(good: bytes) -> dict[str, tuple[bytes, str]]:
    return {
        "a git-lfs pointer": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "'x.gguf' is a git-lfs pointer of 64 bytes, which only names the file",
        ),
        "nothing": (b"", "'x.gguf' is no GGUF file: it is empty"),
        "a web page": (b"<!doctype html>" * 9, "begins with b'<!do' and not with b'GGUF'"),
        "half a header": (good[:900], r"header of 'x.gguf' is damaged or cut off \(900 bytes\)"),
        "half the weights": (good[:-999], r"is cut off: it has [\d,]+ of [\d,]+ bytes; fetch it"),
        "an old version": (b"GGUF\1\0\0\0" + good[8:], "is a GGUF file of version 1"),
        "the other order": (b"GGUF\0\0\0\3" + good[8:], "is a GGUF file big-endian"),
    }


@pytest.mark.parametrize("what", damaged(b""))
def test_what_is_no_whole_gguf_file_is_refused_by_what_it_is(what, llama, tmp_path):
    content, sentence = damaged(llama.read_bytes())[what]
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match=sentence):
        find_lm(tmp_path / "x.gguf")


def test_a_folder_of_several_files_says_which_there_are_and_how_to_name_one(llama, tmp_path):
    for name in ("b.Q8_0.gguf", "a.Q4_1.gguf"):
        (tmp_path / name).write_bytes(llama.read_bytes())
    with pytest.raises(CheckpointError) as refused:
        find_lm(tmp_path)
    assert "holds 2 GGUF files ('a.Q4_1.gguf', 'b.Q8_0.gguf')" in str(refused.value)
    assert f"lm='{tmp_path.name}/a.Q4_1.gguf'" in str(refused.value)
    assert find_lm(tmp_path / "a.Q4_1.gguf").hf.config.hidden_size == 32


def test_a_folder_with_other_weights_is_read_as_transformers_reads_it(llama, tmp_path):
    hf = tiny("gpt2")
    hf.save_pretrained(tmp_path)
    (tmp_path / "tiny.gguf").write_bytes(llama.read_bytes())
    assert type(load_lm(tmp_path, dtype=torch.float32)) is type(hf)


def test_one_part_of_a_split_file_is_refused(tmp_path):
    for number in (1, 2, 3):
        name = f"tiny-0000{number}-of-00003.gguf"
        write(tmp_path / name, tiny("llama"), "llama", **{"split.count": 3})
    for source in (tmp_path, tmp_path / "tiny-00002-of-00003.gguf"):
        with pytest.raises(CheckpointError, match="one of 3 parts of a model.*--merge"):
            find_lm(source)


def test_an_architecture_that_the_loader_does_not_know_is_refused_with_those_it_knows(tmp_path):
    file = write(tmp_path / "x.gguf", tiny("llama"), "command-r")
    with pytest.raises(CheckpointError, match=r"holds a 'command-r', which .* llama, .* qwen2"):
        find_lm(file)
    assert "llama" in readable() and "general" not in readable()


@pytest.mark.parametrize(
    "more, sentence",
    [
        ({"rope_freqs.weight": np.ones(4, "f")}, r"scales its rotary frequencies \(rope_freqs.we"),
        ({"llama.rope.scaling.type": "yarn"}, r"scales .* \(rope.scaling.type = yarn\)"),
        ({"blk.0.attn_q.bias": np.ones(32, "f")}, "it leaves some out"),
    ],
)
def test_what_transformers_would_leave_out_of_a_file_is_refused(more, sentence, tmp_path):
    file = write(tmp_path / "x.gguf", tiny("llama"), "llama", **more)
    with pytest.raises(CheckpointError, match=sentence):
        find_lm(file)


def test_without_the_package_the_sentence_says_how_to_get_it(llama, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CapabilityError, match=r"A GGUF file needs .*'gguf'.*mmlens\[gguf\]"):
        find_lm(llama)


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(CheckpointError, match="There is no file 'nowhere/x.gguf'"):
        find_lm("nowhere/x.gguf")
    assert gguf_file("gpt2") is None and gguf_file(tmp_path) is None


# -- a real one ------------------------------------------------------------------------------------


def test_a_real_file_speaks_english():
    fetched = smol_parts.home() / smol_parts.MEMBERS["lm"].file_name
    file = Path(os.environ.get("MMLENS_TEST_GGUF", fetched))
    if not file.is_file():
        pytest.skip("`mmlens fetch smol` was not run, and MMLENS_TEST_GGUF names no file")
    lm = find_lm(file)
    ids = lm.tokenizer(" The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        last = lm.root(ids)[0, -1]
    assert lm.tokenizer.decode(last.argmax()).strip() == "Paris"

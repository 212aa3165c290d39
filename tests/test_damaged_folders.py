"""A damaged bridge is refused with the name of the file, and never loads as something else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmlens.checkpoints.folder import load, save
from mmlens.families import load as load_model
from mmlens.families.parts import find_vision, from_parts
from mmlens.families.toy import picture, tokenizer
from mmlens.values.errors import CheckpointError, MMLensError, WriteError
from mmlens.values.prompt import Prompt

PROMPT = Prompt(picture(), "A picture of")


@pytest.fixture(scope="module")
def toy():
    return load_model("toy-gptj")


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    return save(toy, tmp_path_factory.mktemp("saved") / "bridge")


@pytest.fixture
def folder(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "bridge"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _write(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": _write(b""),
    "cut": _cut,
    "noise": _write(bytes(range(256)) * 9),
    "a folder": _folder,
    "an empty object": _write(b"{}"),
    "a list": _write(b"[]"),
    "null": _write(b"null"),
    "deep": _write(b"[" * 20000),
    "no UTF-8": _write(b'{"a": "\xff"}'),
}
FILES = [
    "bridge.json",
    "projection.safetensors",
    "vision/config.json",
    "vision/model.safetensors",
    "lm/config.json",
    "lm/model.safetensors",
    "lm/tokenizer.json",
    "lm/tokenizer_config.json",
]
READABLE = {  # valid JSON that another tool might have written: the hashes alone tell
    ("lm/tokenizer_config.json", "missing"),
    ("lm/tokenizer_config.json", "an empty object"),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_by_name_with_hashes_and_without(folder, file, damage):
    DAMAGE[damage](folder / file)
    name = file.rpartition("/")[2]
    for verify in (True, False):
        if not verify and (file, damage) in READABLE:
            continue
        with pytest.raises(CheckpointError) as refused:
            load(folder, verify=verify)
        assert name in str(refused.value), str(refused.value)
        assert "\n" not in str(refused.value)


def test_every_file_of_a_bridge_is_among_those_that_are_damaged(whole):
    found = {p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file()}
    assert found - {"lm/generation_config.json"} == set(FILES)


# --- tensors ------------------------------------------------------------------------------------


def _without(state: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name != key}


TENSORS: dict[str, Callable[[dict[str, torch.Tensor], str], Any]] = {
    "missing": _without,
    "renamed": lambda state, key: _without(state, key) | {"other": state[key]},
    "misshapen": lambda state, key: state | {key: state[key][:-1].clone()},
    "in eight bits": lambda state, key: state | {key: (state[key] * 9).to(torch.int8)},
    "in whole numbers": lambda state, key: state | {key: (state[key] * 9).long()},
    "in float8": lambda state, key: state | {key: state[key].to(torch.float8_e4m3fn)},
    "changed": lambda state, key: state | {key: state[key] + 1e-3},
    "more": lambda state, key: state | {"more": torch.zeros(2)},
}


@pytest.mark.parametrize("wrong", TENSORS)
@pytest.mark.parametrize(
    "file, key",
    [
        ("lm/model.safetensors", "transformer.h.1.attn.out_proj.weight"),
        ("vision/model.safetensors", "layernorm.weight"),
        ("projection.safetensors", "bias"),
    ],
)
def test_a_tensor_that_is_not_the_models_is_refused(folder, file, key, wrong):
    state = TENSORS[wrong](load_file(folder / file), key)
    save_file(state, folder / file, metadata={"format": "pt"})
    for verify in (True, False):
        if wrong == "changed" and not verify:
            continue
        with pytest.raises(CheckpointError) as refused:
            load(folder, verify=verify)
        part = file.split("/")[0].split(".")[0]
        assert part in str(refused.value), str(refused.value)


@pytest.mark.parametrize("part", ["lm/model", "vision/model", "projection"])
def test_hashes_are_checked_without_being_asked_for(folder, part):
    path = folder / f"{part}.safetensors"
    key, state = min((k, s) for s in [in_memory(path)] for k in s)
    save_file(state | {key: state[key] + 1e-3}, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="changed since the bridge was saved"):
        load(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_files_of_two_parts_that_changed_places_are_refused(folder, file):
    one, two = folder / "vision" / file, folder / "lm" / file
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)
    for verify in (False, True):
        with pytest.raises(CheckpointError, match=r"config.json|model.safetensors"):
            load(folder, verify=verify)


def test_the_tokenizer_of_a_larger_model_is_refused(folder, toy):
    words = load_model("toy-gptj", rows=2).tokenizer.__class__.from_pretrained(folder / "lm")
    words.add_tokens([f"more{i}" for i in range(9)])
    words.save_pretrained(folder / "lm")
    with pytest.raises(CheckpointError, match=r"lm/tokenizer.*was changed"):
        load(folder)
    with pytest.raises(CheckpointError, match="tokenizer of lm/ has 394 words and .* for 387"):
        load(folder, verify=False)


def test_a_bridge_that_lost_its_tokenizer_is_refused(folder):
    for file in (folder / "lm").glob("tokenizer*"):
        file.unlink()
    for verify in (False, True):
        with pytest.raises(CheckpointError, match="tokenizer"):
            load(folder, verify=verify)


def test_a_bridge_without_a_tokenizer_says_so_itself(toy, tmp_path):
    silent = type(toy)(toy.vision, toy.projection, load_model("toy-gptj").lm, name="silent")
    silent.lm.tokenizer = None
    again = load(save(silent, tmp_path / "silent"))
    ids = torch.arange(5)[None]
    assert again.tokenizer is None
    with torch.no_grad():
        assert torch.equal(again(ids), silent(ids))


# --- bridge.json, key by key --------------------------------------------------------------------

WRONG: list[tuple[str, Any, str]] = [
    ("format", True, "format True"),
    ("format", "1", "format '1'"),
    ("name", 3, "name in bridge.json=3"),
    ("colour", "red", "unknown key 'colour'"),
    ("vision.std", [0.5, -1, 0.5], "std=-1"),
    ("vision.std", [0.5, 0, 0.5], "std=0"),
    ("vision.std", [0.5, 0.5], "std=.*write 3"),
    ("vision.mean", "grey", "mean='grey'"),
    ("vision.mean", [float("nan"), 0, 0], "mean=nan"),
    ("vision.rescale", 0, "rescale=0"),
    ("vision.rescale", 0.0, "rescale=0"),
    ("vision.rescale", None, "rescale=None"),
    ("vision.resize", "magic", "resize='magic'"),
    ("vision.interpolation", "cubic", "interpolation='cubic'"),
    ("vision.rounding", 1, "rounding=1"),
    ("vision.fill", [0, 0, 300], "fill=300"),
    ("vision.scale", [0, 8], "scale=0"),
    ("vision.image_size", [32, 32, 3], "image_size="),
    ("vision.image_size", 0, "image_size=0"),
    ("vision.image_size", 64, "pixels of|image_size"),
    ("vision.image_size", [32, 24], "pixels of|image_size"),
    ("vision.grid", [4, 5], r"grid of \(4, 5\)"),
    ("vision.pooled", "yes", "pooled='yes'"),
    ("vision.pooled", 1, "pooled=1"),
    ("vision.drop_prefix_tokens", -1, "drop_prefix_tokens=-1"),
    ("vision.drop_prefix_tokens", 3, "grid"),
    ("vision.feature_layer", "blocks.9.hook_resid_post", "no feature layer"),
    ("vision.feature_layer", 3, "feature_layer=3"),
    ("vision.kind", "keras", "kind='keras'"),
    ("vision.class", "os", "no model of transformers"),
    ("vision.class", "GPT2Model", "is of a 'vit'"),
    ("vision.dtype", "int8", "dtype='int8'"),
    ("vision.imagesize", 32, "unknown key 'imagesize': did you mean 'image_size'"),
    ("vision.arch", [1], "arch="),
    ("projection.kind", "mlp", "a 'mlp' projection"),
    ("projection.d_in", 15, "leads 16 -> 32, and bridge.json says 15 -> 32"),
    ("projection.d_out", "32", "d_out='32'"),
    ("projection.bias", False, "has a bias, and bridge.json says otherwise"),
    ("lm.class", None, "class=None"),
    ("lm.class", "GPT2LMHeadModel", "is of a 'gptj'"),
    ("lm.prepend_bos", "no", "prepend_bos='no'"),
    ("lm.rows", 0, "rows=0"),
    ("lm.folder", "../nowhere", "names the folder '../nowhere'"),
    ("lm", None, "lm in bridge.json is None"),
    ("vision", [], "vision in bridge.json is"),
    ("provenance", "mine", "provenance in bridge.json='mine'"),
    ("provenance.sha256", {"lm": "0"}, "lm='0'"),
    ("provenance.sha256", {"tokens": "0" * 64}, "unknown key 'tokens'"),
    ("files", {"../../secret": "0" * 64}, "names a file outside"),
]


@pytest.mark.parametrize("key, value, sentence", WRONG)
def test_a_wrong_value_in_bridge_json_is_refused_with_its_key(folder, key, value, sentence):
    path = folder / "bridge.json"
    spec = json.loads(path.read_text())
    *outer, last = key.split(".")
    place = spec
    for one in outer:
        place = place[one]
    place[last] = value
    path.write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match=sentence) as refused:
        load(folder)
    assert "bridge" in str(refused.value)


@pytest.mark.parametrize("size", [64, [64, 32], 40])
def test_another_image_size_is_refused_where_the_encoder_would_take_it(toy, tmp_path, size):
    """DINOv2 stretches its positions to whatever comes, so only the grid that is kept tells."""
    import transformers

    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    eye = transformers.Dinov2Model(config).eval()
    path = save(from_parts(eye, None, toy.lm.hf, tokenizer()), tmp_path / "bridge") / "bridge.json"
    spec = json.loads(path.read_text())
    spec["vision"]["image_size"] = size
    path.write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match=r"grid of \(4, 4\).*its encoder gives .* image_size"):
        load(path.parent)


@pytest.mark.parametrize(
    "change",
    [
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"attn_implementation": "flash_attention_2"},
        {"n_embd": "many"},
        {"n_layer": -1},
        {"model_type": "no-such"},
        {"vocab_size": None},
    ],
)
def test_a_config_that_cannot_be_loaded_is_refused_by_name(folder, change):
    path = folder / "lm/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="lm/config.json.*was changed"):
        load(folder)
    with pytest.raises(CheckpointError, match=r"config\.json|model\.safetensors"):
        load(folder, verify=False)
    with pytest.raises(
        CheckpointError, match="holds no language model|random numbers|another model"
    ):
        from_parts(vision=find_vision(folder / "vision"), lm=folder / "lm")


# --- folders of parts ---------------------------------------------------------------------------


def in_memory(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a file that is written over next: older safetensors map it instead of reading."""
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def test_parts_in_folders_are_loaded_whole_or_not_at_all(folder, toy):
    eye, words = folder / "vision", folder / "lm"
    state = in_memory(eye / "model.safetensors")
    save_file(_without(state, "layernorm.weight"), eye / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="layernorm.weight"):
        from_parts(vision=eye, lm=toy.lm)
    save_file(state, eye / "model.safetensors", {"format": "pt"})
    (eye / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json of 'vision' is not JSON"):
        from_parts(vision=eye, lm=toy.lm)
    state = in_memory(words / "model.safetensors")
    save_file(_without(state, "lm_head.weight"), words / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="lm_head.weight"):
        from_parts(vision=toy.vision, lm=words)
    save_file(state, words / "model.safetensors", {"format": "pt"})
    (words / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        from_parts(vision=toy.vision, lm=words)


# --- places -------------------------------------------------------------------------------------


def test_places_that_cannot_be_read_are_refused_in_a_sentence(folder, toy):
    calls: dict[str, Callable[[], Any]] = {
        "'~nobody-at-all/x' names no place": lambda: load_model("~nobody-at-all/x"),
        "'~nobody-at-all' names no place": lambda: from_parts(toy.vision, "~nobody-at-all", toy.lm),
        "~nobody-at-all": lambda: from_parts(vision="~nobody-at-all/eye", lm=toy.lm),
        "names no place": lambda: load_model("x" * 5000),
        "is a file and no folder": lambda: load_model(folder / "bridge.json"),
        "is a file: give the folder": lambda: from_parts(
            vision=toy.vision, lm=folder / "lm/config.json"
        ),
    }
    for sentence, call in calls.items():
        with pytest.raises(CheckpointError, match=sentence):
            call()


def test_a_home_is_found_under_its_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model("~/bridge").name == "toy-gptj"


def test_places_that_cannot_be_written_are_refused_in_a_sentence(toy, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/lm").write_text("mine")
    for place in ("file", "file/below", "taken", "x" * 300):
        with pytest.raises(MMLensError, match=r"cannot be written|names no place"):
            save(toy, tmp_path / place)
    assert (tmp_path / "file").read_text() == (tmp_path / "taken/lm").read_text() == "mine"
    with pytest.raises(WriteError, match="cannot be written"):
        save(toy, Path("/proc/no-such/bridge"))


def test_saving_over_a_bridge_leaves_one_whole_bridge(toy, folder, monkeypatch):
    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    other = load_model("toy-llama")
    monkeypatch.setattr("mmlens.checkpoints.folder_write.save_tensors", _full)
    with pytest.raises(WriteError, match="No space left"):
        save(other, folder)
    assert before == {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    monkeypatch.undo()
    (folder / "lm/model-00001-of-00002.safetensors").write_bytes(b"of an older bridge")
    again = load(save(other, folder))
    with torch.no_grad():
        assert torch.equal(again(PROMPT), other(PROMPT))
    assert not list(folder.glob(".mmlens-*")) and len(list(folder.glob("lm/*.safetensors"))) == 1


def _full(module: Any, path: Path) -> None:
    raise OSError(28, "No space left on device", str(path))


def test_a_part_that_is_named_by_its_folder_is_written_as_seen_from_the_bridge(toy, tmp_path):
    source = save(toy, tmp_path / "whole")
    thin = save(toy, tmp_path / "thin", by_reference={"lm": str(source / "lm")})
    assert json.loads((thin / "bridge.json").read_text())["lm"]["folder"] == "../whole/lm"
    shutil.move(str(tmp_path / "whole"), str(tmp_path / "moved"))
    with pytest.raises(CheckpointError, match=r"names the folder '../whole/lm', which is not"):
        load(thin)
    os.rename(tmp_path / "moved", tmp_path / "whole")
    with torch.no_grad():
        assert torch.equal(load(thin)(PROMPT), toy(PROMPT))
    assert tokenizer() is not None

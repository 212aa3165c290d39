"""Whatever mmlens writes is whole: on a full disk the old file stays, and nothing is beside it."""

from __future__ import annotations

import ast
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from bridges import bridge
from PIL import Image

import mmlens as mm
from mmlens import Scores, view
from mmlens.checkpoints.folder import save as save_bridge
from mmlens.datasets.caption_pairs import CaptionPair, Listed
from mmlens.sweep.sweep_folder import Sweep
from mmlens.tally import Moments
from mmlens.train import cache_features, resume
from mmlens.values.errors import WriteError
from mmlens.values.whole_files import printable, remove_leftovers, replacing, write_whole

PACKAGE = Path(mm.__file__).parent
resource = pytest.importorskip("resource", reason="this system limits no file's size")


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file grows beyond so many bytes: the system refuses the write in its midst."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def files(folder: Path) -> dict[str, bytes]:
    every = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in every}


# Every writer, each a function of a folder and a number that its content depends on ---------------


def scores(folder: Path, n: int) -> None:
    Scores(torch.full((8, 64), float(n)), ("layer", "unit")).save(folder / "scores.safetensors")


def tally(folder: Path, n: int) -> None:
    one = Moments()
    one.add(Scores(torch.full((8, 64, 2), float(n)), ("layer", "unit", "pos")))
    one.save(folder / "tally.safetensors")


def figure(folder: Path, n: int, suffix: str = "html") -> None:
    grid = Scores(torch.rand(8, 8, generator=torch.Generator().manual_seed(n)), ("layer", "unit"))
    view.save(view.heatmap(grid), folder / f"page.{suffix}")


def svg(folder: Path, n: int) -> None:
    figure(folder, n, "svg")


def png(folder: Path, n: int) -> None:
    figure(folder, n, "png")


def words(folder: Path, n: int) -> None:
    view.save(view.tokens(["a", "dog"] * 20, [float(n)] * 40), folder / "page.html")


@lru_cache
def seen(n: int) -> Any:
    return mm.look(bridge("toy-gptj"), Image.new("RGB", (32, 32), (n, 0, 0)), caption=" dog", k=2)


def look(folder: Path, n: int) -> None:
    seen(n).save(folder / "look.html")


def explorer(folder: Path, n: int) -> None:
    view.explore(seen(n)).save(folder / "explorer.html")


def checkpoint(folder: Path, n: int) -> None:
    resume.save_checkpoint(folder, {"step": n, "weight": torch.full((4096,), float(n))})


def curve(folder: Path, n: int) -> None:
    table = resume.Curve(folder / "curve.csv", 0 if n == 1 else 400)
    for step in range(len(table.rows) + 1, 401):
        table.add({"step": step, "loss": 1.0 / step, "lr": 0.1, "grad_norm": 1.0})


def bridge_folder(folder: Path, n: int) -> None:
    save_bridge(mm.load("toy-gptj", seed=n), folder / "bridge")


def features(folder: Path, n: int) -> None:
    pairs = [CaptionPair(Image.new("RGB", (32, 32), (i, n, 0)), ("a",), f"{i}") for i in range(4)]
    cache_features(bridge("toy-gptj").vision, Listed(pairs), folder, shard_size=4)


def chunk(folder: Path, n: int) -> None:
    write_whole(
        folder / "manifest.json",
        '{"question": {"name": "q"}, "chunk": 1, "data": {"samples": 1}}',
    )
    done = Sweep(folder)
    path = done.path("tensors", "s", 0)
    done.finish(0, {path: bytes([n]) * 9000}, samples=["a"], failed={})


WRITERS = [scores, tally, figure, svg, png, words, look, explorer, checkpoint, bridge_folder, chunk]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_on_a_full_disk_the_old_file_stays_whole_and_nothing_lies_beside_it(writer, tmp_path):
    writer(tmp_path, 1)
    before = files(tmp_path)
    with full_disk(900), pytest.raises(WriteError, match="cannot be written"):
        writer(tmp_path, 2)
    assert files(tmp_path) == before
    writer(tmp_path, 2)  # and with room again it is written
    assert files(tmp_path).keys() == before.keys() and files(tmp_path) != before


def test_features_that_found_no_room_are_computed_again(tmp_path):
    with full_disk(900), pytest.raises(WriteError):
        features(tmp_path, 1)
    assert files(tmp_path) == {} or all("features" not in name for name in files(tmp_path))
    features(tmp_path, 1)
    clean = tmp_path / "clean"
    clean.mkdir()
    features(clean, 1)
    both = {name: data for name, data in files(tmp_path).items() if not name.startswith("clean")}
    assert both == files(clean)


def test_a_loss_curve_on_a_full_disk_keeps_whole_rows_and_goes_on(tmp_path):
    with full_disk(4000), pytest.raises(WriteError):
        curve(tmp_path, 1)
    text = (tmp_path / "curve.csv").read_text()
    rows = pd.read_csv(tmp_path / "curve.csv")
    assert text.endswith("\n") and list(rows.step) == list(range(1, len(rows) + 1))
    assert 0 < len(rows) < 400
    curve(tmp_path, 2)
    assert list(pd.read_csv(tmp_path / "curve.csv").step) == list(range(1, 401))


def test_a_row_that_a_kill_cut_is_not_taken_for_an_earlier_step(tmp_path):
    curve(tmp_path, 1)
    lines = (tmp_path / "curve.csv").read_text().splitlines(keepends=True)
    (tmp_path / "curve.csv").write_text("".join(lines[:13]) + "1")  # of step 13
    rows = resume.Curve(tmp_path / "curve.csv", 20).frame()
    assert list(rows.step) == list(range(1, 13))


def test_a_bridge_saved_over_another_leaves_no_weights_of_it(tmp_path):
    bridge_folder(tmp_path, 1)
    stale = tmp_path / "bridge" / "lm" / "model-00001-of-00002.safetensors"
    stale.write_bytes(b"old")
    (tmp_path / "bridge" / "notes.txt").write_text("mine")
    bridge_folder(tmp_path, 2)
    assert not stale.exists() and (tmp_path / "bridge" / "notes.txt").read_text() == "mine"


def test_nothing_in_mmlens_writes_a_file_in_place():
    """Whoever writes goes through `values.whole_files`; what is listed writes inside of it."""
    inside = {
        "values/whole_files.py": None,
        "checkpoints/dual_folder.py": 2,
        "checkpoints/folder_write.py": 1,
        "checkpoints/hub.py": 2,
        "checkpoints/wheels.py": 1,
        "families/smol_parts.py": 1,
        "view/still/raster.py": 1,  # into a folder for temporary files
    }
    found = {}
    for path in PACKAGE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if _writes(node)]
        if calls:
            found[path.relative_to(PACKAGE).as_posix()] = len(calls)
    assert {name: n for name, n in found.items() if inside.get(name, 0) not in (n, None)} == {}


def _writes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name == "open":
        modes = [arg.value for arg in [*node.args, *(k.value for k in node.keywords)]
                 if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]  # fmt: skip
        return any(mode in ("w", "wb", "a", "ab", "x") for mode in modes)
    return name in ("write_text", "write_bytes", "write_html", "write_image", "to_parquet")


# The two functions themselves ---------------------------------------------------------------------


def test_an_exception_in_the_midst_leaves_the_old_file(tmp_path):
    path = write_whole(tmp_path / "a.txt", "old")
    interrupted = pytest.raises(KeyboardInterrupt)
    with interrupted, replacing(path) as new:
        new.write_text("half")
        raise KeyboardInterrupt
    assert files(tmp_path) == {"a.txt": b"old"}


def test_a_link_is_followed_and_rights_stay(tmp_path):
    real = tmp_path / "real.txt"
    real.write_text("old")
    real.chmod(0o640)
    (tmp_path / "link.txt").symlink_to(real)
    write_whole(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_device_is_written_straight_into():
    assert write_whole("/dev/null", "gone") == Path("/dev/null")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("where", ["there is none/a.html", "", "a" * 300 + ".html"])
def test_where_nothing_can_be_written_a_sentence_says_so(tmp_path, where):
    with pytest.raises(WriteError, match="cannot be written .*: give another place"):
        write_whole(tmp_path / where, "x")
    assert files(tmp_path) == {}


def test_leftovers_of_a_kill_are_hidden_and_taken_away(tmp_path):
    process: Callable[[], int] = os.fork
    if child := process():
        os.waitpid(child, 0)
    else:
        with replacing(tmp_path / "a.txt") as new:
            new.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    (left,) = files(tmp_path)
    assert left.startswith(".mmlens-") and left.endswith(".new")
    remove_leftovers(tmp_path, idle=3600.0)
    assert list(files(tmp_path)) == [left]
    remove_leftovers(tmp_path)
    assert files(tmp_path) == {}


def test_a_name_in_another_encoding_can_be_printed_and_written(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xc3\xa9.jpg")
    assert printable(name) == "caf\\xe9 é.jpg"
    assert write_whole(tmp_path / "a.html", f"<b>{name}</b>").read_bytes().decode()

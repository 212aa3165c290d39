"""Imports only go down, no circle, and every room has its floor (`scripts/house.py` reads them)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from house import (  # noqa: E402
    ALLOWED,
    DOORS,
    FLOOR_OF,
    FLOORS,
    PACKAGE,
    Import,
    circles,
    every_import,
    modules,
    room_of,
)

MAX_LINES = 300
MAX_LOOSE = 8
HEAVY = {"torch", "transformers", "transformer_lens"}


def rule_broken(module: str, one: Import) -> str | None:
    """Why `module` must not have this import; None if it may."""
    here, there = room_of(module), room_of(one.of)
    if one.of.startswith("."):
        return "write the import absolutely (from mmlens.values.labels import Patch), to be read"
    if here == "view" and one.when == "import" and one.of.split(".")[0] in HEAVY:
        return "a view loads no torch at import time: a page of figures must open at once"
    if module in DOORS or there in ("", here) or (module, one.of) in ALLOWED:
        return None
    if not one.of.startswith("mmlens."):
        return None
    if here not in FLOOR_OF or there not in FLOOR_OF:
        room = here if here not in FLOOR_OF else there
        return f"the room {room!r} has no floor: name it in FLOORS of scripts/house.py"
    if here == "view" and there != "values":
        return "a view knows values only: it draws labels and numbers and never meets a model"
    if FLOOR_OF[there] >= FLOOR_OF[here]:
        return f"imports only go down: {there!r} does not lie below {here!r}"
    return None


def broken(package: Path) -> list[str]:
    """A sentence for each import that breaks a rule: file, line, import, rule."""
    sentences, known = [], modules(package)
    for module, found in every_import(package).items():
        place = known[module].relative_to(package.parent)
        for one in found:
            rule = rule_broken(module, one)
            if rule:
                sentences.append(f"{place}:{one.line}: {module} imports {one.of}: {rule}")
    return sentences


def test_imports_only_go_down():
    assert broken(PACKAGE) == []


def test_every_room_stands_on_a_floor_and_every_floor_has_its_rooms():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms == {room for floor in FLOORS for room in floor.split()}


def test_modules_form_no_circle():
    """Annotations apart: within its room a module may name the class that it serves."""
    known = modules()
    arrows = {
        module: {
            one.of
            for one in found
            if one.of in known
            and one.of != module
            and (module, one.of) not in ALLOWED
            and not (one.when == "types" and room_of(one.of) == room_of(module))
        }
        for module, found in every_import().items()
        if module not in DOORS
    }
    assert circles(arrows) == []


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_what_is_allowed_against_the_rules_is_still_needed():
    found = {(module, one.of) for module, every in every_import().items() for one in every}
    assert set(ALLOWED) - found == set()


def test_few_modules_lie_loose():
    loose = [path.name for path in PACKAGE.glob("*.py")]
    assert len(loose) <= MAX_LOOSE, f"{sorted(loose)}: put a module into the room of its kind"


A_MODEL = "from mmlens.model.hooked_vlm import HookedVLM"


@pytest.mark.parametrize(
    "file, line, rule",
    [
        ("values/scores.py", A_MODEL, "not lie below 'values'"),
        ("model/run.py", "def f():\n    from mmlens.methods import decode", "below 'model'"),
        ("methods/decode.py", "import mmlens.papers", "not lie below 'methods'"),
        ("methods/decode.py", "from mmlens.sweep.sweeping import sweep", "not lie below 'methods'"),
        ("sweep/sweeping.py", "from mmlens.cli.app import main", "not lie below 'sweep'"),
        ("view/table.py", A_MODEL, "a view knows values only"),
        ("view/table.py", "from mmlens.methods.decode import decode", "a view knows values only"),
        ("view/table.py", "import torch", "a view loads no torch at import time"),
        ("view/table.py", "from torch.nn import functional", "a view loads no torch"),
        ("methods/decode.py", "from ..values.scores import Scores", "write the import absolutely"),
        ("values/a.py", f"if TYPE_CHECKING:\n    {A_MODEL}", "below 'values'"),
        ("new/tool.py", "from mmlens.values.scores import Scores", "'new' has no floor"),
        ("values/scores.py", "from mmlens.new.tool import tool", "'new' has no floor"),
    ],
)
def test_a_broken_floor_is_named_with_file_line_and_rule(tmp_path, file, line, rule):
    path = tmp_path / "mmlens" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    (sentence,) = broken(tmp_path / "mmlens")
    assert sentence.startswith(f"mmlens/{file}:")
    assert rule in sentence


@pytest.mark.parametrize(
    "file, line",
    [
        ("methods/decode.py", "from mmlens.values.scores import Scores"),
        ("methods/decode.py", "from mmlens.methods.attribute import attribute"),
        ("model/run.py", "if TYPE_CHECKING:\n    from mmlens.model.hooked_vlm import HookedVLM"),
        ("view/table.py", "from mmlens.values import pictures\ndef f():\n    import torch"),
        ("view/table.py", "from mmlens.view.style import theme"),
        ("values/scores.py", "from mmlens import __version__"),
        ("patching.py", "from mmlens.methods.patch import patch"),
        ("cli/explore.py", "from mmlens.view.save import save"),
    ],
)
def test_what_the_floors_allow_passes(tmp_path, file, line):
    path = tmp_path / "mmlens" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line)
    assert broken(tmp_path / "mmlens") == []


def test_no_module_is_longer_than_a_reader_wants():
    lengths = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py")}
    long = [f"{p.relative_to(ROOT)}: {n} lines" for p, n in lengths.items() if n > MAX_LINES]
    assert long == [], f"at most {MAX_LINES} lines: split by idea, not by length"


# What a commit may hold ---------------------------------------------------------------------------

MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:" + "|".join(["work", "root", "farm"]) + r")/[\w.]")
LOCK_FILES = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "package-lock.json"}


def committed() -> list[Path]:
    """The files under version control (none outside a checkout)."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if (path := ROOT / name).is_file()]


def machine_paths(text: str) -> list[int]:
    """The lines of a text that name a folder of one machine."""
    return [n for n, line in enumerate(text.splitlines(), 1) if MACHINE_PATH.search(line)]


def test_no_committed_text_names_a_folder_of_one_machine():
    found = []
    for path in committed():
        try:
            lines = machine_paths(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # not a text
        found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert found == []


def test_a_machine_path_is_found_and_an_address_is_not():
    folder = "/" + "root"
    assert machine_paths(f"fine\nopen('{folder}/model.pt')\n") == [2]
    assert machine_paths(f"https://example.org{folder}/page and ./tests{folder}/x") == []


def test_no_lock_file_is_committed():
    """Lock files name hosts; lower bounds in pyproject.toml serve."""
    found = [p.name for p in committed() if p.name in LOCK_FILES or p.name.startswith("pylock")]
    assert found == []

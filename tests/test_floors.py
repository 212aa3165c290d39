"""Imports only go down.

    cli               above all
    3 experiments     many pictures            view   floor 0 only; torch never at import time
    2 methods         questions
    1 model, words    build and run a model
    0 prompt, scores  plain values

Every import statement under mmlens/ counts, also inside functions; only `if TYPE_CHECKING:` blocks
are exempt, because they never run.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmlens

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mmlens"
MAX_LINES = 300
HEAVY = {"torch", "transformers", "transformer_lens"}

FLOORS = {  # the longest name counts; what is not named stands on floor 1, beside the model
    0: "errors arguments writing lazy prompt pictures pictures_rgb pictures_kinds english neurons"
    " scores edit sites pictos",
    2: "methods train patching",
    3: "sweep tally experiments view reading reproduce doctor",
    4: "cli __main__",
}
FLOOR_OF = {f"mmlens.{name}": floor for floor, names in FLOORS.items() for name in names.split()}


def floor_of(module: str) -> int:
    """The floor of a module, or of the nearest package around it."""
    parts = module.split(".")
    around = (".".join(parts[:end]) for end in range(len(parts), 1, -1))
    ground = 0 if module == "mmlens" else 1
    return next((FLOOR_OF[name] for name in around if name in FLOOR_OF), ground)


def in_view(module: str) -> bool:
    return module == "mmlens.view" or module.startswith("mmlens.view.")


def target(source: str, name: str) -> str:
    """The module behind `from source import name`; mmlens's public names lie in their homes."""
    if source == "mmlens":
        return "mmlens" if name.startswith("__") else f"mmlens.{mmlens._HOME.get(name, name)}"
    return f"{source}.{name}" if source.startswith("mmlens.") else source


def imports(node: ast.AST, at_import: bool = True) -> Iterator[tuple[str, int, bool]]:
    """(imported module, line, whether it runs when the file is imported) of each import below."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        children: list[ast.AST] = list(node.orelse)
    else:
        children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno, at_import) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        source = "." * node.level + (node.module or "")
        yield from ((target(source, alias.name), node.lineno, at_import) for alias in node.names)
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in children:
        yield from imports(child, at_import and not inside)


def rule_broken(module: str, imported: str, at_import: bool) -> str | None:
    """Why `module` must not import `imported`; None if it may."""
    floor, below = floor_of(module), floor_of(imported)
    if imported.startswith("."):
        return "write the import absolutely (from mmlens.values.labels import Patch), to be read"
    if in_view(module) and at_import and imported.split(".")[0] in HEAVY:
        return "a view loads no torch at import time: a page of figures must open at once"
    if not (imported == "mmlens" or imported.startswith("mmlens.")):
        return None
    if in_view(module) and not in_view(imported) and below > 0:
        return "a view knows floor 0 only: it draws labels and numbers and never meets a model"
    if below > floor:
        return f"imports only go down, and floor {below} lies above floor {floor}"
    return None


def broken_floors(package: Path) -> list[str]:
    """A sentence for each import that breaks a rule: file, line, import, rule."""
    sentences = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package.parent)
        module = ".".join(place.with_suffix("").parts).removesuffix(".__init__")
        for imported, line, at_import in imports(ast.parse(path.read_text(encoding="utf-8"))):
            rule = rule_broken(module, imported, at_import)
            if rule:
                sentences.append(f"{place}:{line}: {module} imports {imported}: {rule}")
    return sentences


def test_imports_only_go_down():
    assert broken_floors(PACKAGE) == []


@pytest.mark.parametrize(
    "file, line, rule",
    [
        ("scores.py", "from mmlens.model import HookedVLM", "floor 1 lies above floor 0"),
        ("lm.py", "def f():\n    from mmlens import attribute", "floor 2 lies above floor 1"),
        ("methods/decode.py", "import mmlens.view", "floor 3 lies above floor 2"),
        ("methods/decode.py", "from mmlens import view", "floor 3 lies above floor 2"),
        ("sweep.py", "from mmlens.cli.app import main", "floor 4 lies above floor 3"),
        ("view/table.py", "from mmlens import HookedVLM", "a view knows floor 0 only"),
        ("view/table.py", "from mmlens.methods.decode import decode", "a view knows floor 0 only"),
        ("view/table.py", "import torch", "a view loads no torch at import time"),
        ("view/table.py", "from torch.nn import functional", "a view loads no torch"),
        ("methods/decode.py", "from ..scores import Scores", "write the import absolutely"),
        ("new.py", "from mmlens.train import fit", "floor 2 lies above floor 1"),
        ("scores.py", "from mmlens.new import tool", "floor 1 lies above floor 0"),
    ],
)
def test_a_broken_floor_is_named_with_file_line_and_rule(tmp_path, file, line, rule):
    path = tmp_path / "mmlens" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    (sentence,) = broken_floors(tmp_path / "mmlens")
    assert sentence.startswith(f"mmlens/{file}:")
    assert rule in sentence


@pytest.mark.parametrize(
    "file, line",
    [
        ("methods/decode.py", "from mmlens.values.scores import Scores"),
        ("methods/decode.py", "from mmlens.methods.attribute import attribute"),
        ("scores.py", "if TYPE_CHECKING:\n    from mmlens.model import HookedVLM"),
        ("view/table.py", "from mmlens import Patch, pictures\ndef f():\n    import torch"),
        ("view/table.py", "from mmlens.view import colours"),
        ("scores.py", "from mmlens import __version__"),
        ("english.py", "from mmlens.pictos.world import Scene"),
        ("cli.py", "from mmlens import view, attribute"),
    ],
)
def test_what_the_floors_allow_passes(tmp_path, file, line):
    path = tmp_path / "mmlens" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert broken_floors(tmp_path / "mmlens") == []


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

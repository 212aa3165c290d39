"""`import mmlens` is cheap and tells the truth about what there is."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import mmlens
from mmlens.values.lazy import public_names

ROOT = Path(mmlens.__file__).parents[1]
HEAVY = {"torch", "transformers", "transformer_lens", "pandas", "plotly", "PIL", "numpy"}


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_importing_mmlens_loads_nothing_heavy():
    assert "math" in loaded_by("import math")  # so an empty answer cannot pass
    assert not HEAVY & loaded_by("import mmlens; dir(mmlens); mmlens.MMLensError")


def test_importing_the_views_loads_no_torch():
    assert not {"torch", "transformers", "transformer_lens"} & loaded_by("from mmlens import view")


@pytest.mark.parametrize("name", mmlens.__all__)
def test_every_public_name_is_found_where_the_table_says(name):
    assert getattr(mmlens, name) is not None
    assert name in dir(mmlens)


LAZY = sorted(  # the packages whose names are looked up on first use
    ".".join(path.relative_to(ROOT).parent.parts)
    for path in (ROOT / "mmlens").rglob("__init__.py")
    if "on_first_use(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("package", LAZY)
def test_no_public_name_is_hidden_by_a_module_of_the_same_name(package):
    """After `import mmlens.load`, `mmlens.load` would be that module and no longer the function."""
    folder = ROOT.joinpath(*package.split("."))
    modules = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    named = {name for name, (home, _) in public_names(package).items() if home != package}
    hidden = named & modules
    assert hidden == set(), f"rename these modules of {package}: they hide a name"


@pytest.mark.parametrize("package", [*LAZY, "mmlens.patching", "mmlens.relevance"])
def test_a_name_on_first_use_is_what_its_import_line_says(package):
    """Every line is executed as Python executes it, and compared with what users get."""
    module = importlib.import_module(package)
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    block = next(node for node in ast.parse(source).body if isinstance(node, ast.If))
    told: dict[str, object] = {}
    exec(compile(ast.Module(block.body, []), package, "exec"), told)
    del told["__builtins__"]
    assert sorted(told) == module.__all__ and told
    for name, value in told.items():
        assert getattr(module, name) is value
        assert name in dir(module)


def test_names_modules_and_both_under_another_name_are_imported_on_first_use(tmp_path, monkeypatch):
    """In a package that nothing was imported from yet."""
    rows = tmp_path / "stones" / "rows"
    rows.mkdir(parents=True)
    (rows / "__init__.py").write_text("")
    (rows / "first.py").write_text("weight = 3\n")
    (rows / "second.py").write_text("raise RuntimeError('nobody asked for it')\n")
    (tmp_path / "stones" / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from mmlens.values.lazy import on_first_use\n"
        "if TYPE_CHECKING:\n"
        "    from stones import rows as rows\n"
        "    from stones.rows import first as lowest\n"
        "    from stones.rows import second as highest\n"
        "    from stones.rows.first import weight as grams\n"
        "else:\n"
        "    __getattr__, __dir__, __all__ = on_first_use(__name__)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stones = importlib.import_module("stones")
    assert stones.__all__ == ["grams", "highest", "lowest", "rows"]
    assert stones.lowest.__name__ == "stones.rows.first" and stones.grams == 3
    assert stones.rows.__name__ == "stones.rows"
    assert {name for name in dir(stones) if not name.startswith("__")} == set(stones.__all__)
    assert "__doc__" in dir(stones)
    with pytest.raises(AttributeError, match="stones has no 'gram': did you mean 'grams'"):
        _ = stones.gram
    with pytest.raises(RuntimeError, match="nobody asked for it"):
        _ = stones.highest


def test_type_checkers_find_a_name_and_miss_a_misspelled_one(tmp_path):
    """Without `else:`, checkers would take any name for what `__getattr__` may give."""
    pyright = shutil.which("pyright", path=Path(sys.executable).parent)
    if pyright is None:
        pytest.skip("pyright is not installed")
    (tmp_path / "uses.py").write_text("import mmlens\nmmlens.Neuron(3, 7)\nmmlens.Neurn(3, 7)\n")
    settings = {"include": ["."], "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    told = subprocess.run(
        [pyright, "--outputjson", "--pythonpath", sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    found = json.loads(told.stdout)["generalDiagnostics"]
    assert [(one["rule"], one["range"]["start"]["line"]) for one in found] == [
        ("reportAttributeAccessIssue", 2)
    ]


def test_the_doors_to_a_model_show_what_they_take():
    of_parts = inspect.signature(mmlens.from_parts)
    assert list(of_parts.parameters)[:4] == ["vision", "projection", "lm", "tokenizer"]
    assert of_parts.return_annotation == "HookedVLM | HookedVisionModel"
    assert list(inspect.signature(mmlens.load).parameters) == ["name", "dtype", "device", "options"]


def test_a_wrong_name_is_told_the_nearest_one():
    with pytest.raises(AttributeError, match="mmlens has no 'atribute': did you mean 'attribute'"):
        _ = mmlens.atribute  # type: ignore[attr-defined]


def test_the_network_is_closed_to_tests():
    with pytest.raises(pytest.fail.Exception, match="A test reached for the network"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(pytest.fail.Exception, match="tests run offline"):
        socket.getaddrinfo("example.org", 443)
    with socket.socket() as probe:
        assert (
            probe.connect_ex(("127.0.0.1", 9)) != 0
        )  # this machine may be reached; nobody listens

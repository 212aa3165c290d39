"""`import mmlens` is cheap and tells the truth about what there is."""

from __future__ import annotations

import ast
import importlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import mmlens

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
    if "_HOME = {" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("package", LAZY)
def test_no_public_name_is_hidden_by_a_module_of_the_same_name(package):
    """After `import mmlens.load`, `mmlens.load` would be that module and no longer the function."""
    folder = ROOT.joinpath(*package.split("."))
    modules = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    hidden = set(importlib.import_module(package)._HOME) & modules
    assert hidden == set(), f"rename these modules of {package}: they hide a name"


def test_type_checkers_are_told_the_same_names_as_the_table():
    tree = ast.parse(Path(mmlens.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {
        (alias.name, node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    table = {(name, f"mmlens.{module}") for name, module in mmlens._HOME.items()}
    assert told == table | {(name, "mmlens") for name in mmlens._SUBMODULES}


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

"""The pages "add a ..." are done as written in a copy of the repository, and their checks run.

A block below `<!-- into FILE -->` is the whole of a new file; `, below: LINE` and `, instead of:
LINE` say where a line of it goes in one that exists. The files that a page touches are those that
it names behind "**It touches**", and no others.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("add-a-*.md"))
COPIED = ("mmlens", "tests", "docs", "scripts", "pyproject.toml", "CHANGELOG.md")
INTO = re.compile(
    r"^<!-- into (?P<file>\S+?)(?:, (?P<how>below|instead of): (?P<line>.+?))? -->\n"
    r"(?:<!-- not run: .*? -->\n)?(?P<fence>`{3,})\w+\n(?P<code>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)


def said(page: Path) -> set[str]:
    """The files that a page says it touches."""
    line = re.search(r"^\*\*It touches\*\* (.*?)\.\n\n", page.read_text("utf-8"), re.M | re.S)
    assert line, f"{page.name} names no files"
    return set(re.findall(r"`([^`]+)`", line[1]))


def done(page: Path, tree: Path) -> None:
    """Do in this tree what a page says."""
    for block in INTO.finditer(page.read_text("utf-8")):
        path = tree / block["file"]
        if block["how"] is None:
            assert not path.exists(), f"{page.name} writes over {block['file']}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(block["code"], "utf-8")
            continue
        lines = path.read_text("utf-8").splitlines(keepends=True)
        there = [i for i, line in enumerate(lines) if line.strip().startswith(block["line"])]
        assert there, f"{page.name}: {block['file']} has no line {block['line']!r}"
        after = lines[there[0] + 1 :]
        kept = lines[: there[0] + (block["how"] == "below")]
        path.write_text("".join([*kept, block["code"], *after]), "utf-8")


def copied(tree: Path) -> Path:
    """A copy of what pages may touch; the weights, which none may, are only shown."""
    heavy = Path("mmlens/pictos/weights")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "weights")
            )
        else:
            shutil.copy(source, tree / name)
    (tree / heavy).symlink_to(ROOT / heavy)
    (tree / "scenes").symlink_to(ROOT / "scenes")
    return tree


def files(tree: Path) -> dict[str, bytes]:
    """Everything in the tree, by its path."""
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for name in COPIED
        for path in [tree / name, *(tree / name).rglob("*")]
        if path.is_file() and "weights" not in path.parts and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The repository with all pages done, and what each of them changed."""
    copy = copied(tmp_path_factory.mktemp("adding"))
    changed, before = {}, files(copy)
    for page in PAGES:
        done(page, copy)
        after = files(copy)
        changed[page.stem] = {name for name in after if after[name] != before.get(name)}
        assert set(before) <= set(after)
        before = after
    return copy, changed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_touches_the_files_that_it_says_and_no_others(page, tree):
    assert tree[1][page.stem] == said(page)


def run(tree: Path, *words: str) -> str:
    """What a Python module prints there; fails where it does."""
    told = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=tree, env=told, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


def test_the_tests_that_the_pages_write_pass_and_so_do_those_that_watch_over_them(tree):
    copy, changed = tree
    own = sorted(name for some in changed.values() for name in some if name.startswith("tests/"))
    assert len(own) == 4  # a family is tested by the tests of all families
    watching = ("tests/test_floors.py", "tests/test_families.py")
    others = "not limber and not pictos"
    out = run(copy, "pytest", "-q", "-x", "-p", "no:cacheprovider", *own, *watching, "-k", others)
    assert " passed" in out
    if find_spec("ruff"):
        python = [name for some in changed.values() for name in some if name.endswith(".py")]
        run(copy, "ruff", "check", *python)
        run(copy, "ruff", "format", "--check", *python)


def test_a_page_that_forgets_a_file_or_touches_another_is_found(tmp_path):
    page = tmp_path / "add-a-thing.md"
    page.write_text("**It touches** `a.py`.\n\n<!-- into b.py -->\n```python\nx = 1\n```\n")
    done(page, tmp_path)
    assert said(page) == {"a.py"} and (tmp_path / "b.py").read_text() == "x = 1\n"
    page.write_text("<!-- into b.py, below: y -->\n```python\nz = 1\n```\n")
    with pytest.raises(AssertionError, match="no line 'y'"):
        done(page, tmp_path)

"""Pages that are made before the site is read: the API reference, and the notebooks.

`docs/api/` gets a page per package, with its text and everything public in it, in the order of its
modules. `docs/notebooks/` gets the notebooks, their figures in the form that the site draws. Both
folders are ignored by git.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from results import ROOT, figure
from snippets import is_python

from mmlens.values.lazy import public_names

DOCS = Path(__file__).parents[1]
PAGES = {
    "model": ("Models", "mmlens", ("families", "model")),
    "values": (
        "Values: prompts, addresses, scores, edits",
        "mmlens",
        ("values",),
    ),
    "methods": ("Questions to a model", "mmlens", ("methods", "explore")),
    "explore": ("Pictures read through a model", "mmlens.explore", ()),
    "patching": ("Patching", "mmlens.patching", ()),
    "relevance": ("Maps of relevance", "mmlens.relevance", ()),
    "decoding": ("Decoding against hallucination", "mmlens.decoding", ()),
    "hallucination": ("A study of hallucination", "mmlens.papers.hallucination", ()),
    "towers": (
        "Towers: wrapping an encoder or a language model",
        "mmlens.towers",
        ("vision.wrap", "vision.encoder", "vision.pixels", "language.language_model"),
    ),
    "view": ("Views", "mmlens.view", ()),
    "datasets": ("Data sets", "mmlens.datasets", ()),
    "pictos": ("The bundled world", "mmlens.pictos", ()),
    "sweep": ("Sweeps", "mmlens.sweep", ()),
    "tally": ("Running statistics", "mmlens.tally", ()),
    "experiments": ("Experiments", "mmlens.papers.mmn.questions", ()),
    "neo": ("Experiments on a thing's patches", "mmlens.papers.neo.questions", ()),
    "alignment": ("Experiments on alignment", "mmlens.papers.alignment.questions", ()),
    "maps": ("Experiments on maps of relevance", "mmlens.papers.maps.questions", ()),
    "editing": ("Experiments on edits", "mmlens.papers.editing.questions", ()),
    "frozen_block": ("A study of a frozen block", "mmlens.papers.frozen_block", ()),
    "neurons": ("Experiments on lists of neurons", "mmlens.papers.neurons.questions", ()),
    "lenses_study": ("Experiments on lenses", "mmlens.papers.lenses", ()),
    "concepts_study": ("Experiments on concepts", "mmlens.papers.concepts", ()),
    "circuits": ("Experiments on circuits", "mmlens.papers.circuits", ()),
    "labels": ("Experiments on labels", "mmlens.papers.labels.questions", ()),
    "dictionaries_study": ("Experiments on dictionaries", "mmlens.papers.dictionaries", ()),
    "projection": ("Experiments on the projection", "mmlens.papers.projection.questions", ()),
    "shootout": ("The shoot-out", "mmlens.papers.shootout", ()),
    "metrics": ("Metrics of captions", "mmlens.metrics", ()),
    "train": ("Trainings", "mmlens.train", ()),
    "reproduce": ("Reproducing a study", "mmlens.papers.mmn.report", ()),
    "papers": ("Tables, intervals and scoring of studies", "mmlens.papers", ()),
    "errors": ("Errors", "mmlens.values.errors", ()),
}
"""File name -> title, package, and which rooms or modules of it (all when empty)."""

_written: dict[int, str] = {}
"""Where each thing is described: once, however many names it has."""


def make(app: Any) -> None:
    """Write both folders."""
    _written.clear()
    _write(DOCS / "api", {f"{name}.rst": _page(*told) for name, told in PAGES.items()})
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    _write(DOCS / "notebooks", {path.name: _notebook(path) for path in notebooks})


def _write(folder: Path, files: dict[str, str]) -> None:
    """These files and no others; an unchanged one keeps its time, so that it is not read again."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name not in files:
            path.unlink()
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, encoding="utf-8")


# -- the API reference ----------------------------------------------------------------------------


def _page(title: str, package: str, only: tuple[str, ...]) -> str:
    parts = [_heading(title, "=")]
    if not only:
        parts.append(f".. automodule:: {package}\n   :no-index:")
    by_module: dict[str, list[str]] = {}
    for name, module in _public(package, only):
        if not only or _lies_in(module, package, only):
            by_module.setdefault(module, []).append(name)
    order = [m for one in only for m in by_module if _lies_in(m, package, (one,))]
    for module in order or by_module:
        if module != package:
            parts += [
                _heading(module.split(".")[-1].replace("_", " "), "-"),
                f".. automodule:: {module}\n   :no-index:",
            ]
        parts += [_entry(package, name) for name in by_module[module]]
    return "\n\n".join(parts) + "\n"


def _lies_in(module: str, package: str, only: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{package}.{one}.") for one in only)


def _public(package: str, only: tuple[str, ...] = ()) -> Iterable[tuple[str, str]]:
    """(name as users write it below `package`, module that it lives in).

    Args:
        only: modules of a package that publishes no names of its own.
    """
    here = importlib.import_module(package)
    names = [n for n in getattr(here, "__all__", ()) if not inspect.ismodule(getattr(here, n))]
    if not names and only:
        for module in only:
            yield from _own(importlib.import_module(f"{package}.{module}"), f"{module}.")
        return
    if not names:
        yield from _own(here, "")
        for found in pkgutil.iter_modules(getattr(here, "__path__", ())):
            if not found.name.startswith("_"):
                yield from _own(
                    importlib.import_module(f"{package}.{found.name}"), f"{found.name}."
                )
        return
    homes = public_names(package)
    for name in names:
        yield name, homes[name][0] if name in homes else getattr(here, name).__module__
    for found in pkgutil.iter_modules(getattr(here, "__path__", ())):
        if found.name in here.__all__ and found.name not in names:
            yield from _own(importlib.import_module(f"{package}.{found.name}"), f"{found.name}.")


def _own(module: Any, prefix: str) -> Iterable[tuple[str, str]]:
    for name, thing in vars(module).items():
        of_here = getattr(thing, "__module__", None) == module.__name__
        if (
            of_here
            and not name.startswith("_")
            and (inspect.isfunction(thing) or inspect.isclass(thing))
        ):
            yield f"{prefix}{name}", module.__name__


def _entry(package: str, name: str) -> str:
    thing: Any = importlib.import_module(package)
    for part in name.split("."):
        thing = getattr(thing, part)
    here = f"{package}.{name}"
    kind = inspect.isfunction(thing) or inspect.isclass(thing)
    if kind and (there := _written.setdefault(id(thing), here)) != here:
        return f"``{here}`` is :py:obj:`{there}`."
    if inspect.isfunction(thing):
        return f".. autofunction:: {package}.{name}"
    if not inspect.isclass(thing):
        return f".. autodata:: {package}.{name}\n   :no-value:"
    members = "" if issubclass(thing, Exception) else "\n   :members:"
    if any(base.__name__ == "Module" for base in thing.__mro__):  # of its mixins, not of torch's
        members += "\n   :inherited-members: Module"
    return f".. autoclass:: {package}.{name}{members}"


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def plain_docstrings(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """The docstrings' plain text as reStructuredText: indented blocks are code, signs are signs."""
    out: list[str] = []
    code = False
    sections = re.compile(r"(Args|Returns|Raises|Attributes|Yields|Example|Examples):$")
    in_section = False
    for line in lines:
        in_section = bool(sections.match(line)) or (in_section and (not line or line[:1] == " "))
        indented = line.startswith("    ") and not in_section
        if indented and not code and (not out or not out[-1].strip()):
            kind = "python" if _is_python(lines, line) else "text"
            out += [f".. code-block:: {kind}", ""]
            code = True
        elif code and line.strip() and not indented:
            code = False
        out.append(line if code else _signs(line))
    lines[:] = out


def _is_python(lines: list[str], first: str) -> bool:
    start = lines.index(first)
    rest = lines[start:]
    end = next((i for i, line in enumerate(rest) if line and line[:4].strip()), len(rest))
    return is_python("\n".join(line[4:] for line in rest[:end]))


def _signs(line: str) -> str:
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(
        p if p.startswith("`") else re.sub(r"([*|\\]|_(?!\w))", r"\\\1", p) for p in parts
    )


# -- the notebooks --------------------------------------------------------------------------------


def _notebook(path: Path) -> str:
    """A notebook whose plotly figures are HTML and whose links fit the site."""
    notebook = json.loads(path.read_text("utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            cell["source"] = re.sub(r"\]\(\.\./docs/", "](../", text)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            drawn = data.pop("application/vnd.plotly.v1+json", None)
            if drawn is not None:
                output["data"] = {"text/html": figure({k: drawn[k] for k in ("data", "layout")})}
    notebook["metadata"].setdefault("kernelspec", {"name": "python3", "display_name": "Python 3"})
    return json.dumps(notebook, indent=1)


def setup(app: Any) -> dict[str, bool]:
    """Make the pages when the site begins."""
    app.connect("builder-inited", make)
    app.connect("autodoc-process-docstring", plain_docstrings, priority=400)
    return {"parallel_read_safe": False, "parallel_write_safe": True}

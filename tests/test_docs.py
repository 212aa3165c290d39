"""The site tells the truth: the Python of its pages runs, its tables miss nothing, it is offline.

Which code is run. Of README.md and docs/*.md: every block of Python, page by page in one namespace,
unless a comment `<!-- not run: why -->` stands above it. Of the modules' docstrings: every `>>>`
example; and the indented blocks that are Python, where all their names are the module's own,
public, or among the things that docstrings speak of (`spoken_of`: `model`, `prompt`, `photo`, ...),
unless `ELSEWHERE` or `NOT_RUN` says why not. All of them are read for names of modules and for
arguments that do not exist.
"""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import inspect
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from axe import pages, violations

import mmlens as mm
from mmlens import families, view

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
from offline import fetched, of_site  # noqa: E402
from results import workplace  # noqa: E402
from snippets import blocks, compiled, docstring_blocks  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [path for path in PAGES if blocks(path.read_text("utf-8"))]
MODULES = {
    path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "mmlens").rglob("*.py"))
}
DOCS = {
    name: ast.get_docstring(ast.parse(path.read_text("utf-8"))) for path, name in MODULES.items()
}
WITH_CODE = [name for name, doc in DOCS.items() if doc and docstring_blocks(doc)]
ELSEWHERE = re.compile(
    r"FOLDER|hf:|open_clip:|timm:|\bme/|google/|facebook/|llava-hf/|gpt2|\.ckpt|runs/|fit\(|backbone=|\.\.\.[,)]"
)
"""Marks of what only a reader has: data, the network, a training."""
OTHERS = ("Pair", "metrics")
"""Names of the patching bench that mean something else behind `mm`."""
NOT_RUN = {
    "mmlens.families": "it would register a family under a name that exists",
    "mmlens.families.smol": "its weights are fetched",
    "mmlens.values.lazy": "it belongs into a package's __init__",
    "mmlens.papers.mmn.report": "a study takes minutes",
    "mmlens.papers.neo": "a study takes minutes",
    "mmlens.papers.alignment": "a study takes minutes",
    "mmlens.papers.maps": "a study takes minutes",
    "mmlens.papers.editing": "a study takes minutes",
    "mmlens.papers.frozen_block": "a study takes minutes",
    "mmlens.papers.neurons": "a study takes minutes",
    "mmlens.papers.concepts": "a study takes minutes",
    "mmlens.papers.circuits": "a study takes minutes",
    "mmlens.papers.labels": "a study takes minutes",
    "mmlens.papers.projection": "a study takes minutes",
    "mmlens.papers.dictionaries": "a study takes minutes",
    "mmlens.papers.lenses": "a study takes minutes",
    "mmlens.papers.shootout": "studies take an hour",
    "mmlens.towers.vision.encoder": "the encoder comes from the network",
    "mmlens.papers.mmn.questions": "twenty pictures take half a minute",
}


@pytest.fixture
def few_families(monkeypatch):
    """Families and sites that a page adds are gone after it."""
    from mmlens.values.sites import SITES

    mm.models()
    sites = dict(SITES)
    for table in ("_loaders", "_lines"):
        monkeypatch.setattr(families, table, dict(getattr(families, table)))
    yield
    SITES.clear()
    SITES.update(sites)
    view.use_theme("auto")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_python_of_a_page_runs_and_gives_what_its_comments_say(path, few_families):
    names: dict[str, Any] = {"__name__": "__main__"}
    text = path.read_text("utf-8")
    with workplace(), torch.random.fork_rng():
        for block in blocks(text):
            if block.why_not is not None:
                continue
            exec(compiled(block, str(path)), names)
            for expression, said in re.findall(r"^(\S.*?)  # ('.*')$", block.code, re.MULTILINE):
                assert eval(expression, names) == ast.literal_eval(said), expression
        for shown in re.findall(r"^```\{result\} (.*)$", text, re.MULTILINE):
            assert eval(shown, names) is not None


# -- docstrings -----------------------------------------------------------------------------------


def test_the_examples_with_a_prompt_run():
    for path, name in MODULES.items():
        if ">>>" in path.read_text("utf-8"):
            found = doctest.testmod(importlib.import_module(name))
            assert not found.failed, name
            assert found.attempted, name


@cache
def spoken_of() -> dict[str, Any]:
    """What docstrings speak of without saying where it comes from."""
    from PIL import Image, ImageOps

    from mmlens import metrics, patching, pictos, relevance
    from mmlens.causal import measures as of_logits

    scene = pictos.World("held_out", 1, things=2, style="literal").scene(0)
    photo = Image.open(ROOT / "scenes/dog-and-bicycle.png").convert("RGB")
    model = mm.load("pictos")
    prompt = mm.Prompt(photo, "A picture of")
    other = mm.Prompt(ImageOps.mirror(photo), "A picture of")
    patches = [mm.Patch(row, 2) for row in range(4, 7)]
    pair = patching.Pair(prompt, other)
    return {
        "mm": mm,
        "mmlens": mm,
        "view": view,
        "patching": patching,
        "relevance": relevance,
        "metrics": metrics,
        **{name: getattr(mm, name) for name in mm.__all__},
        **{name: getattr(patching, name) for name in patching.__all__ if name != "metrics"},
        "model": model,
        "prompt": prompt,
        "photo": photo,
        "pair": pair,
        "clean": prompt,
        "corrupt": other,
        "prompts": [prompt, other],
        "dog": patches,
        "rest": [mm.Patch(0, 0)],
        "dog_patches": patches,
        "scenes": [scene],
        "with_dogs": [prompt],
        "without": [other],
        "samples": mm.dataset("pictos:held_out:2"),
        "metric": of_logits.logit(model, " dog"),
        "other_run": mm.activations(model, prompt, "resid_post", layer=4),
        "direction": torch.zeros(model.cfg.d_model),
        "scores": mm.attribute(model, prompt, of=" dog"),
        "best": mm.top_neurons(mm.attribute(model, prompt, of=" dog"), 40, rank_by="max"),
    }


@pytest.mark.parametrize("name", WITH_CODE)
def test_the_code_of_a_docstring_runs_or_at_least_names_what_there_is(name):
    module = importlib.import_module(name)
    names = {**{k: v for k, v in vars(module).items() if k[:2] != "__"}, **spoken_of()}
    for block in docstring_blocks(DOCS[name] or ""):
        tree = ast.parse(block.code)
        made = {
            n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and n.ctx.__class__ is ast.Store
        }
        given = {name: thing for name, thing in names.items() if name not in made}
        unknown(tree, {**given, "model": mm.HookedVLM})
        if name in NOT_RUN or ELSEWHERE.search(block.code) or missing(block.code, names):
            continue
        with workplace() as folder:
            if "scene.png" in block.code:
                names["photo"].save(folder / "scene.png")
            exec(compiled(block, name), names)


def missing(code: str, names: dict[str, Any]) -> set[str]:
    """The names that a block uses and nobody gives."""
    used = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    made = {node.id for node in used if isinstance(node.ctx, ast.Store)}
    made |= {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    made |= {node.arg for node in ast.walk(ast.parse(code)) if isinstance(node, ast.arg)}
    return {node.id for node in used} - made - set(names) - set(dir(builtins))


def unknown(tree: ast.AST, names: dict[str, Any]) -> None:
    """Fails at an attribute that a module or class lacks, and at arguments that a call refuses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = found(node.value, names)
            if inspect.ismodule(owner):
                assert hasattr(owner, node.attr), ast.unparse(node)
        if isinstance(node, ast.Call):
            function = found(node.func, names)
            given = [arg for arg in node.args if not isinstance(arg, ast.Starred)]
            of_class = isinstance(node.func, ast.Attribute) and inspect.isfunction(function)
            if not (inspect.isfunction(function) or inspect.isclass(function)):
                continue
            bound = of_class and inspect.isclass(found(node.func.value, names))  # type: ignore[attr-defined]
            first = [None] if bound and not inspect.ismethod(function) else []
            with_names = {key.arg: None for key in node.keywords if key.arg}
            inspect.signature(function).bind_partial(*first, *[None] * len(given), **with_names)


def found(node: ast.AST, names: dict[str, Any]) -> Any:
    """The module, class or function that an expression names, else None."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = found(node.value, names)
        if inspect.ismodule(owner) or inspect.isclass(owner):
            return getattr(owner, node.attr, None)
    return None


# -- the site -------------------------------------------------------------------------------------


def test_the_catalogue_has_an_example_of_every_error_and_says_what_it_gets():
    from examples import ERRORS
    from tables import error_classes, errors

    kinds = {kind.__name__ for kind in error_classes()[1:]}
    assert {"AddressError", "SweepError"} <= kinds
    assert kinds == set(ERRORS) - {"before"}
    told = errors()
    assert "> There is no model 'toy-gpj': did you mean 'toy-gptj'" in told


def test_the_example_of_what_attribution_cannot_see_shows_it():
    page = (ROOT / "docs" / "which-method.md").read_text("utf-8")
    section = page.partition("## What attribution cannot see")[2].partition("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert code
    names: dict[str, Any] = {"mm": mm}
    exec(code[0], names)
    told = names["found"]
    cancel = [told["two units that cancel", unit] for unit in ("L2.0", "L2.1", "L2.0 and L2.1")]
    assert abs(cancel[2]["true"]) < 1e-4 < 0.1 < min(abs(one["true"]) for one in cancel[:2])
    full = told["a saturated norm", "L2.0"]  # turned down a little, it changes next to nothing
    assert abs(full["gradient x activation"]) < 0.2 * abs(full["true"])


def test_tables_are_read_off_the_code():
    from tables import acts, citation, families, methods, sentences

    from mmlens.families.toy import KINDS
    from mmlens.values.sites import SITES

    acted, loaded = acts(), families()
    assert all(f"`{name}`" in loaded for name in mm.models())
    assert all(f"`{name}`" in acted for name, site in SITES.items() if site.in_lm)
    rows = {row.split("`")[1]: row for row in acted.splitlines() if row.startswith("| `")}
    assert rows["pattern"].count("| read, edit ") == len(KINDS) + 1  # and with cross-attention
    assert rows["cross_pattern"].count("| read, edit ") == 1
    assert "| - |" in rows["resid_mid"]
    assert "| read, edit |" in rows["resid_mid"]
    assert "`mmlens.attribute`" in methods()
    assert "arxiv.org/abs/2308.01544" in citation()
    assert "There is no site ...: ..." in sentences()


def test_what_a_page_would_fetch_is_found():
    assert fetched('<script src="https://cdn.example/a.js"></script>') == [
        "https://cdn.example/a.js"
    ]
    assert fetched('<link rel="stylesheet" href="//fonts.example/a.css">')
    assert fetched("<style>@import url(https://fonts.example/b.css)</style>")
    assert fetched("src: url('https://fonts.example/c.woff2')", css=True)
    assert not fetched(
        '<a href="https://arxiv.org">a paper</a><script src="_static/a.js"></script>'
    )


def test_the_built_site_fetches_nothing():
    site = ROOT / "build" / "docs"
    if not (site / "index.html").is_file():
        pytest.skip("no site in build/docs: .ci/run builds it before the tests")
    assert not list(of_site(site))
    tour = (site / "tour.html").read_text("utf-8")
    assert tour.count('class="mm-figure"') >= 3
    assert "<iframe" in tour
    assert (site / "_look/microscope-and-banana.html").stat().st_size < 1_000_000
    assert [path.name for path in site.rglob("plotly*.js")] == ["plotly.min.js"]


@pytest.mark.parametrize("page", ["index", "tour", "which-method", "models", "install", "gallery"])
def test_axe_finds_nothing_wrong_in_the_built_site(page, browser):
    site = ROOT / "build" / "docs"
    if not (site / "index.html").is_file():
        pytest.skip("no site in build/docs")
    with pages(browser) as tabs:
        for scheme, tab in tabs.items():
            tab.goto((site / f"{page}.html").as_uri())
            found = [one for one in violations(tab) if one[0] != "role-img-alt"]
            assert not found, f"{page}, {scheme}"  # canvases of CircuitsVis have no name


def test_the_table_of_methods_is_no_wider_than_its_page(browser):
    page = ROOT / "build" / "docs" / "which-method.html"
    if not page.is_file():
        pytest.skip("no site in build/docs")
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(page.as_uri())
    over = "one => one.parentElement.scrollWidth - one.parentElement.clientWidth"
    tables = tab.evaluate(f"[...document.querySelectorAll('table.docutils')].map({over})")
    tab.close()
    assert tables and max(tables) == 0


def test_the_gallery_shows_every_view_with_its_code():
    from mmlens import view

    text = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    assert [name for name in view.__all__ if f"view.{name}" not in text] == []


ASKED = ("LLaVA", "CLIP", "bf16 GPU", "multi-GPU", "GPU command line", "average pairs",
         "progress bar", "SAEs", "CPU install")  # fmt: skip


def test_questions_find_their_answer_in_the_pages():
    """The search of a site shows the pages that have all words of a question."""
    pages = {path.stem: set(re.findall(r"\w+", path.read_text("utf-8").lower()))
             for path in (ROOT / "docs").glob("*.md")}  # fmt: skip
    for asked in ASKED:
        words = set(re.findall(r"\w+", asked.lower()))
        found = {name for name, there in pages.items() if words <= there}
        assert found & {"questions", "index", "models", "install"}, asked


def test_the_search_of_the_built_site_finds_the_same():
    index = ROOT / "build" / "docs" / "searchindex.js"
    if not index.is_file():
        pytest.skip("no site in build/docs: .ci/run builds it before the tests")
    from sphinx.search.en import SearchEnglish

    stem = SearchEnglish({}).stem
    found = json.loads(
        index.read_text("utf-8").removeprefix("Search.setIndex(").rstrip().rstrip(")")
    )
    names = found["docnames"]
    for asked in ASKED:
        pages = [
            {names[i] for kind in ("terms", "titleterms")
             for i in _listed(found[kind].get(stem(word), []))}
            for word in re.findall(r"\w+", asked.lower())
        ]  # fmt: skip
        assert set.intersection(*pages) & {"questions", "index", "models", "install"}, asked


def _listed(pages: int | list[int]) -> list[int]:
    return [pages] if isinstance(pages, int) else pages

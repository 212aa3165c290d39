"""One word has one meaning: parameters, classes and files are named as docs/vocabulary.md says."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mmlens"
PACKAGES = ("", "datasets", "decoding", "explore", "metrics", "papers.alignment",
            "papers.frozen_block", "papers.goh", "papers.hallucination", "papers.mmn",
            "papers.neo", "papers.neurons", "patching", "relevance", "sweep", "tally", "train",
            "view")  # fmt: skip
MEANT: dict[str, set[str]] = {
    "by": {"patching.patch", "patching.ablate", "patching.direct_logits", "decompose",
           "bilinear_attribution", "cross_attention_maps"},
    "words": {"microscope", "view.tokens", "stroop", "word_association", "word_probe"},
    "unit": {"Neuron"},
    "target": {"attribute", "attribute_caption", "attribute_picture", "integrated_gradients",
               "papers.mmn.OpenChoices", "visualise", "relevance.chefer",
               "relevance.covering_curves", "relevance.grad_cam", "relevance.grad_eclip",
               "relevance.lrp", "relevance.occlusion", "relevance.rise", "visual_circuit"},
    "rank_by": {"top_neurons", "papers.mmn.OpenChoices"},
    "quantity": {"head_lens", "logit_lens", "module_influence", "patchscope"},
}  # fmt: skip
"""Parameter -> the only public functions that may have it; in all of these it means one thing."""
NEVER = {"layers": "layer", "positions": "pos", "heads": "head"}
"""What an address is not called, and what it is."""
SAME_FILE = {
    "look": "cli/look.py has the command that calls explore/look.py",
    "microscope": "cli/microscope.py has the command that calls explore/microscope.py",
    "tower": "each kind of tower says in its tower.py what it is to a model",
}
"""Names that several files may have."""


def public() -> Iterator[tuple[str, Any]]:
    """Every public function and class as users write it behind `mm.`."""
    for package in PACKAGES:
        module = importlib.import_module(f"mmlens.{package}".rstrip("."))
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isfunction(thing) or inspect.isclass(thing):
                yield f"{package}.{name}".lstrip("."), thing


def parameters(thing: Any) -> set[str]:
    try:
        return set(inspect.signature(thing).parameters)
    except ValueError:  # an exception, which has none of its own
        return set()


@cache
def questions() -> dict[str, Any]:
    """What `sweep` may ask, by its name in a paper: functions of a model and a sample."""
    found = {}
    for path in sorted((PACKAGE / "papers").rglob("questions/*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(name)
        for function in vars(module).values():
            if inspect.isfunction(function) and function.__module__ == name:
                first = list(inspect.signature(function).parameters)[:2]
                private = function.__name__.startswith("_") or function.__name__ == "checked"
                if first == ["model", "sample"] and not private:
                    found[f"{name}.{function.__name__}"] = function
    return found


@pytest.mark.parametrize("word", MEANT)
def test_a_parameter_of_one_name_means_one_thing_everywhere(word):
    assert {name for name, thing in public() if word in parameters(thing)} == MEANT[word]


def test_questions_of_papers_take_the_words_of_the_methods_that_they_ask():
    assert len(questions()) > 10
    for name, function in questions().items():
        assert not parameters(function) & {"by", "words", "unit", "quantity"}, name
        assert "prompt" in parameters(function), f"{name}: the words after the picture"


def test_an_address_is_named_like_its_axis():
    wrong = [(name, w) for name, thing in public() for w in parameters(thing) & set(NEVER)]
    assert wrong == [], "; ".join(f"{name}({w}=): write {NEVER[w]}=" for name, w in wrong)


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_no_two_classes_have_one_name():
    homes: dict[str, list[str]] = defaultdict(list)
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(path.relative_to(PACKAGE)))
    twice = {name: where for name, where in homes.items() if len(where) > 1}
    assert twice == {}


def test_no_two_files_have_one_name():
    homes: dict[str, list[str]] = defaultdict(list)
    for path in files():
        if path.stem not in ("__init__", "__main__"):
            homes[path.stem].append(str(path.relative_to(PACKAGE)))
    twice = {name: where for name, where in homes.items() if len(where) > 1}
    assert set(twice) <= set(SAME_FILE), twice


def test_every_word_that_is_held_stands_in_the_vocabulary():
    page = (ROOT / "docs" / "vocabulary.md").read_text(encoding="utf-8")
    assert [word for word in MEANT if f"| `{word}` |" not in page] == []

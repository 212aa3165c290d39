"""Bad calls of every public name, made from signatures, and what they get. A script of its own.

    python tests/public_calls.py > calls.jsonl

Every callable has one right call (`Right`); each of its arguments is then replaced by the values of
a table that depends on the argument's annotation. A call may return, raise an `MMLensError` in one
line, or, as a programming mistake does, a TypeError at the door: raised in the public function
itself, or by Python while it is called. Everything else is a fault, and so is a call that takes
longer than `SECONDS`. It runs in a process of its own, because the tests check annotations at run
time, and a user does not.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from diffusion_twins import stable_diffusion
from dual_twins import hf_clip

import mmlens as mm
from mmlens import datasets, decoding, metrics, patching, relevance, tally, view
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.families import toy
from mmlens.papers.hallucination import said_things
from mmlens.papers.mmn.questions import (
    ablation,
    classes,
    estimates,
    faithfulness,
    layers,
    project,
    readings,
    regions,
    routes,
    sensitivity,
    sheet,
    translate,
)
from mmlens.papers.tables import ask

SECONDS, MEMORY = 2, 8 << 30
HUGE = 10**9
NAN = float("nan")
CHEAP = ("max_new_tokens", "draws", "vectors", "ks", "size")
"""Options that have a default and are given another, because it takes its time."""
PACKAGE = str(Path(mm.__file__).parent)

COUNTS = (0, -1, HUGE, 2.5, "nope", None, NAN, [])
NUMBERS = (NAN, -1.0, "nope", None, [])
TEXTS = ("nope", "", 3, None, [])
LISTS = ([], [None], "nope", None, 3)
ANYTHING = (None, "nope", -1, NAN, [], {})
PLAIN = {"bool", "str", "int", "float", "None"}
TABLES = (None, pd.DataFrame(), pd.DataFrame({"nope": [1]}), "nope")


FUNCTIONS = (
    r"\b(Callable|Compare|Corrupter|Decoder|LogitsProcessor|Metric|Number|Progress|Rule|Scorer)\b"
)
"""Annotations of what takes a function."""


def never(*, called: Any) -> None:
    """A function that cannot be called by position."""
    raise AssertionError("It was called.")


def values_for(annotation: str) -> tuple[Any, ...]:
    """The bad values of a parameter, by how it is annotated."""
    if re.search(FUNCTIONS, annotation):
        return (*values_for(re.sub(FUNCTIONS, "", annotation)), never)
    kinds = (
        ("DataFrame", TABLES), ("Sequence", LISTS), ("Iterable", LISTS), ("tuple", LISTS),
        ("Mapping", ANYTHING), ("int", COUNTS), ("float", NUMBERS), ("bool", (None, "nope")),
        ("str", TEXTS),
    )  # fmt: skip
    return next((bad for part, bad in kinds if part in annotation), ANYTHING)


# -- right calls -----------------------------------------------------------------------------------


class Right:
    """What makes one right call of each name: positional and keyword arguments, all by name."""

    def __init__(self) -> None:
        self.model = mm.load("toy-gptj-planted")
        self.photo = toy.picture((2, 1))
        mask = torch.zeros(32, 32, dtype=torch.bool)
        mask[16:24, 8:16] = True
        self.mask = mask
        self.prompt = mm.Prompt(self.photo, "A picture of")
        self.samples = [
            Sample(
                f"s{i}", toy.picture((2, 1), seed=i), ("a dog", "one dog"), (Thing("dog", mask),)
            )
            for i in range(2)
        ]
        self.data = Samples("two", ["s0", "s1"], self.samples.__getitem__, "hash")
        self.scores = mm.attribute(self.model, self.prompt, " dog", after="")
        self.neuron = mm.Neuron(1, 5)
        self.top = mm.decode(self.model, mm.top_neurons(self.scores, 3))
        token = self.model.to_single_token(" dog")
        other = mm.Prompt(toy.picture((0, 0)), "A picture of")
        self.by_name: dict[str, Any] = {
            "model": self.model, "prompt": self.prompt, "input": self.prompt, "of": " dog",
            "after": "", "scores": self.scores, "picture": self.photo, "k": 3, "steps": 2,
            "max_new_tokens": 1, "neurons": [self.neuron], "neuron": self.neuron,
            "table": self.top, "tokens": [" dog"], "pair": patching.Pair(self.prompt, other),
            "metric": patching.metrics.logit(self.model, token), "candidates": ["a dog"],
            "references": [["one dog"]], "prompts": [self.prompt], "others": [other], "layer": 1,
            "mask": mask, "samples": self.samples, "sample": self.samples[0], "dataset": self.data,
            "site": "resid_pre", "draws": 20, "vectors": 2, "ks": (0, 1), "size": 16,
            "name": "light",
        }  # fmt: skip
        self.public = (
            self.neuron, mm.Head(1, 0), mm.Patch(1, 1), mm.Token("a", 0), self.prompt,
            self.by_name["pair"], self.scores, self.top, self.top["neuron"], mask, np.zeros((2, 3)),
            self.photo, self.data, mm.Edit("neurons", 0.0), self.model, mm.Neuron, Path("a.html"),
        )  # fmt: skip
        """A value of every public type, each given in the place of every argument; tables and
        arrays not where one number, text or flag is annotated, which verbs alone check."""
        self.special: dict[str, dict[str, Any]] = self._special(other) | self._dual()
        self.special |= self._diffusion()

    def _dual(self) -> dict[str, dict[str, Any]]:
        """The calls of what asks a dual encoder."""
        import_module("open_clip")  # once, since it takes longer than a call may
        encoder, _, tokenizer = hf_clip()
        dual = mm.from_model(encoder, None, tokenizer)
        return {
            "from_model": {"model": encoder}, "embed": {"model": dual, "inputs": self.photo},
            "picture_similarity": {"model": dual, "text": "two cats"},
            "zero_shot": {"model": dual, "pictures": self.photo, "texts": ["two cats"]},
            "decompose": {"model": dual, "pictures": self.photo, "along": "two cats"},
            "heat_map": {"shares": mm.decompose(dual, self.photo, by="pos", along="two cats")},
            "mean_ablated": {"shares": mm.decompose(dual, [self.photo] * 2, along="two cats"),
                             "part": "mlp 0"},
            "bilinear_attribution": {"model": dual, "picture": self.photo, "of": "two cats"},
            "head_moments": {"model": dual, "pictures": [self.photo] * 2},
            "text_span": {"model": dual, "pictures": [self.photo] * 2, "texts": ["two cats"],
                          "k": 1},
            "audit_bias": {"model": dual, "concepts": "concepts.yaml", "draws": 9},
        }  # fmt: skip

    def _diffusion(self) -> dict[str, dict[str, Any]]:
        """The calls of what asks a diffusion model; without diffusers there is none to ask."""
        model = self.model
        if find_spec("diffusers") is not None:
            model = mm.from_model(stable_diffusion()).sampling(steps=1)
        return {"cross_attention_maps": {"model": model, "prompt": "a dog"}}

    def _special(self, other: Any) -> dict[str, dict[str, Any]]:
        model, scores = self.model, self.scores
        on_patches = scores.sum("unit").sum("layer")
        lens = mm.logit_lens(model, self.prompt, [" dog"])
        weights = patching.attention(model, self.prompt, layer=1)
        seen = mm.look(model, self.photo, k=2, max_new_tokens=1)
        moved = patching.patch(
            model, self.by_name["pair"], self.by_name["metric"], layer=0, pos=[0]
        )
        many = patching.patch(
            model, [self.by_name["pair"]] * 2, self.by_name["metric"], layer=0, pos=[0]
        )
        made = mm.visualise(model, mm.Neuron(1, 5, "vision"), steps=2)
        word, soft = patching.word(model, " dog"), model.embed(self.prompt)
        labels, d = soft.labels[0], model.cfg.d_model
        coded = mm.Dictionary(torch.ones(d, 4), torch.ones(4, d))
        return {
            "Prompt": {"parts": self.photo}, "Patch": {"row": 1, "col": 1},
            "Token": {"text": "a", "at": 0}, "Neuron": {"layer": 1, "unit": 5},
            "Head": {"layer": 1, "head": 0},
            "Scores": {"values": torch.zeros(2), "axes": ("layer",), "labels": {"layer": (0, 1)}},
            "Edit": {"site_name": "neurons", "value": 0.0},
            "load": {"name": "toy-gptj"}, "attribute_caption": {"caption": " dog"},
            "top_neurons": {"pos": None}, "tuned_lens": {"steps": 2},
            "contextual_index": {"texts": ["a dog"], "out": "index"},
            "contextual_neighbours": {"index": ["a dog"], "layer": 1},
            "patchscope": {"into": "a dog", "layer": 1}, "stream_map": {"prompts": "a dog"},
            "logit_lens": {"quantity": "prob"}, "dataset": {"source": "pictos:held_out:2"},
            "visualise": {"of": mm.Neuron(1, 5, "vision"), "steps": 2},
            "view.visualisations": {"made": made},
            "activations": {"site": "neurons"}, "look": {"prompt": "A picture of", "k": 2},
            "view.attention_on_image": {"scores": weights.sel(head=0)},
            "view.attention_text": {"scores": weights.sel(head=0)},
            "view.bars": {"scores": on_patches.sel(pos=mm.Patch)},
            "view.cards": {"picture": self.photo},
            "view.compare": {"results": {"a": on_patches, "b": on_patches}},
            "view.curves": {"scores": scores.sum("unit").sum("pos")},
            "view.explore": {"seen": seen}, "view.heatmap": {"scores": scores.sum("unit")},
            "view.lens": {"table": mm.logit_lens(model, self.prompt, k=2)},
            "view.neurons": {"table": scores.sum("pos")}, "view.on_image": {"scores": on_patches},
            "view.panels": {"scores": scores.sum("unit")},
            "view.save": {"figure": view.heatmap(scores.sum("unit")), "path": "a.html"},
            "view.show": {"x": scores.sum("unit")},
            "view.tokens": {"words": ["a"], "values": [1.0]},
            "view.gallery": {
                "table": pd.DataFrame(
                    {"neuron": [self.neuron], "rank": [0], "sample": ["s0"], "value": [1.0]}
                ),
                "pictures": {"s0": self.photo},
            },
            "datasets.Samples": {"name": "x", "ids": ["a"], "read": len, "digest": ""},
            "datasets.Sample": {"id": "x", "source": self.photo},
            "datasets.Thing": {"name": "x", "mask": None}, "datasets.pictos": {"n": 2},
            "datasets.images": {"folder": "pictures"}, "sweep.Sweep": {"folder": "swept"},
            "sweep.sweep": {"question": translate.top_units, "out": "again", "progress": False,
                            "options": {"k": 2, "max_new_tokens": 1}, "resume": False},
            "sweep.top_images": {"k": 1}, "metrics.caption_words": {"text": "a dog"},
            "microscope": {"out": "site", "layer": 0},
            "neuron_graph": {"of": " dog", "after": "", "k": 1, "units": 1},
            "attribution_graph": {"of": " dog", "after": "", "k": 1},
            "view.graph": {"table": pd.DataFrame(
                {"source": ["a"], "target": ["b"], "score": [1.0]})},
            "view.head_texts": {"table": pd.DataFrame(
                {"head": [mm.Head(0, 1)], "place": [1], "text": ["a"], "explained": [0.5]})},
            "metrics.chair": {"references": [["dog"]], "vocabulary": metrics.pictos_vocabulary()},
            "metrics.world_score": {"references": [["dog"]]},
            "metrics.MetricResult": {"name": "m", "corpus": 1.0, "items": (1.0,)},
            "metrics.Vocabulary": {"name": "v", "objects": {"dog": "dog"}},
            "metrics.coco_vocabulary": {"path": "synonyms.txt"},
            "metrics.bleu": {"n": 4}, "metrics.cider_d": {"n": 4},
            "relevance.covering_curves": {"scores": on_patches, "steps": 3},
            "relevance.in_mask": {"scores": on_patches},
            "relevance.rise": {"masks": 8}, "relevance.tam": {"of": " dog"},
            "hallucination": {"data": self.data, "progress": False,
                              "vocabulary": metrics.Vocabulary("v", {"dog": "dog"})},
            "said_things": {"vocabulary": {"name": "v", "objects": {"dog": "dog"}}},
            "decoding.shift_directions": {"prompts": [self.prompt], "others": [other]},
            "decoding.steer_along": {"site": "resid_post", "directions":
                                     mm.decoding.shift_directions(model, [self.prompt], [other])},
            "patching.Pair": {"clean": self.prompt, "corrupt": other},
            "patching.ablation_curve": {"ranked": [self.neuron], "k": (0, 1), "randoms": 1},
            "patching.attention": {"layer": 1}, "patching.attribution_patching": {"layer": None},
            "compare_outputs": {"texts": [(self.photo, "a dog")], "max_new_tokens": 1},
            "patching.captions": {"edits": {"none": []}, "max_new_tokens": 1},
            "patching.knockout": {"source": mm.Patch, "destination": -1},
            "patching.knockouts": {"routes": {"a": (mm.Patch, -1)}},
            "patching.mean_difference": {"site": "resid_post"},
            "patching.mean_over": {"site": "neurons"}, "patching.mean_picture":
                {"pictures": [self.photo]},
            "patching.only_at": {"corrupter": patching.grey(), "patches": [mm.Patch(1, 1)]},
            "patching.other_patches": {"labels": labels, "chosen": [mm.Patch(1, 1)]},
            "patching.path_patching": {"senders": [self.neuron], "receiver": None},
            "patching.recovered": {"scores": moved},
            "patching.means": {"scores": many}, "patching.effects": {"scores": many},
            "patching.thing_pairs": {"data": self.data},
            "patching.remove": {"site": "resid_post", "direction": word},
            "patching.steer": {"site": "resid_post", "direction": word},
            "HookedVLM.attach": {"dictionary": coded, "at": "blocks.1.hook_resid_post"},
            "Dictionary": {"W_enc": torch.ones(4, 6), "W_dec": torch.ones(6, 4)},
            "load_dictionary": {"folder": "dictionary"},
            "save_dictionary": {"dictionary": coded, "folder": "dictionary"},
            "HookedVLM.edit": {"edits": mm.Edit("neurons", 0.0)},
            "HookedVLM.add_hook": {"name": "blocks.0.hook_resid_pre", "hook": lambda x, hook: x},
            "HookedVLM.add_perma_hook": {"name": "blocks.0.hook_resid_pre", "hook":
                                         lambda x, hook: x},
            "HookedVLM.get_hook_point": {"hook_name": "blocks.0.hook_resid_pre"},
            "HookedVLM.get_token_position": {"single_token": " of", "input": self.prompt},
            "HookedVLM.loss_fn": {"logits": torch.zeros(1, 3, model.cfg.d_vocab),
                                  "tokens": torch.ones(1, 3, dtype=torch.long)},
            "HookedVLM.to_single_str_token": {"int_token": 5},
            "HookedVLM.to_single_token": {"string": " dog"}, "HookedVLM.to_string": {"tokens": [5]},
            "HookedVLM.to_tokens": {"input": self.prompt}, "HookedVLM.save": {"folder": "saved"},
            "HookedVLM.tokens_to_residual_directions": {"tokens": " dog"},
            "class_activations": {"units": ["L1.5"]}, "faithful": {"methods": ["activation"]},
            "option_effects": {"changes": ["default"]}, "estimated": {"steps": (0,)},
            "Lens": {"table": lens},
            **self._of_units(),
            **self._of_later_papers(),
        }  # fmt: skip

    def _of_later_papers(self) -> dict[str, dict[str, Any]]:
        """Of rankings, edits and dictionaries of other papers."""
        model, some = self.model, [self.prompt, mm.Prompt(toy.picture((0, 3)), "A picture of")]
        domains = {"a": some[:1], "b": some[1:]}
        stream = mm.stream_before(model, some, " dog", after="")
        found = mm.concepts(stream, 2)
        moved = {"before": stream, "after": stream, "found": found}
        graph = mm.attribution_graph(model, self.prompt, " dog", after="", k=1)
        return {
            "active_share": {"domains": domains},
            "domain_neurons": {"shares": mm.active_share(model, domains)},
            "modality_neurons": {"scores": mm.modality_importance(model, some), "k": 6},
            "concepts": {"stream": stream, "n": 2, "steps": 2},
            "projection_probe": {"pictures": [self.photo, toy.picture((0, 0))] * 2,
                                 "labels": ["dog", "cat"] * 2, "folds": 2},
            "concept_shifts": moved, "shift_consistency": moved,
            "token_activity": {"features": torch.eye(4)},
            "information_filtering": {"features": torch.eye(4),
                                      "mask": torch.tensor([True, False, False, False])},
            "check_graph": {"graph": graph, "k": 1},
            "patching.rewrite": {"minus": " cat", "after": "", "steps": 1},
            "patching.rewrite_in_sequence": {"prompts": [self.prompt], "of": " dog", "layer": [1],
                                             "steps": 1, "passes": 1, "keep": [self.prompt]},
            "patching.project_away": {"of": " dog", "layer": 1},
        }  # fmt: skip

    def _of_units(self) -> dict[str, dict[str, Any]]:
        """Of probes of written words and of units of the encoder."""
        pictures, labels = [self.photo, toy.picture((0, 0))], ["dog", "cat"]
        words = mm.word_probe(self.model, ["dog", "cat", "cow"], sizes=[0.4], at=[(0.5, 0.5)])
        probe = mm.linear_probe(self.model, pictures, labels)
        values, named = [0.0, 1.0, 2.0, 3.0], ["dog", "cat", "dog", "dog"]
        shown = dict.fromkeys(("photo", "drawing"), (pictures, pictures))
        rng = np.random.default_rng(0)
        responses = {name: (rng.normal(size=(3, 2)),) * 2 for name in shown}
        inks = mm.LinearProbe(("red", "blue"), probe.weights, probe.bias, probe.read)
        stroop = mm.stroop(self.model, inks=["red", "blue"], words=["red"], probe=inks)
        return {
            "word_probe": {"words": ["dog"], "sizes": [0.4], "at": [(0.5, 0.5)]},
            "top_words": {"scores": words}, "unit_responses": {"pictures": pictures},
            "word_neighbours": {"scores": words, "word": "dog"},
            "word_analogy": {"scores": words, "like": "dog", "minus": "cat", "plus": "cow"},
            "word_association": {"scores": words, "words": ["dog"], "others": ["cat"]},
            "cross_format": {"shown": shown}, "cross_format_index": {"responses": responses},
            "linear_probe": {"pictures": pictures, "labels": labels},
            "sparse_probe": {"pictures": pictures, "labels": labels, "k": 1},
            "LinearProbe": {"classes": ("a",), "weights": probe.weights, "bias": probe.bias,
                            "read": {}},
            "typographic_attack": {"pictures": pictures, "attacks": {"dog": "dog"}, "side": 64,
                                   "probe": probe, "at": [(2, 2)]},
            "stroop": {"inks": ["red", "blue"], "words": ["red"], "probe": inks},
            "stroop_rates": {"scores": stroop}, "stroop_probs": {"scores": stroop},
            "blank_check": {"neuron": mm.Neuron(0, 1, "vision"), "texts": ["dog"], "randoms": 1},
            "to_label": {"activations": values},
            "label_given_activation": {"activations": values, "labels": named},
            "activation_given_label": {"activations": values, "labels": named},
            "view.conditional": {"table": mm.activation_given_label(values, named)},
            "datasets.written": {"word": "dog", "canvas": (32, 32)},
            "datasets.written_over": {"word": "dog", "at": [(2, 2)]},
            "datasets.pixel_cover": {"before": self.photo, "after": self.photo},
        }  # fmt: skip

    def arguments(self, where: str, function: Callable[..., Any]) -> dict[str, Any]:
        """The arguments of a right call, by parameter."""
        own = self.special.get(where, self.special.get(where.split(".")[-1], {}))
        found: dict[str, Any] = {}
        for name, one in inspect.signature(function).parameters.items():
            if name in own:
                found[name] = own[name]
            elif name in self.by_name and (one.default is one.empty or name in CHEAP):
                found[name] = self.by_name[name]
        return {**found, **{k: v for k, v in own.items() if k not in found}}


LEFT_OUT = {
    "HookedVLM": "built by load and from_parts",
    "HookedDualEncoder": "built by load and from_model",
    "HookedMultimodalEncoder": "built by load and from_model",
    "HookedDiffusion": "built by load and from_model",
    "from_parts": "whole models: a test of its own",
    "Translators": "what jacobian_lens and tuned_lens return",
    "HeadMaps": "what attention_lens returns", "StreamMap": "what stream_map returns",
    "ContextualIndex": "what contextual_index returns",
    "AttributionGraph": "what attribution_graph returns",
    "WordConcepts": "what concepts returns", "Look": "what look returns",
    "Visualisation": "what visualise returns",
    "audit": "every hook point of a model", "models": "no argument",
    "fetch": "asks the package index: test_fetch",
    "plan": "reads a config: test_native_use", "MemoryPlan": "what plan returns",
    "metrics.bert_score": "a backbone", "metrics.clip_score": "a backbone",
    "datasets.coco": "a folder of COCO", "datasets.hugging_face": "a data set of the hub",
    "patching.edge_attribution": "split inputs, which no toy has", "view.notebook": "no argument",
    "metrics.pictos_vocabulary": "no argument",
    "HookedVLM.cuda": "another device",
}  # fmt: skip


HOMES = {"": mm, "view.": view, "datasets.": datasets, "sweep.": mm.sweep, "metrics.": metrics,
         "decoding.": decoding, "patching.": patching, "relevance.": relevance,
         "tally.": tally}  # fmt: skip
QUESTIONS = (
    translate.top_units, project.nearest_words, regions.unit_regions, classes.class_activations,
    ablation.ablations, sheet.picture_sheet, faithfulness.faithful, sensitivity.option_effects,
    routes.route_effects, estimates.estimated, readings.unit_readings, said_things,
)  # fmt: skip
SUMMARIES = {
    translate: translate.top_units, layers: translate.top_units, project: project.nearest_words,
    regions: regions.unit_regions, ablation: ablation.ablations,
    faithfulness: faithfulness.faithful,
    sensitivity: sensitivity.option_effects, routes: routes.route_effects,
    estimates: estimates.estimated, readings: readings.unit_readings,
}  # fmt: skip
"""The summaries, and the questions whose tables they read."""


def names() -> list[str]:
    """Every public callable by the name that it is called by."""
    found = []
    for home, module in HOMES.items():
        for name in module.__all__:
            one = getattr(module, name)
            error = inspect.isclass(one) and issubclass(one, Exception)
            if not (inspect.ismodule(one) or error):
                found.append(home + name)
    for kind in mm.HookedVLM.__mro__:
        for name, one in vars(kind).items() if kind.__module__.startswith("mmlens") else ():
            asks = inspect.isfunction(one) and len(inspect.signature(one).parameters) > 1
            if asks and not name.startswith("_"):
                found.append(f"HookedVLM.{name}")
    found += [f"experiments.{question.__name__}" for question in QUESTIONS]
    found += [f"experiments.{module.__name__.split('.')[-1]}.summary" for module in SUMMARIES]
    every = dict.fromkeys([*found, "experiments.ask"])
    return [name for name in every if name not in LEFT_OUT]


def callable_of(right: Right, where: str) -> Callable[..., Any]:
    """The callable of a name; a summary's table is made first."""
    home, _, name = where.rpartition(".")
    if home == "HookedVLM":
        return getattr(right.model, name)
    if not where.startswith("experiments."):
        return getattr(HOMES[f"{home}." if home else ""], name)
    if where == "experiments.ask":
        right.special[where] = {"question": QUESTIONS[0], "k": 2, "max_new_tokens": 1}
        return ask
    if name != "summary":
        return next(question for question in QUESTIONS if question.__name__ == name)
    module = next(one for one in SUMMARIES if one.__name__.endswith(home.split(".")[-1]))
    question = SUMMARIES[module]
    options = right.arguments(f"experiments.{question.__name__}", question)
    options = {k: v for k, v in options.items() if k not in ("model", "sample")}
    table = ask(question, right.model, right.samples, **options)
    right.special[where] = {"table": table, **({"keep": "all"} if module is translate else {})}
    return module.summary


# -- calling ---------------------------------------------------------------------------------------


class Slow(BaseException):
    """The time of a call is over."""


def _over(number: int, frame: FrameType | None) -> None:
    raise Slow


def call(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """The call; a generator or context manager is entered, a picture's function is used."""
    positional: list[Any] = []
    named = dict(arguments)
    for name, one in inspect.signature(function).parameters.items():
        first = one.kind in (one.VAR_POSITIONAL, one.POSITIONAL_ONLY)
        if name in named and (first or (positional and one.kind is one.POSITIONAL_OR_KEYWORD)):
            positional.append(named.pop(name))
    made = function(*positional, **named)
    if hasattr(made, "__enter__") and hasattr(made, "__exit__"):
        with made:
            pass
    return made


def fault(where: str, function: Callable[..., Any], arguments: dict[str, Any], photo: Any) -> str:
    """What is wrong with what a call gets; empty if nothing is."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of computing, however busy the machine is
    try:
        made = call(function, arguments)
        if where.startswith("patching.") and inspect.isfunction(made):
            made(photo)
    except mm.MMLensError as error:
        told = str(error)
        return "" if told and "\n" not in told.strip() else f"not one line: {told[:120]!r}"
    except Slow:
        return f"takes longer than {SECONDS} s"
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)]
        door = not ours or (len(ours) == 1 and frames[-1] is ours[0])
        if isinstance(error, TypeError) and door:
            return ""
        at = ours[-1] if ours else frames[-1]
        place = f"{at.filename.removeprefix(PACKAGE)}:{at.lineno}"
        return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:100]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def main(told: TextIO) -> None:
    """One line of JSON per public name: what each of its bad calls got."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, _over)
    right = Right()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.mkdir("pictures")
        mm.save_dictionary(**right.special["save_dictionary"])
        right.photo.save("pictures/a.png")
        with open("synonyms.txt", "w", encoding="utf-8") as file:
            file.write("dog, puppy\n")
        with open("concepts.yaml", "w", encoding="utf-8") as file:
            both = "{a: {words: [dog, cat, cow]}, b: {words: [red, blue, pink]}}"
            file.write(f"groups: {both}\nconcepts: {both}\n")
        mm.sweep.sweep(translate.top_units, right.model, right.data, "swept", progress=False,
                       options={"k": 2, "max_new_tokens": 1})  # fmt: skip
        for where in sys.argv[1:] or names():
            function = callable_of(right, where)
            good, before = right.arguments(where, function), time.process_time()
            faults, calls = [], 0
            if wrong := fault(where, function, good, right.photo):
                faults.append(("", "the right call", wrong))
            for name, one in inspect.signature(function).parameters.items():
                if one.kind is one.VAR_KEYWORD:
                    continue
                plain = set(re.findall(r"\w+", str(one.annotation))) <= PLAIN
                public = (one for one in right.public if not (plain and hasattr(one, "ndim")))
                for bad in (*values_for(str(one.annotation)), *public):
                    if one.default is not one.empty and bad is None and one.default is None:
                        continue  # the default
                    calls += 1
                    if wrong := fault(where, function, {**good, name: bad}, right.photo):
                        faults.append((name, repr(bad)[:40], wrong))
            right.model.reset_hooks(including_permanent=True)
            print(
                json.dumps(
                    {
                        "name": where,
                        "calls": calls,
                        "faults": faults,
                        "seconds": time.process_time() - before,
                    }
                ),
                file=told,
                flush=True,
            )


if __name__ == "__main__":
    told, sys.stdout = sys.stdout, sys.stderr  # what mmlens prints is no JSON
    np.seterr(all="ignore")
    main(told)

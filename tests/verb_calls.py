"""Every public verb of a model, and one call of each that fits any model that reads pictures."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mmlens as mm
from mmlens import decoding, patching, relevance
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.families import toy
from mmlens.metrics import Vocabulary
from mmlens.model import hooking
from mmlens.values.errors import MMLensError
from mmlens.values.lazy import public_names

WORDS = " A picture of"


def verbs() -> dict[str, Any]:
    """Every public function of a model."""
    found = {}
    packages = {"mmlens": mm, "mmlens.decoding": decoding, "mmlens.patching": patching,
                "mmlens.relevance": relevance}  # fmt: skip
    for package, here in packages.items():
        for name in public_names(package):
            thing = getattr(here, name)
            if inspect.isfunction(thing) and name != "from_model":  # which makes one
                first = next(iter(inspect.signature(thing).parameters), "")
                found |= {f"{package}.{name}": thing} if first == "model" else {}
    return found


KINDS = ("words", "similarity", "classes", "pairs")
"""What a model answers with, and so what it is asked."""


def calls(
    kind: str = "words", photos: Any = None, word: int = 5
) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Verb -> what it is asked about a picture of 64 x 32, beside the model.

    Args:
        kind: one of `KINDS`.
        photos: two pictures of one size instead.
        word: the id of the token that is asked about.
    """
    photo, other = photos or (toy.picture(at).resize((64, 32)) for at in ((2, 1), (0, 3)))
    talks = kind == "words"
    beside = {"words": [WORDS], "pairs": ["two cats"]}.get(kind, [])
    prompt = mm.Prompt(photo, *beside)
    pair = patching.Pair(prompt, mm.Prompt(other, *beside))
    samples = [Sample(name, one) for name, one in (("a", photo), ("b", other))]
    data = Samples("two", ["a", "b"], samples.__getitem__, "hash")
    tower = {"words": "lm", "pairs": "multimodal"}.get(kind, "vision")
    mask, neuron = np.zeros(photo.size[::-1], bool), mm.Neuron(1, 5, tower)
    mask[photo.height // 2 : 3 * photo.height // 4, photo.width // 8 : photo.width // 4] = True
    seen = Sample("a", photo, things=(Thing("dog", torch.from_numpy(mask)),))
    known = Samples("one", ["a"], [seen].__getitem__, "hash")
    pets = Vocabulary("pets", {"dog": "dog"})
    token: dict[str, Any] = {"words": {"of": word, "after": ""}, "similarity": {"of": "a dog"},
                             "classes": {"of": 1}, "pairs": {"of": "match"}}[kind]  # fmt: skip
    look: dict[str, Any] = {
        "words": {"prompt": WORDS, "max_new_tokens": 2},
        "similarity": {"of": ["a dog", "a cat"]},
    }.get(kind, {})
    layer: dict[str, Any] = {} if talks else {"layer": 1}  # of maps, one at a time
    few: dict[str, Any] = {} if talks else {"layer": 1, "pos": [0, 1]}
    metric = lambda logits: logits[word if kind != "pairs" else 1]  # noqa: E731
    corners = tuple(mm.Patch(row, col) for row in (0, 1) for col in (0, 1))
    weights = mm.Scores(torch.tensor([1.0, 2.0, 4.0, 3.0]), ("pos",), {"pos": corners})
    target = "logit" if kind == "similarity" else "prob"

    named = ("{words: [dog, cat, cow]}", "{words: [red, blue, green]}")
    compared = Path(tempfile.mkdtemp()) / "concepts.yaml"
    both = "\n".join(f"  {name}: {those}" for name, those in zip("ab", named, strict=True))
    compared.write_text(f"groups:\n{both}\nconcepts:\n{both}\n")

    def ask(*args: Any, **options: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, options

    return {
        "mmlens.activations": ask(prompt, **layer),
        "mmlens.active_share": ask({"a": [prompt], "b": [pair.corrupt]}),
        "mmlens.alignment": ask(prompt),
        "mmlens.attention_lens": ask(prompt, layer=1, steps=2, batch=2),
        "mmlens.attribute": ask(prompt, **token, **layer),
        "mmlens.attribute_caption": ask(prompt, 3, caption=" dog"),
        "mmlens.attribute_picture": ask(prompt, **token, steps=4),
        "mmlens.attribution_graph": ask(prompt, word, after="", k=2),
        "mmlens.audit": ask(prompt),
        "mmlens.audit_bias": ask(compared, tempfile.mkdtemp(), draws=9),
        "mmlens.bilinear_attribution": ask(photo, "a dog", site="features"),
        "mmlens.blank_check": ask(mm.Neuron(0, 1, "vision"), ["dog"], randoms=1),
        "mmlens.compare_outputs": ask([(photo, {"a": "a dog"})], WORDS, max_new_tokens=2),
        "mmlens.contributions": ask(prompt, word, after=""),
        "mmlens.contextual_index": ask(["a dog", "a cat"], tempfile.mkdtemp(), layer=1),
        "mmlens.contextual_neighbours": ask(prompt, ["a dog", "a cat"], layer=1, k=1),
        "mmlens.cross_attention_maps": ask("a dog"),
        "mmlens.cross_format": ask({name: ([photo] * 2, [other] * 2) for name in "ab"}, draws=9),
        "mmlens.decode": ask([neuron]),
        "mmlens.decompose": ask([photo], by="pos"),
        "mmlens.embed": ask([photo]),
        "mmlens.head_lens": ask(prompt, layer=1, k=2),
        "mmlens.hallucination": ask(known, vocabulary=pets, max_new_tokens=2, draws=20),
        "mmlens.head_moments": ask([photo, other]),
        "mmlens.integrated_gradients": ask(prompt, **token, **layer, steps=4),
        "mmlens.logit_lens": ask(prompt),
        "mmlens.jacobian_lens": ask(prompt, pos=[0], destination=[-1]),
        "mmlens.linear_probe": ask([photo, other], ["a", "b"]),
        "mmlens.look": ask(photo, **look),
        "mmlens.microscope": ask(data, tempfile.mkdtemp(), layer=0, k=1),
        "mmlens.modality_importance": ask([prompt], metrics=["max"]),
        "mmlens.module_influence": ask(prompt, word, after=""),
        "mmlens.nearest_tokens": ask(prompt, 2),
        "mmlens.next_labels": ask(prompt, 2, max_new_tokens=2),
        "mmlens.patchscope": ask(prompt, layer=1, pos=[0], into="a dog", k=2),
        "mmlens.picture_similarity": ask("a dog"),
        "mmlens.neuron_graph": ask(prompt, word, after="", k=1, units=1),
        "mmlens.projection_probe": ask([photo, other] * 2, ["a", "b"] * 2, folds=2),
        "mmlens.sink_units": ask(prompt),
        "mmlens.sparse_probe": ask([photo, other], ["a", "b"], 1),
        "mmlens.stream_before": ask([prompt], word, after=""),
        "mmlens.stream_map": ask("a dog and a cat", layer=0, into_layer=1),
        "mmlens.stroop": ask(inks=["red", "blue"], words=["red"]),
        "mmlens.text_neurons": ask(prompt, word, after=""),
        "mmlens.text_span": ask([photo, other], ["a dog", "a cat"], k=1),
        "mmlens.top_images": ask(data, [neuron], 1),
        "mmlens.tuned_lens": ask(prompt, steps=2, batch=2),
        "mmlens.typographic_attack": ask([photo], {"dog": "dog"}, ["dog", "cat"]),
        "mmlens.unit_responses": ask([photo, other]),
        "mmlens.word_probe": ask(["dog"], sizes=[0.4], at=[(0.5, 0.5)]),
        "mmlens.visual_circuit": ask([prompt], k=2, **token),
        "mmlens.visualise": ask(mm.Neuron(0, 5, "vision"), steps=2, variants=2),
        "mmlens.zero_shot": ask(photo, ["a dog", "a cat"]),
        "mmlens.decoding.contrast": ask(pair.corrupt),
        "mmlens.decoding.covered": ask(),
        "mmlens.decoding.shift_directions": ask([prompt], [pair.corrupt], **layer),
        "mmlens.decoding.trust_penalty": ask(prompt),
        "mmlens.patching.ablate": ask(prompt, metric, **few),
        "mmlens.patching.ablation_curve": ask(prompt, metric, [neuron], k=(0, 1), randoms=1),
        "mmlens.patching.attention": ask(prompt, 1),
        "mmlens.patching.attribution_patching": ask(pair, metric, **layer),
        "mmlens.patching.captions": ask(prompt, {"none": []}, max_new_tokens=2),
        "mmlens.patching.direct_logits": ask(prompt, word),
        "mmlens.patching.edge_attribution": ask(pair, metric),
        "mmlens.patching.knockouts": ask(prompt, metric, {"patch": ([mm.Patch(1, 1)], -1)}),
        "mmlens.patching.mean_difference": ask([prompt], [pair.corrupt], layer=1),
        "mmlens.patching.mean_over": ask([prompt], **layer),
        "mmlens.patching.only_at": ask(patching.grey(), [mm.Patch(1, 1)]),
        "mmlens.patching.patch": ask(pair, metric, **few),
        "mmlens.patching.patches_under": ask(mask, photo),
        "mmlens.patching.path_patching": ask(pair, metric, [mm.Head(0, 1)]),
        "mmlens.patching.project_away": ask("a dog", layer=1),
        "mmlens.patching.rewrite": ask(prompt, [neuron], word, word + 1, steps=1),
        "mmlens.patching.rewrite_in_sequence": ask(prompt, word, layer=[1], passes=1, steps=2),
        "mmlens.patching.shuffled": ask(),
        "mmlens.patching.soft_noise": ask(prompt),
        "mmlens.patching.thing_pairs": ask([seen]),
        "mmlens.patching.word": ask(word),
        "mmlens.patching.word_state": ask("a dog", layer=1),
        "mmlens.patching.written_by": ask(neuron),
        "mmlens.relevance.chefer": ask(prompt, **token),
        "mmlens.relevance.covering_curves": ask(prompt, weights, target=target, steps=3, **token),
        "mmlens.relevance.grad_cam": ask(prompt, **token),
        "mmlens.relevance.grad_eclip": ask(prompt, **token),
        "mmlens.relevance.in_mask": ask(weights, mask, photo),
        "mmlens.relevance.lens_map": ask(prompt, word),
        "mmlens.relevance.lrp": ask(prompt, **token),
        "mmlens.relevance.noise_map": ask(prompt, layer=1, draws=2),
        "mmlens.relevance.occlusion": ask(prompt, **token, batch=32),
        "mmlens.relevance.rise": ask(prompt, **token, masks=16, batch=16),
        "mmlens.relevance.rollout": ask(prompt),
        "mmlens.relevance.tam": ask(prompt, word, after=""),
    }


def refusals(model: Any, monkeypatch: Any, kind: str = "words") -> dict[str, str]:
    """The verbs that the model refuses, each with its sentence; the others answer."""
    known, refused = hooking.points(model), {}
    few = {point: known[point] for point in list(known)[::20]}  # an audit of all takes its time
    for verb, (args, options) in calls(kind).items():
        with monkeypatch.context() as here:
            if verb == "mmlens.audit":
                here.setattr(hooking, "points", lambda model: few)
            try:
                assert verbs()[verb](model, *args, **options) is not None
            except MMLensError as error:
                refused[verb] = str(error)
                assert "\n" not in refused[verb]
    return refused

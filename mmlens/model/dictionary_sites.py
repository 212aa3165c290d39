"""Dictionaries as sites of a model: `model.attach(dictionary, at="blocks.12.hook_resid_post")`.

    model = model.attach(mm.load_dictionary(folder))
    attribute(model, prompt, of=" dog", after=" a", site="sae")       # Scores(layer, pos, unit)
    model.edit(Edit("sae", 0.0, Neuron(12, 17, "sae"), pos=Patch))    # silence a unit

The model that comes back shares everything with the one that it was attached to, which stays as it
was. A layer of a tower holds one dictionary; other layers hold others, of any kind.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmlens.model import hooking
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.hook_calls import Hook, on_point
from mmlens.runtime.turns import turn
from mmlens.towers.dictionaries.attached import ERRORS, Attached, flat
from mmlens.towers.dictionaries.dictionary import Dictionary
from mmlens.towers.dictionaries.hosting import dictionaries_of, hosting
from mmlens.towers.vision.painting import ramp
from mmlens.values.arguments import choice, instance
from mmlens.values.errors import ArgumentError, CapabilityError, SiteError
from mmlens.values.labels import LM
from mmlens.values.sites import Site, site

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

HOSTS = (LM, "vision")
"""The towers that take dictionaries."""


def attach(
    model: HookedModel, dictionary: Any, at: str | None, out: str | None, error: str
) -> HookedModel:
    """The model with the dictionary; see `HookedModel.attach`."""
    instance(dictionary, "dictionary", Dictionary, "what mm.load_dictionary(folder) returns")
    choice(error, "error", ERRORS)
    if at is None and dictionary.at is None:
        raise ArgumentError(
            "This dictionary does not say what it was trained on: write"
            " at='blocks.12.hook_resid_post'."
        )
    reads = _place(model, dictionary.at if at is None else at)
    behind = dictionary.out if out is None and at is None else out
    writes = reads if behind is None else _place(model, behind)
    crosses = dictionary.d_in != dictionary.d_out or dictionary.out is not None
    if crosses and writes is reads:
        raise ArgumentError(
            "This is a transcoder, which reconstructs another place than it reads: write both, as"
            " in at='blocks.12.ln2.hook_normalized', out='blocks.12.hook_mlp_out'."
        )
    tower, layer = _one_layer(model, reads, writes)
    held = Attached(dictionary, tower, layer, reads.at(layer), writes.at(layer), error)
    _check_widths(model.towers[tower], held)
    copied = copy.copy(model)
    copied._added = list(model._added)
    vars(copied)["_modules"] = dict(vars(model)["_modules"])
    new = hosting(model.towers[tower], held)
    (vars(copied) if tower == LM else vars(copied)["_modules"])[tower] = new
    told = {**model.provenance.get("dictionaries", {}), next(iter(held.points)): held.told()}
    copied.provenance = {**model.provenance, "dictionaries": told}
    hold(copied)
    return copied


def hold(model: HookedModel) -> None:
    """Make the dictionaries of a model's towers modules of it, so that they move with it."""
    held = [one for tower in model.towers.values() for one in dictionaries_of(tower).values()]
    if held:
        modules = nn.ModuleList(one.dictionary for one in held)
        vars(model)["_modules"]["dictionaries"] = modules


def refuse_dictionaries(model: HookedModel) -> None:
    """Refuse to save a model with dictionaries as if they were its weights.

    Raises:
        CapabilityError: it has some.
    """
    held = [one.at for tower in model.towers.values() for one in dictionaries_of(tower).values()]
    if held:
        raise CapabilityError(
            f"{model.name!r} has a dictionary at {held[0]!r}, which is none of its weights: save"
            " the model without it, and the dictionary by mm.save_dictionary(dictionary, folder)."
        )


def _place(model: HookedModel, name: str) -> Site:
    """The site of one layer that a hook name names.

    Raises:
        SiteError: no such hook, or a site of all layers.
        CapabilityError: a tower or a place that takes no dictionary.
    """
    where = site(name)
    if where.layer is None:
        example = where.at(0) if where.layered else "blocks.12.hook_resid_post"
        raise SiteError(
            f"A dictionary is attached in one layer, and {name!r} names none: write a hook name, as"
            f" in {example!r}."
        )
    if where.tower not in HOSTS:
        raise CapabilityError(
            f"Dictionaries are attached to the language model or the vision tower, not to"
            f" {where.tower!r}: read {name!r} with activations(...) and encode that."
        )
    real = hooking.check_places(model, where, [where.layer])[where.layer]
    if real.of_dictionary or real.axes[0] != "pos" or "expert" in real.axes or "key" in real.axes:
        raise CapabilityError(
            f"{name!r} of {model.name!r} has the axes {', '.join(real.axes)}, and a dictionary"
            " reads one vector at each position: a layer of a transformer (and not of"
            " convolutions), there hook_resid_post, hook_mlp_out, mlp.hook_post or attn.hook_z."
        )
    return where


def _check_widths(tower: Any, held: Attached) -> None:
    """Refuse a dictionary of vectors that are not those of its place, by a short pass.

    Raises:
        SiteError: another width. A point that only pictures fire is compared in the first run.
    """
    known = tower.every_point
    hooks = [Hook(name, partial(_compare, held)) for name in dict.fromkeys((held.at, held.out))]
    with torch.no_grad(), ordinary(), turn(tower.shared), ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(on_point(known[hook.name], hook))
        if tower.name == LM:
            tower.open()
            ids = torch.arange(3, device=tower.device).unsqueeze(0) % max(1, tower.n_words)
            tower.forward(ids, torch.ones_like(ids), **tower.beside(ids))
        else:
            tower(ramp(tower))


def _compare(held: Attached, tensor: torch.Tensor, hook: Any) -> None:
    held.check_width(hook.name, flat(tensor))


def _one_layer(model: HookedModel, reads: Site, writes: Site) -> tuple[str, int]:
    """The tower and the layer of both places.

    Raises:
        SiteError: they are in different ones. CapabilityError: there is a dictionary.
    """
    if (reads.tower, reads.layer) != (writes.tower, writes.layer):
        raise SiteError(
            f"{reads.name!r} and {writes.name!r} are not in one layer: a transcoder reconstructs"
            " what the layer that it reads writes."
        )
    layer = reads.layer
    assert layer is not None  # `_place` has it
    there = dictionaries_of(model.towers[reads.tower]).get(layer)
    if there is not None:
        raise CapabilityError(
            f"Layer {layer} of {model.name!r} has the dictionary at {there.at!r}: attach this one"
            " to the model without it."
        )
    return reads.tower, layer

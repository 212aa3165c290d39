"""Sites, which every layer has, by name: the only file that spells TransformerLens hook names.

A site is a row of one table: its hook name with `{layer}`, and the axes of the activation (without
the leading batch axis). Any full hook name (`blocks.3.mlp.hook_post`) is a site as well. The axes
here are those of a transformer; a tower's actual axes at a site, layer by layer, are measured
(`Tower.site`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from mmlens.values.arguments import text
from mmlens.values.errors import SiteError, nearest
from mmlens.values.labels import DENOISER, DICTIONARY, LM, MULTIMODAL
from mmlens.values.maps import MAP


@dataclass(frozen=True)
class Site:
    """Where to read or edit: `point` is the hook name, `axes` what follows the batch axis."""

    name: str
    point: str
    axes: tuple[str, ...]
    layer: int | None = None
    """The layer, when the site was given as the full hook name of one layer."""

    @property
    def layered(self) -> bool:
        """Whether every layer has this site."""
        return "{layer}" in self.point

    @property
    def tower(self) -> str:
        """The tower that it belongs to: `"vision"`, `"projection"`, `"lm"`, ..."""
        return tower_of(self.point)

    @property
    def in_lm(self) -> bool:
        """Whether it belongs to the language model."""
        return self.tower == LM

    @property
    def of_units(self) -> bool:
        """Whether its last axis counts MLP units."""
        return self.axes[-1] == "unit"

    @property
    def of_experts(self) -> bool:
        """Whether it is in a mixture of experts."""
        return "expert" in self.axes

    @property
    def of_crossing(self) -> bool:
        """Whether it is in cross-attention: of the language model, or of latents, to pictures."""
        return "cross_attn" in self.point

    @property
    def of_dictionary(self) -> bool:
        """Whether it is in a dictionary that was attached to a tower (`model.attach`)."""
        return f".{DICTIONARY}." in self.point

    @property
    def owner(self) -> str:
        """The `tower` of its Neurons: the tower, or "sae" and "vision.sae" in a dictionary."""
        if not self.of_dictionary:
            return self.tower
        return DICTIONARY if self.in_lm else f"{self.tower}.{DICTIONARY}"

    @property
    def in_some_layers(self) -> bool:
        """Whether only some layers of a language model have it, where any has."""
        some = self.of_crossing or self.of_experts or self.of_dictionary
        return some or self.point.endswith("hook_deepstack")

    @property
    def has_other_keys(self) -> bool:
        """Whether its axis `key` counts what cross-attention attends to, and not positions."""
        return "cross_attn" in self.point and "key" in self.axes

    @property
    def around(self) -> tuple[str, ...]:
        """Axes in front of every activation: a denoiser runs once a step, with two branches."""
        if self.tower != DENOISER:
            return ()
        return ("step",) if self.point.endswith("hook_latents") else ("step", "branch")

    def holding(self, axes: tuple[str, ...]) -> Site:
        """This site with other axes."""
        return self if axes == self.axes else replace(self, axes=axes)

    def at(self, layer: int | None = None) -> str:
        """The hook name at `layer`."""
        return self.point.format(layer=layer)

    def begins(self, axis: str, shape: tuple[int, ...], start: int) -> int:
        """The prompt position of the first index on an axis of positions.

        Keys of cross-attention begin at 0. Others end where the queries end: a KV cache holds all
        those before, or, where attention has a sliding window, the last ones only (one of fixed
        size has unused keys at its end).

        Args:
            shape: of the activation, without the batch axis.
            start: the position at which the forward pass begins.
        """
        if axis != "key":
            return start
        if self.has_other_keys:
            return 0
        queries, keys = (shape[self.axes.index(one)] for one in ("query", "key"))
        return max(0, start + queries - keys)


WITH_BLOCKS = ["vision", "text", MULTIMODAL, DENOISER]
"""Towers other than the language model that have numbered blocks; a new kind adds its name."""
_AHEAD = ("projection",)


def tower_of(point: str) -> str:
    """The tower that a hook name belongs to, which is its first part, or the language model."""
    first = point.partition(".")[0]
    return first if first in WITH_BLOCKS or first in _AHEAD else LM


_RESID = ("pos", "dim")
_UNITS = ("pos", "unit")
_HEADS = ("pos", "head", "dim")
_PAIRS = ("head", "query", "key")
_BLOCK: dict[str, tuple[str, tuple[str, ...]]] = {
    "resid_pre": ("hook_resid_pre", _RESID),
    "resid_mid": ("hook_resid_mid", _RESID),
    "resid_post": ("hook_resid_post", _RESID),
    "attn_out": ("hook_attn_out", _RESID),
    "mlp_out": ("hook_mlp_out", _RESID),
    "neurons": ("mlp.hook_post", _UNITS),
    "neurons_pre": ("mlp.hook_pre", _UNITS),
    "q": ("attn.hook_q", _HEADS),
    "k": ("attn.hook_k", _HEADS),
    "v": ("attn.hook_v", _HEADS),
    "z": ("attn.hook_z", _HEADS),
    "pattern": ("attn.hook_pattern", _PAIRS),
    "attn_scores": ("attn.hook_attn_scores", _PAIRS),
}
_CONVOLUTION: dict[str, str] = {
    **{f"conv{n}_pre": f"conv{n}.hook_pre" for n in (1, 2, 3)},
    **{f"conv{n}": f"conv{n}.hook_post" for n in (1, 2, 3)},
    "resid_add": "hook_resid_add",
}
"""Inside of a block of convolutions: before and after its nonlinearities; the residual sum before
the last one, where Goh et al. (2021) read CLIP's ResNets."""
_CROSS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cross_q": ("cross_attn.hook_q", _HEADS),
    "cross_k": ("cross_attn.hook_k", ("key", "head", "dim")),
    "cross_v": ("cross_attn.hook_v", ("key", "head", "dim")),
    "cross_z": ("cross_attn.hook_z", _HEADS),
    "cross_pattern": ("cross_attn.hook_pattern", _PAIRS),
    "cross_attn_scores": ("cross_attn.hook_attn_scores", _PAIRS),
    "cross_attn_out": ("hook_cross_attn_out", _RESID),
}
"""Cross-attention of a language model to pictures, or of an encoder's latents (Perceiver): its keys
are labelled like their patches."""
_EXPERTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "router_logits": ("mlp.hook_router_logits", ("pos", "expert")),
    "expert_weights": ("mlp.hook_expert_weights", ("pos", "expert")),
    "expert_neurons": ("mlp.experts.hook_post", ("pos", "expert", "unit")),
}
"""A mixture of experts: before the choice of experts, after it, and the units of each expert."""
_DICTIONARY: dict[str, tuple[str, tuple[str, ...]]] = {
    DICTIONARY: ("sae.hook_acts_post", _UNITS),
    "sae_pre": ("sae.hook_acts_pre", _UNITS),
    "sae_error": ("sae.hook_error", _RESID),
}
"""Of an attached dictionary: the code, what its nonlinearity reads, and what it leaves out."""
MASK = Site("attn_mask", "blocks.{layer}.attn.hook_mask", _PAIRS)
"""The mask added to attention scores before the softmax; mmlens' own point (`attention_mask`)."""
SITES: dict[str, Site] = {
    "embed": Site("embed", "hook_embed", _RESID),
    **{n: Site(n, f"blocks.{{layer}}.{p}", a) for n, (p, a) in _BLOCK.items()},
    MASK.name: MASK,
    **{
        n: Site(n, f"blocks.{{layer}}.{p}", a)
        for n, (p, a) in (_CROSS | _EXPERTS | _DICTIONARY).items()
    },
    "deepstack": Site("deepstack", "blocks.{layer}.hook_deepstack", _RESID),
    "final": Site("final", "ln_final.hook_normalized", _RESID),
    "pixels": Site("pixels", "vision.hook_pixels", ("channel", "y", "x")),
    "features": Site("features", "vision.hook_features", _RESID),
    "soft_prompt": Site("soft_prompt", "projection.hook_out", _RESID),
    "text.embed": Site("text.embed", "text.hook_embed", _RESID),
    "multimodal.embed": Site("multimodal.embed", "multimodal.hook_embed", _RESID),
    "multimodal.final": Site("multimodal.final", "multimodal.ln_final.hook_normalized", _RESID),
    "vision.embedding": Site("vision.embedding", "vision.hook_embedding", ("dim",)),
    "text.embedding": Site("text.embedding", "text.hook_embedding", ("dim",)),
}


def sites_of(tower: str) -> dict[str, Site]:
    """The sites of a tower with blocks, `"vision.neurons"` and so on."""
    block = _BLOCK | {name: (point, _RESID) for name, point in _CONVOLUTION.items()}
    return {
        f"{tower}.{name}": Site(f"{tower}.{name}", f"{tower}.blocks.{{layer}}.{point}", axes)
        for name, (point, axes) in block.items()
    }


def sites_of_denoiser() -> dict[str, Site]:
    """The sites that only the denoiser of a diffusion model has beside those of its blocks.

    Its cross-attention is from positions of the latents to tokens of the prompt.
    """
    cross = {
        name: Site(name, f"{DENOISER}.blocks.{{layer}}.{point}", axes)
        for name, (point, axes) in ((f"{DENOISER}.{n}", one) for n, one in _CROSS.items())
    }
    whole = {
        "latents": Site("latents", "hook_latents", MAP),
        "prompt_embeds": Site("prompt_embeds", "hook_prompt_embeds", _RESID),
        "noise": Site("noise", "hook_noise", MAP),
    }
    named = ((f"{DENOISER}.{name}", one) for name, one in whole.items())
    return cross | {n: Site(n, f"{DENOISER}.{one.point}", one.axes) for n, one in named}


SITES |= {name: one for tower in WITH_BLOCKS for name, one in sites_of(tower).items()}
SITES |= sites_of_denoiser()
SITES |= {
    f"vision.{n}": Site(f"vision.{n}", f"vision.blocks.{{layer}}.{p}", a)
    for n, (p, a) in (_CROSS | _DICTIONARY).items()
}
SHARED = "heads_per_key"
"""In the `about` of Scores at keys or values: how many heads read each (`readers`)."""
_LAYERED = re.compile(r"^(.*\bblocks\.)(\d+)(\..+)$")


def site(name: str) -> Site:
    """The site of that name, or of that full hook name.

    Raises:
        SiteError: no such site; the error names the nearest ones.
    """
    if not isinstance(name, str) and hasattr(name, "layer"):  # a Neuron, a Head
        raise SiteError(
            f"{name!r} is no site: write 'neurons' (of Heads 'z') as site, and units={name!r}."
        )
    text(name, "site", error=SiteError)
    if name in SITES:
        return SITES[name]
    match = _LAYERED.match(name)
    if match:
        point = f"{match[1]}{{layer}}{match[3]}"
        known = next((s for s in SITES.values() if s.point == point), None)
        axes = known.axes if known else _RESID
        return Site(name, point, axes, layer=int(match[2]))
    known = next((s for s in SITES.values() if s.point == name), None)
    if known:
        return known
    raise SiteError(f"There is no site {name!r}: {nearest(name, SITES)}")


def grouped(where: Site) -> bool:
    """Whether this site holds keys or values, which several heads may share."""
    return where.in_lm and where.point.rpartition(".")[2] in ("hook_k", "hook_v")


def readers(where: Site, cfg: Any) -> int:
    """How many query heads read one key or value of this site: more than 1 in grouped attention.

    Args:
        cfg: TransformerLens' configuration of the language model.
    """
    if not grouped(where):
        return 1
    groups = getattr(cfg, "n_key_value_heads", None)
    apart = getattr(cfg, "ungroup_grouped_query_attention", False)  # each head has a copy
    return int(cfg.n_heads) // int(groups) if groups and not apart else 1


def shared(where: Site, cfg: Any) -> dict[str, int]:
    """The entry in `about` of Scores at this site that maps a Head to its key or value head."""
    many = readers(where, cfg)
    return {SHARED: many} if many > 1 else {}

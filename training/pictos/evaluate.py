"""Is the bridge good enough? One command prints captions, language and phenomenon as one table.

*Captions*: greedy continuations of "A picture of" for held-out scenes; a scene counts when every
thing in it is named. *Language*: perplexity on text the model has not seen, a sample, and how near
projected patches are to word embeddings. *Phenomenon* (arXiv 2308.01544): each MLP unit at each
image position is scored by gradient x pre-activation for the logit of the first thing's name,

    g = z * d logit / d z,

the best unit-patch pairs are kept once per unit; do they sit beyond the first layer, does lm_head
@ W_out decode one of the top 100 to the name (against names of other scenes), and does silencing
the top 200 lower the name's probability more than random units of the same layers do?

    python training/pictos/evaluate.py --weights mmlens/pictos/weights [--scenes 200]
"""

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bridge import PROMPT, Bridge, names_in, style_of
from common import PACKAGE
from torch import Tensor

from mmlens.pictos.scene_captions import a
from mmlens.pictos.world import STYLES, World

SAID = (
    "The koala is",
    "There was a guitar next to a crab. A picture of",
    "I saw a dog on the grass.",
)
TOP, CUTS = 100, (200, 400)


def captions(bridge: Bridge, scenes: int) -> dict[str, Any]:
    """Shares of scenes with every thing named, by number of things and style; style word right."""
    table: dict[str, Any] = {}
    style_right, style_seen = dict.fromkeys(STYLES, 0), dict.fromkeys(STYLES, 0)
    for label, split, things in (("one", "held_out", 1), ("two", "held_out", 2),
                                 ("unseen pairs", "unseen_pairs", 2)):  # fmt: skip
        for style in STYLES:
            world = World(split, 7, things=things, style=style, device=bridge.lm.device)
            named, anything, first = 0, 0, 0
            for start in range(0, scenes, 50):
                many = world.batch(range(start, min(start + 50, scenes)))
                said = bridge.say(many.images)
                for names, text in zip(many.names, said, strict=True):
                    found = names_in(text, names)
                    named += found >= set(names)
                    anything += len(found) > 0
                    style_right[style] += style_of(text) == style
                    style_seen[style] += 1
                first = first or said[:3]
            table[f"{label}, {style}"] = {
                "all named": named / scenes,
                "some named": anything / scenes,
            }
            print(f"{label}, {style}: {named / scenes:.1%} all named, {anything / scenes:.1%} some;"
                  f" e.g. {first}", flush=True)  # fmt: skip
    table["style word"] = {s: style_right[s] / style_seen[s] for s in STYLES}
    print("style word right:", {s: f"{v:.1%}" for s, v in table["style word"].items()}, flush=True)
    return table


@torch.no_grad()
def language(bridge: Bridge, corpus: Path | None) -> dict[str, Any]:
    """Perplexity on held-out documents (a corpus of another seed) and greedy samples."""
    table: dict[str, Any] = {}
    if corpus is not None:
        import numpy as np

        ids = torch.from_numpy(np.load(corpus)[: 64 * 145].astype("int64")).view(64, 145)
        losses = []
        for rows in ids.to(bridge.lm.device).split(16):
            logits = bridge.lm(rows[:, :-1]).logits
            losses.append(F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item())
        table["perplexity"] = math.exp(sum(losses) / len(losses))
        print(f"perplexity {table['perplexity']:.2f}")
    for text in SAID:
        ids = bridge.ids(text, 1)
        out = bridge.lm.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24,
                                 do_sample=False, pad_token_id=0)  # fmt: skip
        table[text] = bridge.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        print(f"  {text!r} ->{table[text]!r}", flush=True)
    return table


@torch.no_grad()
def nearest(bridge: Bridge, scenes: int) -> dict[str, float]:
    """How often one of a patch's 5 nearest tokens (cosine) is the thing under it, and by chance."""
    table = F.normalize(bridge.lm.transformer.wte.weight, dim=-1)
    many = World("held_out", 8, things=1, device=bridge.lm.device).batch(range(scenes))
    soft = F.normalize(bridge.soft(bridge.features(many.images)), dim=-1)
    top = (soft @ table.T).topk(5).indices
    covered = F.avg_pool2d(many.masks[:, :1].float(), 8).flatten(1) > 0.4
    name_ids = torch.tensor([name_id(bridge, n[0]) for n in many.names], device=top.device)
    hits = (top == name_ids[:, None, None]).any(-1)
    mixed = (top == name_ids.roll(1)[:, None, None]).any(-1)
    found = {"own name": hits[covered].float().mean().item(),
             "another's": mixed[covered].float().mean().item(),
             "cosine": (soft @ table.T).amax(-1).mean().item()}  # fmt: skip
    print("nearest 5 tokens of covered patches hold the", {k: f"{v:.2%}" for k, v in found.items()})
    return found


def name_id(bridge: Bridge, name: str) -> int:
    """The token of the name with its leading space."""
    return bridge.tokenizer.encode(f" {name}")[0]


def run_units(bridge: Bridge, enter: Tensor, silent: list[Tensor] | None = None
              ) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """Last logits and the pre-activations of each layer; `silent` units read 0 at image positions.

    Args:
        silent: Bool[unit] for each layer; zero before GELU is zero after it.
    """
    units: list[Tensor] = []

    def hook(layer: int, z: Tensor) -> Tensor:
        if silent is not None:
            mask = torch.zeros_like(z)
            mask[:, :100] = silent[layer]
            z = z * (1 - mask)
        if z.requires_grad:
            z.retain_grad()
        units.append(z)
        return z

    handles = [block.mlp.fc_in.register_forward_hook(lambda m, i, z, at=at: hook(at, z))
               for at, block in enumerate(bridge.lm.transformer.h)]  # fmt: skip
    try:
        logits = bridge.lm(inputs_embeds=enter).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()
    return logits, units


def top_units(bridge: Bridge, enter: Tensor, token: int) -> list[tuple[int, int]]:
    """(layer, unit) by falling gradient x pre-activation at the image, each unit once."""
    logits, units = run_units(bridge, enter.requires_grad_())
    grads = torch.autograd.grad(logits[0, token], units)
    scores = torch.stack([(g * z)[0, :100] for g, z in zip(grads, units, strict=True)])
    best = scores.detach().amax(1)  # layer, unit
    order = best.flatten().argsort(descending=True)[: max(CUTS)].tolist()
    return [divmod(k, best.shape[1]) for k in order]


def like(chosen: list[tuple[int, int]], units: int, rng: random.Random) -> list[tuple[int, int]]:
    """As many random units from the same layers."""
    return [(layer, rng.randrange(units)) for layer, _ in chosen]


def mask_of(chosen: list[tuple[int, int]], layers: int, units: int) -> list[Tensor]:
    """Bool[unit] for each layer."""
    masks = [torch.zeros(units) for _ in range(layers)]
    for layer, unit in chosen:
        masks[layer][unit] = 1
    return masks


def phenomenon(bridge: Bridge, scenes: int) -> dict[str, Any]:
    """Layers, decodes and ablations of the units that bring up the first thing's name."""
    config, rng = bridge.lm.config, random.Random(0)
    world = World("held_out", 9, things=1, style="literal", device=bridge.lm.device)
    decoded = decode_units(bridge)
    layers, tops, names, drops = [0] * config.n_layer, [], [], {}
    i = -1
    while len(names) < scenes and i < 10 * scenes:
        i += 1
        many = world.batch([i])
        name, style = many.names[0][0], many.styles[0]
        lead = {"literal": f" {a(name)}", "symbolic": f" a drawing of {a(name)}", "written": ""}[
            style
        ]
        if not lead or len(set(many.names[0])) < len(many.names[0]):
            continue
        before = f"{PROMPT}{lead.removesuffix(' ' + name)}"
        enter = bridge.soft(bridge.features(many.images), bridge.ids(before, 1)).detach()
        token = name_id(bridge, name)
        if name not in names_in(bridge.say(many.images)[0], [name]):
            continue  # as in the paper, what is explained is something that was said
        best = top_units(bridge, enter, token)
        for layer, _ in best[:TOP]:
            layers[layer] += 1
        tops.append(best[:TOP]), names.append(name)
        for cut in CUTS:
            for arm, chosen in (
                ("top", best[:cut]),
                ("random", like(best[:cut], config.n_inner, rng)),
            ):
                lost = drop(bridge, enter, token, mask_of(chosen, config.n_layer, config.n_inner))
                drops.setdefault(f"{arm} {cut}", []).append(lost)
        every = [torch.ones(config.n_inner)] * config.n_layer
        drops.setdefault("every unit", []).append(drop(bridge, enter, token, every))
    return summary(bridge, layers, tops, names, drops, decoded)


@torch.no_grad()
def drop(bridge: Bridge, enter: Tensor, token: int, silent: list[Tensor]) -> float:
    """Share of the token's probability that silencing takes away."""
    before = run_units(bridge, enter)[0].softmax(-1)[0, token]
    after = run_units(bridge, enter, silent)[0].softmax(-1)[0, token]
    return (1 - after / before).item()


@torch.no_grad()
def decode_units(bridge: Bridge) -> list[Tensor]:
    """Long[unit, 10] for each layer: the tokens that lm_head reads most in what the unit writes."""
    head = bridge.lm.lm_head.weight
    return [
        (block.mlp.fc_out.weight.T @ head.T).topk(10).indices for block in bridge.lm.transformer.h
    ]


def summary(bridge: Bridge, layers: list[int], tops: list[list[tuple[int, int]]], names: list[str],
            drops: dict[str, list[float]], decoded: list[Tensor]) -> dict[str, Any]:  # fmt: skip
    """Own names against every other scene's name, with a 95 % interval over scenes."""
    if len(names) < 5:
        print(f"only {len(names)} things were named: too few to look for the phenomenon")
        return {"scenes": len(names), "layers": layers}
    tokens = [name_id(bridge, n) for n in names]
    said = [{t for layer, unit in top for t in decoded[layer][unit].tolist()} for top in tops]
    own = torch.tensor([float(t in s) for t, s in zip(tokens, said, strict=True)])
    other = torch.tensor([sum(u in s for u, m in zip(tokens, names, strict=True) if m != n)
                          / max(1, sum(m != n for m in names))
                          for n, s in zip(names, said, strict=True)])  # fmt: skip
    gain = own - other
    margin = 1.96 * gain.std() / max(1, len(gain)) ** 0.5
    share = [round(n / max(1, sum(layers)), 3) for n in layers]
    print(f"{len(names)} scenes whose first thing was named; top {TOP} units by layer: {share}")
    print(f"name among decoded top 10 of a top unit: own {own.mean():.1%},"
          f" others {other.mean():.1%}, difference {gain.mean():.1%} +- {margin:.1%}")  # fmt: skip
    lost = {k: sum(v) / max(1, len(v)) for k, v in drops.items()}
    print("probability lost by silencing:", {k: f"{v:.1%}" for k, v in lost.items()}, flush=True)
    return {"scenes": len(names), "layers": share, "own": own.mean().item(),
            "others": other.mean().item(), "margin": float(margin), "lost": lost}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=PACKAGE / "weights")
    parser.add_argument("--scenes", type=int, default=200, help="scenes a row of the caption table")
    parser.add_argument("--explained", type=int, default=60, help="scenes for the phenomenon")
    parser.add_argument("--corpus", type=Path, help="corpus.npy of another seed, for perplexity")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bridge = Bridge.read(args.weights, args.device)
    found = {"captions": captions(bridge, args.scenes), "language": language(bridge, args.corpus)}
    found["nearest"] = nearest(bridge, args.scenes)
    found["phenomenon"] = phenomenon(bridge, args.explained)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

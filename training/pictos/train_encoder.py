"""Train the vision encoder on pictures only: each patch paints the thing that it is a part of.

As in masked image modelling the encoder (BEiT's class: relative positions, no absolute ones) sees a
random part of the patches. From every one of them a linear head paints the close-up: the thing
under the patch, upright and filling the frame, and the colour of the ground. Close-ups are codes of
24 x 24 pixels (principal components, half whitened so that detail counts; nought on bare ground).
No word, no caption, no class is ever seen: only pictures.

    L = |paint - close-up|^2 on things + w |paint|^2 on ground + |colour - ground|^2

    python training/pictos/train_encoder.py --work DIR --minutes 60 [--resume]
    python training/pictos/train_encoder.py --work DIR --cooldown 400      # writes DIR/encoder/
"""

import argparse

import torch
import torch.nn.functional as F
from common import Muon, Run, arguments, weight_groups
from torch import Tensor, nn
from transformers import BeitConfig, BeitModel

from mmlens.pictos.scene_captions import GROUNDS
from mmlens.pictos.scenes import Scenes
from mmlens.pictos.sprites import sprites
from mmlens.pictos.world import GROUND_RGB, STYLES, World

SIDE, PATCH, WIDTH, CODE = 80, 8, 192, 256
ACROSS = SIDE // PATCH
COVERED = {"literal": 0.3, "symbolic": 0.06, "written": 0.06}  # of a patch, to belong to a thing


def new_encoder() -> BeitModel:
    """6 layers of 192: 2.7 M parameters, 100 patches and a class token."""
    config = BeitConfig(hidden_size=WIDTH, num_hidden_layers=6, num_attention_heads=6,
                        intermediate_size=4 * WIDTH, image_size=SIDE, patch_size=PATCH,
                        use_relative_position_bias=True, layer_scale_init_value=1.0,
                        drop_path_rate=0.0)  # fmt: skip
    vit = BeitModel(config, add_pooling_layer=False)
    for depth, layer in enumerate(vit.layers):
        look_beside(layer.relative_position_bias.relative_position_bias_table.data, depth)
    return vit


def look_beside(table: Tensor, depth: int) -> None:
    """Begin as a convolution: each head looks at a neighbour of its own (as ConViT, 2103.10697).

    bias(dy, dx) = -s * |(dy, dx) - neighbour|^2, less and less sharp with depth; free to change.
    """
    steps = torch.arange(1 - ACROSS, ACROSS).float()
    away = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1)
    slant = ((1, 1), (-1, -1)) if depth % 2 else ((1, -1), (-1, 1))
    neighbours = torch.tensor(((0, 1), (0, -1), (1, 0), (-1, 0), *slant)).float()
    sharp = (1.5, 1.0, 0.7, 0.4, 0.2, 0.1)[depth]
    table[: len(away)] = -sharp * (away[:, None] - neighbours).square().sum(-1)
    table[len(away) :] = -4.0  # to and from the class token


def encode(vit: BeitModel, images: Tensor, seen: Tensor) -> Tensor:
    """Float[batch, seen, width]: the encoder's output for the patches of these indices only."""
    x = vit.embeddings.patch_embeddings(images * 2 - 1)[:, seen]
    x = torch.cat([vit.embeddings.cls_token.expand(len(x), -1, -1), x], 1)
    own = torch.cat([torch.zeros(1, dtype=torch.long, device=seen.device), seen + 1])
    for layer in vit.layers:
        bias = layer.relative_position_bias
        index = bias.generate_relative_position_index((ACROSS, ACROSS)).to(seen.device)
        near = bias.relative_position_bias_table[index[own][:, own]].permute(2, 0, 1)[None]
        x = x + layer.lambda_1 * layer.attention(layer.layernorm_before(x), near)[0]
        x = x + layer.lambda_2 * layer.mlp(layer.layernorm_after(x))
    return vit.layernorm(x)[:, 1:]


def close_ups(device: str) -> Tensor:
    """Float[style * concept, code]: each sprite filling the frame, in codes of unit variance."""
    frames = []
    for style in STYLES:
        bank = sprites(device).banks[style]
        colour = bank[:, :3] if style == "literal" else torch.zeros_like(bank).expand(-1, 3, -1, -1)
        small = F.interpolate(torch.cat([colour, bank[:, -1:]], 1), (24, 24), mode="area")
        frames.append(small.flatten(1))
    pixels = torch.cat(frames)
    u, s, _ = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    codes = u[:, :CODE] * s[:CODE].sqrt()
    return codes / codes.square().mean().sqrt()


def targets(many: Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """Each patch's close-up Long[batch, patch], whether it has one, colours Float[batch, rgb]."""
    covers = F.avg_pool2d(many.masks.float(), PATCH).flatten(2)  # batch, thing, patch
    most, thing = covers.max(1)
    style = torch.tensor([STYLES.index(s) for s in many.styles], device=covers.device)
    low = torch.tensor([COVERED[s] for s in STYLES], device=covers.device)[style]
    belongs = most > low[:, None]
    concept = many.concepts.gather(1, thing).clamp(min=0)
    ground = torch.tensor([GROUND_RGB[GROUNDS.index(g)] for g in many.grounds])
    return style[:, None] * len(sprites().names) + concept, belongs, ground.to(covers.device)


class Painter(nn.Module):
    """Patch features -> close-up codes and ground colour."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.paint = nn.Linear(WIDTH, CODE + 3)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        out = self.paint(self.norm(features))
        return out[..., :CODE], out[..., CODE:]


def losses(painted: Tensor, wanted: Tensor, belongs: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """`paint`, `bare`: mean square error on things and on ground; `find`: InfoNCE over the bank."""
    close = codes[wanted] * belongs[..., None]
    off = (painted - close).square().mean(-1)
    likeness = painted[belongs] @ codes.T / CODE**0.5
    return {"paint": off[belongs].mean(), "bare": off[~belongs].mean(),
            "find": F.cross_entropy(likeness, wanted[belongs])}  # fmt: skip


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], lr=4e-3, batch=48)
    parser.add_argument("--shares", type=int, nargs=3, default=(1, 1, 1), help="of the styles")
    parser.add_argument("--bare", type=float, default=0.1, help="weight w of bare ground")
    parser.add_argument("--seen", type=int, default=100, help="patches that the encoder sees")
    parser.add_argument("--muon", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    sizes = [args.batch * share // sum(args.shares) for share in args.shares]
    vit, painter = new_encoder().to(args.device), Painter().to(args.device)
    inner = [vit.layers] if args.muon else None
    muon = Muon(weight_groups([vit, painter], 0.05, inner), args.lr, betas=(0.9, 0.95))
    run = Run("encoder", args, vit=vit, painter=painter, optimiser=muon)
    worlds = [World("train", args.seed, SIDE, style=s, device=args.device) for s in STYLES]
    codes = close_ups(args.device)
    while run.goes_on():
        torch.manual_seed(args.seed * 10**7 + run.step)
        many = [w.batch(range(run.step * n, (run.step + 1) * n))
                for w, n in zip(worlds, sizes, strict=True)]  # fmt: skip
        seen = torch.randperm(ACROSS**2, device=args.device)[: args.seen]
        features = encode(vit, torch.cat([m.images for m in many]), seen)
        wanted, belongs, ground = map(torch.cat, zip(*map(targets, many), strict=True))
        wanted, belongs = wanted[:, seen], belongs[:, seen]
        painted, colour = painter(features)
        parts = losses(painted, wanted, belongs, codes)
        parts["ground"] = (colour - ground[:, None]).square().mean()
        run.update(
            muon, parts["find"] + parts["paint"] + args.bare * parts["bare"] + parts["ground"]
        )
        right = ((painted @ codes.T).argmax(-1) == wanted).split(sizes)
        found = {s: r[b].float().mean().item()
                 for s, r, b in zip(STYLES, right, belongs.split(sizes), strict=True)}  # fmt: skip
        run.note(every=30, **{k: v.item() for k, v in parts.items()}, **found)
    if args.cooldown:
        vit.save_pretrained(args.work / "encoder")
    else:
        run.save()


if __name__ == "__main__":
    main()

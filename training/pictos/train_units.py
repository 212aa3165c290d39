"""Train the units that the bridge reads: the last MLP's, on pictures only, the rest frozen.

The encoder's stream has 192 dimensions for 669 appearances of 223 things: no linear map takes them
all to their words. The 768 units of the last MLP (after GELU) hold the same in more directions, and
a linear map reads them well. Here those units (their LayerNorm and W_in) learn to paint the
close-ups of `train_encoder` directly, with few units active at a time:

    L = find + |paint - close-up|^2 + 0.1 |paint|^2 on ground + |colour - ground|^2 + s mean |unit|

What the last MLP would write is read by nobody, so its W_out is set to zero.

    python training/pictos/train_units.py --work DIR --steps 600       # changes DIR/encoder/
"""

import torch
from bridge import units_of
from common import Muon, Run, arguments, weight_groups
from torch import nn
from train_encoder import CODE, WIDTH, close_ups, losses, targets
from transformers import BeitModel

from mmlens.pictos.world import STYLES, World


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], lr=2e-3, batch=48)
    parser.add_argument("--shares", type=int, nargs=3, default=(1, 1, 1), help="of the styles")
    parser.add_argument("--sparse", type=float, default=3.0, help="weight s of the active units")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    vit = BeitModel.from_pretrained(args.work / "encoder", add_pooling_layer=False)
    vit = vit.to(args.device).eval().requires_grad_(False)
    last = vit.layers[-1]
    learns = [last.layernorm_after, last.mlp.fc1]
    for module in learns:
        module.requires_grad_(True)
    painter = nn.Linear(4 * WIDTH, CODE + 3).to(args.device)
    muon = Muon(weight_groups([*learns, painter], 0.0, [last.mlp.fc1]), args.lr, betas=(0.9, 0.95))
    rates = [group.get("times", 1.0) for group in muon.param_groups]
    run = Run("units", args, norm=learns[0], units=learns[1], painter=painter, optimiser=muon)
    worlds = [World("train", args.seed + 2, style=s, device=args.device) for s in STYLES]
    sizes = [args.batch * share // sum(args.shares) for share in args.shares]
    codes = close_ups(args.device)
    while run.goes_on():
        many = [w.batch(range(run.step * n, (run.step + 1) * n))
                for w, n in zip(worlds, sizes, strict=True)]  # fmt: skip
        wanted, belongs, ground = map(torch.cat, zip(*map(targets, many), strict=True))
        units = units_of(vit, torch.cat([m.images for m in many]))
        painted, colour = painter(units).split((CODE, 3), -1)
        parts = losses(painted, wanted, belongs, codes)
        parts["ground"] = (colour - ground[:, None]).square().mean()
        parts["active"] = units.abs().mean()
        loss = parts["find"] + parts["paint"] + 0.1 * parts["bare"] + parts["ground"]
        for group, times in zip(muon.param_groups, rates, strict=True):  # falls in the second half
            group["times"] = times * min(1.0, 2 * (1 - run.step / args.steps))
        run.update(muon, loss + args.sparse * parts["active"])
        right = ((painted @ codes.T).argmax(-1) == wanted).split(sizes)
        found = {s: r[b].float().mean().item()
                 for s, r, b in zip(STYLES, right, belongs.split(sizes), strict=True)}  # fmt: skip
        run.note(every=20, **{k: v.item() for k, v in parts.items()}, **found)
    last.mlp.fc2.weight.data.zero_()
    last.mlp.fc2.bias.data.zero_()
    vit.save_pretrained(args.work / "encoder")


if __name__ == "__main__":
    main()

"""Train the linear map from pictos-clip's last units into the language model of pictos.

Both ends are frozen and as they ship; the map alone learns, by LiMBeR's recipe as in
`training/pictos/train_projection.py`: cross-entropy of the caption after the picture. A picture is
four positions of 1,280 units (the last block after its ReLU6, a grid of 2 x 2), read from scenes of
the bundled world at 80 px that are made 64 px, as `mm.load("pictos-clip")` reads them.

    python training/pictos_clip/train_bridge.py --work DIR --muon --steps 1500 [--resume]
    python training/pictos_clip/train_bridge.py --work DIR --muon --cooldown 400   # exports
"""

import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import GPTJForCausalLM, PreTrainedTokenizerFast

import mmlens

sys.path.append(str(Path(__file__).parents[1] / "pictos"))
from bridge import Bridge
from common import PACKAGE, Muon, Run, arguments, weight_groups
from train_projection import Whitened, loss_of, naming, padded, texts

from mmlens.pictos.world import STYLES, World

LM = PACKAGE / "weights" / "lm"
OUT = PACKAGE.parent / "pictos_clip_bridge" / "projection.safetensors"


class ClipBridge(Bridge):
    """The bridge whose encoder is the picture half of a dual encoder."""

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Images in [0, 1] -> Float[batch, patch, unit]"""
        size = self.vision.image_size
        small = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        return self.vision(small * 2 - 1)


def begun(scale: float) -> ClipBridge:
    """Both ends from the package, and a random map between them."""
    vision = mmlens.load("pictos-clip").vision
    lm = GPTJForCausalLM.from_pretrained(LM, dtype=torch.float32).eval().requires_grad_(False)
    projection = Whitened(vision.d_vision, lm.config.n_embd, scale)
    return ClipBridge(vision, projection, lm, PreTrainedTokenizerFast.from_pretrained(LM))


def scenes_of(step: int, batch: int, things: int | None, seed: int) -> list:
    """Scenes of one step, the three styles in equal shares."""
    n = batch // len(STYLES)
    worlds = [World("train", seed + 1, things=things, style=style) for style in STYLES]
    return [world.batch(range(step * n, (step + 1) * n)) for world in worlds]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], lr=1e-3, batch=48)
    parser.set_defaults(logs=Path(__file__).parent / "logs")
    parser.add_argument("--canonical", type=float, default=0.9, help="share of canonical captions")
    parser.add_argument("--scale", type=float, default=0.1, help="of the first weights")
    parser.add_argument("--muon", action="store_true", help="orthogonal steps")
    parser.add_argument("--check", type=int, default=250, help="steps between two looks at naming")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    bridge = begun(args.scale)
    projection = bridge.projection
    groups = weight_groups([projection], 0.0, [projection.inner] if args.muon else None)
    optimiser = Muon(groups, args.lr, betas=(0.9, 0.95))
    run = Run("bridge", args, projection=projection, optimiser=optimiser)
    if run.step == 0:
        first = scenes_of(0, 12 * args.batch, 1, args.seed)
        projection.measure(bridge.features(torch.cat([s.images for s in first])))
    while run.goes_on():
        torch.manual_seed(args.seed + run.step)
        scenes = scenes_of(run.step, args.batch, (1, 1, 2)[run.step % 3], args.seed)
        features = bridge.features(torch.cat([s.images for s in scenes]))
        ids, target = padded(bridge, texts(scenes, random.Random(run.step), args.canonical))
        loss = loss_of(bridge, features, ids, target)
        run.update(optimiser, loss)
        run.note(loss=loss.item())
        if run.step % args.check == 0:
            print(f"  held out: one {naming(bridge, 1)}, two {naming(bridge, 2)}", flush=True)
    run.save() if not args.cooldown else export(projection)
    print(f"  held out: one {naming(bridge, 1, 100)}, two {naming(bridge, 2, 100)}", flush=True)


def export(projection: Whitened) -> None:
    """The plain linear map in half precision."""
    OUT.parent.mkdir(exist_ok=True)
    save_file({name: value.half() for name, value in projection.folded().items()}, OUT)


if __name__ == "__main__":
    main()

"""Train the linear projection by LiMBeR's recipe (arXiv 2209.15162), both ends frozen.

The sequence is [100 projected patches][text][end]; the loss is the cross-entropy of the text's
tokens up to and including the first end-of-text, so that captions learn to stop; only the
projection's weight and bias learn. Text: mostly "A picture of" and the canonical caption, else a
paraphrase (places, ground colour). `--patches 40` shows a random part of the patches, in order,
for a cheaper early phase, as strong a dropout as it is.

    python training/pictos/train_projection.py --work DIR --minutes 30 [--resume]
    python training/pictos/train_projection.py --work DIR --cooldown 200   # exports
"""

import random

import torch
import torch.nn.functional as F
from bridge import Bridge, names_in
from common import Run, arguments
from safetensors.torch import save_file
from torch import Tensor

from mmlens.pictos.world import Scenes, World

CANONICAL_SHARE = 0.75


def texts(scenes: Scenes, rng: random.Random) -> list[str]:
    """One text for each scene: the canonical picture sentence or another paraphrase."""
    chosen = []
    for b in range(len(scenes)):
        picture, *others = scenes.paraphrases(b)
        chosen.append(picture if rng.random() < CANONICAL_SHARE else rng.choice(others))
    return chosen


def padded(bridge: Bridge, words: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and targets Long[batch, token]: end-of-text is a target once, padding never."""
    end = bridge.tokenizer.eos_token_id
    rows = [[*bridge.tokenizer.encode(w), end] for w in words]
    width = max(map(len, rows))
    ids = torch.tensor([r + [end] * (width - len(r)) for r in rows])
    target = torch.tensor([r + [-100] * (width - len(r)) for r in rows])
    device = bridge.projection.weight.device
    return ids.to(device), target.to(device)


def loss_of(bridge: Bridge, features: Tensor, ids: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of the text after the picture; its first token is the picture's to say."""
    enter = bridge.soft(features, ids[:, :-1])
    hidden = bridge.lm.transformer(inputs_embeds=enter, use_cache=False).last_hidden_state
    logits = bridge.lm.lm_head(hidden[:, features.shape[1] - 1 :])
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100)


def part_of(features: Tensor, patches: int) -> Tensor:
    """A random part of the patches, the same places for the batch, in reading order."""
    if patches >= features.shape[1]:
        return features
    return features[:, torch.randperm(features.shape[1])[:patches].sort().values]


def naming(bridge: Bridge, things: int, scenes: int = 48) -> float:
    """Share of held-out literal and symbolic scenes in which everything is named."""
    right = 0
    for style in ("literal", "symbolic"):
        device = bridge.projection.weight.device
        many = World("held_out", things=things, style=style, device=device).batch(
            range(scenes // 2)
        )
        said = bridge.say(many.images)
        right += sum(set(n) <= names_in(s, n) for n, s in zip(many.names, said, strict=True))
    return right / scenes


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], lr=2e-3, batch=24)
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--check", type=int, default=250, help="steps between two looks at naming")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    bridge = Bridge.of(args.work / "encoder", args.work / "lm", None, args.device)
    projection = bridge.projection
    adam = torch.optim.AdamW(projection.parameters(), args.lr, betas=(0.9, 0.95), weight_decay=0.0)
    run = Run("projection", args, projection=projection, optimiser=adam)
    world = World("train", args.seed + 1, device=args.device)
    while run.goes_on():
        torch.manual_seed(args.seed + run.step)
        scenes = world.batch(range(run.step * args.batch, (run.step + 1) * args.batch))
        ids, target = padded(bridge, texts(scenes, random.Random(run.step)))
        features = part_of(bridge.features(scenes.images), args.patches)
        loss = loss_of(bridge, features, ids, target)
        run.update(adam, loss)
        run.note(loss=loss.item())
        if run.step % args.check == 0:
            print(
                f"  held out: one {naming(bridge, 1):.2f}, two {naming(bridge, 2):.2f}", flush=True
            )
    if args.cooldown:
        weights = {k: v.detach().cpu().contiguous() for k, v in projection.state_dict().items()}
        save_file(weights, args.work / "projection.safetensors")
        print(f"  held out: one {naming(bridge, 1):.2f}, two {naming(bridge, 2):.2f}", flush=True)
    else:
        run.save()


if __name__ == "__main__":
    main()

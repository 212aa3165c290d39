"""Write pictos-clip as a folder that open_clip loads: config, weights in half precision, tokenizer.

    python training/pictos_clip/export_clip.py --work DIR --name clip

The folder stands alone: `open_clip.create_model_and_transforms("local-dir:FOLDER")` and
`open_clip.get_tokenizer("local-dir:FOLDER")` need no network. The tokenizer is written as that of
transformers' CLIP and compared with the one of the training on a thousand captions.
"""

import argparse
import json
import random
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from tell import TEMPLATES, caption
from train_clip import CONTEXT, MEAN, STD, config, tokenizer

from mmlens.pictos.scene_captions import GROUNDS
from mmlens.pictos.sprites import sprites

PACKAGE = Path(__file__).parents[2] / "mmlens" / "pictos_clip"


def write_tokenizer(words: open_clip.SimpleTokenizer, folder: Path) -> None:
    """The same vocabulary and merges as transformers' CLIP tokenizer, whose padding is the end."""
    from transformers import CLIPTokenizer

    merges = [m for m, _ in sorted(words.bpe_ranks.items(), key=lambda x: x[1])]
    ends = {"bos_token": "<start_of_text>", "eos_token": "<end_of_text>",
            "unk_token": "<end_of_text>", "pad_token": "<end_of_text>"}  # fmt: skip
    made = CLIPTokenizer(words.encoder, merges, **ends, model_max_length=CONTEXT)
    made.save_pretrained(folder)


def compare(words: open_clip.SimpleTokenizer, folder: Path) -> None:
    """The exported tokenizer gives the training's ids, the end of the text included."""
    other = open_clip.get_tokenizer(f"local-dir:{folder}")
    dice, names = random.Random(0), sprites().names
    for _ in range(1000):
        facts = {"ground": dice.choice(GROUNDS), "ink": dice.choice(GROUNDS), "kind": "animal"}
        text = caption(dice.choice(list(TEMPLATES)), dice, n=dice.choice(names),
                       w=dice.choice(names), **facts)  # fmt: skip
        ours, theirs = words([text])[0], other([text])[0]
        long = int(ours.argmax()) + 1
        assert theirs.argmax() == long - 1 and (ours[:long] == theirs[:long]).all(), text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/pictos-clip"))
    parser.add_argument("--name", default="clip")
    parser.add_argument("--out", type=Path, default=PACKAGE)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    words = tokenizer(args.work)
    state = torch.load(args.work / f"{args.name}-final.pt", map_location="cpu")
    told = config(words.vocab_size)
    told["text_cfg"]["hf_tokenizer_name"] = "pictos-clip"  # a folder's own tokenizer is read
    told["text_cfg"]["tokenizer_kwargs"] = {"clean": "lower"}
    pixels = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
    (args.out / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": told, "preprocess_cfg": pixels}, indent=2) + "\n"
    )
    write_tokenizer(words, args.out)
    half = {k: v.half().contiguous() if v.is_floating_point() else v for k, v in state.items()}
    save_file(half, args.out / "open_clip_model.safetensors", {"format": "pt"})
    compare(words, args.out)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{args.out}")
    size = (args.out / "open_clip_model.safetensors").stat().st_size
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

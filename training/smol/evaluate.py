"""How often the bridge names what a picture shows, with the language model in fp32.

Greedy captions after "A picture of". Sets: `trained`, new composites of trained pictures, and
`two`, composites of two of them; `stamp`, composites of pictures that training never saw,
photographs and drawings apart; `set`, whole pictures of a source that it never saw (GCompris:
photographs and drawings); `real`, photographs that packages ship (`photos.csv`). A thing is named
when the caption has its noun or one of its listed other names (`nouns.txt`). Chance: how often the
caption of another picture of the set names it.

    python training/smol/evaluate.py --work DIR --projection projection.pt [--json FILE]
"""

import argparse
import csv
import json
import random
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from captioning import language_model
from compose import SIDE, Composer, index
from encode import encoder, grid
from names import nouns
from PIL import Image

HERE = Path(__file__).parent
PROMPT = "A picture of"
SETS = (
    "trained", "two", "stamp drawings", "stamp photographs", "set drawings", "set photographs",
    "real",
)  # fmt: skip
Case = tuple[Image.Image, list[str]]


def named(noun: str, caption: str) -> bool:
    """Whether the caption says it, in the singular or the plural, or by another listed name."""
    text = " ".join(re.findall(r"[a-z0-9]+", caption.lower()))
    return any(re.search(rf"\b{re.escape(name)}(s|es)?\b", text) for name in NOUNS[noun])


def cases(work: Path, name: str) -> list[Case]:
    """The pictures of a set and what each shows."""
    rng = random.Random(f"evaluate {name}")
    rows = {
        kind: [r for r in index(work) if r["split"] == kind] for kind in ("train", "stamp", "set")
    }
    if name in ("trained", "two"):
        composer = Composer(work, "train")
        made = [
            composer.any(rng, two=float(name == "two"))
            for _ in range(320 if name == "trained" else 160)
        ]
        return [(c.picture, c.nouns) for c in made]
    if name.startswith("stamp"):
        composer = Composer(work, "stamp")
        some = [r for r in rows["stamp"] if (r["photo"] == "1") == (name == "stamp photographs")]
        return [
            ((c := composer.of([row], rng)).picture, c.nouns)
            for row in some
            for _ in range(3 if "photo" in name else 1)
        ]
    if name.startswith("set"):
        some = [r for r in rows["set"] if (r["photo"] == "1") == (name == "set photographs")]
        return [
            (whole(Image.open(work / "pictures" / f"{r['id']}.png")), [r["noun"]]) for r in some
        ]
    trained = {row["noun"] for row in rows["train"]}
    with (HERE / "photos.csv").open() as file:
        return [
            (whole(Image.open(photo(work, row))), row["nouns"].split("|"))
            for row in csv.DictReader(file)
            if trained & set(row["nouns"].split("|"))
        ]


def photo(work: Path, row: dict[str, str]) -> Path:
    """Where a package's photograph lies."""
    folder = work / ("unpacked" if row["package"] in ("darknet", "opencv-doc") else "photos")
    return next((folder / row["package"]).rglob(row["file"]))


def whole(picture: Image.Image) -> Image.Image:
    """A picture on white, squeezed to a square."""
    picture = picture.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    return (
        Image.alpha_composite(ground, picture)
        .convert("RGB")
        .resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    )


@torch.no_grad()
def captions(lm, tok, soft: torch.Tensor, tokens: int = 12) -> list[str]:
    """Greedy captions of soft prompts Float[picture, cell, 576]."""
    out = []
    embed = lm.get_input_embeddings()
    ids = torch.tensor(tok(PROMPT, add_special_tokens=False).input_ids)
    for part in soft.split(32):
        few = len(part)
        enter = torch.cat(
            [embed(torch.full((few, 1), tok.bos_token_id)), part, embed(ids).expand(few, -1, -1)], 1
        )
        all_seen = torch.ones(enter.shape[:2], dtype=torch.long)
        said = lm.generate(
            inputs_embeds=enter, attention_mask=all_seen, max_new_tokens=tokens, do_sample=False,
            pad_token_id=tok.eos_token_id,
        )  # fmt: skip
        out += tok.batch_decode(said, skip_special_tokens=True)
    return out


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    state = torch.load(args.work / args.projection, weights_only=True)
    lm, tok = language_model(args.work, torch.float32)
    eyes = encoder(args.work)
    table = {"step": state["step"]}
    for name in args.sets.split(","):
        pictures, shown = zip(*cases(args.work, name)[: args.most], strict=True)
        cells = grid(eyes.forward_features, list(pictures))
        soft = F.linear((cells - state["mean"]) @ state["white"], state["weight"], state["bias"])
        said = captions(lm, tok, soft)
        hits = [any(named(n, s) for n in ns) for ns, s in zip(shown, said, strict=True)]
        other = [
            any(named(n, s) for n in ns) for ns, s in zip(shown, said[1:] + said[:1], strict=True)
        ]
        share = lambda found: sum(found) / len(found)  # noqa: E731
        row = {"pictures": len(hits), "named": share(hits), "chance": share(other)}
        row["norm"] = soft.norm(dim=-1).mean().item()
        if name == "two":
            row["both"] = sum(
                all(named(n, s) for n in ns) for ns, s in zip(shown, said, strict=True)
            ) / len(said)
        table[name] = row
        print(name, {k: round(v, 3) for k, v in row.items()}, flush=True)
        if args.show:
            for ns, s, hit in list(zip(shown, said, hits, strict=True))[: args.show]:
                print("   ", "+" if hit else "-", "|".join(ns), "->", s.strip())
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


NOUNS = nouns()

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--projection", default="projection.pt")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--most", type=int, default=10_000)
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    main(parser.parse_args())

"""Measure pictos-clip on what its training never saw: hands, photographs, fonts, pairs.

    python training/pictos_clip/evaluate_clip.py --work DIR --json FILE

Zero-shot accuracy is over the 223 names (chance .45 %), with each format's own prompt and with the
name alone. The typographic attack writes the name of another thing over a picture, a pair that
training never shows. Stroop asks for the ink of a colour word on white.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from pictures import Banks, Made, Painter, over, place
from torch import Tensor
from train_clip import begun, normalised
from units import Eye, SelfSupervised, table

from mmlens.pictos.scene_captions import a
from mmlens.pictos.world import GROUND_RGB, World

PACKAGE = Path(__file__).parents[2] / "mmlens" / "pictos_clip"
INKS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
STROOP_PROMPTS = ("the word {word} in {} ink", "a word in {} ink",
                  "my favorite word, written in the color {}")  # fmt: skip


class Judge:
    """An open_clip model with its tokenizer: unit embeddings of pictures and texts."""

    def __init__(self, model: open_clip.CLIP, words) -> None:
        self.model, self.words = model.eval(), words

    @torch.no_grad()
    def pictures(self, images: Tensor) -> Tensor:
        rows = [self.model.encode_image(normalised(x), normalize=True) for x in images.split(128)]
        return torch.cat(rows)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        return self.model.encode_text(self.words(list(texts)), normalize=True)

    def answers(self, images: Tensor, texts: Sequence[str]) -> Tensor:
        """Long[picture]: the nearest text."""
        return (self.pictures(images) @ self.texts(texts).T).argmax(1)


def single(painter: Painter, form: str, held_only: bool, times: int) -> Made:
    """`times` pictures of every thing that the painter has such pictures of."""
    if form == "word":
        asked = [(form, None, i) for i in range(223)]
    elif form == "photo":
        asked = [(form, i, None) for i in sorted(painter.banks.by[True, painter.held])]
    else:
        own = painter.banks.by[False, painter.held]
        there = sorted(own) if held_only else range(223)
        asked = [(form, i, None) for i in there]
    return painter.make([x for x in asked for _ in range(times)])


def zero_shot(judge: Judge, banks: Banks, names: Sequence[str], times: int) -> dict:
    own = {"colour": "{a}", "photo": "a photo of {a}", "outline": "a drawing of {a}",
           "silhouette": "a silhouette of {a}", "symbol": "a drawing of {a}",
           "word": "the word {n}"}  # fmt: skip
    out = {}
    for held in (False, True):
        painter = Painter(banks, seed=99, held=held)
        for form, prompt in own.items():
            if form == "symbol" and held:
                continue  # there is one hand of glyphs only
            made = single(painter, form, held, times)
            truth = torch.tensor(made.words if form == "word" else made.things)
            row = {"n": len(truth)}
            for label, text in (("own prompt", prompt), ("name alone", "{n}")):
                said = judge.answers(made.images, [text.format(a=a(n), n=n) for n in names])
                row[label] = (said == truth).float().mean().item()
            out[f"{form}, {'never trained on' if held else 'new renders of trained'}"] = row
    for style in ("literal", "symbolic", "written"):
        scenes = World("held_out", seed=3, side=64, things=1, style=style).batch(range(223 * times))
        said = judge.answers(scenes.images, names)
        right = (said == scenes.concepts[:, 0]).float().mean().item()
        out[f"bundled world, held-out scenes of one thing, {style}"] = {
            "n": len(said), "name alone": right}  # fmt: skip
    return out


def attack(judge: Judge, banks: Banks, names: Sequence[str], n: int) -> dict:
    """A word over a picture: what the model says it is, with and without."""
    out = {}
    for held in (False, True):
        painter = Painter(banks, seed=5, held=True, hands=held)
        made = painter.make([("both", i % 223, None) for i in range(3 * n)])
        pictures = Painter(banks, seed=6, held=True, hands=held)
        keep = [k for k, (t, w) in enumerate(zip(made.things, made.words, strict=True))
                if t != w and w < 223][:n]  # fmt: skip
        things = torch.tensor([made.things[k] for k in keep])
        words = torch.tensor([made.words[k] for k in keep])
        clean = pictures.make([("colour", int(t), None) for t in things])
        out[f"{'new hands' if held else 'trained hands'}, both named"] = named_both(
            judge, made.images[keep[:60]], things, words, names)  # fmt: skip
        for label, prompt in (("name alone", "{n}"), ("a thing", "{a}")):
            texts = [prompt.format(a=a(x), n=x) for x in names]
            before = judge.answers(clean.images, texts)
            after = judge.answers(made.images[keep], texts)
            out[f"{'new hands' if held else 'trained hands'}, {label}"] = {
                "n": len(keep),
                "clean right": (before == things).float().mean().item(),
                "names the thing": (after == things).float().mean().item(),
                "names the word": (after == words).float().mean().item(),
            }
    return out


def named_both(judge: Judge, images: Tensor, things: Tensor, words: Tensor, names) -> dict:
    """Of "a THING with the word WORD on it" each is chosen among all names given the other."""
    text, right = "{} with the word {} on it", {"thing": [], "word": []}
    for image, thing, word in zip(images, things.tolist(), words.tolist(), strict=False):
        texts = [text.format(a(n), names[word]) for n in names]
        right["thing"].append(int(judge.answers(image[None], texts)) == thing)
        texts = [text.format(a(names[thing]), n) for n in names]
        right["word"].append(int(judge.answers(image[None], texts)) == word)
    return {"n": len(images)} | {k: sum(v) / len(v) for k, v in right.items()}


def inked(
    banks: Banks, fonts: Sequence[int], word: str, ink: str, sizes: Sequence[float]
) -> Tensor:
    """The word in its ink on white, in these fonts and widths, in the middle."""
    at = banks.word_names.index(word)
    images = []
    for font in fonts:
        for size in sizes:
            alpha = banks.words[font, 0, at][None, None].float() / 255
            wide = min(size * 128 / int(banks.wide[font, 0, at]), 2.4)
            rgb = torch.tensor(GROUND_RGB[INKS.index(ink)])[None, :, None, None]
            n, zero = torch.tensor([wide]), torch.zeros(1)
            cut = place(torch.cat([rgb * alpha, alpha], 1), n, n * 24 / 128, zero,
                        torch.zeros(1, 2), None, 64)  # fmt: skip
            images.append(over(torch.ones(1, 3, 64, 64), cut))
    return torch.cat(images)


def stroop(judge: Judge, banks: Banks) -> dict:
    out = {}
    fonts = banks.fonts[True]
    for prompt in STROOP_PROMPTS:
        rows = {"neutral": [], "congruent": [], "incongruent": []}
        followed = []
        for i, ink in enumerate(INKS):
            for word in ("dog", *INKS):
                kind = "neutral" if word == "dog" else "congruent" if word == ink else "incongruent"
                texts = [prompt.format(c, word=word) for c in INKS]
                said = judge.answers(inked(banks, fonts, word, ink, (0.6, 0.9)), texts)
                rows[kind] += (said == i).tolist()
                if kind == "incongruent":
                    followed += (said == INKS.index(word)).tolist()
        out[prompt] = {k: sum(v) / len(v) for k, v in rows.items()}
        out[prompt]["incongruent, answered with the word"] = sum(followed) / len(followed)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/pictos-clip"))
    parser.add_argument("--folder", type=Path, default=PACKAGE)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--encoder", type=Path, help="ImageNet's weights, to compare with")
    parser.add_argument("--times", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{args.folder}")
    judge = Judge(model, open_clip.get_tokenizer(f"local-dir:{args.folder}"))
    banks = Banks.load(args.work / "banks.npz")
    names = banks.names
    told = {"zero-shot": zero_shot(judge, banks, names, args.times),
            "attack": attack(judge, banks, names, 100 * args.times),
            "stroop": stroop(judge, banks),
            "units": table(Eye(model), banks, 8),
            "units of the self-supervised encoder": table(SelfSupervised(), banks, 8),
            }  # fmt: skip
    if args.encoder:
        start = Eye(begun(args.encoder, judge.model.vocab_size))
        told["units before training"] = table(start, banks, 8)
    text = json.dumps(told, indent=1, default=lambda x: round(float(x), 4))
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()

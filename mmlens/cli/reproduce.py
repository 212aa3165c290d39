"""`mmlens reproduce mmn`, `goh`, `neo`, `hallucination`: the command line of their `reproduce`.

    mmlens reproduce mmn --quick
    mmlens reproduce mmn --model limber-beit --data coco:FOLDER --out runs/mmn
    mmlens reproduce goh --model open_clip:RN50x4/openai --regions

Heavy imports happen inside, so that `mmlens --help` opens at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mmlens.cli.loading import Device, Dtype, Json, as_asked, loaded
from mmlens.cli.printing import print_json, tell_claims
from mmlens.cli.whole_help import WholeHelp
from mmlens.cli.written_command import written
from mmlens.values.errors import ArgumentError, nearest

Text = str | None

reproduce_app = typer.Typer(
    cls=WholeHelp, no_args_is_help=True, help="Measure a published study anew, as one page."
)


@reproduce_app.callback()
def _studies() -> None:
    """Measure a published study anew, as one page."""


@reproduce_app.command("mmn")
def mmn_command(
    model: Annotated[str, typer.Option(help="A name that `mmlens models` lists, or a folder.")] = (
        "pictos"
    ),
    data: Annotated[
        Text,
        typer.Option(
            help="pictos:held_out:N, coco:FOLDER, hf:NAME or a folder of pictures.",
            show_default="pictos:held_out:4000",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report and its sweeps.")] = Path("mmn"),
    quick: Annotated[bool, typer.Option("--quick", help="Few pictures: a few minutes.")] = False,
    results: Annotated[
        Path | None, typer.Option(help="Write the Markdown here, too.", show_default=False)
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            help="At most so many pictures a question; E5=50 asks E5 about so many, choices=0"
            " leaves one out. Repeatable.",
            show_default=False,
        ),
    ] = None,
    point: Annotated[str, typer.Option(help="Score units at: pre or post.")] = "pre",
    target: Annotated[str, typer.Option(help="Explain the token's: logit, prob, logprob.")] = (
        "logit"
    ),
    rank_by: Annotated[str, typer.Option(help="Rank units by: pair, max or sum.")] = "pair",
    gain: Annotated[bool, typer.Option("--gain", help="Decode with the final norm's gain.")] = (
        False
    ),
    value: Annotated[str, typer.Option(help="A silenced unit is: a number, or mean.")] = "0",
    where: Annotated[str, typer.Option(help="Silence units at: all, image or last.")] = "all",
    random_from: Annotated[
        str, typer.Option(help="Random units are: others of the layer, or any.")
    ] = "others",
    randoms: Annotated[int, typer.Option(min=1, help="Draws of random units in E5.")] = 1,
    sinks: Annotated[
        str, typer.Option(help="Units that are huge at the first position, in E5: kept or apart.")
    ] = "kept",
    shuffle: Annotated[str, typer.Option(help="Random pairs by: pictures or neurons.")] = (
        "pictures"
    ),
    keep: Annotated[str, typer.Option(help="Units of E1, E4: interpretable or all.")] = (
        "interpretable"
    ),
    noun: Annotated[str, typer.Option(help="Nouns of captions: auto, pictos or content.")] = "auto",
    clip_backbone: Annotated[
        Text, typer.Option(help="CLIPScore with this model.", show_default=False)
    ] = None,
    bert_backbone: Annotated[
        Text, typer.Option(help="BERTScore with this model.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random units, vectors and intervals.")] = 0,
    anew: Annotated[
        bool, typer.Option("--anew", help="Delete what the folder holds, and begin anew.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Multimodal Neurons in Pretrained Text-Only Transformers (Schwettmann et al. 2023)."""
    command = written("mmn", mmn_command, locals())
    from mmlens.papers.mmn.report.plan import FULL, QUICK, OpenChoices
    from mmlens.papers.mmn.report.reproduction import DATA, reproduce
    from mmlens.sweep.record import SweepError

    choices = OpenChoices(
        point, target, rank_by, gain, number_or_word(value), where, random_from, sinks, shuffle,
        keep, noun,
    )  # fmt: skip
    plan = replace(pictures_of(QUICK if quick else FULL, pictures or []), randoms=randoms)
    backbones = {"CLIPScore": clip_backbone, "BERTScore": bert_backbone}
    scorers, compare = judged_by({k: v for k, v in backbones.items() if v})
    if scorers:
        plan = replace(plan, vectors=min(plan.vectors or 20, 20))  # a backbone takes its time
    try:
        report = reproduce(
            as_asked(model, device, dtype), data or DATA, out, plan=plan, choices=choices,
            scorers=scorers, compare=compare, results=results, seed=seed, resume=not anew,
            command=command,
        )  # fmt: skip
    except SweepError as error:
        raise in_other_words(error) from error
    tell_claims(
        [row.verdict for row in report.findings], report.page, results or report.results, as_json
    )


@reproduce_app.command("goh")
def goh_command(
    model: Annotated[str, typer.Option(help="A name that `mmlens models` lists, or a folder.")] = (
        "pictos-clip"
    ),
    data: Annotated[
        Text,
        typer.Option(help="A folder FORMAT/CONCEPT/*.png.", show_default="the bundled world"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("goh"),
    results: Annotated[
        Path | None, typer.Option(help="Write the Markdown here, too.", show_default=False)
    ] = None,
    concepts: Annotated[
        Text,
        typer.Option(
            help="Things of the bundled world: dog,cat,... or how many.", show_default="all"
        ),
    ] = None,
    each: Annotated[int, typer.Option(min=4, help="Pictures per concept and format.")] = 12,
    layer: Annotated[int, typer.Option(help="Of the vision tower.")] = -1,
    site: Annotated[
        Text,
        typer.Option(
            help="Where units are read: vision.resid_add, vision.neurons, ...",
            show_default="before the layer's last nonlinearity",
        ),
    ] = None,
    against: Annotated[
        str, typer.Option(help="The model of the matched units, or none.")
    ] = "pictos",
    judged: Annotated[int, typer.Option(min=3, help="Concepts that are judged.")] = 12,
    draws: Annotated[int, typer.Option(min=1, help="Of bootstrap and permutations.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    regions: Annotated[
        bool,
        typer.Option("--regions", help="Only compare units with the published region words."),
    ] = False,
    network: Annotated[str, typer.Option(help="RN50x4, RN101 or RN50, for --regions.")] = "RN50x4",
    feeding: Annotated[
        bool,
        typer.Option(
            "--feeding",
            help="Only ask of a bridge, such as pictos-clip-bridge, whether multimodal units feed"
            " its translating neurons.",
        ),
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Multimodal Neurons in Artificial Neural Networks (Goh et al. 2021)."""
    from mmlens.papers import goh

    wanted = int(concepts) if concepts and concepts.isdigit() else concepts
    things = wanted.split(",") if isinstance(wanted, str) else wanted
    if feeding:
        asked = as_asked(model, device, dtype)
        told, file = goh.feeding_study(asked, things, out, each=each, seed=seed)
        if as_json:
            tell_claims([told], file, file, as_json)
            return
        typer.echo(f"{told.experiment} {told.word}: {told.claim}. {told.says}\n\nTable: {file}")
        return
    if regions:
        whole = loaded(model, device, dtype)
        table: Any = goh.region_check(whole, network, layer=layer, site=site)
        if as_json:
            print_json(table)
            return
        typer.echo(table.to_string(index=False))
        typer.echo(f"\n{int((table['found'] >= 3).sum())} of {len(table)} units have 3 or more.")
        return
    report = goh.reproduce(
        as_asked(model, device, dtype), data, out, concepts=things, each=each, layer=layer,
        site=site, against=None if against == "none" else against, judged=judged, draws=draws,
        seed=seed, results=results,
    )  # fmt: skip
    tell_claims(
        [row.verdict for row in report.sections], report.page, results or report.results, as_json
    )


def in_other_words(error: Exception) -> Exception:
    """What a sweep refuses, in words of the command line."""
    return type(error)(str(error).replace("with resume=False", "with --anew"))


def number_or_word(value: str) -> float | str:
    """A number where the text is one."""
    try:
        return float(value)
    except ValueError:
        return value


QUESTIONS = {
    "E1": ("units",), "E2": ("projection",), "E3": ("of_concept",), "E4": ("choose", "measure"),
    "E5": ("ablation",), "E7": ("sheets",), "methods": ("faithful",), "choices": ("sensitive",),
    "readings": ("readings",),
}  # fmt: skip
"""By question, the numbers of pictures in a plan that are its own."""


def pictures_of(plan: Any, pictures: Sequence[str]) -> Any:
    """The plan with other numbers of pictures: "200" is the most for every question, "E5=50" E5's.

    "choices=0" leaves a question out that is not the paper's.

    Raises:
        ArgumentError: no number from 2 on, or no such question.
    """
    from mmlens.papers.mmn.report.plan import OMITTED

    asked: dict[str, str] = {}
    for one in pictures:
        name, _, number = one.rpartition("=")
        asked[name] = number
    for name, number in asked.items():
        if name and name not in QUESTIONS:
            raise ArgumentError(f"There is no question {name!r}: {nearest(name, QUESTIONS)}.")
        least = 0 if name and set(QUESTIONS[name]) <= set(OMITTED) else 2
        if not number.isdecimal() or int(number) < least:
            raise ArgumentError(
                f"--pictures {name and name + '='}{number} is no number of pictures: write {least}"
                " or more, or E5=50 for one question."
            )
    most = int(asked.pop("", sys.maxsize))
    every = [name for names in QUESTIONS.values() for name in names]
    plan = replace(plan, **{name: min(getattr(plan, name), most) for name in every})
    own = {name: int(n) for question, n in asked.items() for name in QUESTIONS[question]}
    return replace(plan, **own)


def judged_by(backbones: dict[str, str]) -> tuple[Any, Any]:
    """Scorers and caption metrics with the backbones that were named; None for the offline ones."""
    if not backbones:
        return None, None
    from mmlens.metrics.counts import word_overlap_f1
    from mmlens.metrics.image_text import clip_score
    from mmlens.metrics.token_match import bert_score
    from mmlens.papers.scoring import against_captions, against_pictures, default_scorers

    scorers = default_scorers()
    compare: dict[str, Any] = {"word overlap F1": word_overlap_f1}
    if name := backbones.get("CLIPScore"):
        scorers["CLIPScore"] = against_pictures(clip_score, backbone=name)
    if name := backbones.get("BERTScore"):
        scorers["BERTScore"] = against_captions(bert_score, backbone=name, over="mean")

        def like_before(texts: Any, references: Any) -> Any:
            return bert_score(texts, references, backbone=name)

        compare["BERTScore"] = like_before
    return scorers, compare

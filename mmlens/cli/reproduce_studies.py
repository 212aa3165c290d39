"""`mmlens reproduce neo`, `neurons`, `alignment`, `labels`, `hallucination`: a page of claims each.

    mmlens reproduce neo --model pictos --data pictos:held_out:100 --out runs/neo
    mmlens reproduce neurons --model pictos --data pictos:held_out:160 --out runs/neurons
    mmlens reproduce alignment --data pictos:held_out:60 --out runs/alignment
    mmlens reproduce labels --pictures 100 --out runs/labels
    mmlens reproduce hallucination --pictures 200 --out runs/hallucination

A run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmlens.cli.loading import Device, Dtype, Json, as_asked
from mmlens.cli.printing import tell_claims
from mmlens.cli.reproduce import Text, in_other_words, reproduce_app
from mmlens.cli.written_command import written

Model = Annotated[str, typer.Option(help="A name that `mmlens models` lists, or a folder.")]
Out = Annotated[Path, typer.Option(help="Folder of the report and its sweeps.")]
Results = Annotated[
    Path | None, typer.Option(help="Write the Markdown here, too.", show_default=False)
]
Pictures = Annotated[
    int | None, typer.Option(min=1, help="At most so many pictures.", show_default=False)
]
Noun = Annotated[str, typer.Option(help="Nouns of captions: auto, pictos or content.")]
Draws = Annotated[int, typer.Option(min=1, help="Of the bootstrap.")]
Seed = Annotated[int, typer.Option(help="Of all that is drawn at random.")]
Anew = Annotated[bool, typer.Option("--anew", help="Delete what the folder holds, and begin anew.")]


def known(world: str | bool = True) -> Any:
    """The option --data; `world` says which pictures of the bundled world are its default."""
    told = "Pictures whose things are known: pictos:held_out:N or coco:FOLDER."
    return typer.Option(help=told, show_default=world)


@reproduce_app.command("neo")
def neo_command(
    model: Model = "pictos",
    data: Annotated[
        str, typer.Option(help="Pictures with masks: pictos:held_out:N or coco:FOLDER.")
    ] = "pictos:held_out:40",
    out: Out = Path("neo"),
    results: Results = None,
    pictures: Pictures = None,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="So much of a patch must lie on the thing.")
    ] = 0.01,
    noun: Noun = "auto",
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Towards Interpreting Visual Information Processing in VLMs (Neo et al. 2025)."""
    command = written("neo", neo_command, locals())
    from mmlens.datasets.spec import dataset
    from mmlens.papers import neo

    samples = few(dataset(data), pictures)
    how: dict[str, Any] = {"share": share, "noun": noun, "draws": draws, "seed": seed}
    told(neo.reproduce, as_asked(model, device, dtype), samples, out, results, anew, command,
          as_json, **how)  # fmt: skip


@reproduce_app.command("neurons")
def neurons_command(
    model: Model = "pictos",
    data: Annotated[str, known()] = "pictos:held_out:160",
    out: Out = Path("neurons"),
    results: Results = None,
    pictures: Pictures = None,
    pool: Annotated[
        int, typer.Option(min=1, help="The first so many make the lists that read no word.")
    ] = 120,
    noun: Noun = "auto",
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Lists of neurons of four papers (Pan, NAM, MINER, MMNeuron; 2024)."""
    command = written("neurons", neurons_command, locals())
    from mmlens.datasets.spec import dataset
    from mmlens.papers import neurons

    samples = few(dataset(data), None if pictures is None else pictures + pool)
    how: dict[str, Any] = {"pool": pool, "noun": noun, "draws": draws, "seed": seed}
    told(neurons.reproduce, as_asked(model, device, dtype), samples, out, results, anew, command,
          as_json, **how)  # fmt: skip


@reproduce_app.command("alignment")
def alignment_command(
    model: Model = "pictos",
    data: Annotated[
        str, typer.Option(help="Pictures: pictos:held_out:N, coco:FOLDER or a folder.")
    ] = "pictos:held_out:40",
    out: Out = Path("alignment"),
    results: Results = None,
    pictures: Pictures = None,
    noun: Noun = "auto",
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Implicit Multimodal Alignment (Shukor and Cord 2024)."""
    command = written("alignment", alignment_command, locals())
    from mmlens.datasets.spec import dataset
    from mmlens.papers import alignment

    samples = few(dataset(data), pictures)
    how: dict[str, Any] = {"noun": noun, "draws": draws, "seed": seed}
    told(alignment.reproduce, as_asked(model, device, dtype), samples, out, results, anew, command,
          as_json, **how)  # fmt: skip


@reproduce_app.command("labels")
def labels_command(
    model: Model = "pictos",
    data: Annotated[Text, known("60 pictures of three things of the bundled world")] = None,
    out: Out = Path("labels"),
    results: Results = None,
    pictures: Pictures = None,
    k: Annotated[int, typer.Option(min=1, help="Labels of a picture.")] = 10,
    label_prompt: Annotated[str, typer.Option(help="Words before a label.")] = "A picture of a",
    synonyms: Annotated[
        Path | None,
        typer.Option(help="COCO's list of names, a thing a line.", show_default=False),
    ] = None,
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Object Recognition as Next Token Prediction (Yue et al. 2024)."""
    command = written("labels", labels_command, locals())
    from mmlens.datasets import pictos
    from mmlens.datasets.spec import dataset
    from mmlens.metrics.vocabulary import coco_vocabulary
    from mmlens.papers import labels
    from mmlens.papers.labels.labels_report import PICTURES, THINGS

    world = pictos("held_out", pictures or PICTURES, things=THINGS)
    samples = world if data is None else few(dataset(data), pictures)
    words = None if synonyms is None else coco_vocabulary(synonyms)
    how: dict[str, Any] = {"k": k, "label_prompt": label_prompt, "vocabulary": words,
                           "draws": draws, "seed": seed}  # fmt: skip
    told(labels.reproduce, as_asked(model, device, dtype), samples, out, results, anew, command,
         as_json, **how)  # fmt: skip


@reproduce_app.command("hallucination")
def hallucination_command(
    model: Model = "pictos",
    data: Annotated[Text, known("64 pictures of three things of the bundled world")] = None,
    out: Out = Path("hallucination"),
    results: Results = None,
    pictures: Pictures = None,
    captions: Annotated[
        bool, typer.Option("--captions", help="What people's captions mention is there, too.")
    ] = False,
    synonyms: Annotated[
        Path | None,
        typer.Option(help="COCO's list of names, a thing a line.", show_default=False),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a caption.")] = 30,
    draws: Draws = 2000,
    seed: Seed = 0,
    anew: Anew = False,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """What is said to help against hallucination (VCD, PAI, OPERA, VTI; Jiang et al. 2024)."""
    command = written("hallucination", hallucination_command, locals())
    from mmlens.datasets import pictos
    from mmlens.datasets.spec import dataset
    from mmlens.metrics.vocabulary import coco_vocabulary
    from mmlens.papers import hallucination
    from mmlens.papers.hallucination.decoding_report import PICTURES, THINGS

    world = pictos("held_out", pictures or PICTURES, things=THINGS)
    samples = world if data is None else few(dataset(data), pictures)
    words = None if synonyms is None else coco_vocabulary(synonyms)
    how: dict[str, Any] = {"vocabulary": words, "captions": captions, "draws": draws, "seed": seed,
                           "max_new_tokens": max_new_tokens}  # fmt: skip
    told(hallucination.reproduce, as_asked(model, device, dtype), samples, out, results, anew,
          command, as_json, **how)  # fmt: skip


def few(samples: Any, pictures: int | None) -> Any:
    """The first pictures, where a number is given and there are more."""
    return samples if pictures is None or pictures >= len(samples) else samples[:pictures]


def told(study: Any, model: Any, samples: Any, out: Path, results: Path | None, anew: bool,
          command: str, as_json: bool, **how: Any) -> None:  # fmt: skip
    """Run a study, and tell its claims."""
    from mmlens.sweep.record import SweepError

    try:
        report = study(
            model, samples, out, results=results, resume=not anew, command=command, **how
        )
    except SweepError as error:
        raise in_other_words(error) from error
    verdicts = [row.verdict for row in report.sections]
    tell_claims(verdicts, report.page, results or report.results, as_json)

"""`editing`: words rewritten and words taken out, on any bridge, as one page.

OUT/sweeps/named_nouns           what is said of each picture, once
OUT/sweeps/rewritten_word, rewritten_sequence, removed_word      noun by noun, sequence by sequence,
                                 picture by picture: a run that was stopped goes on
OUT/report.html, OUT/results.md, OUT/tables/R1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.sample import Samples
from mmlens.datasets.spec import dataset
from mmlens.model.capabilities import require
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, LEAST, MOST
from mmlens.papers.editing.editing_claims import SOURCES, judged, unmeasured
from mmlens.papers.editing.editing_contests import contests
from mmlens.papers.editing.groups import grouped
from mmlens.papers.editing.questions.first_nouns import named_nouns
from mmlens.papers.editing.questions.removals import removed_word
from mmlens.papers.editing.questions.rewriting import rewritten_word
from mmlens.papers.editing.questions.sequences import (
    OTHER_PROMPT,
    middle_layers,
    rewritten_sequence,
)
from mmlens.papers.editing.said import refusal
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.study_report import Part
from mmlens.papers.swept_questions import answered, swept
from mmlens.papers.tables import ExperimentError, used
from mmlens.towers.language.tokenization import word
from mmlens.values.arguments import count, path
from mmlens.values.errors import CapabilityError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

DATA = "pictos:held_out:240"
TITLE = "Words rewritten and words taken out, measured again"
READ = (
    "Intervals are 95 % bootstrap intervals over nouns, sequences or pictures; differences are"
    " taken one by one, in the same. “Holds”, “fails” and “undecided” are computed from the"
    " intervals by the rule that stands under the claim; of fewer than"
    f" {LEAST} no claim is decided. The papers' numbers are of other models and of questions that"
    " are answered, and are not to be set beside these."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = DATA,
    out: str | Path = "editing",
    *,
    nouns: int = 60,
    sequences: int = 8,
    edits: int = 4,
    pool: int = 30,
    layer: Sequence[int] | None = None,
    k: int = 20,
    prompt: str = PROMPT,
    other_prompt: str = OTHER_PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Rewrite nouns, rewrite them in a row, take them out, and report which claims hold.

    Args:
        data: what `mmlens.dataset` takes; pictures whose caption names something count. Rewriting
            needs two pictures of a noun.
        out: the folder that is written.
        nouns, sequences: how many are asked at most. edits: nouns of a sequence.
        pool: the first so many pictures are those that NSE is to preserve; none of them is
            rewritten or asked after an edit.
        layer: those that NSE changes; by default from the half of the depth to three quarters.
        k, prompt, other_prompt, noun, max_new_tokens: as in the questions.
        draws, seed: of the bootstrap; the seed is that of all that is drawn, too.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        ExperimentError: no picture's caption names anything.
        CapabilityError: the model puts no pictures before a language model.
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    nouns, sequences = count(nouns, "nouns"), count(sequences, "sequences")
    edits, pool = count(edits, "edits", least=2), count(pool, "pool", least=0)
    folder, samples = path(out, "out"), dataset(data)
    loaded = opened(model)
    require(loaded, "logits", "pictures")
    how: dict[str, Any] = {"seed": seed, "resume": resume, "progress": progress}
    reading = {"prompt": prompt, "noun": noun, "max_new_tokens": max_new_tokens}
    named = swept({named_nouns: reading}, loaded, samples, folder, **how)["named_nouns"]
    words, depth = _words(loaded, named), loaded.cfg.n_layers
    layers = middle_layers(depth) if layer is None else list(layer)
    common = {"k": k, "prompt": prompt, "seed": seed}
    in_a_row = {**common, **reading, "layer": layers, "other_prompt": other_prompt}
    early = {"layer": min(2, max(0, depth - 2)), "text_layer": min(1, max(0, depth - 2))}
    away = {**reading, **early, "names": words, "seed": seed}
    missing = {**dict.fromkeys("RS", refusal(loaded)), "A": _no_patches(loaded)}
    plan: dict[str, tuple[Any, Any, Any]] = {
        "R": (rewritten_word, common, {"size": 1, "most": nouns}),
        "S": (rewritten_sequence, in_a_row, {"size": edits, "most": sequences}),
        "A": (removed_word, away, None),
    }
    tables = {}
    for kind, (question, options, groups) in plan.items():
        asked, why = (samples, "") if groups is None else _groups(samples, named, pool, groups)
        missing[kind] = missing[kind] or why
        if asked is not None and not missing[kind]:
            few = {} if groups is None else {"chunk": 1}
            answers = swept({question: options}, loaded, asked, folder, **few, **how)
            tables[kind] = answers[question.__name__]
    parts = _parts(tables, missing, draws=draws, seed=seed)
    lead = (
        f"{loaded.name} ({depth} layers) on {samples.name}: of {len(samples)} pictures"
        f" {answered(named)} have a caption that names something, {len(words)} things in all."
        f" {_told(tables, edits, layers)}"
    )
    about = {**provenance(loaded), "data": samples.name, "pool": pool, "layers of NSE": layers,
             "neurons of rewrite": k, "draws": draws, "seed": seed}  # fmt: skip
    cited = "; ".join(SOURCES.values())
    frame = framed("editing", TITLE, lead, READ, cited, about, command, several=True)
    return write_study(frame, parts, folder, results, contests(tables))


def _parts(tables: dict[str, pd.DataFrame], missing: dict[str, str], **how: Any) -> list[Part]:
    """The parts of all papers; tables of which every answer was skipped are taken out."""
    parts = []
    for kind in SOURCES:
        try:
            parts += (judged(kind, tables[kind], **how) if kind in tables
                      else unmeasured(kind, missing[kind]))  # fmt: skip
        except ExperimentError as error:  # its sentence counts the reasons
            tables.pop(kind)
            parts += unmeasured(kind, str(error))
    return parts


def _groups(
    samples: Samples, named: pd.DataFrame, pool: int, groups: dict[str, int]
) -> tuple[Samples | None, str]:
    """The groups of nouns that are rewritten, or None and why there are none."""
    try:
        return grouped(samples, named, pool=pool, **groups), ""
    except ExperimentError as error:
        return None, str(error)


def _words(model: HookedVLM, named: pd.DataFrame) -> list[str]:
    """The tokens of all nouns that were said first, as they are read."""
    tokens = dict.fromkeys(int(token) for token in used(named, "token")["token"])
    return [word(model.lm, token) for token in tokens]


def _no_patches(model: HookedVLM) -> str:
    """Why no vector can be taken out of a picture's positions, in a sentence, or nothing."""
    try:
        require(model, "unembed", "positions")
    except CapabilityError as error:
        return str(error)
    return ""


def _told(tables: dict[str, pd.DataFrame], edits: int, layers: list[int]) -> str:
    """How many nouns and sequences were rewritten, in a sentence."""
    told = [f"{answered(tables['R'])} nouns are rewritten alone"] if "R" in tables else []
    if "S" in tables:
        where = ", ".join(map(str, layers))
        many = answered(tables["S"])
        told.append(f"{many} sequences of {edits} in a row (NSE in layers {where})")
    return f"{' and '.join(told)}." if told else "No noun is rewritten."

"""`lenses`: which lens names the thing that a patch shows, as one page.

OUT/sweeps/lens_words     the words, picture by picture: a run that was stopped goes on
OUT/fits                  lenses that were fitted, and the index of texts (`lens_fits`)
OUT/report.html, OUT/results.md, OUT/tables/G1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.bundled import pictos
from mmlens.datasets.sample import Samples
from mmlens.datasets.spec import dataset
from mmlens.model.capabilities import require
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.lenses.lens_fits import PARTS, asked_layers, fitted_lenses
from mmlens.papers.lenses.lenses_claims import (
    CLAIMS,
    SOURCES,
    contests,
    every_lens,
    judged,
    told_of_texts,
)
from mmlens.papers.lenses.questions.words_at_patches import (
    INTO,
    LENSES,
    known_lenses,
    lens_words,
    points,
    refused_by,
    summary,
)
from mmlens.papers.mmn.questions.explained import PROMPT
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.swept_questions import answered, swept
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import count, flag, path

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

POOL, PICTURES = 480, 24
TITLE = "Do lenses name what a patch shows?"
READ = (
    "A point is a percent of a thing's patches, beyond what pictures of other things give."
    " Intervals are 95 % bootstrap intervals over pictures, none corrected for how many there are;"
    " differences are taken picture by picture. “Holds”, “fails” and “undecided” are computed from"
    " the intervals by the rule that stands under the claim. Most of the papers measure how well"
    " the model's own next word in texts is predicted, which is another question. What is read at a"
    " patch is not shown to be used."
)


def one_thing(n: int) -> Samples:
    """The first `n` pictures of one thing, held out, of the bundled world."""
    return pictos("held_out", n, things=1, style="literal")


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = None,
    out: str | Path = "lenses",
    *,
    lenses: Sequence[str] = tuple(LENSES),
    pool: int = POOL,
    k: int = 5,
    most: int = 8,
    share: float = 0.5,
    prompt: str = PROMPT,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Read the patches of one thing by every lens, and report which claims hold.

    Args:
        data: what `mmlens.dataset` takes, with masks and captions; None: pictures of one thing of
            the bundled world.
        out: the folder that is written.
        lenses: some of `mmlens.papers.lenses.words_at_patches.LENSES`.
        pool: lenses are fitted, and texts are taken, of the first so many pictures; of the others
            those are asked that show one thing.
        k, most, share, prompt: as in `lens_words`.
        draws: of the bootstrap.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        ExperimentError: no picture is left beside the pool, all show the same thing, or the model
            has no lens that could be asked.
        CapabilityError: the model has no unembedding.
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    pool, chosen = count(pool, "pool"), known_lenses(lenses)
    folder = path(out, "out")
    samples = one_thing(pool + PICTURES) if data is None else dataset(data)
    if len(samples) <= pool:
        raise ExperimentError(
            f"pool={pool} takes all {len(samples)} pictures of {samples.name}: give more pictures,"
            " or a smaller pool."
        )
    first, rest = samples[:pool], samples[pool:]
    loaded = opened(model)
    require(loaded, "unembed")
    shown, resume = flag(progress, "progress"), flag(resume, "resume")
    fits, refused = fitted_lenses(
        loaded, first, folder, chosen, resume=resume, progress=None if shown else False
    )
    left_out = {lens: refused.get(PARTS.get(lens, "")) for lens in chosen}
    left_out = {lens: reason or refused_by(loaded, first[0], lens, fits, prompt)
                for lens, reason in left_out.items()}  # fmt: skip
    left_out = {lens: reason for lens, reason in left_out.items() if reason}
    asked = [lens for lens in chosen if lens not in left_out]
    if not asked:
        raise ExperimentError(
            f"{loaded.name!r} takes none of these lenses: {next(iter(left_out.values()))}"
        )
    options = {"lenses": asked, "fits": fits, "k": k, "most": most, "share": share,
               "prompt": prompt}  # fmt: skip
    tables = swept({lens_words: options}, loaded, rest, folder, seed=seed, resume=resume,
                   progress=shown)  # fmt: skip
    table = tables[lens_words.__name__]
    each, found = points(table), summary(table, draws=draws, seed=seed)
    parts = [every_lens(found, left_out, k)]
    parts += [judged(key, each, draws=draws, seed=seed) for key in CLAIMS]
    if "neighbours" in asked:
        told = told_of_texts(each, table, fits.held["index"].texts)
        parts = [replace(one, notes=[told]) if one.key == "C1" else one for one in parts]
    layers = asked_layers(loaded)
    lead = (
        f"{loaded.name} ({loaded.cfg.n_layers} layers, asked at {len(layers)}) on {samples.name}:"
        f" of {len(rest)} pictures {answered(table)} show one thing whose name is one token;"
        f" lenses were fitted, and texts taken, of {len(first)} others."
    )
    about = {**provenance(loaded), "data": samples.name, "pool": len(first), "draws": draws,
             "seed": seed}  # fmt: skip
    frame = framed("lenses", TITLE, lead, READ, "; ".join(SOURCES), about, command, several=True)
    played = contests(each, passes_of(table, layers), k)
    return write_study(frame, parts, folder, results, played)


def passes_of(table: pd.DataFrame, layers: Sequence[int]) -> dict[str, float]:
    """By lens, forward passes of the language model a picture: those of a patchscope are rows."""
    rows: Any = table[table["skipped"] == ""]
    patches = float(rows.groupby("sample")["patches"].first().astype(float).mean())
    scopes = dict.fromkeys(INTO, 1 + patches * len(layers))
    return {**dict.fromkeys(LENSES, 1.0), **scopes, "nearest": 0.0, "heads": float(len(layers))}

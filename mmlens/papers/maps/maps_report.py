"""`maps`: maps of relevance against random numbers and against each other, as one page.

OUT/sweeps/judged_maps        every measure of every map, picture by picture: a run goes on
OUT/report.html, OUT/results.md, OUT/tables/maps.csv, ...     as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.datasets.spec import dataset
from mmlens.model.capabilities import require
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, LEAST, MOST
from mmlens.papers.maps.map_methods import MASKS, NOISES, chosen
from mmlens.papers.maps.maps_claims import CLAIMS, PAIRS, asked_for, judged
from mmlens.papers.maps.maps_left_out import left_out
from mmlens.papers.maps.maps_overview import contests, costs_of, side_by_side
from mmlens.papers.maps.questions.map_scores import judged_maps, summary
from mmlens.papers.mmn.questions.explained import PROMPT
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.swept_questions import answered, swept
from mmlens.values.arguments import count, path

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

DATA = "pictos:held_out:28"
POOL = 100
"""The names of things in the first so many pictures are those from which an absent one is drawn."""
TITLE = "Maps of relevance, judged against each other"
CITED = "they are named under each part"
READ = (
    "Intervals are 95 % bootstrap intervals over pictures, none corrected for how many there are;"
    " differences are taken picture by picture. “Holds”, “fails” and “undecided” are computed from"
    f" the intervals by the rule that stands under the claim; of fewer than {LEAST} pictures"
    " nothing is decided. The papers measure on other models, data and baselines: what is asked"
    " here is whether their order is found again."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = DATA,
    out: str | Path = "maps",
    *,
    methods: Sequence[str] | None = None,
    steps: int = 21,
    prompt: str = PROMPT,
    max_new_tokens: int = 30,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Map the first thing of every caption by every method, judge the maps, and report.

    Args:
        data: what `mmlens.dataset` takes, with masks; pictures whose caption names a thing that is
            annotated once, in one token, count.
        out: the folder that is written.
        methods: functions of `mmlens.relevance`, and "attribute_picture"; None for all.
        steps, prompt, max_new_tokens: as in `judged_maps`.
        draws: of the bootstrap. seed: of all that is drawn at random.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        ExperimentError: no such method, or no picture has an answer.
        CapabilityError: the model puts no pictures before a language model.
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    names, folder, samples = chosen(methods), path(out, "out"), dataset(data)
    loaded = opened(model)
    require(loaded, "logits", "pictures")
    asked = {
        "methods": None if methods is None else list(methods), "steps": steps, "prompt": prompt,
        "things": sorted({name for sample in samples[:POOL] for name in sample.names}),
        "max_new_tokens": max_new_tokens, "seed": seed,
    }  # fmt: skip
    table = swept({judged_maps: asked}, loaded, samples, folder, seed=seed, resume=resume,
                  progress=progress)[judged_maps.__name__]  # fmt: skip
    found = summary(table, *PAIRS, draws=draws, seed=seed)
    costs, why = costs_of(table), left_out(table)
    rows: Any = {(row["arm"], row["metric"]): row for row in found.to_dict("records")}
    parts = [side_by_side(found, names, why, costs)]
    parts += [judged(key, rows, names, why, costs) for key in CLAIMS if asked_for(key, names)]
    lead = (
        f"{loaded.name} ({loaded.cfg.n_layers} layers) on {samples.name}: of {len(samples)}"
        f" pictures {answered(table)} have a caption that names a thing with a mask in one token."
    )
    about = {**provenance(loaded), "data": samples.name, "points of a curve": steps,
             "draws of noise": NOISES, "masks of RISE": MASKS, "draws": draws,
             "seed": seed}  # fmt: skip
    frame = framed("maps", TITLE, lead, READ, CITED, about, command, several=None)
    return write_study(frame, parts, folder, results, contests(table, costs))

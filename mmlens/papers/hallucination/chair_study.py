"""`hallucination`: what a model names and a picture does not have, before and after edits.

OUT/plain, OUT/NAME       a sweep of each arm, which goes on where it was stopped
OUT/mentions.csv          every mention of every caption;  OUT/summary.csv  CHAIR and the rest
OUT/about.json            model, data, arms, options
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.sample import Samples
from mmlens.datasets.spec import dataset
from mmlens.methods.contrastive_decoding import Contrast
from mmlens.methods.trust_penalty import TrustPenalty
from mmlens.metrics.vocabulary import Vocabulary
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.hallucination.chair_summary import PLAIN, arms_of, summary
from mmlens.papers.hallucination.decoders import decoder
from mmlens.papers.hallucination.questions.said_things import plain, said_things
from mmlens.papers.mmn.questions.explained import PROMPT
from mmlens.papers.tables import ExperimentError, ask
from mmlens.runtime.progress import bar
from mmlens.sweep.sweeping import sweep
from mmlens.values.arguments import count, flag, instance, path, shown
from mmlens.values.edit import Edit
from mmlens.values.edit_lists import one_by_one
from mmlens.values.errors import writing
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@dataclass(frozen=True, eq=False, repr=False)
class HallucinationReport:
    """What `hallucination` found.

    Attributes:
        summary: experiment, arm, metric, mean, low, high, n, skipped, options.
        mentions: sample, arm, caption, mention, thing, there, confidence, things, recalled,
            skipped, options: a row a mention.
        about: provenance.
    """

    summary: pd.DataFrame
    mentions: pd.DataFrame
    about: dict[str, Any]

    def __repr__(self) -> str:
        return f"{self._head()}\n{self._shown().to_string(index=False)}"

    def _repr_html_(self) -> str:
        table = self._shown().to_html(index=False, border=0, escape=True)
        return f"<p>{escape(self._head())}</p>{table}"

    def _head(self) -> str:
        told, arms = self.about, ", ".join(map(str, self.about["arms"]))
        of = f"{told['model']}, {told['pictures']} pictures of {told['data']}"
        return f"HallucinationReport of {of}: {arms}"

    def _shown(self) -> pd.DataFrame:
        columns = ["arm", "metric", "mean", "low", "high", "n"]
        return self.summary[columns].round(3)  # type: ignore[return-value]


@needs("pictures", "generate")
def hallucination(
    model: HookedVLM,
    data: Any = "pictos:held_out:200",
    out: str | Path | None = None,
    *,
    edited: Mapping[str, Any] | None = None,
    prompt: str = PROMPT,
    vocabulary: Vocabulary | None = None,
    captions: bool = False,
    confidence: bool = True,
    sentence: bool = True,
    max_new_tokens: int = 30,
    draws: int = DRAWS,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
) -> HallucinationReport:
    """CHAIR of a model's captions and their internal confidence, also of edited models, paired.

    Args:
        data: what `mmlens.dataset` takes, or `Samples` with things (or captions) that are known.
        out: a folder for sweeps and tables, so that the study goes on where it was stopped; None
            asks in memory.
        edited: by name, the arms that are compared with the model itself: a model, an Edit or
            several, a name of `decoders.DECODERS` ("noise", "words", "trust") or a function (model,
            prompt) -> options of `generate`, or a list of Edits and one of these.
        vocabulary: which words name which things; by default those of the bundled world, for COCO
            `metrics.coco_vocabulary(path)`.
        captions: whether what people's captions mention counts as being there, as on COCO.
        confidence, sentence: as in `said_things`.
        progress: whether a bar is shown, of all arms' pictures together, or with `out` of each arm.
        resume: go on with what the folder holds; False begins anew.

    Raises:
        ExperimentError: no picture of which anything is known, or an arm that is none.
        SweepError: the folder holds another study, or an arm is a function, which no sweep records.
    """
    samples = data if isinstance(data, Samples) else dataset(data)
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    asked = {"prompt": prompt, "captions": captions, "confidence": confidence,
             "sentence": sentence, "max_new_tokens": max_new_tokens}  # fmt: skip
    if vocabulary is not None:
        asked["vocabulary"] = plain(instance(vocabulary, "vocabulary", Vocabulary,
                                             "metrics.coco_vocabulary(path)"))  # fmt: skip
    folder = None if out is None else path(out, "out")
    shown_bar, every = flag(progress, "progress"), arms(model, edited)
    tables = {}
    with bar("hallucination", len(every) * len(samples), shown_bar and folder is None) as step:
        for at, (arm, (changed, decode)) in enumerate(every.items()):
            how = {**asked, **({} if decode is None else {"decode": decode})}
            if folder is None:
                count_on = _counted(step, at * len(samples))
                tables[arm] = ask(said_things, changed, samples, progress=count_on, **how)
            else:
                done = sweep(said_things, changed, samples, folder / arm, options=how, seed=seed,
                             resume=flag(resume, "resume"), progress=shown_bar)  # fmt: skip
                tables[arm] = done.table("said_things")
    mentions = arms_of(tables)
    found = summary(mentions, draws=draws, seed=seed)
    told = {**provenance(model), "data": samples.name, "pictures": len(samples),
            "hash": samples.hash, "arms": list(tables), "draws": draws, "seed": seed}  # fmt: skip
    if folder is not None:
        _write(folder, found, mentions, told)
    return HallucinationReport(found, mentions, told)


def _counted(step: Callable[[int], None], before: int) -> Callable[[int, int], None]:
    """A function of (done, of) of one arm that counts on from the arms before it."""
    return lambda done, of: step(before + done)


def arms(model: HookedVLM, edited: Any) -> dict[str, tuple[Any, Any]]:
    """Each arm's model, and how it decodes.

    Raises:
        ExperimentError: an arm without a usable name, or of something else.
    """
    found: dict[str, tuple[Any, Any]] = {PLAIN: (model, None)}
    instance(edited if edited is not None else {}, "edited", Mapping, "arms by name, {...}",
             error=ExperimentError)  # fmt: skip
    for name, given in (edited or {}).items():
        if name == PLAIN or " - " in str(name) or not re.fullmatch(r"\w[\w ,.+-]*", str(name)):
            raise ExperimentError(
                f"An arm cannot be called {name!r}: begin with a letter, and not as {PLAIN!r}."
            )
        found[str(name)] = _arm(model, str(name), given)
    return found


def _arm(model: Any, name: str, given: Any) -> tuple[Any, Any]:
    if hasattr(given, "edits") and hasattr(given, "generate"):
        return given, None
    several = one_by_one(given)
    edits = [one for one in several if isinstance(one, Edit)]
    rest = [one for one in several if not isinstance(one, Edit)]
    if len(rest) > 1 or not several or not all(isinstance(one, str) or callable(one)
                                               for one in rest):  # fmt: skip
        raise ExperimentError(
            f"The arm {name!r} is {shown(given)}: give a model, Edits, the name of a decoder, or a"
            " list of Edits and one decoder."
        )
    for one in rest:
        decoder(one)
        if isinstance(one, (Contrast, TrustPenalty)):
            raise ExperimentError(
                f"The arm {name!r} is a logits processor of one prompt: write a function of (model,"
                " prompt) that returns {'logits_processor': ...} for each picture."
            )
    return model.edit(*edits) if edits else model, rest[0] if rest else None


def _write(folder: Path, found: Any, mentions: Any, told: Mapping[str, Any]) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "summary.csv", found.to_csv(index=False))
    write_whole(folder / "mentions.csv", mentions.to_csv(index=False))
    write_whole(folder / "about.json", json.dumps(told, indent=2, default=str) + "\n")

"""`concepts`: concepts of words and how they move in a changed model, as one page.

OUT/sweeps/nouns_said                      captions, picture by picture: a stopped run goes on
OUT/sweeps/before, OUT/sweeps/after        streams of the model, and of the changed one
OUT/renamed.json                           the rows that were rewritten
OUT/report.html, OUT/results.md, OUT/tables/C1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmlens.datasets.spec import dataset
from mmlens.model.capabilities import require
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.concepts.concepts_claims import word_parts
from mmlens.papers.concepts.questions.caption_nouns import noun_stream, nouns_said, up_to
from mmlens.papers.concepts.renamed import changed_rows, keep_rows, kept_rows, renamed_model
from mmlens.papers.concepts.shift_claims import shift_parts
from mmlens.papers.concepts.word_streams import WordStreams, chosen, renamings
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.swept_questions import answered, swept
from mmlens.sweep.sweeping import sweep
from mmlens.values.arguments import count, flag, path
from mmlens.values.errors import CapabilityError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

DATA, SHOWN, WORDS = "pictos:held_out:1500", 4, 10
RENAMED = "renamed.json"
TITLE = "Concepts of words and their shifts, measured again"
CITED = (
    "Parekh et al. (2024), A Concept-Based Explainability Framework for Large Multimodal Models,"
    " arXiv:2406.08074; Khayatan et al. (2025), Analyzing Fine-tuning Representation Shift for"
    " Multimodal LLMs Steering, arXiv:2501.03012"
)
READ = (
    "Intervals are 95 % bootstrap intervals over pictures unless it is said otherwise; differences"
    " are taken picture by picture. “Holds”, “fails” and “undecided” are computed from the"
    " intervals by the rule that stands under the claim. The papers make a dictionary of one word"
    " (dog) from thousands of its pictures, and ask CLIPScore and BERTScore; here the dictionary is"
    " of several nouns, and what is in the pictures is known. Steering acts on the one word that is"
    " predicted there, with a scale of 1 and in the last layer."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = DATA,
    out: str | Path = "concepts",
    *,
    changed: HookedVLM | str | Path | None = None,
    nouns: int | Sequence[str] = 12,
    n: int = 20,
    halves: int = 40,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    draws: int = DRAWS,
    seed: int = 0,
    results: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    command: str = "",
) -> StudyReport:
    """Make dictionaries of the streams where nouns are predicted, and report which claims hold.

    Args:
        data: what `mmlens.dataset` takes, with things that are known.
        out: the folder that is written.
        changed: a model that was made of this one, such as a fine-tuned one; by default one that
            calls every second of the nouns by the next one's name.
        nouns: so many of the most frequent first nouns of captions, or these.
        n: directions of a dictionary (at most as many as half of the pictures' half); the papers
            have 20.
        halves: how often the pictures are divided at random.
        prompt, noun, max_new_tokens: as in `caption_nouns.nouns_said`.
        draws: of the bootstrap.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        ExperimentError: fewer than two nouns have four pictures.
        CapabilityError: the model puts no pictures before a language model.
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    n, halves = count(n, "n", least=2), count(halves, "halves", least=2)
    folder, samples = path(out, "out"), dataset(data)
    loaded = opened(model)
    require(loaded, "logits", "pictures")
    other = opened(changed)
    how: dict[str, Any] = {"seed": seed, "resume": flag(resume, "resume"),
                           "progress": flag(progress, "progress")}  # fmt: skip
    asked = {"prompt": prompt, "noun": noun, "max_new_tokens": max_new_tokens}
    table = swept({nouns_said: asked}, loaded, samples, folder, **how)["nouns_said"]
    streams = chosen(table, nouns)
    few = samples.pick([samples.ids.index(one) for one in streams.ids])
    n = min(n, len(streams.ids) // 4)
    given: dict[str, Any] = {"said": streams.said, "prompt": prompt}
    streams = replace(
        streams, before=_streams(loaded, few, folder / "sweeps" / "before", given, how)
    )
    lacking = ""
    if other is None:
        other, lacking = _renamed(loaded, few, streams, folder / RENAMED, prompt, how["resume"])
    if other is not None:
        after = _streams(other, few, folder / "sweeps" / "after", given, how)
        streams = replace(streams, after=after)
    told = {"n": n, "words": WORDS, "draws": draws, "seed": seed}
    first, contest = word_parts(loaded, streams, halves=halves, **told)
    second, more = shift_parts(loaded, streams, **told, lacking=lacking)
    lead = (
        f"{loaded.name} ({loaded.cfg.n_layers} layers) on {samples.name}: of {len(samples)}"
        f" pictures {answered(table)} have a caption that names something, and"
        f" {len(streams.ids)} name first one of {len(streams.names)} nouns:"
        f" {', '.join(streams.names)}. Dictionaries have {n} directions. {_told(changed, streams)}"
    )
    about = {**provenance(loaded), "data": samples.name, "directions": n, "draws": draws,
             "seed": seed}  # fmt: skip
    frame = framed("concepts", TITLE, lead, READ, CITED, about, command, several=True)
    return write_study(frame, [*first, *second], folder, results, contests=[contest, *more])


def _streams(model: Any, samples: Any, folder: Path, given: Any, how: Any) -> torch.Tensor:
    """Float[row, dim]: the streams of these samples in a model, swept."""
    done = sweep(noun_stream, model, samples, folder, options=given, **how)
    rows = {name: one.values for name, one in done.each("noun_stream")}
    return torch.stack([rows[name] for name in samples.ids]).float().cpu()


def _renamed(
    model: Any, samples: Any, streams: WordStreams, file: Path, prompt: str, resume: bool
) -> tuple[Any, str]:
    """The model that calls nouns by another's name, or None and why there is none."""
    names = renamings(streams)
    made_of = {"data": samples.hash, "model": model.name, "prompt": prompt, "names": names}
    change = kept_rows(file, made_of) if resume else None
    if change is None:
        prompts = {}
        for noun in streams.names:
            own = [at for at, one in enumerate(streams.nouns) if one == noun and streams.pool[at]]
            token = streams.token_of(noun)
            prompts[token] = [up_to(model, samples[at], streams.ids_before[at], prompt)
                              for at in own if streams.tokens[at] == token][:SHOWN]  # fmt: skip
        pairs = [(streams.token_of(one), streams.token_of(new)) for one, new in names.items()]
        try:
            change = changed_rows(model, pairs, prompts)
        except CapabilityError as error:  # the other claims need no changed model
            return None, str(error)
        keep_rows(file, made_of, change)
    return renamed_model(model, change, names), ""


def _told(changed: Any, streams: WordStreams) -> str:
    """Which model is the changed one, in a sentence."""
    if changed is not None:
        return f"The changed model is {getattr(changed, 'name', changed)}."
    if streams.after is None:
        return "There is no changed model."
    pairs = "; ".join(f"{one} is called {new}" for one, new in renamings(streams).items())
    return f"The changed model's W_out is rewritten: {pairs}."

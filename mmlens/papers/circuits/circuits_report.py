"""`circuits`: circuits of units and graphs of nodes, silenced, as one page.

OUT/sweeps/...       both questions, picture by picture: a run that was stopped goes on
OUT/report.html, OUT/results.md, OUT/tables/V1.csv, ...       as in `mmlens.papers.study_folder`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.datasets.spec import dataset
from mmlens.model.capabilities import require
from mmlens.model.provenance import about as provenance
from mmlens.papers.bootstrap import DRAWS, MOST
from mmlens.papers.circuits.circuits_claims import circuit_parts, contests, graph_parts
from mmlens.papers.circuits.questions.graphs import graph_nodes
from mmlens.papers.circuits.questions.pruning import pruned_circuit
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.study_folder import StudyReport, framed, opened, write_study
from mmlens.papers.swept_questions import answered, swept
from mmlens.values.arguments import count, path

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

DATA = "pictos:held_out:32"
TITLE = "Circuits and graphs of a word, silenced"
CITED = (
    "Rajaram et al. (2024), Automatic Discovery of Visual Circuits, arXiv:2404.14349; Ameisen et"
    " al. (2025), Circuit Tracing: Revealing Computational Graphs in Language Models"
)
READ = (
    "Intervals are 95 % bootstrap intervals over pictures; differences are taken picture by"
    " picture. A share that is lost or kept is a ratio of means. “Holds”, “fails” and “undecided”"
    " are computed from the intervals by the rule that stands under the claim. The first paper"
    " finds circuits of a few examples in encoders; here each picture has its own, in the"
    " units of the language model. The second has transcoders; here nodes are neurons at positions."
)


def reproduce(
    model: HookedVLM | str | Path = "pictos",
    data: Any = DATA,
    out: str | Path = "circuits",
    *,
    ks: Sequence[int] = (5, 25),
    drawn: int = 3,
    nodes: int = 60,
    checked: int = 20,
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
    """Prune the circuit of every picture's noun, check its graph, and report which claims hold.

    Args:
        data: what `mmlens.dataset` takes; pictures whose caption names something count.
        out: the folder that is written.
        ks: units of each layer, a circuit for each number; claims are judged at the largest.
        drawn: how often others are drawn.
        nodes: at most so many units in a graph. checked: of which so many are silenced.
        prompt, noun, max_new_tokens: as in the questions.
        draws: of the bootstrap.
        results: write the Markdown here, too.
        resume: go on with what the folder holds; False begins anew.
        command: the command line, for the page.

    Raises:
        CapabilityError: the model puts no pictures before a language model.
        SweepError: the folder holds another study.
    """
    draws, seed = count(draws, "draws", most=MOST), count(seed, "seed", least=0)
    folder, samples = path(out, "out"), dataset(data)
    loaded = opened(model)
    require(loaded, "logits", "pictures")
    asked = {"prompt": prompt, "noun": noun, "max_new_tokens": max_new_tokens, "seed": seed}
    questions: Any = {
        pruned_circuit: {"ks": list(ks), "drawn": drawn, **asked},
        graph_nodes: {"k": count(nodes, "nodes"), "checked": count(checked, "checked"), **asked},
    }
    tables = swept(questions, loaded, samples, folder, seed=seed, resume=resume, progress=progress)
    pruned, graph = (tables[one.__name__] for one in (pruned_circuit, graph_nodes))
    parts, found = circuit_parts(pruned, draws=draws, seed=seed)
    parts += graph_parts(graph, draws=draws, seed=seed)
    lead = (
        f"{loaded.name} ({loaded.cfg.n_layers} layers of {loaded.cfg.d_mlp} units) on"
        f" {samples.name}: of {len(samples)} pictures {answered(pruned)} have a caption that names"
        " something."
    )
    about = {**provenance(loaded), "data": samples.name, "draws": draws, "seed": seed}
    frame = framed("circuits", TITLE, lead, READ, CITED, about, command, several=None)
    return write_study(frame, parts, folder, results, contests(found, graph))

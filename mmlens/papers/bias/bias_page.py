"""The page of an audit: what was found, how it was measured, and what it can't show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import torch

from mmlens.papers.bias.associations import visible
from mmlens.papers.bias.concepts_file import Concepts
from mmlens.papers.page_parts import (
    both,
    filled_page,
    in_page,
    plain_table,
    provenance_list,
    tidy,
)
from mmlens.values.scores import Scores
from mmlens.view.figures.heatmap import heatmap

P = 0.05
CITED = (
    "Caliskan, Bryson and Narayanan (2017), Semantics derived automatically from language corpora"
    " contain human-like biases, doi:10.1126/science.aal4230; Goh et al. (2021), doi:10.23915/"
    "distill.00030"
)
HOW = {
    "embeddings": "d is how much nearer a group's stimuli are to a concept than those of the other"
    " groups, in standard deviations over all of them. The mean of each kind of stimulus is taken"
    " out first. p is of permutations of the groups' names, two-sided; p_holm is corrected for all"
    " tests of the table.",
    "units": "Per concept and group the unit that answers most to both: z is the lesser of two"
    " differences, concept against the other concepts and group against the other groups, in"
    " standard deviations. p is the larger of two, corrected for all units of the layer (p_family)"
    " and for all pairs (p_holm).",
    "limits": "What these numbers do not say.",
}
TITLES = {
    "embeddings": "Which concepts are near which groups?",
    "units": "Does a single unit answer to a concept and a group?",
    "limits": "What this audit can't show",
}


def limits(table: pd.DataFrame, given: Concepts) -> list[str]:
    """What the audit can't show, in sentences."""
    small: Any = table.loc[(1 / table["n"] + 1 / table["n_others"]).idxmax()]
    least = visible(int(small["n"]), int(small["n_others"]))
    return [
        "It compares the stimuli that were supplied. A group's pictures may differ from the others'"
        " in more than the group: in background, light, style or source. Such a difference is"
        " measured as if it were the group's.",
        f"A test that finds nothing shows no absence. With {int(small['n'])} stimuli in the"
        f" smallest group and {int(small['n_others'])} beside it, an effect below d = {least:.1f}"
        " is missed more than one time in five, and more often after correction.",
        "p-values treat stimuli as independent. Pictures of one person, one hand or one source are"
        " not, and p is then too small, unless the concepts file says which are one stimulus. The"
        " stimuli of a concept are taken as fixed: nothing is said of other words or pictures.",
        "Everything is relative, to the other groups and to the other concepts: where one concept"
        " is near a group, the others are farther from it by that alone.",
        "Nearness of embeddings is no decision. What a classifier, a search or a filter built on"
        " this model does to people is another measurement.",
        "A unit that answers to both is not shown to cause anything: silence it and measure again."
        " The z of the strongest of many units is too large on average; p_family accounts for that,"
        " the number itself does not.",
        "Words are drawn in one font, in the language of the concepts file. Groups are those of the"
        f" file {given.file.name!r}, and its author's; who belongs to none of them does not occur.",
    ]


def page(
    table: pd.DataFrame,
    units: pd.DataFrame,
    cannot: Sequence[str],
    about: Mapping[str, Any],
    given: Concepts,
    model: str,
) -> str:
    """The page as text."""
    drawn = {"embeddings": both(lambda: _map(table))}
    found = [_found(table, "association"), _found(units, "pair of concept and group")]
    parts = [
        _section("embeddings", found[0], _top(table, _of_row), table, bool(drawn["embeddings"])),
        _section("units", found[1], _top(units, _of_unit), units, False),
        _section("limits", "", [], pd.DataFrame(), False, cannot),
    ]
    lead = f"{model}: {given.about or given.file.name}"
    return filled_page(
        drawn,
        study="audit-bias",
        title="What is associated with whom",
        lead=escape(lead),
        tally="What was found",
        claims="\n".join(f'<li class="claim open"><p>{in_page(one)}</p></li>' for one in found),
        nav="\n".join(f'<a href="#{key}">{escape(key)}</a>' for key in TITLES),
        sections="\n".join(parts),
        how="d of .2, .5 and .8 is often called small, medium and large; blue is nearer, red is"
        " farther. Intervals are of 95 %, one by one, and not corrected.",
        about=provenance_list(about),
        cited=escape(CITED),
    )


def _found(table: pd.DataFrame, what: str) -> str:
    n = sum(float(p) <= P for p in table["p_holm"])
    return (
        f"{n} of {len(table)} tests find an {what} that is unlikely to be chance (p_holm at most"
        f" {P}) ." if what[0] == "a" else
        f"{n} of {len(table)} tests find a unit for a {what} (p_holm at most {P})."
    ).replace(" .", ".")  # fmt: skip


def _map(table: pd.DataFrame) -> Any:
    """d by concept and group, of the first way in which both are shown."""
    first = table.iloc[0] if len(table) else None
    if first is None:
        return None
    own: Any = table[(table["concept_as"] == first["concept_as"])
                     & (table["group_as"] == first["group_as"])]  # fmt: skip
    grid = own.pivot(index="concept", columns="group", values="d")
    values = torch.tensor(grid.to_numpy(), dtype=torch.float32)
    labels = {"concept": tuple(grid.index), "group": tuple(grid.columns)}
    title = f"d: concepts as {first['concept_as']}, groups as {first['group_as']}"
    return heatmap(Scores(values, ("concept", "group"), labels), title=title)


def _top(table: pd.DataFrame, line: Any, k: int = 12) -> list[list[str]]:
    return [line(row) for row in table.head(k).to_dict("records")]


def _of_row(row: Mapping[str, Any]) -> list[str]:
    return [f"{row['concept']} ({row['concept_as']})", f"{row['group']} ({row['group_as']})",
            f"{row['d']:+.2f} [{row['d_low']:+.2f}, {row['d_high']:+.2f}]", f"{row['p']:.4f}",
            f"{row['p_holm']:.4f}"]  # fmt: skip


def _of_unit(row: Mapping[str, Any]) -> list[str]:
    return [f"{row['concept']} ({row['concept_as']})", f"{row['group']} ({row['group_as']})",
            f"{row['neuron']}: z {row['z']:+.2f} [{row['z_low']:+.2f}, {row['z_high']:+.2f}]",
            f"{row['p_family']:.4f}", f"{row['p_holm']:.4f}"]  # fmt: skip


def _section(
    key: str,
    says: str,
    rows: list[list[str]],
    table: pd.DataFrame,
    drawn: bool,
    listed: Sequence[str] = (),
) -> str:
    parts = [
        f'<section class="part" id="{key}" aria-labelledby="{key}-title">',
        f'<header><h2 id="{key}-title">{escape(TITLES[key])}</h2></header>',
        f'<p class="how">{in_page(HOW[key])}</p>',
    ]
    parts += [f'<p class="says">{in_page(says)}</p>'] if says else []
    parts += (
        [
            f'<div class="figure" data-figure="{key}" role="group"'
            f' aria-label="{escape(TITLES[key], quote=True)} The tables hold its numbers."></div>'
        ]
        if drawn
        else []
    )
    head = ["concept", "group", "d" if key == "embeddings" else "unit",
            "p" if key == "embeddings" else "p_family", "p_holm"]  # fmt: skip
    parts += [plain_table([head, *rows])] if rows else []
    parts += [tidy(table)] if len(table) else []
    parts += [f"<ul>{''.join(f'<li>{in_page(one)}</li>' for one in listed)}</ul>"] if listed else []
    return "\n".join([*parts, "</section>"])

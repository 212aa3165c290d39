"""What was found, beside what was published, and in plain words what differs and why.

Every sentence that judges is chosen by the numbers of the summary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmlens.papers.mmn.report import verdicts
from mmlens.papers.mmn.report.outcomes import Outcome
from mmlens.papers.mmn.report.paper import published
from mmlens.papers.mmn.report.readings_table import TABLES, readings_told
from mmlens.papers.mmn.report.told import PICTOS_DIFFERS, Finding, Row, Setting
from mmlens.papers.mmn.report.verdicts import CLAIMS, STAYS, P, change, interval, probability


def finding(found: Outcome, setting: Setting) -> Finding:
    """The words about one experiment."""
    judged = verdicts.verdict(found.key, found.summary, found.why) if found.key in CLAIMS else None
    if found.why or not len(found.summary):
        return Finding(found.key, f"Not measured: {found.why}", judged)
    says, rows, differs = _TELLERS[found.key](found, setting)
    if judged is not None and judged.holds is False and setting.family == "pictos":
        differs = [*differs, *PICTOS_DIFFERS.get(found.key, [])]
    table = TABLES[found.key](found) if found.key in TABLES else []
    return Finding(
        found.key, judged.says if judged else says, judged, rows, differs, table, _pictures(found)
    )


def _pictures(found: Outcome) -> str:
    """Pictures asked about, and those of them that had no answer."""
    told = " + ".join(str(n) for n in found.asked.values()) + " pictures"
    table: Any = found.summary
    if found.key == "E7":
        missing = table.loc[table["skipped"] != "", "sample"].nunique()
    else:
        missing = int(table["skipped"].iloc[0]) if "skipped" in table.columns else 0
    return f"{told}, {missing} without an answer."


Told = tuple[str, list[Row], list[str]]


def number(row: Any, how: str = ".3f") -> str:
    """Mean and interval of a row."""
    return f"{float(row['mean']):{how}}".replace("%", " %") + f" {interval(row, how)}".rstrip()


def _row(key: str, what: str, here: str, label: str = "") -> Row:
    printed = published(key, what)
    paper = (printed.value, printed.source) if printed else ("", "")
    return Row(label or what, here, *paper)


def _by_metric(rows: Any, how: str = ".3f") -> str:
    return "; ".join(f"{row['metric']} {number(row, how)}" for row in rows.to_dict("records"))


def _translates(found: Outcome, setting: Setting) -> Told:
    rows = [
        _row("E1", arm, _by_metric(found.rows(arm=arm)), label)
        for arm, label in (
            ("random", "wrong pictures (baseline)"),
            ("neurons", "neurons"),
            ("caption", "the model's caption"),
        )
    ]
    rows.append(_row("E1", "from random to caption", _way(found)))
    differs = [STANDS_IN] if setting.offline else []
    gaps = found.rows(arm="neurons - random")
    for gap in gaps[~(gaps["low"] > 0)].to_dict("records"):
        differs.append(
            f"By {gap['metric']} neurons are not told from wrong pictures with {gap['n']} pictures;"
            " the paper has 1000."
        )
    own = found.rows(arm="caption - neurons")
    if (own["high"] < 0).any():
        differs.append(
            "Where the best unit scores above the whole caption, a list of near words meets more of"
            " what people said than one short sentence does."
        )
    return "", rows, differs


def _way(found: Outcome) -> str:
    """How far of the way from wrong pictures to the caption the neurons go."""
    parts = []
    for metric in found.summary["metric"].unique():
        low, own, high = (
            float(found.rows(arm=arm, metric=metric)["mean"].iloc[0])
            for arm in ("random", "neurons", "caption")
        )
        if high > low:
            parts.append(f"{(own - low) / (high - low):.0%} ({metric})".replace("%", " %"))
    return "; ".join(parts) or "the caption is no better than wrong pictures"


def _projection(found: Outcome, setting: Setting) -> Told:
    rows = []
    for arm, label in (
        ("random", "random vectors (baseline)"),
        ("prompt", "projected patches"),
        ("nouns", "nouns of people's captions"),
        ("caption", "the model's caption"),
    ):
        own = found.rows(arm=arm, over="max")
        own = own[own["metric"] != "cosine"]
        if len(own):
            rows.append(_row("E2", arm, _by_metric(own), f"{label}, best patch"))
    for pair in ("prompt ~ random", "nouns ~ prompt"):
        own = found.rows(arm=pair, over="max")
        own = own[own["metric"] != "D of cosine"]
        told = [
            f"{r['metric'].removeprefix('D of ')}: D = {number(r)}, p {probability(r['p'])}"
            for r in own.to_dict("records")
        ]
        rows.append(_row("E2", pair, "; ".join(told), f"{pair.replace('~', 'and')}, best patch"))
    differs = [STANDS_IN] * setting.offline
    differs.append(
        "A large p-value doesn't show that distributions are equal, a D that is shown to be small"
        " does. p: arms swapped within pictures, corrected for the number of comparisons (Holm)."
    )
    if verdicts.verdict("E2", found.summary).holds is False:
        differs.append(
            "Unlike in the paper, projected patches already lie near words that fit the picture: in"
            " this model a part of the translation is done before the language model begins."
        )
    return "", rows, differs


def _regions(found: Outcome, setting: Setting) -> Told:
    gaps = found.rows(arm="attributed - random", metric="IoU")
    gaps = gaps[gaps["concept"] != "all"]
    above = f"{int((gaps['mean'] > 0).sum())} of {len(gaps)}"
    rows = [_row("E3", "concepts above random", above)]
    for arm, label in (
        ("random", "IoU of random units"),
        ("attributed", "IoU of top units"),
        ("mean map of random", "IoU of the mean map of random units"),
        ("mean map", "IoU of the mean map of the top units"),
    ):
        own = found.rows(arm=arm, metric="IoU", concept="all")
        if len(own):
            rows.append(_row("E3", arm, number(own.iloc[0]), label))
    ceiling = found.rows(metric="ceiling", concept="all")
    top = f"{float(ceiling['mean'].iloc[0]):.2f} here" if len(ceiling) else "not known here"
    differs = [
        f"A mask of the top 5 % can reach only a certain IoU, depending on the thing's size ({top},"
        " on average): values are compared with random units and not with the paper's."
    ]
    if (~(gaps["low"] > 0)).any():
        differs.append(
            f"A concept has {int(gaps['n'].min())} to {int(gaps['n'].max())} pictures here, so its"
            " own interval is wide."
        )
    return "", rows, differs


def _classes(found: Outcome, setting: Setting) -> Told:
    own = found.rows(metric="own class highest")
    told = f"{int(own['mean'].sum())} of {len(own)}"
    says = f"Units of a class are most active on that class for {told} classes."
    lost = [str(arm) for arm, value in zip(own["arm"], own["mean"], strict=True) if not value]
    differs = [f"Most active on another class: units of {', '.join(lost)}."] if lost else []
    few = int(found.rows(metric="activation")["n"].min())
    differs.append(f"The paper uses 200 pictures a class, here it is as few as {few}.")
    return says, [_row("E4", "own class highest", told)], differs


def _ablation(found: Outcome, setting: Setting) -> Told:
    drops = found.rows(metric="drop")
    most = int(drops.loc[drops["arm"] == "attributed", "k"].max())
    share = f"{most} of {setting.units:,} units" if setting.units else f"{most} units"
    rows, arms = [], {"attributed": "top", "interpretable": "top interpretable", "random": "random"}
    for arm, label in arms.items():
        own = drops[(drops["arm"] == arm) & (drops["k"] == most)]
        if len(own):
            told = f"probability {change(own.iloc[0])} ({share})"
            rows.append(_row("E5", arm, told, f"without {label} units"))
    for sinks in drops[drops["arm"] == "sinks"].to_dict("records"):
        told = f"probability {change(sinks)} ({int(sinks['k'])} units a picture, on average)"
        rows.append(Row("without the units that are huge at the first position", told))
    for metric, how in (("probability", ".3f"), ("caption unchanged", ".0%")):
        for arm, k, label in (
            ("attributed", 0, "before"),
            ("attributed", most, "without top units"),
            ("random", most, "without random units"),
        ):
            own = found.rows(metric=metric, arm=arm, k=k)
            if len(own) and (k or metric == "probability"):
                rows.append(Row(f"{metric}, {label}", number(own.iloc[0], how)))
    differs = [
        f"Numbers of units are the paper's shares: 6400 of 458,752 are 1.4 %, here {share}."
        " A fall is that of the mean probability, 1 - mean p_k / mean p_0; the paper doesn't say"
        " how it averages, and a mean of 1 - p_k / p_0 is ruled by pictures whose p_0 is tiny."
    ]
    random = drops[(drops["arm"] == "random") & (drops["k"] == most)]
    if len(random) and abs(float(random["mean"].iloc[0])) >= STAYS:
        width = f" of {setting.units // setting.layers:,} units" if setting.layers else ""
        differs.append(
            f"Random units matter here, too. They are drawn from the layers of the top ones, and"
            f" {most} units are a large part of a layer{width} if most of them lie in one."
        )
    if verdicts.verdict("E5", found.summary).holds is False:
        differs += _last_step(drops[drops["arm"] == "attributed"])
    return "", rows, differs


def _last_step(drops: Any) -> list[str]:
    """How much the last of the top units still add."""
    told = []
    if len(drops) > 2:
        before, last = drops.sort_values("k").iloc[-2], drops.sort_values("k").iloc[-1]
        told.append(
            f"The last {int(last['k'] - before['k'])} of the {int(last['k'])} units add"
            f" {100 * float(last['mean'] - before['mean']):.0f} points to the fall."
        )
    return told


def _layers(found: Outcome, setting: Setting) -> Told:
    own = found.rows(arm="all", metric="share").sort_values("layer")
    top: Any = own.loc[own["mean"].idxmax()]
    layers = setting.layers or int(own["layer"].max()) + 1
    first = float(own["mean"].iloc[0])
    says = (
        f"Most top units lie in layer {int(top['layer'])} of 0 to {layers - 1}:"
        f" {number(top, '.0%')} of a picture's; {round(100 - 100 * first)} % lie beyond the first."
    )
    units, words = (
        found.rows(arm=arm, metric="units")["mean"].sum() for arm in ("all", "interpretable")
    )
    rows = [
        _row("E6", "layers", f"{100 * float(top['mean']):.0f} % in layer {int(top['layer'])}"),
        _row("E6", "interpretable", f"{100 * words / units:.0f} % of the different top units",
             "units that decode to words"),
    ]  # fmt: skip
    differs = []
    if first > 0.5:
        differs.append(
            "Unlike in the paper, the first layer has most of them: what the projection writes is"
            " read as soon as it enters, which leaves less to later layers."
        )
    return says, rows, differs


def _sheets(found: Outcome, setting: Setting) -> Told:
    rows = found.summary
    there = rows.loc[rows["skipped"] == "", "sample"].nunique()
    return f"{there} pictures of the data, the first ones, not chosen by hand.", [], []


def _faithful(found: Outcome, setting: Setting) -> Told:
    areas = found.rows(metric="area", at="image")
    areas = areas[~areas["arm"].str.contains(" - ")].sort_values("mean")
    best, rest = areas.iloc[0], areas.iloc[1:]
    says = f"At the picture, the ranking by {best['arm']} leaves least: {number(best)}"
    if len(rest):
        says += f"; next is {rest.iloc[0]['arm']}, {number(rest.iloc[0])}"
    rows = [Row(str(r["arm"]), number(r)) for r in areas.to_dict("records")]
    note = (
        "Mean probability left along the curve of silenced units, at the positions of the picture."
    )
    return says + ".", rows, [note]


def _sensitive(found: Outcome, setting: Setting) -> Told:
    table: Any = found.summary
    gaps = table[table["arm"].str.endswith(" - default")]
    clear = gaps[gaps["p"] <= P]
    results = clear[clear["metric"].isin(["drop", "best text", "IoU"])]
    arms = list(dict.fromkeys(arm.removesuffix(" - default") for arm in results["arm"]))
    says = f"Results of E1, E3 or E5 change with {', '.join(arms)}."
    says = says if arms else "No reading is seen to change a result of E1, E3 or E5."
    return says, [], [
        "In brackets: the difference from the default, where it is more than chance (p <= .05 by"
        f" flipping signs, corrected for all {len(gaps)} comparisons after Holm)."
    ]  # fmt: skip


STANDS_IN = (
    "Word overlap and world score stand in for BERTScore and CLIPScore, which need a pretrained"
    " backbone: the order of the arms is to be compared, not the values."
)
_TELLERS: dict[str, Callable[[Outcome, Setting], Told]] = {
    "E1": _translates,
    "E2": _projection,
    "E3": _regions,
    "E4": _classes,
    "E5": _ablation,
    "E6": _layers,
    "E7": _sheets,
    "faithfulness": _faithful,
    "sensitivity": _sensitive,
    "readings": lambda found, setting: readings_told(found),
}

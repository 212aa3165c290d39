"""Where figures begin, what they call their numbers, and that no label lies over another."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mmlens as mm
from mmlens import Head, Neuron, Patch, Scores, Token, patching, view
from mmlens.families import toy
from mmlens.view.still.drawing import still
from mmlens.view.still.marks import Text, wide
from mmlens.view.style import theme
from mmlens.view.style.paint import OPACITY, RAISES, ground, painted

PHOTO = Image.new("RGB", (40, 30), (120, 120, 120))
PATCHES = tuple(Patch(row, col) for row in range(3) for col in range(4))
GROUPS = ("its patches", "last word")


def patched(direction: str = "denoise", **told: Any) -> Scores:
    """A metric around -7, of which the second place brings a half."""
    values = torch.tensor([[-7.0, -5.0], [-7.0, -3.0]])
    about = {"method": "patch", "metric": "logit difference ' dog' − ' koala'",
             "direction": direction, "clean": -3.0, "corrupt": -7.0}  # fmt: skip
    return Scores(values, ("layer", "pos"), {"pos": GROUPS}, {**about, **told})


def test_a_map_of_patching_begins_at_the_run_that_is_patched():
    heat = view.heatmap(patched()).data[0]
    assert np.allclose(heat.z, [[0, 0.5], [0, 1]])
    assert (heat.zmin, heat.zmax) == (-1, 1)
    assert (
        "logit difference ' dog' − ' koala'" in view.heatmap(patched()).layout.title.subtitle.text
    )
    assert "share restored <b>" in heat.hovertemplate
    back = view.heatmap(patched("noise", clean=-7.0, corrupt=-3.0))
    assert np.allclose(back.data[0].z, [[0, 0.5], [0, 1]])
    assert "share destroyed" in back.data[0].hovertemplate


def test_every_view_of_patching_begins_there_and_scores_stay_as_they_are():
    scores = patched()
    bars = view.bars(scores.sel(layer=1))
    assert np.allclose(bars.data[0].y, [0, 1]) and bars.layout.yaxis.title.text == "share restored"
    values = torch.full((12,), -7.0).index_fill(0, torch.tensor([5]), -5.0)
    here = Scores(values, ("pos",), {"pos": PATCHES}, scores.about)
    on = view.on_image(PHOTO, here)
    assert np.nanmax(on.data[0].z) == pytest.approx(0.5) and np.nanmin(on.data[0].z) == 0
    assert on.data[1].marker.cmin == -on.data[1].marker.cmax
    both = Scores(torch.stack([values, values]), ("layer", "pos"), {"pos": PATCHES}, scores.about)
    assert np.nanmax(view.panels(PHOTO, both).data[0].z) == pytest.approx(0.5)
    path = Scores(torch.tensor([-7.0, -5.0]), ("sender",), {"sender": (Head(0, 1), Head(1, 2))},
                  {**scores.about, "method": "path_patching"})  # fmt: skip
    assert np.allclose(view.bars(path).data[0].y, [0, 0.5])
    assert float(scores.values.min()) == -7


def test_what_is_left_without_a_place_is_drawn_as_a_change_and_named_by_its_metric():
    about = {"method": "ablate", "metric": "probability of ' dog'", "clean": 0.9}
    figure = view.bars(Scores(torch.tensor([0.9, 0.4]), ("layer",), {}, about))
    assert np.allclose(figure.data[0].y, [0, -0.5])
    assert "change of the probability of ' dog' without it" in figure.data[0].hovertemplate
    curve = Scores(torch.tensor([[0.9, 0.4]]), ("arm", "k"), {"arm": ("ranked",), "k": (0, 1)},
                   {**about, "method": "ablation_curve"})  # fmt: skip
    lines = view.curves(curve)
    assert np.allclose(lines.data[0].y, [0.9, 0.4]) and lines.layout.shapes[0].y0 == 0.9
    beside = lines.layout.yaxis.title.text.split("<br>")
    assert " ".join(beside) == "probability of ' dog' without the units" and len(beside) == 2


def test_results_keep_the_name_of_their_metric_and_no_figure_says_metric():
    model = mm.load("toy-gptj-planted")
    prompt = mm.Prompt(toy.picture((2, 1)), "A picture of")
    pair = patching.Pair(prompt, mm.Prompt(toy.picture((0, 0)), "A picture of"))
    metric = patching.metrics.logit_difference(model, " dog", " cat")
    scores = patching.patch(model, pair, metric, layer=[0], pos=[-1])
    assert scores.about["metric"] == "logit difference ' dog' − ' cat'"
    dog = int(model.to_single_token(" dog"))
    named = patching.metrics.probability(model, dog)
    assert patching.ablate(model, prompt, named, layer=[0], pos=[-1]).about["metric"] == (
        "probability of ' dog'"
    )
    unnamed = patching.ablate(model, prompt, lambda logits: logits[0], layer=[0], pos=[0, 1])
    told = view.show(unnamed).layout
    assert "change of the value of your function" in told.title.subtitle.text


def test_zero_has_one_colour_in_every_map_of_a_theme():
    for name in ("light", "dark"):
        view.use_theme(name)
        stops = theme.colours()
        view.use_theme("auto")
        assert stops["diverging"][3] == stops["sequential"][0]
    below = view.heatmap(Scores(-torch.rand(2, 2) - 1, ("layer", "head"))).data[0]
    above = view.heatmap(Scores(torch.rand(2, 2) + 1, ("layer", "head"))).data[0]
    assert below.zmin == -below.zmax and above.zmin == 0


def test_the_bar_has_the_colour_that_is_drawn_over_the_photo():
    grid = np.zeros((3, 4))
    grid[1, 1] = -1.0
    grid[0, 0] = 1.0
    figure = view.on_image(
        PHOTO, Scores(torch.tensor(grid.ravel()), ("pos",), {"pos": PATCHES}), smooth=False
    )
    top = np.array(re.findall(r"\d+", figure.data[1].marker.colorscale[-1][1]), int)
    drawn = np.asarray(painted(PHOTO, grid, True, 1.0, (0, 0, 40, 30)))[5, 5]
    assert np.abs(top - drawn).max() <= 2
    assert np.abs(top - (OPACITY * np.array(RAISES) + (1 - OPACITY) * ground(PHOTO))).max() <= 2


# -- labels ------------------------------------------------------------------------------------


def parts(layers: int) -> Scores:
    """Shares of `direct_logits` for a model of so many layers."""
    names = ["embed", *(f"{kind} {layer}" for layer in range(layers) for kind in ("attn", "mlp"))]
    about = {"method": "direct_logits", "of": " dog", "minus": " cat"}
    return Scores(torch.randn(len(names)), ("part",), {"part": tuple(names)}, about)


def test_labels_have_no_index_of_their_own():
    assert list(view.bars(parts(3)).layout.xaxis.ticktext)[:3] == ["embed", "attn 0", "mlp 0"]
    assert list(view.heatmap(patched()).layout.xaxis.ticktext) == list(GROUPS)


def lies_over(one: Text, other: Text) -> bool:
    """Whether the boxes of two labels below an axis meet."""
    if one.turn == -90:
        return abs(one.x - other.x) < 0.9 * one.size
    half = (wide(one.text, one.size, one.mono) + wide(other.text, other.size, other.mono)) / 2
    return abs(one.x - other.x) < half - 2


@pytest.mark.parametrize("layers", [2, 8, 28, 61])
def test_labels_of_a_still_picture_never_overlap(layers):
    words = tuple(Token(f" word{i}", i) for i in range(2 * layers))
    maps = Scores(torch.randn(3, 2 * layers), ("layer", "pos"), {"pos": words})
    for figure in (view.bars(parts(layers)), view.heatmap(maps)):
        _, _, marks, _ = still(figure)
        texts = {str(one) for one in figure.layout.xaxis.ticktext}
        ticks = sorted(
            (m for m in marks if isinstance(m, Text) and m.mono and m.text in texts),
            key=lambda m: m.x,
        )
        assert len(ticks) >= 4
        assert not any(lies_over(*two) for two in pairwise(ticks))


def test_titles_name_their_subject():
    about = {"method": "activations", "site": "neurons"}
    scores = Scores(torch.rand(2, 12), ("neuron", "pos"),
                    {"neuron": (Neuron(4, 138), Neuron(0, 5)), "pos": PATCHES}, about)  # fmt: skip
    one = view.on_image(PHOTO, scores.sel(neuron=Neuron(4, 138)))
    assert "activation of L4.138" in one.data[0].hovertemplate
    assert "Where L4.138 is active" in one.layout.title.text
    assert "activation of L4.138" in one.layout.title.subtitle.text
    assert "Where each neuron is active" in view.panels(PHOTO, scores).layout.title.text
    told = view.bars(parts(2)).layout.title.text
    assert told == "<b>What writes “dog” rather than “cat”, by part</b>"


def test_neurons_are_counted_and_not_their_rows():
    import pandas as pd

    rows = [(Neuron(0, 1), 2.0, [" a"]), (Neuron(0, 1), -1.0, [" a"]), (Neuron(1, 2), 1.0, [" b"])]
    table = pd.DataFrame(rows, columns=["neuron", "score", "words"])
    assert "2 neurons, 3 points" in view.neurons(table).layout.title.subtitle.text
    assert "2 neurons ·" in view.cards(table)


def test_results_of_two_methods_are_each_named_with_their_own_and_keep_their_own_scale():
    estimate = Scores(torch.tensor([[9.0, -9.0], [3.0, 1.0]]), ("layer", "pos"), {"pos": GROUPS},
                      {"method": "attribution_patching", "metric": "logit of ' dog'"})  # fmt: skip
    both = view.compare({"estimate": estimate, "patching": patched()})
    names = [one.text for one in both.layout.annotations]
    assert names[0].startswith("estimate: estimated change of the logit")
    assert names[1] == "patching: share restored"
    assert (both.data[0].zmax, both.data[1].zmax) == (9, 1)
    alike = view.compare({"a": patched(), "b": patched()})
    assert [one.text for one in alike.layout.annotations] == ["a", "b"]


def long_names() -> dict[str, Any]:
    """Figures whose numbers have a long name, of little height."""
    told = {"method": "knockouts", "metric": "logit difference ' hippopotamus' − ' rhinoceros'",
            "clean": 1.0}  # fmt: skip
    lines = Scores(torch.rand(2, 4), ("arm", "k"), {"arm": ("ranked", "complement")},
                   {**told, "method": "ablation_curve"})  # fmt: skip
    few = Scores(torch.rand(24, 12), ("layer", "pos"), {"pos": PATCHES}, {**told, "method": "patch",
                 "corrupt": 0.0, "drawn": "estimated change of the logit difference"})  # fmt: skip
    return {
        "bars": view.bars(Scores(torch.rand(2), ("route",), {"route": GROUPS}, told)),
        "curves": view.curves(lines),
        "heatmap": view.heatmap(Scores(torch.rand(2, 3), ("layer", "head"), {}, told)),
        "panels": view.panels(few.sel(layer=[0, 1, 2]), PHOTO),
        "panels in a row": view.panels(few, PHOTO, columns=24),
    }


@pytest.mark.parametrize("name", ["bars", "curves", "heatmap", "panels", "panels in a row"])
def test_a_name_beside_an_axis_is_no_longer_than_the_figure_is_high(name):
    figure = long_names()[name]
    (wide_, high), _, marks, _ = still(figure)
    turned = [one for one in marks if isinstance(one, Text) and one.turn == -90 and not one.mono]
    assert any("change" in one.text or "difference" in one.text for one in turned)
    for one in turned:
        half, top = wide(one.text, one.size) / 2, 0 if "panels" in name else 60
        assert top - 1 <= one.y - half and one.y + half <= high + 1, one.text
        assert 0 <= one.x <= wide_


def test_a_short_row_of_panels_has_a_bar_whose_numbers_can_be_read():
    figure = long_names()["panels in a row"]
    bar = figure.data[-1].marker.colorbar
    assert bar.lenmode == "pixels" and bar.len >= 100
    assert figure.layout.height >= figure.layout.margin.t + bar.len


def test_the_bar_of_one_panel_stands_beside_it():
    maps = Scores(torch.rand(1, 12), ("layer", "pos"), {"pos": PATCHES})
    figure = view.panels(maps, PHOTO)
    assert figure.data[-1].marker.colorbar.x == pytest.approx(figure.layout.xaxis.domain[1] + 0.02)
    assert figure.layout.xaxis.domain[1] < 0.6


def test_maps_of_relevance_are_titled_by_what_is_asked():
    def told(method: str, **more: Any) -> str:
        about = {"method": method, **more}
        figure = view.on_image(Scores(torch.rand(12), ("pos",), {"pos": PATCHES}, about), PHOTO)
        return figure.layout.title.text

    assert (
        told("lrp", of=" dog", target="logit") == "<b>Where “dog” comes from: relevance by LRP</b>"
    )
    assert told("grad_cam", of=" dog") == "<b>Where “dog” comes from: Grad-CAM</b>"
    assert told("grad_eclip", of=" dog") == "<b>Where “dog” comes from: Grad-ECLIP</b>"
    assert told("lens_map", of=" dog") == "<b>Where the lens says “dog”</b>"
    assert told("noise_map", of=" dog") == "<b>Where noise turns what attention writes</b>"
    assert told("rollout", of="None") == "<b>Where the answer comes from: attention rollout</b>"
    many = Scores(torch.rand(2, 12), ("token", "pos"), {"token": ("a dog", "a cat"),
                  "pos": PATCHES}, {"method": "attribute", "of": ["a dog", "a cat"]})  # fmt: skip
    assert (
        view.panels(many, PHOTO).layout.title.text == "<b>Attribution of each word, by position</b>"
    )


def test_no_title_is_the_name_of_a_function_beside_a_word():
    def told(method: str, axis: str = "dim") -> str:
        scores = Scores(torch.rand(3), (axis,), {}, {"method": method, "of": " dog"})
        return view.bars(scores).layout.title.text

    assert told("module_influence", "part") == "<b>Which parts say “dog”, by part</b>"
    assert told("stream_before") == "<b>The stream before “dog”, by dimension</b>"
    assert told("word_state") == "<b>The stream at the end of “dog”, by dimension</b>"
    assert told("any_other") == "<b>Any other of “dog”, by dimension</b>"


def test_a_title_names_the_one_thing_that_is_shown_and_the_word_at_the_end_of_a_graph():
    import pandas as pd

    rows = [(Neuron(1, 5), [" a"]), (Neuron(2, 7), [" b"])]
    table = pd.DataFrame(rows, columns=["neuron", "words"])
    assert "What these neurons say" in str(view.cards(table))
    assert "What L1.5 says" in str(view.cards(table.head(1)))
    edges = pd.DataFrame([("L0.1", " dog", 1.0), ("L0.2", " dog", -1.0)],
                         columns=["source", "target", "score"])  # fmt: skip
    drawn = view.graph(edges)
    assert drawn.layout.title.text == "<b>What feeds “dog”</b>"
    nodes = drawn.data[-1]
    places = ["bottom center" if y < 0.5 else "top center" for y in nodes.y]
    assert list(nodes.textposition) == places and len(set(places)) == 2
    names = {m.text: m for m in still(drawn)[2] if isinstance(m, Text)}
    low, high = sorted((names["L0.1"], names["L0.2"]), key=lambda mark: -mark.y)
    assert (low.down, high.down) == ("start", "end")


def test_scores_between_nothing_and_one_are_not_said_to_raise_or_lower():
    told = {"method": "text_neurons", "of": " dog"}
    figure = view.neurons(Scores(torch.rand(2, 3), ("layer", "unit"), {}, told))
    assert figure.layout.title.text == "<b>T-neurons of “dog”</b>"
    assert "score of T-neurons" in figure.layout.title.subtitle.text
    assert "blue" not in figure.layout.title.subtitle.text


def test_a_list_of_one_prompt_has_no_axis_in_a_figure():
    scores = Scores(torch.randn(1, 6), ("prompt", "dim"), {}, {"method": "stream_before"})
    assert view.show(scores).data[0].type == "bar"
    assert view.show(Scores(torch.randn(2, 6), ("prompt", "dim"))).data[0].type == "heatmap"


def test_numbers_of_a_bar_of_colours_have_room_and_are_no_prefixes():
    import pandas as pd

    one = pd.DataFrame([(Patch(0, 0), 1, " dog", 0.5)], columns=["pos", "rank", "token", "prob"])
    figure = view.lens(one)
    layout: Any = figure.layout
    assert layout.height - layout.margin.t - layout.margin.b > 100
    small = view.heatmap(Scores(torch.randn(2, 3) * 1e-6, ("layer", "unit")))
    assert figure.data[0].colorbar.exponentformat == "power"  # plotly's own: 2µ
    assert small.data[0].colorbar.exponentformat == "power"


def test_lines_of_a_name_are_about_as_long_as_each_other():
    assert theme.balanced("change of the value without it", 28.0) == [
        "change of the", "value without it",
    ]  # fmt: skip
    assert theme.balanced("share restored", 28.0) == ["share restored"]
    assert theme.balanced("", 12.0) == [""]


def test_curves_of_covering_are_curves_of_the_number_that_is_explained():
    about = {"method": "covering_curves", "of": " dog", "target": "prob"}
    labels = {"curve": ("deletion", "insertion"), "step": (0.0, 0.5, 1.0)}
    figure = view.show(Scores(torch.rand(2, 3), ("curve", "step"), labels, about))
    assert [one.mode for one in figure.data] == ["lines+markers"] * 2
    assert list(figure.data[0].x) == [0.0, 0.5, 1.0]
    assert figure.layout.yaxis.title.text == "probability"
    assert figure.layout.title.text == "<b>What covering leaves of “dog”</b>"


def test_a_word_that_was_given_by_its_id_is_titled_by_its_letters():
    model = mm.load("toy-gptj-planted")
    dog, cat = (model.to_single_token(word) for word in (" dog", " cat"))
    direct = patching.direct_logits(model, "a", dog, minus=cat)
    assert (
        view.bars(direct).layout.title.text == "<b>What writes “dog” rather than “cat”, by part</b>"
    )
    assert "“dog”" in view.bars(patching.word(model, dog)).layout.title.text


def test_activations_raise_and_lower_nothing():
    told = {"method": "mean_over", "site": "neurons"}
    figure = view.neurons(Scores(torch.randn(2, 3), ("layer", "unit"), {}, told))
    assert figure.layout.title.text == "<b>Mean activation of neurons</b>"
    assert "blue above 0, red below" in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.dtick == 1  # units are whole numbers

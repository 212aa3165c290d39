"""Word probes and what is made of them, against plain loops and against planted numbers."""

from __future__ import annotations

import pytest
import torch
from clip_twins import classifier, noise
from PIL import Image

import mmlens as mm
from mmlens.datasets.written_words import written
from mmlens.families import toy
from mmlens.methods.word_probe import word_canvas
from mmlens.towers.vision.pixels import Pixels
from mmlens.values.errors import AddressError, ArgumentError

WORDS = ["dog", "cat", "house"]
SIZES, PLACES = (0.3, 0.5), ((0.5, 0.5), (0.0, 1.0), (1.0, 0.2))


def activation(model, picture, layer):
    """Float[pos, unit] of one picture, by TransformerLens' surface."""
    with torch.no_grad():
        cache = model.run_with_cache(picture)[1]
    return cache[f"vision.blocks.{layer}.mlp.hook_post"][0]


def test_the_response_is_the_mean_over_sizes_of_the_max_over_places():
    model = classifier()
    found = mm.word_probe(model, WORDS, sizes=SIZES, at=PLACES, batch=4)
    assert found.axes == ("word", "unit") and found.of("word") == tuple(WORDS)
    for i, word in enumerate(WORDS):
        per_size = []
        for size in SIZES:
            drawn = [written(word, (32, 32), size=size, at=at) for at in PLACES]
            seen = torch.stack([activation(model, one, 1).amax(0) for one in drawn])
            per_size.append(seen.amax(0))
        assert torch.allclose(found.values[i], torch.stack(per_size).mean(0), atol=1e-5)


def test_how_many_pictures_are_read_at_once_changes_nothing():
    one, many = (
        mm.word_probe(classifier(), WORDS, sizes=SIZES, at=PLACES, batch=batch).values
        for batch in (1, 64)
    )
    assert torch.allclose(one, many, atol=1e-5)


def test_a_bridge_and_a_vision_model_alone_answer_alike_by_their_towers():
    for model in (mm.load("toy-gptj"), mm.load("toy-tiled"), classifier()):
        found = mm.word_probe(model, WORDS[:2], sizes=[0.4], at=[(0.5, 0.5)])
        assert found.axes == ("word", "unit") and found.shape[0] == 2
        assert torch.isfinite(found.values).all()


def test_top_words_are_in_the_order_of_the_responses():
    scores = mm.word_probe(classifier(), WORDS, sizes=[0.4])
    table = mm.top_words(scores, 2, neurons=[mm.Neuron(1, 5, "vision")])
    order = scores.values[:, 5].argsort(descending=True)[:2].tolist()
    assert table["word"].tolist() == [WORDS[i] for i in order]
    assert len(mm.top_words(scores, 3)) == 3 * scores.shape[1]
    with pytest.raises(AddressError, match="none of these units"):
        mm.top_words(scores, neurons=mm.Neuron(0, 5, "vision"))


def test_no_word_is_cropped_away_by_the_encoders_own_preprocessing():
    class Tower:
        image_size = (40, 40)
        pixels = Pixels((40, 40), resize="shortest", scale=(64, 64))

    plain = written("house", (40, 40), size=0.3, at=(0.0, 0.0))
    drawn = word_canvas(Tower)("house", 0.3, (0.0, 0.0))
    assert drawn.size == (64, 64)
    expected = Pixels((40, 40))(plain)
    assert torch.equal(Tower.pixels(drawn), expected)


def test_unit_responses_are_the_max_or_mean_over_positions():
    model, pictures = classifier(), noise(5)
    by_hand = torch.stack([activation(model, one, 0) for one in pictures])
    for over, expected in (("max", by_hand.amax(1)), ("mean", by_hand.mean(1))):
        found = mm.unit_responses(model, pictures, layer=0, over=over, batch=2)
        assert found.axes == ("picture", "unit")
        assert torch.allclose(found.values, expected, atol=1e-5)
    patches = mm.unit_responses(model, pictures, layer=0, pos=mm.Patch)
    assert torch.allclose(patches.values, by_hand[:, 1:].amax(1), atol=1e-5)
    both = mm.unit_responses(model, pictures, layer=[0, 1])
    assert both.axes == ("layer", "picture", "unit") and both.shape == (2, 5, 24)


def test_a_site_of_another_tower_is_refused():
    with pytest.raises(AddressError, match="vision"):
        mm.unit_responses(mm.load("toy-gptj"), [toy.picture((1, 1))], site="neurons")


# -- word vectors ----------------------------------------------------------------------------------


def planted() -> mm.Scores:
    """Words along planted directions, all moved far along a direction that they share."""
    royal, male, female, place = torch.eye(6)[:4]
    own = {
        "king": royal + male, "queen": royal + female, "man": male, "woman": female,
        "france": place, "paris": place + 0.1 * royal,
    }  # fmt: skip
    shared = torch.tensor([0.0, 0.0, 0.0, 0.0, 30.0, 5.0])
    values = torch.stack([vector + shared for vector in own.values()])
    return mm.Scores(values, ("word", "unit"), {"word": tuple(own)})


def test_what_all_words_share_is_taken_out_before_cosines():
    table = mm.word_association(planted(), ["king"], ["queen", "paris"])
    assert (table["raw"] > 0.98).all()
    assert table["cosine"][0] > table["cosine"][1] and table["cosine"][1] < 0
    values = planted().values - planted().values.mean(0)
    expected = torch.cosine_similarity(values[0], values[1], dim=0)
    assert table["cosine"][0] == pytest.approx(float(expected), abs=1e-5)


def test_neighbours_leave_out_the_word_and_come_by_cosine():
    table = mm.word_neighbours(planted(), "france", 2)
    assert table["word"][0] == "paris" and "france" not in set(table["word"])
    assert table["cosine"].is_monotonic_decreasing


def test_king_minus_man_plus_woman_is_queen_where_it_is_planted():
    assert mm.word_analogy(planted(), "king", "man", "woman", 1)["word"][0] == "queen"
    assert len(mm.word_analogy(planted(), "king", "man", "woman", without=[4, 5])) == 3
    with pytest.raises(AddressError, match="was not probed"):
        mm.word_analogy(planted(), "king", "man", "girl")
    with pytest.raises(ArgumentError, match="all units"):
        mm.word_analogy(planted(), "king", "man", "woman", without=range(6))


def test_a_word_probe_needs_words():
    for bad in ([], [""]):
        with pytest.raises(ArgumentError):
            mm.word_probe(classifier(), bad)
    assert isinstance(written("a", (8, 8)), Image.Image)

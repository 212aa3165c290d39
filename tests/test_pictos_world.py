"""The pictos world: what a scene says about itself is true."""

import re

import pytest
import torch

from mmlens.pictos.scene_captions import canonical, plural
from mmlens.pictos.world import STYLES, World, pair_is_unseen, unseen_pairs


def shown(world: World, scenes: int) -> list[list[str]]:
    """The names in the first scenes, which need no rendering."""
    return [
        [world.names[c] for c in row if c >= 0] for row in world.cast(range(scenes))[2].tolist()
    ]


def test_the_same_number_gives_the_same_scene():
    one, again = World(seed=3).scene(41), World(seed=3).scene(41)
    assert one.image.tobytes() == again.image.tobytes()
    assert (one.captions, one.objects, one.ground) == (again.captions, again.objects, again.ground)


def test_seeds_and_splits_differ():
    pictures = {
        World(s, seed).scene(5).image.tobytes() for s in ("train", "held_out") for seed in (0, 1)
    }
    assert len(pictures) == 4


def test_a_scene_alone_is_the_scene_in_a_batch():
    world, numbers = World("held_out"), [9, 2, 77, 30]
    many = world.batch(numbers)
    for b, i in enumerate(numbers):
        alone = world.batch([i])
        assert torch.allclose(alone.images[0], many.images[b], atol=1.01 / 255)
        assert (alone.images[0] == many.images[b]).float().mean() > 0.999
        assert alone.names[0] == many.names[b] and alone.captions[0] == many.captions[b]


def test_masks_are_disjoint_and_fit_their_things():
    many = World().batch(range(60))
    assert many.masks.sum(1).max() == 1
    for b, names in enumerate(many.names):
        assert many.masks[b, : len(names)].flatten(1).any(1).all()
        assert not many.masks[b, len(names) :].any()


def test_a_mask_covers_exactly_the_visible_thing():
    world = World(things=1, style="written")
    many = world.batch(range(20))
    for b in range(20):
        rows, cols = many.masks[b, 0].nonzero(as_tuple=True)
        row, col = many.centres[b, 0]
        assert abs(rows.float().mean() - row) < 8 and abs(cols.float().mean() - col) < 8
        inside = many.images[b][:, many.masks[b, 0]].mean(1)
        outside = many.images[b][:, ~many.masks[b, 0]].mean(1)
        assert (inside - outside).abs().max() > 0.15


def test_captions_name_exactly_the_things():
    world = World()
    many = world.batch(range(150))
    for b in range(150):
        names, captions = set(many.names[b]), many.paraphrases(b)
        for text in (many.captions[b], *captions):
            words = set(re.findall(r"[a-z]+", text.lower()))
            named = {n for n in world.names if n in words or plural(n) in words}
            assert named == names, text
        assert len(set(captions)) == 5
        assert captions[0] == f"A picture of{many.captions[b]}"


def test_the_canonical_caption_tells_the_style_and_counts():
    assert canonical(["dog", "bicycle"], "literal") == " a dog and a bicycle."
    assert canonical(["owl"], "symbolic") == " a drawing of an owl."
    assert canonical(["dog"], "written") == " the word dog."
    assert canonical(["mouse", "mouse"], "literal") == " two mice."


def test_all_three_styles_and_one_to_three_things_occur():
    many = World().batch(range(300))
    assert set(many.styles) == set(STYLES)
    assert {len(n) for n in many.names} == {1, 2, 3}


def test_unseen_pairs_are_kept_out_of_training():
    for split in ("train", "held_out"):
        for names in shown(World(split), 2000):
            assert not any(pair_is_unseen(x, y) for x in names for y in names)
    for x, y in shown(World("unseen_pairs"), 500):
        assert pair_is_unseen(x, y)
    assert 0.07 < unseen_pairs().float().mean() < 0.13


def test_two_pictured_things_are_named_from_left_to_right():
    many = World(things=2, style="literal").batch(range(100))
    assert (many.centres[:, 0, 1] < many.centres[:, 1, 1]).all()


def test_a_wrong_split_says_which_there_are():
    with pytest.raises(ValueError, match="no such split; use one of"):
        World("test")

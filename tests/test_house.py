"""The picture of the rooms is true: it is what the imports give now, and shows every room once."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from house import FLOOR_OF, picture, room_arrows  # noqa: E402
from house_picture import house_svg, needed  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def boxes(svg: str) -> dict[str, tuple[float, float, float]]:
    """Each room's left edge, width and upper edge."""
    tree = ElementTree.fromstring(svg)
    names = [e.text for e in tree.iter(f"{SVG}text") if e.get("class") == "name"]
    rects = [e for e in tree.iter(f"{SVG}rect") if e.get("class") == "room"]
    edges = [tuple(float(e.get(k, "")) for k in ("x", "width", "y")) for e in rects]
    return dict(zip(names, edges, strict=True))  # type: ignore[arg-type]


def test_the_picture_is_what_the_imports_give_now():
    drawn = (ROOT / "docs" / "house.svg").read_text(encoding="utf-8")
    assert drawn == picture(), "python scripts/house.py --svg docs/house.svg"


def test_every_room_is_drawn_once_and_the_higher_floor_stands_higher():
    found = boxes(picture())
    assert set(found) == set(FLOOR_OF)
    for room, ends in room_arrows().items():
        assert all(found[room][2] < found[end][2] for end in ends)


def test_no_room_covers_another_and_none_leaves_the_picture():
    rows: dict[float, list[tuple[float, float]]] = {}
    for left, width, top in boxes(picture()).values():
        rows.setdefault(top, []).append((left, left + width))
    for row in rows.values():
        assert all(a[1] < b[0] for a, b in pairwise(sorted(row)))
        assert min(row)[0] > 20 and max(row)[1] < 420


def test_an_arrow_that_follows_from_others_is_left_out():
    assert needed({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": {"b"}, "b": {"c"}, "c": set()}


def test_a_new_import_changes_the_picture():
    floors = ("values", "model tally", "view")
    before = house_svg(floors, {"view": {"values"}, "model": {"values"}})
    after = house_svg(floors, {"view": {"values", "tally"}, "model": {"values"}})
    heads = [len(re.findall('class="head"', svg)) for svg in (before, after)]
    assert heads == [2, 3] and "view imports tally, values." in after


def test_the_map_names_every_room_on_its_floor_and_every_file_that_it_points_to():
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)
    assert {room: int(floor) for floor, room in rows} == FLOOR_OF
    (where,) = re.findall(r"^\*\*Where is \.\.\.\*\*.*?(?=\n\n)", page, re.MULTILINE | re.DOTALL)
    places = re.findall(r"`([\w/]+(?:/|\.py))`", where)
    assert len(places) == 10
    assert [place for place in places if not (ROOT / "mmlens" / place).exists()] == []


def test_every_decision_page_is_listed_and_says_what_would_overturn_it():
    folder = ROOT / "docs" / "decisions"
    index = (folder / "index.md").read_text(encoding="utf-8")
    for path in sorted(folder.glob("*.md")):
        if path.name != "index.md":
            text = path.read_text(encoding="utf-8")
            assert f"({path.name})" in index and f"\n{path.stem}\n" in index, path.name
            assert "## What would overturn" in text, path.name
            choices = [line[3:] for line in text.splitlines() if line.startswith("## ")]
            kept = [one for one in choices if not one.startswith("What w")]
            assert all(f"\n- {one}\n" in index for one in kept), path.name

"""The rooms of mmlens on their floors, as an SVG drawn from the import statements.

    python scripts/house.py --svg docs/house.svg

A layered drawing (Sugiyama et al. 1981): an arrow that passes a floor gets a place of its own
there, places are ordered by the mean of their neighbours, and then moved towards it as far as their
order allows. Arrows that follow from others are left out: that papers import values follows from
what lies between them. The same imports give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

WIDTH, MARGIN, LEFT = 420.0, 8.0, 26.0
PITCH, HEIGHT, GAP, SHOWN = 58.0, 32.0, 9.0, 1.15
STYLE = """
.paper { fill: #ffffff }
.floor { stroke: #1f2328; stroke-opacity: .13 }
.number, .name { fill: #1f2328; font: 14px system-ui, -apple-system, 'Segoe UI', sans-serif }
.number { fill-opacity: .6; font-size: 12px }
.name { text-anchor: middle }
.room { fill: #eef4fb; stroke: #1d5a99 }
.arrow { fill: none; stroke: #1d5a99; stroke-opacity: .55; stroke-width: 1.3 }
.head { fill: #1d5a99 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #14181d }
  .floor { stroke: #e6e8eb; stroke-opacity: .16 }
  .number, .name { fill: #e6e8eb }
  .room { fill: #1c2a39; stroke: #7ab8f5 }
  .arrow { stroke: #7ab8f5 }
  .head { fill: #7ab8f5 }
}
"""


@dataclass(eq=False)
class Place:
    """A room on its floor, or where an arrow passes one (`name` is empty)."""

    floor: int
    name: str = ""
    x: float = 0.0
    above: list[Place] = field(default_factory=list)
    below: list[Place] = field(default_factory=list)

    @property
    def width(self) -> float:
        return 8.0 * len(self.name) + 18 if self.name else 2.0


def needed(arrows: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that do not follow from others (the transitive reduction)."""

    def reached(room: str) -> set[str]:
        return {end for one in arrows.get(room, ()) for end in {one} | reached(one)}

    return {
        room: {end for end in ends if not any(end in reached(o) for o in ends - {end})}
        for room, ends in arrows.items()
    }


def house_svg(floors: Sequence[str], arrows: Mapping[str, set[str]]) -> str:
    """The picture.

    Args:
        floors: the rooms of each floor, separated by spaces, from the ground.
        arrows: room -> the rooms of lower floors that it imports.
    """
    rows, routes = _placed(floors, needed(arrows))
    for _ in range(12):
        _order(rows)
    for row in rows:
        _spread(row, [LEFT + (WIDTH - LEFT) * place.x for place in row])
    for _ in range(40):
        _align(rows)
    _centre(rows)
    height = PITCH * len(floors) + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}"'
        f' width="{SHOWN * WIDTH:.0f}" height="{SHOWN * height:.0f}" role="img"'
        ' aria-labelledby="title desc">',
        '<title id="title">The rooms of mmlens and what they import</title>',
        f'<desc id="desc">{escape(_told(floors, needed(arrows)))}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH:.0f}" height="{height:.0f}" rx="8"/>',
    ]
    for floor in range(len(floors)):
        y = _middle(len(floors), floor)
        lines.append(f'<text class="number" x="10" y="{y + 4:.0f}">{floor}</text>')
        base = y + PITCH / 2
        lines.append(
            f'<path class="floor" d="M8 {base:.0f}H{WIDTH - 8:.0f}"/>' if floor else "",
        )
    lines += [_arrow(route, len(floors)) for route in routes]
    lines += [_room(place, len(floors)) for row in rows for place in row if place.name]
    return "\n".join(line for line in lines if line) + "\n</svg>\n"


def _placed(
    floors: Sequence[str], arrows: Mapping[str, set[str]]
) -> tuple[list[list[Place]], list[list[Place]]]:
    """The places of each floor, and the places that each arrow leads through."""
    rows = [[Place(i, name) for name in names.split()] for i, names in enumerate(floors)]
    rooms = {place.name: place for row in rows for place in row}
    routes = []
    for start in sorted(arrows):
        for end in sorted(arrows[start]):
            passed = [Place(i) for i in range(rooms[start].floor - 1, rooms[end].floor, -1)]
            for place in passed:
                rows[place.floor].append(place)
            route = [rooms[start], *passed, rooms[end]]
            for upper, lower in pairwise(route):
                upper.below.append(lower)
                lower.above.append(upper)
            routes.append(route)
    for row in rows:
        for i, place in enumerate(row):
            place.x = float(i)
    return rows, routes


def _order(rows: list[list[Place]]) -> None:
    """Order each floor by the mean place of its neighbours below, then above."""
    for up, side in ((rows, "below"), (rows[::-1], "above")):
        for row in up:
            means = {id(p): _mean([n.x for n in getattr(p, side)], p.x) for p in row}
            row.sort(key=lambda place: means[id(place)])
            for i, place in enumerate(row):
                place.x = (i + 0.5) / len(row)


def _align(rows: list[list[Place]]) -> None:
    """Move each place towards the mean of all its neighbours."""
    for row in [*rows, *rows[::-1]]:
        wish = [_mean([n.x for n in (*p.above, *p.below)], p.x) for p in row]
        _spread(row, wish)


def _centre(rows: list[list[Place]]) -> None:
    """Leave as much room on the left as on the right."""
    every = [place for row in rows for place in row]
    free = min(p.x - p.width / 2 for p in every) - LEFT
    free -= WIDTH - MARGIN - max(p.x + p.width / 2 for p in every)
    for place in every:
        place.x -= free / 2


def _spread(row: list[Place], wish: list[float]) -> None:
    """Give each place what it wishes, in order, apart and inside the picture.

    The mean of two layouts: pushed to the right from the left edge, and to the left from the right.
    """
    wish = [(a + b) / 2 for a, b in zip(_right(row, wish), _left(row, wish), strict=True)]
    for place, x in zip(row, _right(row, _left(row, wish)), strict=True):
        place.x = x


def _right(row: list[Place], wish: list[float], edge: float = LEFT) -> list[float]:
    """What each place wishes, or as far right of the one before it as it must be."""
    found = []
    for place, x in zip(row, wish, strict=True):
        found.append(max(x, edge + place.width / 2))
        edge = found[-1] + place.width / 2 + GAP
    return found


def _left(row: list[Place], wish: list[float]) -> list[float]:
    """The same from the right edge."""
    return [WIDTH - x for x in _right(row[::-1], [WIDTH - x for x in wish[::-1]], MARGIN)][::-1]


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _middle(floors: int, floor: int) -> float:
    return MARGIN + PITCH * (floors - floor - 0.5)


def _arrow(route: list[Place], floors: int) -> str:
    """A smooth line from the lower edge of a room to the upper edge of another."""
    y = _middle(floors, route[0].floor) + HEIGHT / 2
    path = f"M{_port(route[0], route[1]):.1f} {y:.1f}"
    for upper, lower in pairwise(route):
        start = _middle(floors, upper.floor) + HEIGHT / 2
        end = _middle(floors, lower.floor) - HEIGHT / 2 - (0 if not lower.name else 5)
        x0 = _port(upper, lower)
        x1 = _port(lower, upper)
        bend = (start + end) / 2
        path += f"C{x0:.1f} {bend:.1f} {x1:.1f} {bend:.1f} {x1:.1f} {end:.1f}"
        if not lower.name:
            path += f"V{end + HEIGHT:.1f}"
    tip = _middle(floors, route[-1].floor) - HEIGHT / 2
    x = _port(route[-1], route[-2])
    head = f"M{x:.1f} {tip:.1f}l-3.5 -6.5h7z"
    return f'<path class="arrow" d="{path}"/><path class="head" d="{head}"/>'


def _port(place: Place, other: Place) -> float:
    """Where on a room's edge its line to another begins: side by side, in the others' order."""
    if not place.name:
        return place.x
    side = sorted(place.below if other in place.below else place.above, key=lambda one: one.x)
    step = min(12.0, (place.width - 16) / max(1, len(side)))
    return place.x + (side.index(other) - (len(side) - 1) / 2) * step


def _room(place: Place, floors: int) -> str:
    y = _middle(floors, place.floor)
    left, name = place.x - place.width / 2, escape(place.name)
    return (
        f'<rect class="room" x="{left:.1f}" y="{y - HEIGHT / 2:.1f}" width="{place.width:.1f}"'
        f' height="{HEIGHT:.0f}" rx="5"/><text class="name" x="{place.x:.1f}"'
        f' y="{y + 5:.1f}">{name}</text>'
    )


def _told(floors: Sequence[str], arrows: Mapping[str, set[str]]) -> str:
    """The same in words, from the top floor."""
    rooms = [room for names in floors[::-1] for room in names.split()]
    return " ".join(
        f"{room} imports {', '.join(sorted(arrows[room]))}." for room in rooms if arrows.get(room)
    )

"""The rooms of mmlens and who imports whom, read from the import statements.

    python scripts/house.py                         # rooms, floors and arrows, as text
    python scripts/house.py --svg docs/house.svg    # the same as a picture

Every import under mmlens/ counts, those inside functions and under `if TYPE_CHECKING:` too. Rooms
stand on floors, and a room imports rooms of lower floors only. Within a room modules form no
circle, but for annotations: `if TYPE_CHECKING:` may name the class that a module serves.
`tests/test_floors.py` holds mmlens to it.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "mmlens"
FLOORS = (
    "values",
    "runtime pictos tally",
    "towers datasets metrics view",
    "model",
    "checkpoints causal",
    "families methods",
    "sweep",
    "train explore doctor",
    "papers",
    "cli",
)
"""The rooms, floor by floor from the ground."""
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
DOORS = ("mmlens", "mmlens.decoding", "mmlens.patching", "mmlens.relevance", "mmlens.__main__")
"""Modules that only say where names live; they may name any room."""
ALLOWED = {
    ("mmlens.model.hooked_vlm", "mmlens.checkpoints.folder"): (
        "model.save(folder) is what users write; saving knows models, models know no files"
    ),
    ("mmlens.model.hooked_dual_encoder", "mmlens.checkpoints.dual_folder"): (
        "model.save(folder), as of a bridge"
    ),
    ("mmlens.towers.language.copies", "mmlens.towers.language.language_model"): (
        "a pickle must name the function that wraps a language model again"
    ),
}
"""Imports against the rules, each with its reason."""


@dataclass(frozen=True)
class Import:
    """One import: of which module, on which line, and when it is run.

    Attributes:
        when: "import" (when the file is imported), "call" (inside a function), or "types" (never).
    """

    of: str
    line: int
    when: str


def room_of(module: str) -> str:
    """The room that a module lies in: "values" of "mmlens.values.prompt"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Every module of the package, by its name."""
    root = package.parent
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(package.rglob("*.py"))
    }


def imports(source: str, known: Mapping[str, object], homes: Mapping[str, str]) -> list[Import]:
    """The imports in a file.

    Args:
        known: the modules of mmlens, so that `from mmlens.model import run` names a module.
        homes: the module that each public name of mmlens lives in.
    """

    def target(module: str, name: str) -> str:
        if module == "mmlens" and name in homes:
            return homes[name]
        return f"{module}.{name}" if f"{module}.{name}" in known else module

    def walk(node: ast.AST, when: str) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                yield from walk(child, "types")
            for child in node.orelse:
                yield from walk(child, when)
            return
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, when) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from (Import(target(base, a.name), node.lineno, when) for a in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, "call" if inside and when == "import" else when)

    return list(walk(ast.parse(source), "import"))


def every_import(package: Path = PACKAGE) -> dict[str, list[Import]]:
    """The imports of each module of the package."""
    known = modules(package)
    homes = _homes(known["mmlens"].read_text(encoding="utf-8")) if "mmlens" in known else {}
    return {
        name: imports(path.read_text(encoding="utf-8"), known, homes)
        for name, path in known.items()
    }


def _homes(source: str) -> dict[str, str]:
    """The list of public names: the imports of a package's `if TYPE_CHECKING:` block."""
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    lines = [line for block in blocks for line in block.body if isinstance(line, ast.ImportFrom)]
    return {
        alias.name: f"mmlens.{alias.name}" if line.module == "mmlens" else str(line.module)
        for line in lines
        for alias in line.names
    }


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, each group once, sorted."""
    reach: dict[str, set[str]] = {}

    def below(start: str) -> set[str]:
        if start not in reach:
            seen, todo = set(), list(arrows.get(start, ()))
            while todo:
                node = todo.pop()
                if node not in seen:
                    seen.add(node)
                    todo += arrows.get(node, ())
            reach[start] = seen
        return reach[start]

    inside = [name for name in arrows if name in below(name)]
    groups = {tuple(sorted(n for n in inside if n in below(m) and m in below(n))) for m in inside}
    return [list(group) for group in sorted(groups)]


def room_arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """Each room with the rooms that it imports; doors and allowed exceptions are left out."""
    arrows: dict[str, set[str]] = {room: set() for room in FLOOR_OF}
    for name, found in every_import(package).items():
        if name not in DOORS:
            ends = {room_of(one.of) for one in found if (name, one.of) not in ALLOWED}
            arrows.setdefault(room_of(name), set()).update(ends & set(FLOOR_OF) - {room_of(name)})
    return arrows


def picture(package: Path = PACKAGE) -> str:
    """The house as an SVG."""
    from house_picture import house_svg

    return house_svg(FLOORS, room_arrows(package))


def as_text() -> str:
    """Rooms from the top floor to the ground, with the rooms that each imports."""
    arrows, counts = room_arrows(), Counter(map(room_of, modules()))
    lines = []
    for floor in range(len(FLOORS) - 1, -1, -1):
        for room in FLOORS[floor].split():
            below = ", ".join(sorted(arrows[room], key=lambda r: (-FLOOR_OF[r], r)))
            lines.append(f"{floor}  {room:<12} {counts[room]:>3} files   {below}")
    lines += [f"allowed: {a} -> {b}: {why}" for (a, b), why in ALLOWED.items()]
    return "\n".join(lines)


def main() -> None:
    """Print the house, or draw it."""
    parser = argparse.ArgumentParser(description="The rooms of mmlens and who imports whom.")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it into this file")
    file = parser.parse_args().svg
    if file is None:
        print(as_text())
    else:
        file.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Write example scenes to `scenes/`, each a held-out scene named after what it shows.

python training/pictos/draw_scenes.py
"""

from pathlib import Path

from mmlens.pictos.scene_captions import counted
from mmlens.pictos.world import Scene, World

HERE = Path(__file__).parents[2] / "scenes"
WANTED = (
    (("dog", "bicycle"), "literal"),
    (("koala",), "literal"),
    (("guitar", "crab"), "literal"),
    (("tiger", "umbrella"), "symbolic"),
    (("elephant",), "symbolic"),
    (("banana",), "written"),
)


def find(names: tuple[str, ...], style: str, most: int = 400_000) -> Scene:
    """The first held-out scene that shows just this, in this style."""
    world = World("held_out", 1, things=len(names), style=style)
    for start in range(0, most, 4000):
        for k, row in enumerate(world.cast(range(start, start + 4000))[2].tolist()):
            if tuple(world.names[c] for c in row if c >= 0) == names:
                return world.scene(start + k)
    raise ValueError(f"none of the first {most} scenes shows {names} in the {style} style")


def main() -> None:
    HERE.mkdir(exist_ok=True)
    for names, style in WANTED:
        scene = find(names, style)
        what = (
            counted(names)
            .removeprefix("a ")
            .removeprefix("an ")
            .replace(" and an ", "-and-")
            .replace(" and a ", "-and-")
        )
        lead = {"literal": "", "symbolic": "drawing-of-", "written": "word-"}[style]
        file = HERE / f"{lead}{what.replace(' ', '-')}.png"
        scene.image.save(file)
        print(f"{file.name}: scene {scene.seed} of {len(names)} {style},{scene.caption}")


if __name__ == "__main__":
    main()

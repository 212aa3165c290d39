"""pictos: the bundled world of pictograms and the small bridge trained in it.

`World` makes seeded scenes with captions and exact masks; nothing is imported until it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmlens.pictos.scenes import Scene, Scenes, Thing
    from mmlens.pictos.world import World

_HOMES = {"World": "world", "Scene": "scenes", "Scenes": "scenes", "Thing": "scenes"}
__all__ = ["Scene", "Scenes", "Thing", "World"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")


def __dir__() -> list[str]:
    return sorted(__all__)

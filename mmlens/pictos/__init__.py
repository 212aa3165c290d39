"""pictos: the bundled world of pictograms and the small bridge trained in it.

`World` makes seeded scenes with captions and exact masks; nothing is imported until it is used.
"""

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.pictos.scenes import Scene, SceneObject, Scenes
    from mmlens.pictos.world import World

_HOME = {"World": "world", "Scene": "scenes", "Scenes": "scenes", "SceneObject": "scenes"}
__all__ = ["Scene", "SceneObject", "Scenes", "World"]

__getattr__, __dir__ = on_first_use(__name__, _HOME)

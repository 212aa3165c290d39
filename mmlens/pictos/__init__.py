"""pictos: the bundled world of pictograms and the small bridge trained in it.

`World` makes seeded scenes with captions and exact masks; nothing is imported until it is used.
"""

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.pictos.scenes import Scene as Scene
    from mmlens.pictos.scenes import SceneObject as SceneObject
    from mmlens.pictos.scenes import Scenes as Scenes
    from mmlens.pictos.world import World as World
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)

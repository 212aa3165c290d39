"""Pictures read through a model: what it says, which neurons made it say so, where they look.

    seen = mm.look(model, "scene.png")               # one picture
    seen = mm.look(model, "scene.png", full=True)    # with what `view.explore` shows besides
    found = read_all(model, "pictos:held_out:200", "runs/pictos")      # a data set, on disk
    view.explore(found.looks, found.names, tops=found.tops)

module      what of one picture
picture     the caption, and gradient x activation of every token of it
things      which word of a caption names a thing
patches     the logit lens at every patch, and the neurons that fire there
silencing   the probability of every token without a neuron
many        all of this over a data set, and the top pictures of its neurons
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.lazy import on_first_use

_HOME = {
    "Depth": "picture",
    "Found": "many",
    "Look": "picture",
    "NO_THINGS": "things",
    "choose": "things",
    "look": "picture",
    "read_all": "many",
    "read_found": "many",
}
__all__ = ["NO_THINGS", "Depth", "Found", "Look", "choose", "look", "read_all", "read_found"]

if TYPE_CHECKING:
    from mmlens.reading.many import Found as Found
    from mmlens.reading.many import read_all as read_all
    from mmlens.reading.many import read_found as read_found
    from mmlens.reading.picture import Depth as Depth
    from mmlens.reading.picture import Look as Look
    from mmlens.reading.picture import look as look
    from mmlens.reading.things import NO_THINGS as NO_THINGS
    from mmlens.reading.things import choose as choose

__getattr__, __dir__ = on_first_use(__name__, _HOME)

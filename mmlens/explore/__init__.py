"""Explore pictures through a model: its caption, the neurons behind it, where they activate.

    seen = mm.look(model, "scene.png")               # one picture
    seen = mm.look(model, "scene.png", full=True)    # with what `view.explore` shows besides
    found = read_all(model, "pictos:held_out:200", "runs/pictos")      # a data set, on disk
    view.explore(found.looks, found.names, tops=found.tops)

module      contents
look        the caption, and gradient x activation of its words
deeper      with full=True: the lens, and the caption without each neuron
things      the words of a caption that name things
strongest   the strongest neurons of a token, decoded
patches     the logit lens at every patch, and the neurons that fire there
without     the probability of every token without a neuron
many        all of this over a data set, and the top pictures of its neurons
microscope  a site of every unit of a tower, from the modules unit_*
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.explore.deeper import Depth as Depth
    from mmlens.explore.look import Look as Look
    from mmlens.explore.many import Found as Found
    from mmlens.explore.many import read_all as read_all
    from mmlens.explore.many import read_found as read_found
    from mmlens.explore.things import NO_THINGS as NO_THINGS
    from mmlens.explore.things import choose as choose
    from mmlens.explore.things import thing_tokens as thing_tokens
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)

"""Which method can be trusted on this model? Every method against a control of its own, in a table.

    from mmlens.papers import shootout

    shootout.reproduce("pictos", out="runs/shootout")

Runs the studies that compare methods, each in a folder of its own below OUT, and puts their
contests (`mmlens.papers.contests`) into one table: what each method reaches, what its control
reaches on the same pictures, and whether the difference, picture by picture, can be told from 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.shootout.shootout_report import reproduce as reproduce
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)

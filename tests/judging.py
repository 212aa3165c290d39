"""The contests of a study, judged."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mmlens.papers.contests import Contest, judged


def all_judged(contests: Sequence[Contest], *, draws: int = 2000, seed: int = 0) -> pd.DataFrame:
    """The rows of several contests, one below the other."""
    return pd.concat(
        [judged(one, draws=draws, seed=seed) for one in contests], ignore_index=True
    )  # fmt: skip

"""What a model associates with groups: an audit by effect sizes, as one page.

    from mmlens.papers.bias import audit_bias

    found = audit_bias(mm.load("pictos-clip"), out="bias")    # the bundled pictures
    found = audit_bias(model, "FOLDER/concepts.yaml", out="bias")    # one's own

`concepts_file` reads what is compared, `associations` computes, `bias_report` writes. Caliskan,
Bryson and Narayanan (2017, doi:10.1126/science.aal4230) for the effect size; Goh et al. (2021) for
embeddings of written words with the mean taken out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.bias.bias_report import audit_bias as audit_bias
    from mmlens.papers.bias.concepts_file import read_concepts as read_concepts
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)

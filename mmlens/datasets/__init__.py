"""Pictures with what is known of them: the bundled world, COCO, a folder, a Hugging Face data set.

    samples = mm.dataset("coco:FOLDER")        # or datasets.coco(folder), .pictos(), .images(), ...
    samples[0].image, samples[0].captions, samples[0].things

What `mmlens train` reads captioned pictures with lies here too (`caption_pairs`, `sources`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.datasets.bundled import pictos as pictos
    from mmlens.datasets.caption_pairs import DataError as DataError
    from mmlens.datasets.captioned import hugging_face as hugging_face
    from mmlens.datasets.captioned import images as images
    from mmlens.datasets.coco_format import coco as coco
    from mmlens.datasets.sample import Sample as Sample
    from mmlens.datasets.sample import Samples as Samples
    from mmlens.datasets.sample import Thing as Thing
    from mmlens.datasets.spec import dataset as dataset
    from mmlens.datasets.written_words import pixel_cover as pixel_cover
    from mmlens.datasets.written_words import written as written
    from mmlens.datasets.written_words import written_over as written_over
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)

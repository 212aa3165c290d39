"""Run a question over a data set, streamed to disk; resumable after an interruption at any point.

    from mmlens.sweep import sweep

    def strongest(model, sample, k=10):                      # a function of a module
        scores = mm.attribute(model, mm.Prompt(sample.image, "A picture of"), of=" dog")
        return mm.top_neurons(scores, k)                     # DataFrame, Scores, or a dict of these

    done = sweep(strongest, model, mm.dataset("coco:FOLDER"), "runs/strongest", options={"k": 5})
    done.table("strongest")                                  # one DataFrame with a column `sample`

    runs/strongest/manifest.json                             question, model, data and versions
                   chunks/00000.json                         a chunk of samples that is finished
                   tables/strongest/00000.parquet            its rows
                   tensors/NAME/00000.safetensors            its Scores, one tensor per sample
                   tallies/000.safetensors                   running statistics of a process

Every file is written atomically, and its content does not depend on time, on the number of
processes or on interruptions: the same question gives the same bytes. `accelerate launch` (on CPUs
`torchrun`) divides the chunks among its processes, each of which loads the model on its own device
(accelerate's `PartialState().device`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.sweep.record import SweepError as SweepError
    from mmlens.sweep.sweep_folder import Sweep as Sweep
    from mmlens.sweep.sweeping import sweep as sweep
    from mmlens.sweep.top_pictures import top_images as top_images
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)

"""What `look` costs, in forward passes: `python tests/benchmarks/look.py [--lm FOLDER --gguf FILE]`

The bundled model on a scene, and with `--lm` a language model of a folder (a GGUF file of it with
`--gguf`) behind a small convolutional encoder and a random map, which is enough for the cost. All
in one process on one thread, CPU seconds, against the median of plain forward passes of the prompt:

    look                  the caption and its neurons
    look, as a page       what `mmlens look` computes: lens, firing neurons, silencing one by one
    a caption             of which, when the model says six words and an end

    at most 25 forward passes for the page, caption included
    peak memory of look at most 1.5 times that of loading
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from ratios import line, seconds

CAPTION = " a lion and a dog."


def peak() -> float:
    """Peak of resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def real(folder: str, file: str | None) -> tuple[Any, Any]:
    """A bridge of a language model in a folder, and a picture of noise."""
    import numpy as np
    import timm
    from PIL import Image
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import mmlens as mm

    options = {"gguf_file": file} if file else {}
    lm = AutoModelForCausalLM.from_pretrained(folder, **options)
    words = AutoTokenizer.from_pretrained(folder, **options)
    eye = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    noise = np.random.default_rng(0).integers(0, 255, (224, 224, 3), np.uint8)
    return mm.from_parts(eye, None, lm, words, name=Path(folder).name), Image.fromarray(noise)


def measure(model: Any, picture: Any) -> None:
    """Print the ratios of one model."""
    import mmlens as mm
    from mmlens.explore import Depth

    loaded = peak()
    soft = model.embed(mm.Prompt(picture, "A picture of"))
    page = Depth(one_by_one="token")
    mm.look(model, picture, caption=CAPTION, full=page)  # what is measured once is measured
    with torch.no_grad():
        one = statistics.median(seconds(lambda: model(soft)) for _ in range(7))
    steps = seconds(lambda: model.generate(soft, 7, stop_at_eos=False))
    short = seconds(lambda: mm.look(model, picture, caption=CAPTION))
    whole = statistics.median(
        seconds(lambda: mm.look(model, picture, caption=CAPTION, full=page)) for _ in range(3)
    )
    print(f"{model.name}: one forward pass of {soft.ids.shape[1]} positions, {one:.3f} s CPU")
    line("a caption of 7 tokens / a forward pass", steps / one, "part of both")
    line("look / a forward pass", (short + steps) / one, "caption included")
    line("look, as a page / a forward pass", (whole + steps) / one, "at most 25")
    line("peak memory of look / of loading", peak() / loaded, "at most 1.5")


def main() -> None:
    """The bundled model, or the one that was named: one a process, for its peak memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--lm", help="a folder with a language model and its tokenizer")
    parser.add_argument("--gguf", help="a GGUF file in it")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.lm:
        return measure(*real(asked.lm, asked.gguf))
    import mmlens as mm

    scenes = sorted((Path(__file__).parents[2] / "scenes").glob("*.png"))
    return measure(mm.load("pictos"), scenes[0])


if __name__ == "__main__":
    main()

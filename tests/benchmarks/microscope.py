"""What a microscope's sweep costs: `python tests/benchmarks/microscope.py`

The bundled model's encoder over pictures of its world, each size in a process of its own:

    peak memory with 256 pictures at most 1.05 times that with 64: it must not grow with the data
    the sweep of 256 at most 2.0 times the bare forward passes of the encoder, one picture at a
    time: CPU seconds, the median of rounds in which both run side by side
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))
from ratios import against, line

FEW, MANY, ROUNDS = 64, 256, 3


def one(n: int) -> None:
    """Of `n` pictures: peak memory in MB, sweep / bare passes, seconds of both."""
    import torch

    import mmlens as mm
    from mmlens.explore.unit_activity import layers_of, look_at_all

    torch.set_num_threads(1)
    model, data = mm.load("pictos"), mm.dataset(f"pictos:held_out:{n}")
    layers = layers_of(model, "vision", None, data[0])

    def bare() -> None:
        with torch.no_grad():
            for sample in data:
                model.vision(model.vision.preprocess(sample.image)[None])

    def swept() -> None:
        with TemporaryDirectory() as folder:
            look_at_all(model, data, "vision", layers, Path(folder), k=9, chunk=16, progress=False)

    times = against(swept, bare, ROUNDS if n == MANY else 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(peak, *times)


def main() -> None:
    """Both sizes, and the ratios."""
    found = {}
    for n in (FEW, MANY):
        told = subprocess.run(
            [sys.executable, __file__, str(n)], capture_output=True, text=True, check=True
        )
        found[n] = [float(part) for part in told.stdout.split()]
        memory, _, swept, bare = found[n]
        print(f"{n} pictures: {memory:.0f} MB, {swept:.1f} s CPU, bare {bare:.1f}")
    line("peak memory, 256 pictures / 64", found[MANY][0] / found[FEW][0], "at most 1.05")
    line("the sweep / bare passes", found[MANY][1], "at most 2.0")


if __name__ == "__main__":
    one(int(sys.argv[1])) if sys.argv[1:] else main()

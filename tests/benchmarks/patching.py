"""Speed of a patching grid as a ratio to its plain loop: `python tests/benchmarks/patching.py`

A random language model of GPT-2-small's size reads 196 patches and "A picture of" (199 positions).
The residual stream of another prompt is patched in at every layer and position, 12 x 199 = 2388
patched runs:

    plain loop   one forward pass with one hook per place, as `run_with_hooks` is written by hand
    the bench    `mmlens.patching.patch`

The plain loop is sampled (places drawn evenly, the rest of the 2388 would only repeat them); the
bench is measured whole, or at some layers (`--layers`; layers l and 11 - l together cost what two
average layers do). Times are CPU seconds of this process on one thread, interleaved; results of
both are compared at every sampled place. At least 4 times faster, at most 1e-4 apart.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from ratios import line, seconds, small


def main(layers: list[int], samples: int) -> None:
    """Measure both arms and print the ratio."""
    from mmlens.causal import measures
    from mmlens.patching import Pair, patch

    torch.set_num_threads(1)
    _, model, vectors = small()
    other = vectors.clone()
    other[:, :196] = torch.randn(1, 196, 768, generator=torch.Generator().manual_seed(1)) * 0.1
    pair = Pair(model.embed(vectors), model.embed(other))
    metric = measures.logit_difference(model, 3290, 3797)
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(12)]
    with torch.no_grad():
        _, cache = model.run_with_cache(pair.clean, names_filter=names)

    def plain(layer: int, pos: int) -> float:
        def put(x: Any, hook: Any) -> Any:
            x[:, pos] = cache[names[layer]][:, pos]
            return x

        with torch.no_grad():
            logits = model.run_with_hooks(pair.corrupt, fwd_hooks=[(names[layer], put)])
        return float(metric(logits[0, -1]))

    generator = torch.Generator().manual_seed(2)
    spots = [
        (layers[i % len(layers)], int(torch.randint(199, (1,), generator=generator)))
        for i in range(samples)
    ]
    plain(0, 0)
    patch(model, pair, metric, layer=11, pos=[197, 198])
    loop: list[float] = []
    values: dict[tuple[int, int], float] = {}
    paused = 0.0

    def some(spots: list[tuple[int, int]]) -> None:
        for spot in spots:
            loop.append(seconds(lambda spot=spot: values.__setitem__(spot, plain(*spot))))

    def between(done: int, of: int) -> None:
        """Part of the plain loop amid the bench, so that both see the same machine."""
        nonlocal paused
        due = spots[len(loop) : samples * done // of]
        paused += seconds(lambda: some(due))

    grids: list[Any] = []
    run = lambda: grids.append(patch(model, pair, metric, layer=layers, progress=between))  # noqa: E731
    grid_seconds = seconds(run) - paused
    grid, each = grids[0], statistics.mean(loop)
    off = max(abs(v - grid.sel(layer=[at], pos=[i]).item()) for (at, i), v in values.items())
    moved = max(abs(v - float(grid.about["corrupt"])) for v in values.values())
    rows = int(grid.about["rows"])
    n = 199 * len(layers)
    print(f"one patched pass of the plain loop: {each:.3f} s CPU, mean of {len(loop)}")
    print(f"the bench: {grid_seconds / n:.3f} s CPU a place, {n} places, up to {rows} side by side")
    line("plain loop / the bench", each * n / grid_seconds, "at least 4")
    print(
        f"   largest difference: {off:.1e} (bar 1e-4; the patches move the metric by {moved:.1e})"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--layers", type=int, nargs="*", default=list(range(12)))
    parser.add_argument("--samples", type=int, default=24)
    options = parser.parse_args()
    main(options.layers, options.samples)

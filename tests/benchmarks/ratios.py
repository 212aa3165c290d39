"""Speed and memory as ratios to named rivals, in one run: `python tests/benchmarks/ratios.py`

A random language model of GPT-2-small's size reads 196 patches and "A picture of" (199 positions);
its caption has 8 tokens. Times are CPU seconds of this process on one thread, medians of
interleaved rounds; memory is the peak of resident memory above what stood before, in a process
per arm.

1. hooked forward / Hugging Face forward                                        at most 1.02
2. attribution of all layers for all 8 tokens / one plain forward               at most 6.7
3. the paper's procedure / attribution                                          at least 3
   (per token: Hugging Face model, retain_grad on every MLP activation, full backward with
   parameter gradients); beside it the same by skilled plain autograd (one forward pass, frozen
   parameters), and by captum where it is installed
4. extra peak memory of attribution / of the paper's procedure                  at most 0.2
5. `import mmlens`                                                              at most 0.3 s
6. `mmlens look` on the bundled model / importing TransformerLens' bridge       at most 1.3
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

IDS = [32, 4286, 286]  # "A picture of" in GPT-2's vocabulary
CAPTION = [257, 3290, 290, 257, 17026, 319, 262, 8701]


def small(hf_only: bool = False) -> tuple[Any, Any, torch.Tensor]:
    """A random GPT-2 small (Hugging Face, mmlens) and its prompt's vectors Float[1, 199, 768]."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    hf = GPT2LMHeadModel(GPT2Config()).eval()
    vectors = torch.cat(
        [torch.randn(1, 196, 768) * 0.1, hf.transformer.wte(torch.tensor([IDS])).detach()], 1
    )
    if hf_only:
        return hf, None, vectors
    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.towers.language.language_model import wrap_lm

    return hf, HookedVLM(None, None, wrap_lm(hf), name="gpt2-small-sized"), vectors


def ours(model: Any, vectors: torch.Tensor) -> Any:
    """All layers, all positions, for every token of the caption, the 100 best pairs of each."""
    from mmlens.methods.attribute import products
    from mmlens.methods.best_scores import BestScores
    from mmlens.model.targets import Target, extend
    from mmlens.values.sites import SITES

    soft = model.embed(vectors)
    length = vectors.shape[1]
    targets = [
        Target(length - 1 + i, lambda logits, token=token: logits[token])
        for i, token in enumerate(CAPTION)
    ]
    best = [BestScores(100) for _ in CAPTION]
    products(
        model,
        extend(model, soft, CAPTION[:-1]),
        targets,
        lambda index, layer, product: best[index].add(layer, product),
        SITES["neurons_pre"],
        range(model.cfg.n_layers),
    )
    return best


def papers(hf: Any, vectors: torch.Tensor) -> list[torch.Tensor]:
    """The same numbers, written plainly: per token a forward and a full backward pass."""
    tops = []
    for step, token in enumerate(CAPTION):
        words = hf.transformer.wte(torch.tensor([CAPTION[:step]], dtype=torch.long))
        kept: list[torch.Tensor] = []

        def keep(module: Any, inputs: Any, output: torch.Tensor, kept: Any = kept) -> None:
            output.retain_grad()
            kept.append(output)

        handles = [block.mlp.c_fc.register_forward_hook(keep) for block in hf.transformer.h]
        logits = hf(inputs_embeds=torch.cat([vectors, words], 1)).logits
        hf.zero_grad()
        logits[0, -1, token].backward()
        for handle in handles:
            handle.remove()
        scores = torch.stack([z.detach() * z.grad for z in kept])
        tops.append(scores.flatten().topk(100).values)
    return tops


def plain(hf: Any, vectors: torch.Tensor) -> list[torch.Tensor]:
    """The same numbers by skilled plain autograd: one forward pass, frozen parameters."""
    hf.requires_grad_(False)
    words = hf.transformer.wte(torch.tensor([CAPTION[:-1]]))
    kept: list[torch.Tensor] = []
    handles = [
        block.mlp.c_fc.register_forward_hook(lambda module, inputs, output: kept.append(output))
        for block in hf.transformer.h
    ]
    whole = torch.cat([vectors, words], 1).requires_grad_()
    logits = hf(inputs_embeds=whole, use_cache=False).logits[0, vectors.shape[1] - 1 :]
    tops = []
    for step, token in enumerate(CAPTION):
        grads = torch.autograd.grad(logits[step, token], kept, retain_graph=True)
        scores = torch.stack([z.detach() * g for z, g in zip(kept, grads, strict=True)])
        tops.append(scores.flatten().topk(100).values)
    for handle in handles:
        handle.remove()
    hf.requires_grad_(True)
    return tops


def with_captum(model: Any, hf: Any, vectors: torch.Tensor) -> None:
    """The same by captum: `LayerGradientXActivation` of every layer, a call per token."""
    from captum.attr import LayerGradientXActivation

    def logit(embeds: torch.Tensor) -> torch.Tensor:
        return hf(inputs_embeds=embeds, use_cache=False).logits[:, -1]

    layers = [block.mlp.c_fc for block in hf.transformer.h]
    for step, token in enumerate(CAPTION):
        words = hf.transformer.wte(torch.tensor([CAPTION[:step]], dtype=torch.long))
        found = LayerGradientXActivation(logit, layers).attribute(
            torch.cat([vectors, words], 1), target=token
        )
        torch.stack([one.detach() for one in found]).flatten().topk(100)


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def against(
    ours: Callable[[], Any], rival: Callable[[], Any], rounds: int
) -> tuple[float, float, float]:
    """(ratio, seconds of ours, of the rival): medians of rounds in which both run side by side.

    The ratio is the median of the rounds' ratios, and who runs first alternates: what else runs on
    the machine meanwhile slows both.
    """
    pairs = []
    for turn in range(rounds):
        both = {"ours": ours, "rival": rival}
        spent = {arm: seconds(both[arm]) for arm in sorted(both, reverse=bool(turn % 2))}
        pairs.append((spent["ours"] / spent["rival"], spent["ours"], spent["rival"]))
    ratio, mine, theirs = map(statistics.median, zip(*pairs, strict=True))
    return ratio, mine, theirs


def peak(arm: str) -> float:
    """Extra peak of resident memory (MB) of one arm, in a process of its own."""
    out = subprocess.run(
        [sys.executable, __file__, "--arm", arm], capture_output=True, text=True, check=True
    )
    return float(out.stdout.split()[-1])


def measure_arm(arm: str) -> None:
    """Print the extra peak memory of one arm: peak after minus resident before."""
    hf, model, vectors = small(hf_only=arm == "paper")
    if model is not None:
        _ = model.lm.can
    with torch.no_grad():
        hf(inputs_embeds=vectors)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        before = _status("VmRSS")
    except OSError:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ours(model, vectors) if model is not None else papers(hf, vectors)
    try:
        after = _status("VmHWM")
    except OSError:
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(after - before)


def _status(name: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return float(line.split()[1]) / 1024


def command(*words: str) -> float:
    """CPU seconds of a command, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main(rounds: int) -> None:
    """Measure everything and print one line each."""
    torch.set_num_threads(1)
    hf, model, vectors = small()
    soft = model.embed(vectors)
    _ = model.lm.can
    arms = ("hf", "hooked", "ours", "paper", "plain", "captum")
    times: dict[str, list[float]] = {name: [] for name in arms}
    captum = importlib.util.find_spec("captum") is not None
    with torch.no_grad():
        hf(inputs_embeds=vectors), model(soft)
    for _ in range(rounds):
        with torch.no_grad():
            for _ in range(3):
                times["hf"].append(seconds(lambda: hf(inputs_embeds=vectors, use_cache=False)))
                times["hooked"].append(seconds(lambda: model(soft)))
        times["ours"].append(seconds(lambda: ours(model, vectors)))
        times["paper"].append(seconds(lambda: papers(hf, vectors)))
        times["plain"].append(seconds(lambda: plain(hf, vectors)))
        if captum:
            times["captum"].append(seconds(lambda: with_captum(model, hf, vectors)))
    t = {name: statistics.median(values) for name, values in times.items() if values}
    memory = {arm: peak(arm) for arm in ("ours", "paper")}
    values = [b.values for b in ours(model, vectors)]
    worst = max(
        float((a - b).abs().max()) for a, b in zip(values, papers(hf, vectors), strict=True)
    )
    print(f"one Hugging Face forward: {t['hf']:.3f} s CPU, one thread, median of {rounds}")
    line("hooked forward / Hugging Face forward", t["hooked"] / t["hf"], "at most 1.02")
    line("attribution, 8 tokens / one plain forward", t["ours"] / t["hooked"], "at most 6.7")
    line("plain autograd, 8 tokens / one plain forward", t["plain"] / t["hooked"], "a rival")
    if captum:
        line("captum, 8 tokens / one plain forward", t["captum"] / t["hooked"], "a rival")
    line("the paper's procedure / attribution", t["paper"] / t["ours"], "at least 3")
    line(
        "extra peak memory, attribution / the paper's",
        memory["ours"] / memory["paper"],
        "at most 0.2",
    )
    print(f"   ({memory['ours']:.0f} MB against {memory['paper']:.0f} MB)")
    print(f"   largest difference of the two procedures' top 100 scores: {worst:.1e}")
    bare = [command(sys.executable, "-c", "pass") for _ in range(3)]
    lazy = [command(sys.executable, "-c", "import mmlens") for _ in range(3)]
    line("import mmlens, seconds", statistics.median(lazy) - statistics.median(bare), "at most 0.3")
    look()


def look() -> None:
    """`mmlens look` on the bundled model against the import that it cannot do without."""
    import mmlens

    root = Path(__file__).parents[2]
    pictures = sorted((root / "scenes").glob("*.png"))
    if "pictos" not in mmlens.models() or not pictures:
        print("mmlens look: there is no bundled model or scene here")
        return
    bridge = (
        sys.executable,
        "-c",
        "from transformer_lens.model_bridge.sources import build_bridge_from_module",
    )
    page = ("--out", "/dev/null")
    looking = (sys.executable, "-m", "mmlens", "look", str(pictures[0]), *page)
    pairs = [(command(*looking), command(*bridge)) for _ in range(3)]
    line(
        "mmlens look / importing the bridge",
        statistics.median(a / b for a, b in pairs),
        "at most 1.3",
    )


def line(what: str, ratio: float, bar: str) -> None:
    """One result."""
    print(f"{what:50s} {ratio:6.2f}   ({bar})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--arm", choices=["ours", "paper"], help="measure the memory of one arm only"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure_arm(options.arm) if options.arm else main(options.rounds)

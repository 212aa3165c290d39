"""What the three trainings share: checkpoints that survive a stop, a loss curve, the clock.

The learning rate is warm-up, then constant, so that a training can be stopped and gone on with at
any step. What is exported comes from a cool-down: `--cooldown N` starts from the checkpoint, lets
the rate fall linearly to zero in N steps and writes the weights, while the checkpoint stays as it
was for the next stretch of the constant rate.
"""

import argparse
import csv
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
PACKAGE = HERE.parents[1] / "mmlens" / "pictos"


def arguments(about: str, lr: float, batch: int) -> argparse.ArgumentParser:
    """The options that every training takes."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/pictos"), help="checkpoints, corpus"
    )
    parser.add_argument("--logs", type=Path, default=HERE / "logs", help="loss curves")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--minutes", type=float, default=60, help="stop after this time")
    parser.add_argument("--steps", type=int, default=10**9, help="stop at this step")
    parser.add_argument(
        "--cooldown", type=int, default=0, help="steps of a falling rate, then export"
    )
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--warmup", type=int, default=150)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    return parser


class Run:
    """The state of one training: step, time spent, curve; saved with everything that learns.

    Args:
        name: checkpoint `work/name.pt` and curve `logs/name.csv`.
        args: from `arguments`.
        learns: what has a `state_dict`: modules and the optimiser, by name.
    """

    def __init__(self, name: str, args: argparse.Namespace, **learns: Any) -> None:
        self.name, self.args, self.learns = name, args, learns
        self.file = args.work / f"{name}.pt"
        args.work.mkdir(parents=True, exist_ok=True)
        self.step, self.spent = 0, 0.0
        if args.resume or args.cooldown:
            state = torch.load(self.file, map_location=args.device, weights_only=False)
            self.step, self.spent = state["step"], state["spent"]
            for key, thing in learns.items():
                thing.load_state_dict(state[key])
        self.first, self.began, self.saved, self.told = (
            self.step,
            time.time(),
            time.time(),
            time.time(),
        )
        self.curve: dict[str, list[float]] = {}
        self.stopped = False
        signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: Any) -> None:
        self.stopped = True

    @property
    def minutes(self) -> float:
        """Minutes of training so far, earlier stretches included."""
        return self.spent + (time.time() - self.began) / 60

    def goes_on(self) -> bool:
        """Whether there is another step to do."""
        done = self.step - self.first
        if self.args.cooldown:
            return done < self.args.cooldown
        in_time = (time.time() - self.began) / 60 < self.args.minutes
        return in_time and self.step < self.args.steps and not self.stopped

    def rate(self) -> float:
        """The learning rate of this step."""
        if self.args.cooldown:
            return self.args.lr * (1 - (self.step - self.first) / self.args.cooldown)
        return self.args.lr * min(1.0, (self.step + 1) / self.args.warmup)

    def update(
        self, optimiser: torch.optim.Optimizer, loss: torch.Tensor, clip: float = 1.0
    ) -> None:
        """One step down the gradient, the gradient's norm clipped."""
        for group in optimiser.param_groups:
            group["lr"] = self.rate() * group.get("times", 1.0)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        weights = [w for g in optimiser.param_groups for w in g["params"]]
        torch.nn.utils.clip_grad_norm_(weights, clip)
        optimiser.step()

    def note(self, every: int = 25, **losses: float) -> None:
        """Count the step; append the mean losses to the curve, save every five minutes."""
        self.step += 1
        for key, value in losses.items():
            self.curve.setdefault(key, []).append(float(value))
        if self.step % every == 0:
            row = {
                "step": self.step,
                "minutes": round(self.minutes, 2),
                "rate": f"{self.rate():.2e}",
            }
            row |= {k: round(sum(v) / len(v), 4) for k, v in self.curve.items()}
            row |= {"cooldown": int(bool(self.args.cooldown))}
            self.curve = {}
            write_row(self.args.logs / f"{self.name}.csv", row)
            print(row, flush=True)
        if time.time() - self.saved > 240 and not self.args.cooldown:
            self.save()

    def save(self) -> None:
        """The whole state, written to a new file that then takes the old one's place."""
        state = {key: thing.state_dict() for key, thing in self.learns.items()}
        state |= {"step": self.step, "spent": self.minutes}
        new = self.file.with_suffix(".new")
        torch.save(state, new)
        os.replace(new, self.file)
        self.saved = time.time()


class Muon(torch.optim.AdamW):
    """AdamW, but matrices inside the network step along their orthogonalised momentum.

    The update of a matrix is U V^T of its momentum's singular vectors, found by five steps of
    Newton and Schulz, and scaled to the size of AdamW's updates (Jordan 2024; Liu et al.,
    arXiv 2502.16982). torch.optim.Muon is the same in bfloat16, which is slow on CPUs without it.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        inner = [g for g in self.param_groups if g.get("orthogonal")]
        for group in inner:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for w in group["params"]:
                by_shape.setdefault(w.shape, []).append(w)
            for shape, weights in by_shape.items():
                for w in weights:
                    state = self.state[w]
                    kept = state.setdefault("momentum", torch.zeros_like(w))
                    state.setdefault("step", torch.zeros(()))  # AdamW reads it when it is loaded
                    kept.lerp_(w.grad, 0.05)
                    w.grad.lerp_(kept, 0.95)
                turns = orthogonal(torch.stack([w.grad for w in weights]))
                for w, turn in zip(weights, turns, strict=True):
                    w.mul_(1 - group["lr"] * group["weight_decay"])
                    w.sub_(turn, alpha=0.2 * max(shape) ** 0.5 * group["lr"])
                    w.grad = None  # AdamW leaves it alone
        super().step(closure)


def orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Each matrix of the stack with its singular values brought near one (Newton and Schulz)."""
    x = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if matrices.shape[1] > matrices.shape[2] else x


def write_row(file: Path, row: dict[str, Any]) -> None:
    """Append to a CSV file, with its heading when it is new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, row.keys(), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def weight_groups(
    modules: list[torch.nn.Module], decay: float, inner: list[torch.nn.Module] | None = None
) -> list[dict[str, Any]]:
    """Matrices with weight decay; biases, norms and the like without.

    The matrices of `inner` modules form a group of their own, which `Muon` orthogonalises.
    """
    weights = [w for m in modules for w in m.parameters() if w.requires_grad]
    turned = [w for m in inner or () for w in m.parameters() if w.ndim == 2]
    chosen = {id(w) for w in turned}
    rest = [w for w in weights if id(w) not in chosen]
    times = 0.5 if turned else 1.0  # an orthogonal step bears a higher rate
    groups = [{"params": [w for w in rest if w.ndim > 1], "weight_decay": decay, "times": times},
              {"params": [w for w in rest if w.ndim < 2], "weight_decay": 0.0, "times": times},
              {"params": turned, "weight_decay": decay, "orthogonal": True}]  # fmt: skip
    return [group for group in groups if group["params"]]

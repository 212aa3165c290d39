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
            group["lr"] = self.rate()
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


def write_row(file: Path, row: dict[str, Any]) -> None:
    """Append to a CSV file, with its heading when it is new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, row.keys(), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def weight_groups(modules: list[torch.nn.Module], decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay; biases, norms and the like without."""
    weights = [w for m in modules for w in m.parameters() if w.requires_grad]
    return [{"params": [w for w in weights if w.ndim > 1], "weight_decay": decay},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0}]  # fmt: skip

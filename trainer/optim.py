"""Optimizers and schedules of the learning rate."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from corpusmill.corpus.errors import UsageError
from corpusmill.trainer.options import OPTIMIZERS, SCHEDULES

_WEIGHT_DECAY = {"adamw": 0.1, "adafactor": 0.0}
_BETAS = (0.9, 0.95)
# A learning rate of `cosine` ends at this share of its highest one.
_COSINE_FLOOR = 0.1

Schedule = Callable[[int], float]


def make_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    weight_decay: float | None = None,
    betas: tuple[float, float] | None = None,
) -> Optimizer:
    """An optimizer of a model's parameters, with weight decay on matrices only.

    Args:
      name: one of `OPTIMIZERS`.
      model: its embeddings and its parameters of one dimension (norms) don't decay.
      learning_rate: the first one; set each group's `lr` before each step for a schedule.
      weight_decay: of the others; by default 0.1 for `adamw`, none for `adafactor`.
      betas: of the averages of `adamw`; by default 0.9 and 0.95.

    Raises:
      UsageError: there is no such optimizer.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"optimizer {name!r}: there are {', '.join(OPTIMIZERS)}")
    kept = {
        parameter
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
        if isinstance(module, nn.Embedding) or parameter.dim() < 2
    }
    decaying = [each for each in model.parameters() if each not in kept]
    decay = _WEIGHT_DECAY[name] if weight_decay is None else weight_decay
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": decay},
        {"params": [each for each in model.parameters() if each in kept], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if name == "adafactor":
        return torch.optim.Adafactor(groups, lr=learning_rate)
    # Fused: one pass over the parameters instead of a dozen.
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas or _BETAS, fused=True)


def make_schedule(name: str, learning_rate: float, warmup: int, steps: int) -> Schedule:
    """The learning rate as a function of the step, the first of which is 1.

    It rises linearly during the warm-up, in whose last step it is `learning_rate`. After that
    `rsqrt` falls with the square root of the step, `cosine` to a tenth in the last step, and
    `constant` stays.

    Args:
      name: one of `SCHEDULES`.
      learning_rate: the highest one.
      warmup: steps; 0 for none.
      steps: in all; only `cosine` depends on it.

    Raises:
      UsageError: there is no such schedule.
    """
    if name not in SCHEDULES:
        raise UsageError(f"schedule {name!r}: there are {', '.join(SCHEDULES)}")
    after = _SCHEDULES[name]

    def schedule(step: int) -> float:
        if step < warmup:
            return learning_rate * step / warmup
        return learning_rate * after(step, warmup, steps)

    return schedule


def _rsqrt(step: int, warmup: int, _: int) -> float:
    return math.sqrt(max(warmup, 1) / max(step, 1))


def _cosine(step: int, warmup: int, steps: int) -> float:
    done = min(1.0, (step - warmup) / max(steps - warmup, 1))
    return _COSINE_FLOOR + (1 - _COSINE_FLOOR) * (1 + math.cos(math.pi * done)) / 2


def _constant(_step: int, _warmup: int, _steps: int) -> float:
    return 1.0


_SCHEDULES = {"rsqrt": _rsqrt, "cosine": _cosine, "constant": _constant}

"""Training runs as a report reads them: a folder of metrics.jsonl and config.json."""

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.corpus.training_runs import RunConfig, read_config, read_metrics

Floats = npt.NDArray[np.float64]
Curve = Mapping[str, Floats]
"""Columns of metrics.jsonl, all of the same length; NaN where a line lacks a value."""

_TRAINING = ("step", "seconds", "tokens", "loss", "next_token_loss")
_VALIDATION = ("step", "seconds", "validation_loss", "validation_bits_per_byte")


@dataclass(frozen=True)
class TrainingRun:
    """A training run.

    Attributes:
      config: what it is.
      training: a row a step.
      validation: a row an evaluation.
    """

    config: RunConfig
    training: Curve
    validation: Curve

    @property
    def tokenizer(self) -> str:
        """Content hash of the tokenizer; losses of others can't be compared with this run's."""
        return str(self.config.tokenizer["content_hash"])

    @property
    def best(self) -> float | None:
        """The lowest validation loss, in nats a token."""
        losses = self.validation["validation_loss"]
        return float(np.nanmin(losses)) if np.isfinite(losses).any() else None

    def reached(self, loss: float) -> tuple[int, float] | None:
        """The step and the seconds of the first evaluation whose loss was `loss` or less."""
        rows = np.flatnonzero(self.validation["validation_loss"] <= loss)
        if not len(rows):
            return None
        return int(self.validation["step"][rows[0]]), float(self.validation["seconds"][rows[0]])


def read_run(folder: str) -> TrainingRun:
    """Reads a run.

    Raises:
      UsageError: it has no configuration, or one of another format version.
      DataError: its files are damaged.
    """
    training = {name: array("d") for name in _TRAINING}
    validation = {name: array("d") for name in _VALIDATION}
    for line in read_metrics(folder):
        columns = validation if "validation_loss" in line else training
        for name, values in columns.items():
            values.append(line.get(name, math.nan))
    return TrainingRun(
        read_config(folder),
        {name: np.array(values) for name, values in training.items()},
        {name: np.array(values) for name, values in validation.items()},
    )


def smoothed(x: Floats, y: Floats, points: int = 150) -> tuple[Floats, Floats]:
    """Means over stretches of equal length on a logarithmic axis, at most so many.

    Args:
      x: positive, of shape [n], n above 0.
      y: of the same shape.
      points: stretches.
    """
    edges = np.geomspace(x.min(), x.max(), points + 1)[1:-1]
    stretch = np.searchsorted(edges, x)
    rows = np.bincount(stretch)
    used = rows > 0
    return (
        np.bincount(stretch, x)[used] / rows[used],
        np.bincount(stretch, y)[used] / rows[used],
    )

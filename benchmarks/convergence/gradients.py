"""How much the gradient varies from mini-batch to mini-batch, at fixed weights."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence

import torch

from benchmarks.convergence.rows import Row
from corpusmill.corpus.training_runs import read_config
from corpusmill.trainer import checkpoints
from corpusmill.trainer.data import TokenDataset
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import Transformer
from corpusmill.trainer.objective import Objective, predictions
from corpusmill.trainer.order import DataOptions

_BATCHES = 32
_OPTIONS = DataOptions(batch_size=8, length=256, seed=1)


def table(folder: pathlib.Path, runs: Mapping[Row, Sequence[pathlib.Path]]) -> list[str]:
    """In Markdown: the variance for each kind of targets, at the weights of the first run."""
    first = next(iter(runs.values()))[0]
    model = Transformer(ModelConfig(**read_config(str(first)).model))
    model.load_state_dict(checkpoints.load_model(checkpoints.complete(str(first))[-1]))
    size = f"{_OPTIONS.batch_size} x {_OPTIONS.length}"
    lines = [
        f"Gradients of {_BATCHES} mini-batches of {size} tokens at the weights of {first.name}:",
        "",
        "| row | variance of the gradient | against next-token |",
        "|---|---|---|",
    ]
    found: dict[str, float] = {}
    for row in runs:
        # How the loss is mixed doesn't change the targets.
        if not row.train:
            found[row.name] = variance(model, folder, row)
            ratio = found[row.name] / next(iter(found.values()))
            lines.append(f"| {row.name} | {found[row.name]:.4g} | {ratio:.3f} |")
    return lines


def variance(model: Transformer, folder: pathlib.Path, row: Row) -> float:
    """The mean squared distance of a mini-batch's gradient from the mean gradient."""
    targets, counts = row.sources(folder)
    batches = TokenDataset(str(folder / "tokens"), _OPTIONS, targets, counts=counts)
    objective = Objective(model, torch.float32)
    total: torch.Tensor | None = None
    squares = 0.0
    for batch in itertools.islice(batches, _BATCHES):
        model.zero_grad()
        objective(batch, 1.0, predictions(batch)).total.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        squares += float(gradient.square().sum())
        total = gradient if total is None else total + gradient
    assert total is not None
    mean = total / _BATCHES
    return (squares / _BATCHES - float(mean.square().sum())) * _BATCHES / (_BATCHES - 1)

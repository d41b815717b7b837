"""What does a training step with targets cost, in time and memory, against plain next tokens?

Compact targets are as `enrich` makes them by default; `benchmarks.gpu` has dense ones as well. Runs
on a GPU, too: `--device cuda --size 113m --vocabulary 50304 --precision bfloat16`.
"""

import argparse
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks import measure
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.trainer.batches import Batch
from corpusmill.trainer.model_config import SIZES, ModelConfig
from corpusmill.trainer.models import Transformer
from corpusmill.trainer.objective import Objective, predictions
from corpusmill.trainer.optim import make_optimizer

_DOCUMENT = 100
_OBJECTIVES = ("next-token", "compact")
_MEMORY_STEPS = 3


def main(argv: Sequence[str]) -> None:
    arguments = parse(argv)
    times = step_seconds(arguments)
    # Memory is a process's own on the CPU, so that each objective gets a new one.
    peaks = {name: measure.in_fresh_process(peak_memory, arguments, name) for name in _OBJECTIVES}
    positions = arguments.batch_size * arguments.length
    rows = [
        (
            name,
            statistics.median(times[name]) * 1e3,
            positions / statistics.median(times[name]),
            peaks[name] / 2**20,
        )
        for name in _OBJECTIVES
    ]
    measure.print_table(
        f"{arguments.size}, {arguments.vocabulary:,} tokens, {positions:,} positions a step,"
        f" {arguments.precision}, {arguments.device}, medians of {arguments.steps}",
        ("objective", "ms a step", "positions/s", "peak MiB"),
        rows,
    )
    ratio = time_ratio(times, "compact")
    measure.print_goal("time of compact over next-token", ratio, at_most=1.03)
    memory = peaks["compact"] / peaks["next-token"]
    measure.print_goal("peak memory of compact over next-token", memory, at_most=1.05)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    add = parser.add_argument
    add("--size", choices=SIZES, default="3m")
    add("--vocabulary", type=int, default=16_384, help="tokens that there are")
    add("--batch-size", type=int, default=8, help="sequences in a step")
    add("--length", type=int, default=512, help="tokens of a sequence")
    add("--steps", type=int, default=15, help="of each objective, in turn")
    add("--precision", choices=("float32", "bfloat16"), default="float32")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add(
        "--mask-documents",
        action="store_true",
        help=f"documents of {_DOCUMENT} tokens see none of each other",
    )
    add("--threads", type=int, default=1, help="of the CPU")
    return parser.parse_args(argv)


def time_ratio(times: dict[str, list[float]], objective: str) -> float:
    """How much longer a step takes than one of `next-token`."""
    # Of neighbours, which whatever else the machine does strikes alike.
    pairs = zip(times[objective], times["next-token"], strict=True)
    return statistics.median(seconds / plain for seconds, plain in pairs)


def step_seconds(
    arguments: argparse.Namespace, objectives: Sequence[str] = _OBJECTIVES
) -> dict[str, list[float]]:
    """Seconds of steps of all objectives, which take turns on one model."""
    learner = Learner(arguments)
    losses = {name: learner.loss_of(name) for name in objectives}
    times: dict[str, list[float]] = {name: [] for name in objectives}
    for number in range(arguments.steps + 2):
        # The first and the last one change places in every other round.
        for name in objectives[:: 1 if number % 2 else -1]:
            times[name].append(learner.timed_step(losses[name]))
    # The first ones warm up.
    return {name: found[2:] for name, found in times.items()}


def peak_memory(arguments: argparse.Namespace, objective: str) -> int:
    """Bytes that a model, its optimizer and a batch take at most, over a few steps."""

    def work() -> None:
        learner = Learner(arguments)
        loss = learner.loss_of(objective)
        for _ in range(_MEMORY_STEPS):
            learner.timed_step(loss)

    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated()
    return measure.memory_growth(work)


class Learner:
    """A model with an optimizer."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        self._arguments = arguments
        config = ModelConfig.of(arguments.size, arguments.vocabulary)
        if arguments.mask_documents:
            config = dataclasses.replace(config, document_start=0)
        model = Transformer(config)
        precision = getattr(torch, arguments.precision)
        self._objective = Objective(model, precision).to(arguments.device)
        self._optimizer = make_optimizer("adamw", model, 1e-3)

    def loss_of(self, objective: str) -> Callable[[], Tensor]:
        """Computes the loss of random tokens; `compact` and `dense` have random targets."""
        shape: Any = (self._arguments.batch_size, self._arguments.length)
        device, vocabulary = self._arguments.device, self._arguments.vocabulary
        tokens = torch.randint(vocabulary, shape, device=device)
        tokens[:, ::_DOCUMENT] = 0
        batch = Batch(tokens, tokens.roll(-1, 1), None, None, tokens[:, 0])
        if objective == "next-token":
            return functools.partial(self.loss, batch)
        if objective == "dense":
            return functools.partial(self._dense_loss, tokens, self._probabilities(tokens.numel()))
        shape = (*shape, TargetOptions().slots)
        targets = torch.randint(vocabulary, shape, dtype=torch.int32, device=device)
        weights = torch.rand(shape, device=device)
        weights /= weights.sum(-1, keepdim=True)
        return functools.partial(
            self.loss, batch._replace(target_tokens=targets, target_weights=weights)
        )

    def loss(self, batch: Batch) -> Tensor:
        return self._objective(batch, 1.0, predictions(batch)).total

    def _probabilities(self, positions: int) -> Tensor:
        """Of every token at every position, in the type that matrices are multiplied in."""
        arguments = self._arguments
        shape = positions, len(self._objective.model.output_weight)
        precision = getattr(torch, arguments.precision)
        return torch.randn(shape, device=arguments.device, dtype=precision).softmax(-1)

    def _dense_loss(self, tokens: Tensor, probabilities: Tensor) -> Tensor:
        """Cross entropy with a distribution over the whole vocabulary, as distillation has it."""
        model = self._objective.model
        precision = getattr(torch, self._arguments.precision)
        with torch.autocast(tokens.device.type, precision, precision != torch.float32):
            logits = model(tokens).flatten(0, 1) @ model.output_weight.T
        return -(probabilities * logits.float().log_softmax(-1)).sum(-1).mean()

    def timed_step(self, loss: Callable[[], Tensor]) -> float:
        """Seconds of a step; a GPU has nothing left to do when it begins and when it ends."""
        started = time.perf_counter()
        loss().backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._arguments.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started


if __name__ == "__main__":
    main(sys.argv[1:])

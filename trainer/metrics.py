"""What a run tells about itself: metrics.jsonl, TensorBoard events, a progress line."""

import datetime as dt
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from corpusmill.corpus import storage
from corpusmill.corpus.errors import CorpusmillError
from corpusmill.corpus.training_runs import METRICS, read_metrics
from corpusmill.trainer.runs import Launch

EVENTS = "tensorboard"
_SECONDS_BETWEEN_LINES = 30.0

Values = Mapping[str, float]


class MetricsLog:
    """Appends to a run's metrics.jsonl and TensorBoard events.

    Object stores know no appending: there all files appear anew with every `publish`.
    """

    def __init__(self, launch: Launch, step: int) -> None:
        """Opens the metrics of a run that goes on after `step`; those of later steps are dropped.

        Args:
          launch: of the run, which it still has to own.
          step: steps done.

        Raises:
          CorpusmillError: another launch has taken over the run.
        """
        launch.expect_owner()
        self._launch, run = launch, launch.run
        kept = [line for line in read_metrics(run) if line["step"] <= step]
        storage.write_bytes(storage.join(run, METRICS), b"".join(map(_to_line, kept)))
        self._is_local = storage.is_local(run)
        self._folder = storage.filesystem(run)[1] if self._is_local else tempfile.mkdtemp()
        path = os.path.join(self._folder, METRICS)
        if not self._is_local:
            storage.copy(storage.join(run, METRICS), path)
        self._file = open(path, "ab")  # noqa: SIM115  (closed by `close`)
        self._events = SummaryWriter(os.path.join(self._folder, EVENTS), purge_step=step + 1)

    def write(self, values: Values) -> None:
        """Adds a line; `values` has the step, to which the other values belong."""
        self._file.write(_to_line(values))
        self._file.flush()
        for name, value in values.items():
            if name != "step":
                self._events.add_scalar(name, value, int(values["step"]))

    def publish(self) -> None:
        """Makes everything written so far visible, wherever the run is.

        Raises:
          CorpusmillError: another launch has taken over the run.
        """
        self._events.flush()
        self._launch.expect_owner()
        if not self._is_local:
            for name in (METRICS, *self._event_files()):
                url = storage.join(self._launch.run, name)
                storage.copy(os.path.join(self._folder, name), url)

    def close(self) -> None:
        """Publishes and closes."""
        try:
            self.publish()
        finally:
            self._events.close()
            self._file.close()
            if not self._is_local:
                shutil.rmtree(self._folder)

    def _event_files(self) -> list[str]:
        """Below the folder; those of other processes, which wrote before, have other names."""
        return [f"{EVENTS}/{name}" for name in os.listdir(os.path.join(self._folder, EVENTS))]


class TrainingProgress:
    """One line on a terminal, which changes; in a log a new line now and then."""

    def __init__(self, step: int, steps: int, tokens: int) -> None:
        """Begins to show a run of `steps` steps, of which `step` are done, with `tokens` tokens."""
        self._steps = steps
        self._first, self._first_tokens, self._began = step, tokens, time.monotonic()
        self._shown = -_SECONDS_BETWEEN_LINES
        self._bar = tqdm(
            initial=step,
            total=steps,
            unit="step",
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}",
            disable=not sys.stderr.isatty(),
        )

    def show(self, step: int, values: Values) -> None:
        """Shows the loss of a step, the tokens a second since the beginning and the time left."""
        seconds = time.monotonic() - self._began
        speed = (values["tokens"] - self._first_tokens) / seconds
        left = (self._steps - step) * seconds / max(step - self._first, 1)
        text = (
            f"loss {values['loss']:.4f}  {speed:,.0f} tokens/s "
            f" {dt.timedelta(seconds=round(left))} left"
        )
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
        elif seconds - self._shown >= _SECONDS_BETWEEN_LINES or step == self._steps:
            self._shown = seconds
            print(f"step {step}/{self._steps}  {text}", file=sys.stderr)

    def say(self, text: str) -> None:
        """Prints a line of its own."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


class Report:
    """Where the first process tells about the run: metrics and progress. A context manager."""

    def __init__(self, launch: Launch, step: int, steps: int, tokens: int) -> None:
        """Goes on after `step` of `steps` steps, which had `tokens` tokens."""
        self._log, self._progress = MetricsLog(launch, step), TrainingProgress(step, steps, tokens)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.close()
        self._log.close()

    def steps(self, lines: Iterable[Values]) -> None:
        """Tells what `Meter.read` gave."""
        for values in lines:
            self._log.write(values)
            self._progress.show(int(values["step"]), values)

    def validation(self, values: Values) -> None:
        """Tells what an evaluation gave."""
        self._log.write(values)
        self._progress.say(
            f"step {values['step']}  validation loss {values['validation_loss']:.4f} "
            f" {values['validation_bits_per_byte']:.4f} bits per byte"
        )

    def publish(self) -> None:
        """`MetricsLog.publish`"""
        self._log.publish()


class Outcome(NamedTuple):
    """What a step came to: tensors on the device, without dimensions, the same in all processes.

    Attributes:
      loss: what was minimized, a mean over the predictions.
      next_token_loss: mean negative log likelihood of the next tokens, in nats.
      gradient_norm: before clipping.
      predictions: how many there were in the step.
    """

    loss: Tensor
    next_token_loss: Tensor
    gradient_norm: Tensor
    predictions: Tensor


class Meter:
    """Turns the outcomes of steps into metrics, a few steps at a time.

    Reading a number from a GPU waits for all the work that is queued there.
    """

    def __init__(self, tokens: int = 0, seconds: float = 0.0) -> None:
        """Goes on counting where a run was.

        Args:
          tokens: predicted so far.
          seconds: that it took.
        """
        self.tokens = tokens
        self._began = time.monotonic() - seconds
        self._read_at = self.seconds
        self._pending: list[tuple[int, float, float, Tensor]] = []

    @property
    def seconds(self) -> float:
        """That the run has taken; those between a kill and the checkpoint before don't count."""
        return time.monotonic() - self._began

    def add(self, step: int, learning_rate: float, outcome: Outcome) -> None:
        """Takes a step's outcome without waiting for it."""
        numbers = torch.stack([each.double() for each in outcome])
        self._pending.append((step, self.seconds, learning_rate, numbers))

    def read(self) -> list[dict[str, float]]:
        """The metrics of the steps since the last reading.

        Raises:
          CorpusmillError: the loss or the gradient of a step is no number.
        """
        if not self._pending:
            return []
        steps, seconds, rates, numbers = zip(*self._pending, strict=True)
        read = torch.stack(numbers).tolist()
        self._pending = []
        speed = sum(row[-1] for row in read) / (self.seconds - self._read_at)
        lines = []
        for step, at, rate, row in zip(steps, seconds, rates, read, strict=True):
            loss, next_token_loss, norm, predictions = row
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise CorpusmillError(
                    f"step {step}: the loss is {loss}, the norm of its gradient {norm}; try a lower"
                    " --learning-rate or a longer --warmup"
                )
            self.tokens += int(predictions)
            lines.append(
                {
                    "step": step,
                    "tokens": self.tokens,
                    "seconds": at,
                    "loss": loss,
                    "next_token_loss": next_token_loss,
                    "learning_rate": rate,
                    "gradient_norm": norm,
                    "tokens_per_second": speed,
                }
            )
        self.restart()
        return lines

    def restart(self) -> None:
        """What was done since the last reading doesn't count for the speed."""
        self._read_at = self.seconds


def _to_line(values: Values) -> bytes:
    return json.dumps(values).encode() + b"\n"

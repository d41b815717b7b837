"""What a user sees while a job runs: one bar a stage on a terminal, one line a stage in a log.

Workers on this machine note how far each part is in small files below the dataset's `_incomplete`
folder; the launching process adds them up. Elsewhere the runner has its own monitoring.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tqdm import tqdm

from corpus import storage
from corpus.datasets import DatasetWriter

_SECONDS_BETWEEN_NOTES = 0.5


@dataclass(frozen=True)
class Stage:
    """A stage of a job as the user knows it.

    Attributes:
      name: what it does, in one word.
      unit: what is counted, for example `tokens` or `B`.
      total: how many there are; None where that is found out on the way.
    """

    name: str
    unit: str
    total: int | None = None


@dataclass
class Progress:
    """A worker's notes on one part of a stage; does nothing where the dataset isn't local."""

    writer: DatasetWriter
    stage: str
    part: str
    done: int = 0
    _noted: float = field(default=0.0, init=False)

    def add(self, amount: int) -> None:
        """Notes that `amount` more units are done."""
        self.done += amount
        if time.monotonic() - self._noted >= _SECONDS_BETWEEN_NOTES:
            self.note()

    def note(self) -> None:
        """Writes the present state down."""
        self._noted = time.monotonic()
        if storage.is_local(self.writer.folder):
            path = os.path.join(_folder(self.writer, self.stage), self.part)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                json.dump(self.done, file)


@contextlib.contextmanager
def shown(writer: DatasetWriter, stages: tuple[Stage, ...]) -> Iterator[None]:
    """Shows the progress of a job's stages on standard error until the block ends."""
    if not storage.is_local(writer.folder):
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=_watch, args=(writer, stages, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch(writer: DatasetWriter, stages: tuple[Stage, ...], stop: threading.Event) -> None:
    bars: dict[str, tqdm] = {}  # type: ignore[type-arg]
    terminal = sys.stderr.isatty()
    started = time.monotonic()
    while True:
        last_look = stop.wait(_SECONDS_BETWEEN_NOTES)
        for stage in stages:
            done = _done(writer, stage.name)
            if done and stage.name not in bars:
                bars[stage.name] = tqdm(
                    desc=stage.name,
                    total=stage.total,
                    unit=stage.unit,
                    unit_scale=True,
                    disable=not terminal,
                )
                if not terminal:
                    seconds = time.monotonic() - started
                    print(f"{stage.name}: started after {seconds:.1f} s", file=sys.stderr)
            if stage.name in bars and done:
                bars[stage.name].update(done - bars[stage.name].n)
        if last_look:
            break
    for bar in bars.values():
        bar.close()


def _done(writer: DatasetWriter, stage: str) -> int:
    folder = _folder(writer, stage)
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for part in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError, ValueError):
                with open(os.path.join(folder, part)) as file:
                    total += json.load(file)
    return total


def _folder(writer: DatasetWriter, stage: str) -> str:
    return storage.filesystem(writer.scratch("progress", stage))[1]

"""What a user sees while a job runs: one bar a stage on a terminal, one line a stage in a log.

Workers on this machine note how far each part is in small files below the dataset's `_incomplete`
folder; the launching process adds them up. Elsewhere the runner has its own monitoring.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tqdm import tqdm

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import DatasetWriter

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
            self._note(str(self.done))

    def finish(self) -> None:
        """Notes that no more will be done."""
        self._note(f"{self.done}\n")

    def _note(self, text: str) -> None:
        self._noted = time.monotonic()
        if storage.is_local(self.writer.folder):
            path = os.path.join(_folder(self.writer, self.stage), self.part)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)


@contextlib.contextmanager
def shown(writer: DatasetWriter, stages: tuple[Stage, ...]) -> Iterator[None]:
    """Shows the progress of a job's stages on standard error until the block ends."""
    if not storage.is_local(writer.folder):
        yield
        return
    watch = _Watch(writer, stages)
    watch.start()
    try:
        yield
    finally:
        watch.stop()


@contextlib.contextmanager
def shown_stages(unit: str) -> Iterator[Callable[[str, int], None]]:
    """Shows what this process does itself: a bar a stage on a terminal, else a line.

    Args:
      unit: what is counted.

    Yields:
      What is called with a stage's name and how much more of it is done.
    """
    bars: dict[str, tqdm] = {}

    def progress(stage: str, amount: int) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            terminal = sys.stderr.isatty()
            bars[stage] = tqdm(desc=stage, unit=f" {unit}", unit_scale=True, disable=not terminal)
            if not terminal:
                print(stage, file=sys.stderr)
        bars[stage].update(amount)

    try:
        yield progress
    finally:
        for bar in bars.values():
            bar.close()


class _Watch(threading.Thread):
    """Looks at the workers' notes again and again, and shows what they say."""

    def __init__(self, writer: DatasetWriter, stages: tuple[Stage, ...]) -> None:
        super().__init__(daemon=True)
        self._notes = {stage: Notes(_folder(writer, stage.name)) for stage in stages}
        self._bars: dict[Stage, tqdm] = {}
        self._began = time.monotonic()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_NOTES):
            for stage, notes in self._notes.items():
                if done := notes.read():
                    self._show(stage, done)

    def stop(self) -> None:
        self._ended.set()
        self.join()
        for bar in self._bars.values():
            bar.close()

    def _show(self, stage: Stage, done: int) -> None:
        terminal = sys.stderr.isatty()
        if stage not in self._bars:
            self._bars[stage] = tqdm(
                desc=stage.name,
                total=stage.total,
                unit=f" {stage.unit}",
                unit_scale=True,
                disable=not terminal,
            )
            if not terminal:
                seconds = time.monotonic() - self._began
                print(f"{stage.name}: started after {seconds:.1f} s", file=sys.stderr)
        self._bars[stage].update(done - self._bars[stage].n)


class Notes:
    """The workers' notes on the parts of a stage; those on finished parts are read once."""

    def __init__(self, folder: str) -> None:
        """Takes the folder that they are in, or will be."""
        self._folder = folder
        self._finished: dict[str, int] = {}

    def read(self) -> int:
        """How much is done of all parts together."""
        going_on = 0
        # Workers replace the notes, and the finished job removes them, while they are read.
        with contextlib.suppress(FileNotFoundError):
            for part in set(os.listdir(self._folder)).difference(self._finished):
                path = os.path.join(self._folder, part)
                with contextlib.suppress(FileNotFoundError, ValueError), open(path) as file:
                    text = file.read()
                    if text.endswith("\n"):
                        self._finished[part] = int(text)
                    else:
                        going_on += int(text)
        return going_on + sum(self._finished.values())


def _folder(writer: DatasetWriter, stage: str) -> str:
    return storage.filesystem(writer.scratch("progress", stage))[1]

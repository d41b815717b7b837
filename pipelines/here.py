"""Work on this machine without Beam, whose start-up would often take longer than the work.

It is for jobs without a shuffle: each element is worked on by itself.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from corpus.errors import CorpusmillError
from pipelines.work import Work


@dataclass(frozen=True)
class LocalJob:
    """Work on elements, in this process or in several; used as a pipeline is.

    Attributes:
      work: what is done with each element.
      elements: that it is done with.
      workers: processes, this one where it is 1.
      finish: called when all is done.
      loaded: what `work.load` gives, where this process has it already.
    """

    work: Work
    elements: Sequence[Any]
    workers: int
    finish: Callable[[], Any]
    loaded: Any = None

    def run(self) -> "LocalJob":
        """Does the work.

        Raises:
          CorpusmillError: a worker process ended on its own.
        """
        workers = min(self.workers, len(self.elements))
        if workers == 1:
            loaded = self.work.load() if self.loaded is None else self.loaded
            for element in self.elements:
                self.work.run(loaded, element)
        else:
            _run_in_processes(self.work, self.elements, workers)
        self.finish()
        return self

    def wait_until_finish(self) -> None:
        """Returns at once: `run` has waited."""


def _run_in_processes(work: Work, elements: Sequence[Any], workers: int) -> None:
    others = multiprocessing.active_children()
    # Forked processes would share locks of threads that they don't have.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (work,))
    try:
        futures = [pool.submit(_run, element) for element in elements]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        _raise_first_error(done)
    except BrokenProcessPool as error:
        raise CorpusmillError(
            "a worker process ended on its own, as it does when memory runs out: run the same"
            " command again to go on, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
                process.join()


def _raise_first_error(done: set[Future[Any]]) -> None:
    for future in done:
        future.result()


# In a worker process: its work, and what that has loaded.
_held: list[tuple[Work, Any]] = []


def _begin(work: Work) -> None:
    # Ctrl-C reaches all processes of a terminal; the launching one sees to the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _held.append((work, work.load()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(element: Any) -> None:
    [(work, loaded)] = _held
    work.run(loaded, element)

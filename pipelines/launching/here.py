"""Work on this machine without Beam, whose start-up would often take longer than the work.

It is for jobs without a shuffle: each element is worked on by itself.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from corpusmill.corpus.errors import CorpusmillError
from corpusmill.pipelines.launching.work import Work

# Workers are forked from a process that has imported what they need and runs no threads: forked
# from this one, they would share locks of threads that they don't have.
_CONTEXT = multiprocessing.get_context("forkserver")


def expect_workers(workers: int, module: str) -> None:
    """Lets what so many processes need be imported while this one still prepares their work.

    Args:
      workers: processes, this one where it is 1.
      module: that imports it all.
    """
    if workers > 1:
        _CONTEXT.set_forkserver_preload([module])
        # Ctrl-C reaches all processes of a terminal; this one sees to the others, which inherit
        # that they are deaf to it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


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

    @property
    def processes(self) -> int:
        """How many work."""
        return max(1, min(self.workers, len(self.elements)))

    def run(self) -> "LocalJob":
        """Does the work.

        Raises:
          CorpusmillError: a worker process ended on its own.
        """
        if self.processes == 1:
            loaded = self.work.load() if self.loaded is None else self.loaded
            for element in self.elements:
                self.work.run(loaded, element)
        else:
            _run_in_processes(self.work, self.elements, self.processes)
        self.finish()
        return self

    def wait_until_finish(self) -> None:
        """Returns at once: `run` has waited."""


def _run_in_processes(work: Work, elements: Sequence[Any], workers: int) -> None:
    expect_workers(workers, type(work).__module__)
    processes = []
    connections: list[Connection] = []
    try:
        for _ in range(workers):
            ours, theirs = _CONTEXT.Pipe()
            processes.append(_CONTEXT.Process(target=_work, args=(theirs, work), daemon=True))
            connections.append(ours)
            processes[-1].start()
            # So that its end is the end of the connection.
            theirs.close()
        _hand_out(elements, connections)
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()


def _hand_out(elements: Sequence[Any], connections: list[Connection]) -> None:
    """Gives each worker another element whenever it has done one; raises what it raises."""
    waiting = list(reversed(elements))
    for connection in connections:
        _send(connection, waiting.pop())
    left = len(elements)
    while left:
        for ready in wait(connections):
            assert isinstance(ready, Connection)
            error = _answer(ready)
            if error is not None:
                raise error
            left -= 1
            if waiting:
                _send(ready, waiting.pop())


def _send(connection: Connection, element: Any) -> None:
    # Whether a worker has ended shows when its answer is read.
    with contextlib.suppress(BrokenPipeError):
        connection.send(element)


def _answer(connection: Connection) -> Exception | None:
    """None where a worker has done its element, else what went wrong."""
    try:
        error: Exception | None = connection.recv()
    except (EOFError, ConnectionResetError) as ended:
        raise CorpusmillError(
            "a worker process ended on its own, as it does when memory runs out: run the same"
            " command again to go on, with fewer --workers"
        ) from ended
    return error


def _work(connection: Connection, work: Work) -> None:
    """What a worker process does until it is ended: an answer for each element."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        loaded = work.load()
        while True:
            element = connection.recv()
            work.run(loaded, element)
            connection.send(None)
    except Exception as error:  # noqa: BLE001  (the launching process raises it)
        # Which it doesn't where it has ended.
        with contextlib.suppress(OSError):
            connection.send(_portable(error))


def _portable(error: Exception) -> Exception:
    """An error as another process can raise it."""
    if isinstance(error, CorpusmillError):
        return error
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  (whatever its class does)
        return RuntimeError(traceback.format_exc())
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

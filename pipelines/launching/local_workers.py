"""Work on this machine without Beam, whose start-up would often take longer than the work."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from corpusmill.corpus.errors import CorpusmillError
from corpusmill.pipelines.launching.work import Calls, Work

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
        # that they are deaf to it. The tracker would let this process hear it again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    """The values of each key, in their order; what a shuffle is to Beam."""
    values: dict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        values[key].append(value)
    return dict(values)


class Workers:
    """Processes that work on elements, started when they are needed: this one where it is one.

    They end when the context that it is does.
    """

    def __init__(self, most: int) -> None:
        """Takes how many processes there may be."""
        self._most = most
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.pid is not None:
                process.terminate()
                process.join()

    def number_for(self, elements: int) -> int:
        """How many processes work on so many elements."""
        return max(1, min(self._most, elements))

    def map(
        self, function: Callable[..., Any], elements: Iterable[Any], *arguments: Any
    ) -> list[Any]:
        """Calls a function with each element and the arguments; see `run`."""
        return self.run(Calls(function, arguments), elements)

    def run(self, work: Work, elements: Iterable[Any], loaded: Any = None) -> list[Any]:
        """Does some work with each element.

        Args:
          work: what to do.
          elements: with what. They and the results go from process to process by pickle, so they
            name files where there is much to say.
          loaded: what `work.load` gives, where this process has it already.

        Returns:
          The results, in the order of the elements.

        Raises:
          CorpusmillError: a worker process ended on its own.
        """
        elements = list(elements)
        number = self.number_for(len(elements))
        if number > 1:
            return _hand_out(work, elements, self._started(number, type(work).__module__))
        if not elements:
            return []
        if loaded is None:
            loaded = work.load()
        return [work.run(loaded, element) for element in elements]

    def _started(self, number: int, module: str) -> list[Connection]:
        expect_workers(number, module)
        with _undisturbed():
            while len(self._processes) < number:
                ours, theirs = _CONTEXT.Pipe()
                self._processes.append(_CONTEXT.Process(target=_serve, args=(theirs,), daemon=True))
                self._connections.append(ours)
                self._processes[-1].start()
                # So that its end is the end of the connection.
                theirs.close()
        return self._connections[:number]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Has Ctrl-C wait: a process that was told half of what to do would end with a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which is where the signal is handled
        return
    came: list[object] = []
    before = signal.signal(signal.SIGINT, lambda *arguments: came.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)


def _hand_out(work: Work, elements: Sequence[Any], connections: list[Connection]) -> list[Any]:
    """Gives each worker another element whenever it has done one; raises what it raises."""
    waiting = list(reversed(list(enumerate(elements))))
    results: list[Any] = [None] * len(elements)
    for connection in connections:
        _send(connection, work)
        _send(connection, waiting.pop())
    left = len(elements)
    while left:
        for ready in wait(connections):
            assert isinstance(ready, Connection)
            number, result, error = _answer(ready)
            if error is not None:
                raise error
            results[number] = result
            left -= 1
            if waiting:
                _send(ready, waiting.pop())
    return results


def _send(connection: Connection, message: Any) -> None:
    # Whether a worker has ended shows when its answer is read.
    with contextlib.suppress(BrokenPipeError):
        connection.send(message)


def _answer(connection: Connection) -> tuple[int, Any, Exception | None]:
    """Number and result of the element that a worker has done, or what went wrong."""
    try:
        answer: tuple[int, Any, Exception | None] = connection.recv()
    except (EOFError, ConnectionResetError) as ended:
        raise CorpusmillError(
            "a worker process ended on its own, as it does when memory runs out: run the same"
            " command again to go on, with fewer --workers"
        ) from ended
    return answer


def _serve(connection: Connection) -> None:
    """What a worker process does until it is ended: work comes, then its elements, numbered."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        run = _loaded(connection.recv())
        while True:
            message = connection.recv()
            if isinstance(message, tuple):
                number, element = message
                connection.send((number, run(element), None))
            else:
                run = _loaded(message)
    except Exception as error:  # noqa: BLE001  (the launching process raises it)
        # Which it doesn't where it has ended.
        with contextlib.suppress(OSError):
            connection.send((0, None, _portable(error)))


def _loaded(work: Work) -> Callable[[Any], Any]:
    return partial(work.run, work.load())


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

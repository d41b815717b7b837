"""Ctrl-C: a command ends at once, with one line, whatever it is doing.

Python raises KeyboardInterrupt wherever the main thread is, in other packages' code too, which may
wrap it in an error of its own, swallow it, or wait for threads that go on. So what counts is that
the signal came, and that the process ends soon after it.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

EXIT_CODE = 130
_MESSAGE = "corpusmill: interrupted; run the same command again to go on"
# For whoever tidies up: what a killed process leaves does no harm either.
_SECONDS = 2


def _ignore(_what: object) -> None:
    pass


class Interruption:
    """Whether a command was interrupted.

    Attributes:
      happened: whether the signal has come.
    """

    def __init__(self) -> None:
        self.happened = False
        self._process = os.getpid()
        self._said = False

    @contextlib.contextmanager
    def watched(self, *, for_good: bool) -> Iterator[None]:
        """Looks out for the signal until the block ends; in other threads than the first it can't.

        Args:
          for_good: the process ends behind the block, and nothing disturbs it there.
        """
        is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # in a shell's background
        if is_ignored or threading.current_thread() is not threading.main_thread():
            yield
            return
        hooks = threading.excepthook, sys.unraisablehook
        before = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN if for_good else before)
            threading.excepthook, sys.unraisablehook = hooks

    def say(self) -> None:
        """Says once what to do now."""
        if not self._said:
            self._said = True
            print(_MESSAGE, file=sys.stderr, flush=True)

    def leave(self) -> NoReturn:
        """Ends the process without waiting for threads; what they were writing stays unseen."""
        self.say()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(EXIT_CODE)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> NoReturn:
        # A forked process has the handler, too, but it isn't its business.
        if os.getpid() == self._process:
            if self.happened:
                self.leave()
            self.happened = True
            # Threads fall over what was taken away from them.
            threading.excepthook = _ignore
            sys.unraisablehook = _ignore
            deadline = threading.Timer(_SECONDS, self.leave)
            deadline.daemon = True
            deadline.start()
        raise KeyboardInterrupt

"""A local worker process: Beam's own, without its running commentary.

What goes wrong in it reaches the launching process with the error. It ends when that does.
"""

import logging
import os
import runpy
import sys
import threading
import time

_SECONDS_BETWEEN = 0.5


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if "CORPUSMILL_LOG" not in os.environ:
        logging.disable(logging.ERROR)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for the process' life)
    # Not an import, because Beam's commentary begins when it is imported.
    runpy.run_module("apache_beam.runners.worker.sdk_worker_main", run_name="__main__")

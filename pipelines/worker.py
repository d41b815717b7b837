"""A local worker process: Beam's own, without its running commentary.

What goes wrong in it reaches the launching process with the error.
"""

import logging
import os
import runpy
import sys

if __name__ == "__main__":
    if "CORPUSMILL_LOG" not in os.environ:
        logging.disable(logging.ERROR)
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (for the process' life)
    # Not an import, because Beam's commentary begins when it is imported.
    runpy.run_module("apache_beam.runners.worker.sdk_worker_main", run_name="__main__")

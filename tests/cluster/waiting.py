"""Waiting for a moment in a job's life."""

import time

from tests.cluster.engines import SECONDS


def wait_for(find, process=None):
    """What `find` returns, as soon as there is any; a `process` has to be at work until then."""
    until = time.monotonic() + SECONDS
    while not (found := find()):
        if process is not None:
            assert process.poll() is None, f"the job ended too early: {process.communicate()[0]}"
        assert time.monotonic() < until, f"nothing after {SECONDS} s"
        time.sleep(0.01)
    return found


def completed(output, prefix):
    """The completion records of a job at work, of the parts whose names begin so."""
    return list((output / "_incomplete" / "done").glob(f"{prefix}*.json"))

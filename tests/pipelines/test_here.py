"""Jobs that run here without Beam: in this process, in several, and what ends them."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from corpusmill.corpus.errors import CorpusmillError, DataError
from corpusmill.pipelines.launching.here import LocalJob


@dataclasses.dataclass(frozen=True)
class Note:
    """Work that leaves a file with the process' id for each element, and does what it says."""

    folder: str

    def load(self) -> str:
        return f"loaded by {os.getpid()}"

    def run(self, loaded: str, element: str) -> None:
        assert loaded == f"loaded by {os.getpid()}"
        Path(self.folder, element).write_text(str(os.getpid()))
        if element == "fail":
            raise DataError("the element is bad")
        if element == "die":
            os._exit(9)
        if element == "wait":
            signal.pause()


def notes(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_each_element_is_worked_on_once_and_then_it_is_finished(tmp_path, workers):
    elements = [str(number) for number in range(10)]
    finished = []
    job = LocalJob(Note(str(tmp_path)), elements, workers, lambda: finished.append(notes(tmp_path)))
    assert job.run().wait_until_finish() is None
    [found] = finished
    assert sorted(found) == sorted(elements)
    here = str(os.getpid())
    assert set(found.values()) == {here} if workers == 1 else here not in found.values()


def test_what_is_loaded_already_is_not_loaded_again(tmp_path, monkeypatch):
    loaded = f"loaded by {os.getpid()}"
    monkeypatch.setattr(Note, "load", None)
    LocalJob(Note(str(tmp_path)), ["a"], 2, lambda: None, loaded).run()
    assert list(notes(tmp_path)) == ["a"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_worker_comes_out_and_the_job_is_not_finished(tmp_path, workers):
    job = LocalJob(Note(str(tmp_path)), ["a", "fail", "wait"], workers, pytest.fail)
    with pytest.raises(DataError, match="the element is bad"):
        job.run()
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_ends_the_job(tmp_path):
    job = LocalJob(Note(str(tmp_path)), ["die", "wait"], 2, pytest.fail)
    with pytest.raises(CorpusmillError, match="a worker process ended on its own"):
        job.run()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_workers_end_with_the_process_that_started_them(tmp_path, number, code):
    program = (
        "from corpusmill.pipelines.launching.here import LocalJob\n"
        "from tests.pipelines.test_here import Note\n"
        f"LocalJob(Note({str(tmp_path)!r}), ['wait', 'wait2', 'wait'], 2, None).run()"
    )
    process = psutil.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (tmp_path / "wait").exists():
        assert process.poll() is None
        assert time.monotonic() < until
    family = process.children(recursive=True)
    assert len(family) >= 2
    process.send_signal(number)
    assert process.wait(60) == code
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []

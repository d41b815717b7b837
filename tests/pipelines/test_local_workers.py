"""Jobs that run here without Beam: in this process, in several, and what ends them."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from corpusmill.corpus.errors import CorpusmillError, DataError
from corpusmill.pipelines.launching import local_workers
from corpusmill.pipelines.launching.local_workers import Workers, grouped


@dataclasses.dataclass(frozen=True)
class Note:
    """Work that leaves a file with the process' id for each element, and does what it says."""

    folder: str

    def load(self) -> str:
        return f"loaded by {os.getpid()}"

    def run(self, loaded: str, element: str) -> str:
        assert loaded == f"loaded by {os.getpid()}"
        Path(self.folder, element).write_text(str(os.getpid()))
        if element == "fail":
            raise DataError("the element is bad")
        if element == "die":
            os._exit(9)
        if element == "wait":
            signal.pause()
        return f"did {element}"


def notes(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("most", [1, 2])
def test_each_element_is_worked_on_once_and_results_keep_their_order(tmp_path, most):
    elements = [str(number) for number in range(10)]
    with Workers(most) as workers:
        assert workers.run(Note(str(tmp_path)), iter(elements)) == [f"did {e}" for e in elements]
    found = notes(tmp_path)
    assert sorted(found) == sorted(elements)
    here = str(os.getpid())
    assert set(found.values()) == {here} if most == 1 else here not in found.values()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("most", [1, 3])
def test_the_same_processes_do_one_work_after_the_other(tmp_path, most):
    with Workers(most) as workers:
        for stage, number in enumerate((2, 0, 1, 5)):
            folder = tmp_path / str(stage)
            folder.mkdir()
            assert len(workers.run(Note(str(folder)), map(str, range(number)))) == number
            assert workers.map(divmod, range(number), 2) == [divmod(i, 2) for i in range(number)]
        assert len(multiprocessing.active_children()) == (0 if most == 1 else most)


def test_what_is_loaded_already_is_not_loaded_again(tmp_path, monkeypatch):
    loaded = f"loaded by {os.getpid()}"
    monkeypatch.setattr(Note, "load", None)
    with Workers(2) as workers:
        workers.run(Note(str(tmp_path)), ["a"], loaded)
    assert list(notes(tmp_path)) == ["a"]


def test_values_are_grouped_in_their_order():
    assert grouped([("b", 2), ("a", 1), ("b", 1)]) == {"b": [2, 1], "a": [1]}


@pytest.mark.parametrize("most", [1, 2])
def test_the_error_of_a_worker_comes_out(tmp_path, most):
    with pytest.raises(DataError, match="the element is bad"), Workers(most) as workers:
        workers.run(Note(str(tmp_path)), ["a", "fail", "wait"])
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_ends_the_job(tmp_path):
    message = "a worker process ended on its own"
    with pytest.raises(CorpusmillError, match=message), Workers(2) as workers:
        workers.run(Note(str(tmp_path)), ["die", "wait"])
    assert not multiprocessing.active_children()


def test_an_interrupt_while_a_process_starts_comes_when_it_has_started(tmp_path, monkeypatch):
    started = []
    start = local_workers._CONTEXT.Process.start

    def interrupted_start(process):
        signal.raise_signal(signal.SIGINT)
        start(process)
        started.append(process)

    monkeypatch.setattr(local_workers._CONTEXT.Process, "start", interrupted_start)
    with pytest.raises(KeyboardInterrupt), Workers(2) as workers:
        workers.run(Note(str(tmp_path)), ["a", "b"])
    assert len(started) == 2
    assert not list(tmp_path.iterdir())
    assert not multiprocessing.active_children()


def test_workers_may_be_started_by_a_thread():
    with ThreadPoolExecutor(1) as thread, Workers(2) as workers:
        assert thread.submit(workers.map, divmod, [7, 8], 2).result() == [(3, 1), (4, 0)]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_workers_end_with_the_process_that_started_them(tmp_path, number, code):
    program = (
        "from corpusmill.pipelines.launching.local_workers import Workers\n"
        "from tests.pipelines.test_local_workers import Note\n"
        "with Workers(2) as workers:\n"
        f"    workers.run(Note({str(tmp_path)!r}), ['wait', 'wait2', 'wait'])"
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

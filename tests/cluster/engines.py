"""The engines that pipelines are run on, each as the options that a user would type."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.integration.samples import run

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "deploy" / "cluster.py"
BIN = Path(sys.executable).parent
WORKER = "corpusmill-worker"
SECONDS = 800


@dataclasses.dataclass(frozen=True)
class Engine:
    """Options of a command."""

    options: tuple[str, ...]

    def with_options(self, *options):
        return Engine((*self.options, *options))

    def run(self, *arguments):
        """A command in this process, which must succeed."""
        run(*arguments, *self.options)

    def start(self, *arguments):
        """A command in a process group of its own."""
        command = [
            sys.executable,
            "-m",
            "corpusmill.commands.cli",
            *map(str, arguments),
            *self.options,
        ]
        return subprocess.Popen(
            command,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def finish(process):
    try:
        printed, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, printed
    return printed


def job_server(engine):
    """The jar that `make cluster-test` builds."""
    jar = ROOT / "deploy" / engine / "target" / f"{engine}-job-server.jar"
    assert jar.exists(), f"{jar} is missing: make cluster-test builds it"
    return jar


def cluster(engine, action, folder):
    command = [sys.executable, CLUSTER, engine, action, "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cluster_state(folder):
    return json.loads((folder / "cluster.json").read_text())


def cluster_processes(folder):
    """The living processes of a cluster: by session, as nothing that it starts leaves its own."""
    leaders = {leader for leader, _ in cluster_state(folder)["sessions"]}
    return [each for each in psutil.process_iter() if _session(each.pid) in leaders]


def executors(folder):
    """What holds a cluster's tasks: Spark's executors, Flink's task managers."""
    return _commanded(folder, "CoarseGrainedExecutorBackend", "TaskManagerRunner")


def python_workers(folder):
    """The processes in which executors have Python work: children of those that watch them."""
    found = _commanded(folder, WORKER)
    watchers = {each.pid for each in found}
    return [each for each in found if _parent(each) in watchers]


def _commanded(folder, *names):
    return [
        each
        for each in cluster_processes(folder)
        if any(name in word for name in names for word in _command_line(each))
    ]


def alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _command_line(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _parent(process):
    try:
        return process.ppid()
    except psutil.Error:
        return None

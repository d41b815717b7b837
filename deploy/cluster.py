#!/usr/bin/env python3
"""A Spark or Flink standalone cluster of real processes on this machine, to try a job on.

    deploy/cluster.py spark up      # a master and two workers; does nothing where they are up
    deploy/cluster.py spark down    # ends them and all that they started
    deploy/cluster.py flink up

Spark comes from the package `pyspark`, Flink from its job server's jar (deploy/flink). Everything
that a cluster writes lies below one folder (`--folder`, by default .cluster/spark or
.cluster/flink): logs/ of each process, conf/, and cluster.json with addresses and process ids.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
STATE = "cluster.json"
SECONDS_TO_START = 120
SECONDS_TO_END = 10
DEPLOY = Path(__file__).resolve().parent


class ClusterError(Exception):
    """What is wrong, in one line."""


@dataclass(frozen=True)
class Size:
    """How many workers, and the cores and MiB of memory of each."""

    workers: int
    cores: int
    memory: int


class Spark:
    """A master and workers; a job's executors are theirs, and have all of their memory."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder = folder
        self.size = size
        package = importlib.util.find_spec("pyspark")
        if package is None or package.origin is None:
            raise ClusterError("the package pyspark is missing: pip install 'pyspark==3.5.7'")
        self.home = Path(package.origin).parent

    def configure(self) -> dict[str, str]:
        """Gives the addresses; there is no configuration to be written."""
        port, web_port = free_ports(2)
        return {"master": f"spark://{HOST}:{port}", "web": f"http://{HOST}:{web_port}"}

    def environment(self) -> dict[str, str]:
        return {
            "SPARK_HOME": str(self.home),
            "SPARK_CONF_DIR": str(self.folder / "conf"),
            "SPARK_DAEMON_MEMORY": "512m",
            "SPARK_LOCAL_DIRS": str(self.folder / "tmp"),
            "SPARK_LOCAL_IP": HOST,
        }

    def master(self, state: dict) -> list[str]:
        port, web_port = (state[name].rpartition(":")[2] for name in ("master", "web"))
        return self._command("Master", port=port, web_port=web_port)

    def worker(self, state: dict, number: int) -> list[str]:
        folder = self.folder / "work" / str(number)
        command = self._command("Worker", port="0", web_port="0")
        command += ["--work-dir", str(folder), "--cores", str(self.size.cores)]
        return [*command, "--memory", f"{self.size.memory}m", state["master"]]

    def _command(self, name: str, port: str, web_port: str) -> list[str]:
        main = f"org.apache.spark.deploy.{name.lower()}.{name}"
        command = [str(self.home / "bin" / "spark-class"), main, "--host", HOST]
        return [*command, "--port", port, "--webui-port", web_port]

    @staticmethod
    def alive_workers(state: dict) -> int | None:
        """How many workers the master says it has; None if it doesn't answer."""
        return ask(f"{state['web']}/json/", "aliveworkers")

    def options(self, state: dict) -> str:
        return (
            f"--runner SparkRunner --spark_master_url {state['master']} --spark_job_server_jar JAR"
        )


class Flink:
    """A session cluster: a job manager and task managers, with a slot for each core."""

    # What a distribution's scripts would work out.
    configuration = """\
jobmanager.rpc.address: {host}
jobmanager.rpc.port: {port}
jobmanager.bind-host: {host}
jobmanager.memory.process.size: 1g
rest.address: {host}
rest.bind-address: {host}
rest.port: {web_port}
taskmanager.host: {host}
taskmanager.bind-host: {host}
taskmanager.numberOfTaskSlots: {cores}
taskmanager.cpu.cores: {cores}
taskmanager.memory.framework.heap.size: 128m
taskmanager.memory.framework.off-heap.size: 128m
taskmanager.memory.task.heap.size: {heap}m
taskmanager.memory.task.off-heap.size: 0
taskmanager.memory.managed.size: 128m
taskmanager.memory.network.min: 192m
taskmanager.memory.network.max: 192m
taskmanager.memory.jvm-metaspace.size: 256m
taskmanager.memory.jvm-overhead.min: 192m
taskmanager.memory.jvm-overhead.max: 192m
parallelism.default: {slots}
io.tmp.dirs: {folder}/tmp
"""
    # Of the memory of a task manager, what isn't for the tasks' objects.
    reserved = 1024

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder = folder
        self.size = size
        self.jar = DEPLOY / "flink" / "target" / "flink-job-server.jar"
        if not self.jar.exists():
            raise ClusterError(f"{self.jar} is missing: mvn package -f {DEPLOY / 'flink'}")
        if size.memory <= self.reserved:
            raise ClusterError(f"--memory {size.memory} is not above {self.reserved} MiB")

    def configure(self) -> dict[str, str]:
        """Writes the configuration; gives the addresses."""
        port, web_port = free_ports(2)
        size = self.size
        configuration = self.configuration.format(
            host=HOST,
            port=port,
            web_port=web_port,
            cores=size.cores,
            heap=size.memory - self.reserved,
            slots=size.workers * size.cores,
            folder=self.folder,
        )
        (self.folder / "conf" / "flink-conf.yaml").write_text(configuration)
        return {"master": f"{HOST}:{web_port}", "web": f"http://{HOST}:{web_port}"}

    def environment(self) -> dict[str, str]:
        return {}

    def master(self, _state: dict) -> list[str]:
        return self._command("entrypoint.StandaloneSessionClusterEntrypoint", 512)

    def worker(self, _state: dict, _number: int) -> list[str]:
        return self._command("taskexecutor.TaskManagerRunner", self.size.memory - 640)

    def _command(self, name: str, heap: int) -> list[str]:
        # The jar's manifest counts for `java -jar` only.
        with zipfile.ZipFile(self.jar) as jar:
            manifest = jar.read("META-INF/MANIFEST.MF").decode().replace("\r\n ", "")
        [opened] = [line for line in manifest.splitlines() if line.startswith("Add-Opens: ")]
        opens = [f"--add-opens={package}=ALL-UNNAMED" for package in opened.split()[1:]]
        main = f"org.apache.flink.runtime.{name}"
        command = [find_java(), f"-Xmx{heap}m", *opens, "-cp", str(self.jar), main]
        return [*command, "--configDir", str(self.folder / "conf")]

    @staticmethod
    def alive_workers(state: dict) -> int | None:
        """How many task managers the job manager says it has; None if it doesn't answer."""
        return ask(f"{state['web']}/overview", "taskmanagers")

    def options(self, state: dict) -> str:
        return f"--runner FlinkRunner --flink_master {state['master']} --flink_job_server_jar JAR"


ENGINES: dict[str, type[Spark] | type[Flink]] = {"spark": Spark, "flink": Flink}


def up(engine: Spark | Flink) -> None:
    """Starts what isn't running, and waits until all workers have joined."""
    folder, workers = engine.folder, engine.size.workers
    state = read_state(folder)
    if state and not ended(state) and engine.alive_workers(state) == workers:
        print(describe(engine, state))
        return
    down(folder)
    find_java()
    for name in ("conf", "tmp", "logs", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    state = {**engine.configure(), "sessions": []}
    environment = {**os.environ, **engine.environment()}
    start("master", engine.master(state), environment, folder, state)
    try:
        wait_for(0, engine, state)
        for number in range(1, workers + 1):
            start(f"worker-{number}", engine.worker(state, number), environment, folder, state)
        wait_for(workers, engine, state)
    except BaseException:
        down(folder)
        raise
    print(describe(engine, state))


def down(folder: Path) -> None:
    """Ends the cluster's processes, and whatever they have started."""
    state = read_state(folder)
    if state is None:
        return
    sessions = state["sessions"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + SECONDS_TO_END
        for process in members(sessions):
            send(number, process)
        while any(members(sessions)) and time.monotonic() < until:
            time.sleep(0.1)
    if any(members(sessions)):
        raise ClusterError(f"processes that don't end: {', '.join(map(str, members(sessions)))}")
    (folder / STATE).unlink()


def start(
    name: str, command: list[str], environment: dict[str, str], folder: Path, state: dict
) -> None:
    """Starts a process in a session of its own, by which its descendants are found again."""
    with open(folder / "logs" / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder / "work",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    state["sessions"].append([process.pid, started_at(process.pid)])
    temporary = folder / f"{STATE}.tmp"
    temporary.write_text(json.dumps(state))
    temporary.replace(folder / STATE)


def wait_for(workers: int, engine: Spark | Flink, state: dict) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while engine.alive_workers(state) != workers:
        if ended(state) or time.monotonic() > until:
            what = "ended" if ended(state) else f"is not up after {SECONDS_TO_START} s"
            raise ClusterError(f"the cluster {what}; see the logs in {engine.folder}/logs")
        time.sleep(0.2)


def ended(state: dict) -> bool:
    """Whether one of the cluster's processes is no more; the master notices a while later."""
    return any(started_at(leader) != began for leader, began in state["sessions"])


def find_java() -> str:
    """As spark-class finds it."""
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")
    if java is None:
        raise ClusterError("a cluster needs Java 17 or newer: apt-get install default-jre-headless")
    return java


def ask(url: str, name: str) -> int | None:
    """A number that a master tells; None if it doesn't answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(json.load(answer)[name])
    except OSError:
        return None


def read_state(folder: Path) -> dict | None:
    path = folder / STATE
    return json.loads(path.read_text()) if path.exists() else None


def members(sessions: list[tuple[int, str]]) -> Iterator[int]:
    """The living processes of some sessions, each given by the leader's id and start."""
    ours = {leader for leader, began in sessions if started_at(leader) in (None, began)}
    for entry in Path("/proc").iterdir():
        fields = stat_fields(entry.name) if entry.name.isdigit() else None
        if fields and fields[0] != "Z" and int(fields[3]) in ours:
            yield int(entry.name)


def started_at(pid: int) -> str | None:
    """When a living process began, in clock ticks; its id may come back, this doesn't."""
    fields = stat_fields(str(pid))
    return fields[19] if fields and fields[0] != "Z" else None


def stat_fields(pid: str) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def send(number: int, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def describe(engine: Spark | Flink, state: dict) -> str:
    return (
        f"up at {state['master']}, {state['web']}, logs in {engine.folder}/logs\n"
        f"corpusmill COMMAND ... {engine.options(state)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--folder", type=Path, metavar="DIR", help=".cluster/ENGINE")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="2")
    parser.add_argument("--cores", type=int, default=1, metavar="N", help="of each worker: 1")
    parser.add_argument("--memory", type=int, default=1280, metavar="MIB", help="of each: 1280")
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(".cluster", arguments.engine)).resolve()
    try:
        if arguments.action == "up":
            size = Size(arguments.workers, arguments.cores, arguments.memory)
            up(ENGINES[arguments.engine](folder, size))
        else:
            down(folder)
    except ClusterError as error:
        print(f"cluster: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

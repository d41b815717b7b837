#!/usr/bin/env python3
"""A Spark standalone cluster of real processes on this machine, from the package `pyspark`.

    deploy/spark/cluster.py up      # a master and two workers; does nothing where they are up
    deploy/spark/cluster.py down    # ends them and all that they started

Everything it writes lies below one folder (`--folder`, by default .cluster): logs/ of each process,
events/ of each job, conf/ for SPARK_CONF_DIR, and cluster.json with addresses and process ids.
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
from collections.abc import Iterator
from pathlib import Path

HOST = "127.0.0.1"
STATE = "cluster.json"
SECONDS_TO_START = 120
SECONDS_TO_END = 10

CONFIGURATION = """\
spark.driver.bindAddress       {host}
spark.driver.host              {host}
spark.eventLog.enabled         true
spark.eventLog.dir             file://{folder}/events
spark.ui.enabled               false
spark.ui.showConsoleProgress   false
"""


class ClusterError(Exception):
    """What is wrong, in one line."""


def up(folder: Path, workers: int, cores: int, memory: str) -> None:
    """Starts what isn't running, and waits until all workers have joined."""
    state = read_state(folder)
    if state and not ended(state) and alive_workers(state) == workers:
        print(describe(folder, state))
        return
    down(folder)
    spark_class = find_spark_class()
    for name in ("conf", "events", "local", "logs", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    configuration = CONFIGURATION.format(host=HOST, folder=folder)
    (folder / "conf" / "spark-defaults.conf").write_text(configuration)
    port, web_port = free_ports(2)
    state = {"master": f"spark://{HOST}:{port}", "web": f"http://{HOST}:{web_port}", "sessions": []}
    command = [spark_class, "org.apache.spark.deploy.master.Master", "--host", HOST]
    start("master", [*command, "--port", str(port), "--webui-port", str(web_port)], folder, state)
    try:
        wait_for(0, folder, state)
        for number in range(1, workers + 1):
            command = [spark_class, "org.apache.spark.deploy.worker.Worker", "--host", HOST]
            command += ["--webui-port", "0", "--work-dir", str(folder / "work" / str(number))]
            command += ["--cores", str(cores), "--memory", memory, state["master"]]
            start(f"worker-{number}", command, folder, state)
        wait_for(workers, folder, state)
    except BaseException:
        down(folder)
        raise
    print(describe(folder, state))


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


def find_spark_class() -> str:
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        raise ClusterError("Spark needs Java 17 or newer: apt-get install default-jre-headless")
    package = importlib.util.find_spec("pyspark")
    if package is None or package.origin is None:
        raise ClusterError("the package pyspark is missing: pip install '.[spark]'")
    return str(Path(package.origin).with_name("bin") / "spark-class")


def start(name: str, command: list[str], folder: Path, state: dict) -> None:
    """Starts a process in a session of its own, by which its descendants are found again."""
    environment = {
        **os.environ,
        "SPARK_HOME": str(Path(command[0]).parents[1]),
        "SPARK_CONF_DIR": str(folder / "conf"),
        "SPARK_DAEMON_MEMORY": "512m",
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_LOCAL_IP": HOST,
    }
    with open(folder / "logs" / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            command,
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


def wait_for(workers: int, folder: Path, state: dict) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while alive_workers(state) != workers:
        if ended(state) or time.monotonic() > until:
            what = "ended" if ended(state) else f"is not up after {SECONDS_TO_START} s"
            raise ClusterError(f"the cluster {what}; see the logs in {folder}/logs")
        time.sleep(0.2)


def ended(state: dict) -> bool:
    """Whether one of the cluster's processes is no more; the master notices a while later."""
    return any(started_at(leader) != began for leader, began in state["sessions"])


def alive_workers(state: dict) -> int | None:
    """How many workers the master says it has; None if it doesn't answer."""
    try:
        with urllib.request.urlopen(f"{state['web']}/json/", timeout=5) as answer:
            return int(json.load(answer)["aliveworkers"])
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


def describe(folder: Path, state: dict) -> str:
    return (
        f"Spark is up: {state['master']}, {state['web']}, logs in {folder}/logs\n"
        f"SPARK_CONF_DIR={folder}/conf corpusmill COMMAND ... \\\n"
        f"    --runner pipelines.spark.PySparkRunner --spark_master_url {state['master']}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--folder", type=Path, default=Path(".cluster"), metavar="DIR")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="2")
    parser.add_argument("--cores", type=int, default=1, metavar="N", help="of each worker: 1")
    parser.add_argument("--memory", default="1g", metavar="SIZE", help="of each worker: 1g")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    try:
        if arguments.action == "up":
            up(folder, arguments.workers, arguments.cores, arguments.memory)
        else:
            down(folder)
    except ClusterError as error:
        print(f"cluster: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

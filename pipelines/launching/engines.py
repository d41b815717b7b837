"""Spark and Flink, by Beam's own runners: what these are told unasked, and a look before the start.

Beam's runner starts a job server, a program in Java that drives the engine (deploy/), or speaks to
one that is there already (`--job_endpoint`). The engine's executors start workers in Python.
"""

import json
import re
import shutil
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from corpusmill.corpus.errors import CorpusmillError, UsageError, one_line

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

SPARK = "SparkRunner"
FLINK = "FlinkRunner"
RUNNERS = (SPARK, FLINK, "PortableRunner")

_SPARK_MASTERS = re.compile(r"(?P<here>local(\[.+\])?)|spark://(?P<addresses>[^/]+)")
_SPARK_PORT = 7077
_FLINK_PORT = 8081
_FLINK_HERE = ("[auto]", "[local]", "[collection]")
# A job server that this process has itself, for tests.
_EMBEDDED = "embed"
_SECONDS = 10
# A worker is kept for the next stage of its job. Flink keeps it that long behind the job, too.
_CACHE_MILLIS = 60_000
_CAUSE = re.compile(r"(?:^Caused by| failed in state \w+): (?:[\w.$]+: )*(.+)$", re.MULTILINE)


def set_defaults(options: "PipelineOptions") -> None:
    """Sets what was left open.

    Workers are processes of this environment, which the executors' machines have to have at the
    same path; they serve all stages of a job. A job server ends with this process, even a killed
    one, where it would go on beside the next try.
    """
    from apache_beam.options.pipeline_options import JobServerOptions, PortableOptions

    portable = options.view_as(PortableOptions)
    if portable.job_endpoint == _EMBEDDED:
        return
    if portable.environment_type is None and not _runs_here(options):
        portable.environment_type = "PROCESS"
        portable.environment_config = json.dumps({"command": _worker()})
    portable.environment_cache_millis = portable.environment_cache_millis or _CACHE_MILLIS
    server = options.view_as(JobServerOptions)
    if shutil.which("setpriv"):
        java = [server.job_server_java_launcher, *server.job_server_jvm_properties]
        server.job_server_java_launcher = "setpriv"
        server.job_server_jvm_properties = ["--pdeathsig=KILL", *java]


def check(options: "PipelineOptions") -> None:
    """Looks whether the job server, the engine and its worker pool are there.

    Raises:
      UsageError: one isn't, or can't be started; Beam and the engines would wait for it for good,
        or fail with pages of Java.
    """
    from apache_beam.options.pipeline_options import PortableOptions, StandardOptions

    portable = options.view_as(PortableOptions)
    if portable.job_endpoint:
        if portable.job_endpoint != _EMBEDDED:
            _connect("--job_endpoint", portable.job_endpoint)
    elif options.view_as(StandardOptions).runner == SPARK:
        _check_spark(options)
    elif options.view_as(StandardOptions).runner == FLINK:
        _check_flink(options)
    else:
        raise UsageError("PortableRunner needs --job_endpoint HOST:PORT, the job server's address")
    if portable.environment_type == "EXTERNAL":
        _check_pool(options)


def executable(options: "PipelineOptions") -> str | None:
    """The jar that the job is only to be written into, for the engine's own program to submit."""
    from apache_beam.options.pipeline_options import PortableOptions

    return options.view_as(PortableOptions).output_executable_path


def failure(error: Exception) -> CorpusmillError:
    """What a runner says of a job that failed, in one line."""
    causes = _CAUSE.findall(str(error)) or [one_line(error)]
    return CorpusmillError(
        f"the job failed: {causes[-1]} (CORPUSMILL_LOG=INFO shows the runner's log)"
    )


def _worker() -> str:
    return str(Path(sys.executable).with_name("corpusmill-worker"))


def _runs_here(options: "PipelineOptions") -> bool:
    """Whether the engine is inside of the job server, so that workers can be in this process."""
    from apache_beam.options.pipeline_options import (
        FlinkRunnerOptions,
        PortableOptions,
        SparkRunnerOptions,
        StandardOptions,
    )

    portable = options.view_as(PortableOptions)
    if portable.job_endpoint or portable.output_executable_path:
        return False
    if options.view_as(StandardOptions).runner == FLINK:
        return options.view_as(FlinkRunnerOptions).flink_master in _FLINK_HERE
    found = _SPARK_MASTERS.fullmatch(options.view_as(SparkRunnerOptions).spark_master_url)
    return found is not None and found["here"] is not None


def _check_spark(options: "PipelineOptions") -> None:
    from apache_beam.options.pipeline_options import SparkRunnerOptions

    spark = options.view_as(SparkRunnerOptions)
    found = _SPARK_MASTERS.fullmatch(spark.spark_master_url)
    if found is None:
        raise UsageError(
            f"--spark_master_url {spark.spark_master_url} is none of local[N], spark://HOST:PORT;"
            " YARN and Kubernetes take what --output_executable_path writes, by spark-submit"
        )
    _check_job_server(options, "--spark_job_server_jar", spark.spark_job_server_jar)
    if found["addresses"] is not None:
        _connect("--spark_master_url", found["addresses"], _SPARK_PORT)


def _check_flink(options: "PipelineOptions") -> None:
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    flink = options.view_as(FlinkRunnerOptions)
    _check_job_server(options, "--flink_job_server_jar", flink.flink_job_server_jar)
    if flink.flink_master in _FLINK_HERE:
        return
    host, port = _connect("--flink_master", flink.flink_master, _FLINK_PORT)
    scheme = "https" if flink.flink_master.startswith("https:") else "http"
    try:
        with urllib.request.urlopen(
            f"{scheme}://{host}:{port}/overview", timeout=_SECONDS
        ) as answer:
            slots = json.load(answer)["slots-total"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"what answers at --flink_master {flink.flink_master} is no Flink: {one_line(error)}"
        ) from error
    if not slots:
        # A job would wait for one for five minutes.
        raise UsageError(f"Flink at --flink_master {flink.flink_master} has no task slot")


def _check_job_server(options: "PipelineOptions", name: str, jar: str | None) -> None:
    from apache_beam.options.pipeline_options import JobServerOptions

    java = options.view_as(JobServerOptions).job_server_java_launcher
    if shutil.which(java) is None:
        raise UsageError(
            f"a job server needs Java 17 or newer, and there is no {java}: apt-get install"
            " default-jre-headless"
        )
    if jar is not None and not urllib.parse.urlparse(jar).scheme and not Path(jar).is_file():
        raise UsageError(f"{name} {jar} is not there; deploy/ says how to make one")


def _check_pool(options: "PipelineOptions") -> None:
    """Looks for the worker pool, unless it is beside executors on other machines."""
    from apache_beam.options.pipeline_options import PortableOptions

    address = options.view_as(PortableOptions).environment_config
    if not address:
        raise UsageError(
            "--environment_type EXTERNAL needs --environment_config HOST:PORT, where"
            " corpusmill-worker --pool PORT listens beside each executor"
        )
    host = address.rpartition(":")[0]
    if host not in ("localhost", "127.0.0.1") or _runs_here(options):
        _connect("--environment_config", address)


def _connect(option: str, addresses: str, port: int | None = None) -> tuple[str, int]:
    """The first of some addresses, `HOST[:PORT],...`, where somebody listens."""
    errors = []
    for address in addresses.split(","):
        found = urllib.parse.urlsplit(address if "//" in address else f"//{address}")
        try:
            place = (found.hostname or "", found.port or port or 0)
            socket.create_connection(place, _SECONDS).close()
            return place
        except (OSError, ValueError, OverflowError) as error:
            errors.append(str(error))
    raise UsageError(f"nobody answers at {option} {addresses}: {'; '.join(errors)}")

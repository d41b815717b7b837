"""Before a job goes to Spark or Flink: what is missing is said at once, in one line."""

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import grpc
import psutil
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
)

from corpusmill.corpus.errors import UsageError
from corpusmill.pipelines.launching import engines
from tests.cloud.servers import free_port
from tests.pipelines.samples import command

ROOT = Path(__file__).parents[2]
NOBODY = "127.0.0.1:9"


@contextlib.contextmanager
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextlib.contextmanager
def answering(text):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def jar(tmp_path):
    (tmp_path / "server.jar").touch()
    return str(tmp_path / "server.jar")


def spark(jar, *more):
    return ["--runner=SparkRunner", f"--spark_job_server_jar={jar}", *more]


def flink(jar, *more):
    return ["--runner=FlinkRunner", f"--flink_job_server_jar={jar}", *more]


@pytest.mark.parametrize(
    "master", ["", "127.0.0.1:7077", "spark://", "local[", "http://a:1", "yarn"]
)
def test_a_spark_master_that_is_none(master, jar):
    with pytest.raises(UsageError, match="is none of local"):
        engines.check(PipelineOptions(spark(jar, f"--spark_master_url={master}")))


@pytest.mark.parametrize("master", ["local", "local[2]", "local[*]"])
def test_a_local_master_is_left_to_spark(master, jar):
    engines.check(PipelineOptions(spark(jar, f"--spark_master_url={master}")))


def test_one_of_several_masters_is_enough(jar):
    with listening() as address:
        options = spark(jar, f"--spark_master_url=spark://{NOBODY},{address}")
        engines.check(PipelineOptions(options))
    with pytest.raises(UsageError, match="nobody answers at --spark_master_url"):
        engines.check(PipelineOptions(options))


def test_a_flink_has_to_have_slots(jar):
    for text, said in (
        ('{"slots-total": 0}', "has no task slot"),
        ("<html>", "is no Flink"),
        ("{}", "is no Flink"),
    ):
        with answering(text) as address, pytest.raises(UsageError, match=said):
            engines.check(PipelineOptions(flink(jar, f"--flink_master={address}")))
    with answering('{"slots-total": 1}') as address:
        engines.check(PipelineOptions(flink(jar, f"--flink_master=http://{address}")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--runner=PortableRunner"], "needs --job_endpoint HOST:PORT"),
        (["--runner=PortableRunner", f"--job_endpoint={NOBODY}"], "nobody answers at --job_endp"),
        (["--runner=FlinkRunner", f"--flink_master={NOBODY}"], "nobody answers at --flink_master"),
        (["--runner=SparkRunner", "--spark_job_server_jar=none.jar"], "none.jar is not there"),
        (
            ["--runner=SparkRunner", "--environment_type=EXTERNAL"],
            "needs --environment_config HOST:PORT",
        ),
        (
            [
                "--runner=SparkRunner",
                "--environment_type=EXTERNAL",
                f"--environment_config={NOBODY}",
            ],
            "nobody answers at --environment_config",
        ),
        (["--runner=SparkRunner", "--job_server_java_launcher=jawa"], "there is no jawa"),
    ],
)
def test_what_is_not_there_is_said_before_the_output_is_claimed(
    options, said, job, tmp_path, capsys
):
    output = tmp_path / "counts"
    assert command("count", "--tokens", job / "tokens", "--output", output, *options) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()


def test_workers_are_processes_of_this_environment_kept_between_stages():
    options = PipelineOptions(spark("x.jar", "--spark_master_url=spark://far:7077"))
    engines.set_defaults(options)
    chosen = options.get_all_options()
    assert chosen["environment_type"] == "PROCESS"
    assert Path(json.loads(chosen["environment_config"])["command"]).is_file()
    assert chosen["environment_cache_millis"] > 0


def test_options_that_were_given_stay():
    given = ("--environment_type=DOCKER", "--environment_cache_millis=7")
    options = PipelineOptions(spark("x.jar", "--spark_master_url=spark://far:7077", *given))
    engines.set_defaults(options)
    chosen = options.get_all_options()
    assert chosen["environment_type"] == "DOCKER"
    assert chosen["environment_config"] is None
    assert chosen["environment_cache_millis"] == "7"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Pipeline P failed in state FAILED: org.apache.spark.SparkException: Job aborted",
            "Job aborted",
        ),
        (
            "failed in state FAILED: a.B: x\n\tat y\nCaused by: c.D: the cause\n\n",
            "the cause",
        ),
        ("no job server", "no job server"),
    ],
)
def test_the_cause_of_a_failure_is_one_line(text, said):
    line = str(engines.failure(RuntimeError(text)))
    assert line.startswith(f"the job failed: {said} (CORPUSMILL_LOG=INFO")


class Provision(beam_provision_api_pb2_grpc.ProvisionServiceServicer):
    """A runner that tells its workers nothing of use."""

    def GetProvisionInfo(self, _request, _context):  # noqa: N802
        return beam_provision_api_pb2.GetProvisionInfoResponse()


@pytest.fixture
def pool():
    """The address of a pool of workers."""
    with subprocess.Popen(pool_at(free_port()), stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.terminate()


def pool_at(place):
    worker = "corpusmill.pipelines.launching.beam_worker"
    return [sys.executable, "-m", worker, "--pool", str(place)]


def test_a_pool_says_when_a_worker_does_not_come_up(pool):
    request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1")
    request.provision_endpoint.url = NOBODY
    with grpc.insecure_channel(pool) as channel:
        stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
        assert stub.StartWorker(request).error == "the worker ended at once, with code 1"


def test_a_pool_listens_to_its_own_machine_only(pool):
    port = int(pool.partition(":")[2])
    found = {
        connection.laddr.ip.removeprefix("::ffff:")
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert found
    assert found <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("65536", "'65536' is not [HOST:]PORT, with a port of 1 to 65535"),
        ("localhost:", "'localhost:' is not [HOST:]PORT, with a port of 1 to 65535"),
        ("203.0.113.1:5000", "cannot listen at 203.0.113.1:5000"),
    ],
)
def test_a_pool_needs_an_address_of_its_machine(place, said):
    done = subprocess.run(pool_at(place), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_port_has_one_pool(pool):
    done = subprocess.run(pool_at(pool), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"cannot listen at {pool}" in done.stderr


def test_the_versions_of_spark_are_one():
    """That of the job server, that of the image, and that of the cluster that tests start."""
    name = "{http://maven.apache.org/POM/4.0.0}properties/{*}spark.version"
    built = ET.parse(ROOT / "deploy" / "pom.xml").find(name).text
    [tested] = re.findall(r"^pyspark==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    image = (ROOT / "deploy" / "spark" / "Dockerfile").read_text()
    [packed] = re.findall(r"^ARG SPARK=(.*)$", image, re.MULTILINE)
    assert built == packed == tested

"""Dataflow's job service, as far as a job needs it: what is submitted runs on Prism.

Nothing of the submitting process is used for that but what it has left in the bucket: the proto of
the pipeline, and the packages that it names, which get a virtual environment of their own.
"""

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import sysconfig
import threading
import traceback
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import fsspec
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2 as beam_api
from apache_beam.runners.portability.prism_runner import PrismRunner

from tests.cloud.servers import free_port

SECONDS_TO_ANSWER = 40


class Service(http.server.ThreadingHTTPServer):
    """What `--dataflow_endpoint` leads to.

    Attributes:
      jobs: id -> what was submitted, with its state and what was said of it.
      worker: runs a job; raises what makes it fail.
    """

    daemon_threads = True

    def __init__(self, worker) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, dict] = {}
        self.worker = worker
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://localhost:{self.server_address[1]}"

    def submit(self, job: dict) -> dict:
        """Starts a job, unless one of its name is running, which is the answer then."""
        with self.lock:
            for other in self.jobs.values():
                if (other["name"], other["currentState"]) == (job["name"], "JOB_STATE_RUNNING"):
                    return other
            job["id"] = f"job-{len(self.jobs)}"
            job["currentState"] = "JOB_STATE_RUNNING"
            self.jobs[job["id"]] = job
        thread = threading.Thread(target=self._run, args=(job,), daemon=True)
        thread.start()
        # So long, in order that nobody has to ask again.
        thread.join(SECONDS_TO_ANSWER)
        return job

    def _run(self, job: dict) -> None:
        try:
            self.worker(job)
            job["currentState"] = "JOB_STATE_DONE"
        except BaseException:  # noqa: BLE001  (it is what the job's messages say)
            job["messages"] = traceback.format_exc()
            job["currentState"] = "JOB_STATE_FAILED"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        """What http.server calls: do_GET and do_POST."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        place = urllib.parse.urlsplit(self.path).path.split("/jobs")[1].split("/")
        if self.command == "POST":
            answer = self.server.submit(json.loads(body))
        elif place[-1] == "messages":
            answer = {"jobMessages": list(self._messages(self.server.jobs[place[1]]))}
        else:
            answer = self.server.jobs[place[1]]
        kept = ("id", "name", "currentState", "clientRequestId", "jobMessages")
        content = json.dumps({key: answer[key] for key in kept if key in answer}).encode()
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _messages(self, job: dict) -> Iterator[dict]:
        if "messages" in job:
            yield {
                "time": "2026-01-01T00:00:00Z",
                "messageImportance": "JOB_MESSAGE_ERROR",
                "messageText": job["messages"],
            }


@contextlib.contextmanager
def serving(worker) -> Iterator[Service]:
    server = Service(worker)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def options_of(job: dict) -> dict:
    return job["environment"]["sdkPipelineOptions"]["options"]


def pipeline_of(job: dict) -> beam_api.Pipeline:
    """The pipeline's proto, from the bucket."""
    data = read(options_of(job)["pipelineUrl"])
    assert hashlib.sha256(data).hexdigest() == options_of(job)["pipelineProtoHash"]
    return beam_api.Pipeline.FromString(data)


def packages_of(pipeline: beam_api.Pipeline) -> dict[str, bytes]:
    """Name -> content of what workers install, from the bucket."""
    packages = {}
    for environment in pipeline.components.environments.values():
        for dependency in environment.dependencies:
            assert dependency.type_urn == common_urns.artifact_types.URL.urn
            place = beam_api.ArtifactUrlPayload.FromString(dependency.type_payload)
            role = beam_api.ArtifactStagingToRolePayload.FromString(dependency.role_payload)
            data = read(place.url)
            assert hashlib.sha256(data).hexdigest() == place.sha256
            packages[role.staged_name] = data
    return packages


def read(url: str) -> bytes:
    fs, path = fsspec.core.url_to_fs(url)
    return fs.cat_file(path)


class Workers:
    """Runs jobs on Prism, with Python of a virtual environment that holds what they staged.

    Third parties' packages are those of this environment, as an image would have them; that they
    are what the staged wheel requires is checked when it is installed.
    """

    def __init__(self, folder: Path, prism: str) -> None:
        self._folder = folder
        self._prism = prism
        self._pools: dict[str, tuple[subprocess.Popen, str]] = {}

    def __call__(self, job: dict) -> None:
        pipeline = pipeline_of(job)
        endpoint = self._pool(packages_of(pipeline))
        for environment in pipeline.components.environments.values():
            environment.urn = common_urns.environments.EXTERNAL.urn
            environment.payload = beam_api.ExternalPayload(
                endpoint={"url": endpoint}
            ).SerializeToString()
            del environment.dependencies[:]
        options = PipelineOptions([f"--prism_location={self._prism}"])
        PrismRunner().run_portable_pipeline(pipeline, options).wait_until_finish()

    def close(self) -> None:
        for process, _ in self._pools.values():
            process.terminate()
            process.wait()

    def _pool(self, packages: dict[str, bytes]) -> str:
        """Where workers wait that have these packages."""
        key = hashlib.sha256(repr(sorted(packages.items())).encode()).hexdigest()[:8]
        if key not in self._pools:
            python = self._install(self._folder / key, packages)
            port = free_port()
            command = [python, "-m", "apache_beam.runners.worker.worker_pool_main"]
            with open(self._folder / f"{key}.log", "wb") as log:
                process = subprocess.Popen(
                    [*command, f"--service_port={port}"],
                    cwd=self._folder,
                    env=without_our_path(),
                    stdout=log,
                    stderr=log,
                )
            self._pools[key] = (process, f"localhost:{port}")
        return self._pools[key][1]

    def _install(self, folder: Path, packages: dict[str, bytes]) -> str:
        """What the boot sequence of a worker's container does with packages."""
        python = str(folder / "env" / "bin" / "python")
        run(sys.executable, "-m", "venv", "--without-pip", str(folder / "env"))
        [site] = (folder / "env" / "lib").glob("python*/site-packages")
        # A plain path: the .pth files there, such as that of an editable corpusmill, are not read.
        (site / "packages.pth").write_text(sysconfig.get_path("purelib"))
        names = packages["extra_packages.txt"].decode().split()
        for name in names:
            (folder / name).write_bytes(packages[name])
            pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-index")
            run(*pip, "--force-reinstall", "--no-deps", str(folder / name))
            run(*pip, str(folder / name))
        found = run(python, "-c", "import pipelines.count, corpus; print(corpus.__file__)")
        assert found.startswith(str(site)), found
        return python


def without_our_path() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command: str) -> str:
    done = subprocess.run(
        command, env=without_our_path(), cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

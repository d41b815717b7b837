"""Dataflow's job service, as far as a job needs it: what is submitted runs on Prism.

Nothing of the submitting process is used for that but what it has left in the bucket: the proto of
the pipeline, and the packages that it names, which get a virtual environment of their own.
"""

import contextlib
import hashlib
import http.server
import json
import os
import shutil
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
from apache_beam.runners.portability.portable_runner import PortableRunner

from tests.cloud.servers import free_port, listens, serving

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
        # What has failed is only said when somebody asks, as by Dataflow.
        return {**job, "currentState": "JOB_STATE_RUNNING"} if "messages" in job else job

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
def service(worker) -> Iterator[Service]:
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

    def __init__(self, folder: Path, prism: str, ending: contextlib.ExitStack) -> None:
        """Starts Prism; `ending` ends it, and what else is started."""
        self._folder = folder
        self._ending = ending
        self._pools: dict[str, str] = {}
        port = free_port()
        self._options = [f"--job_endpoint=localhost:{port}"]
        self._start("prism", port, [prism, f"--job_port={port}", "--serve_http=false"])

    def __call__(self, job: dict) -> None:
        pipeline = pipeline_of(job)
        endpoint = self._pool(packages_of(pipeline))
        for environment in pipeline.components.environments.values():
            environment.urn = common_urns.environments.EXTERNAL.urn
            environment.payload = beam_api.ExternalPayload(
                endpoint={"url": endpoint}
            ).SerializeToString()
            del environment.dependencies[:]
        result = PortableRunner().run_portable_pipeline(pipeline, PipelineOptions(self._options))
        result.wait_until_finish()

    def _pool(self, packages: dict[str, bytes]) -> str:
        """Where workers wait that have these packages."""
        key = hashlib.sha256(repr(sorted(packages.items())).encode()).hexdigest()[:8]
        if key not in self._pools:
            programs = self._install(self._folder / key, packages)
            port = free_port()
            command = [programs / "python", "-m", "apache_beam.runners.worker.worker_pool_main"]
            self._start(key, port, [*command, f"--service_port={port}"], programs)
            self._pools[key] = f"localhost:{port}"
        return self._pools[key]

    def _start(self, name: str, port: int, command: list, programs: Path = Path("/bin")) -> None:
        log, env = self._folder / f"{name}.log", clean(programs)
        server = serving(command, lambda: listens(port), log, cwd=self._folder, env=env)
        self._ending.enter_context(server)

    def _install(self, folder: Path, packages: dict[str, bytes]) -> Path:
        """What the boot sequence of a worker's container does; returns where `python` is."""
        programs = folder / "env" / "bin"
        run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
        [site] = (folder / "env" / "lib").glob("python*/site-packages")
        # A plain path: the .pth files there, such as that of an editable corpusmill, are not read.
        (site / "packages.pth").write_text(sysconfig.get_path("purelib"))
        for name in packages["extra_packages.txt"].decode().split():
            (folder / name).write_bytes(packages[name])
            pip = (sys.executable, "-m", "pip", "--python", programs / "python", "install")
            run(*pip, "--no-index", "--force-reinstall", "--no-deps", folder / name)
            run(*pip, "--no-index", folder / name)
        # Beam's worker pool starts `python`, whatever it runs itself.
        found = run(
            "python", "-c", "import corpusmill; print(corpusmill.__file__)", programs=programs
        )
        assert found.startswith(str(site)), found
        return programs


def clean(programs: Path) -> dict[str, str]:
    """The variables of this process, but for those by which Python finds this repository."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PATH": f"{programs}:{kept['PATH']}"}


def run(*command, programs: Path = Path("/bin")) -> str:
    environment = clean(programs)
    program = shutil.which(command[0], path=environment["PATH"])
    done = subprocess.run(
        [program, *command[1:]],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

"""Jobs as Dataflow gets them, and what becomes of them where they are run."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from corpusmill.commands import cli
from corpusmill.corpus.datasets import DatasetWriter
from corpusmill.pipelines.launching.dataflow import job_name, write_wheel
from tests.cloud import dataflow
from tests.cloud.conftest import steps
from tests.cloud.dataflow import Workers, options_of, packages_of, pipeline_of, read
from tests.cloud.secrets import holds, plant
from tests.cloud.servers import ROOT
from tests.integration.samples import assert_same_data

JOBS = [
    *("tokens", "counts", "merged", "distributions", "targets", "targets-of-many-tables"),
    *("compressed", "coded-by-network", "documents", "examples"),
]


@pytest.fixture(scope="module")
def service(gcs, tmp_path_factory):
    found = os.environ.get("CORPUSMILL_PRISM") or shutil.which("prism", path=ROOT / ".cluster/bin")
    assert found, "Prism is missing: make cluster-test builds it, or set CORPUSMILL_PRISM=PATH"
    with contextlib.ExitStack() as ending:
        workers = Workers(tmp_path_factory.mktemp("workers"), found, ending)
        yield ending.enter_context(dataflow.service(workers))


@pytest.fixture(scope="module")
def inputs(gcs, job):
    """The bucket with the local datasets in it."""
    gcs.upload(job, gcs.place / "job")
    return gcs.place / "job"


def options(service, gcs):
    return [
        "--runner=DataflowRunner",
        "--project=mill-project",
        "--region=europe-west4",
        f"--temp_location={gcs.place}/temporary",
        "--machine_type=n2-standard-4",
        "--max_num_workers=7",
        "--no_auth",
        f"--dataflow_endpoint={service.address}",
    ]


@pytest.mark.parametrize("dataset", JOBS)
def test_what_is_submitted_makes_the_bytes_of_a_local_run(
    dataset, service, inputs, gcs, job, secret, tmp_path, capsys, monkeypatch
):
    plant(secret, monkeypatch, tmp_path)
    output = gcs.place / "dataflow" / dataset
    command = [*map(str, steps(inputs)[dataset]), "--output", str(output), *options(service, gcs)]
    assert cli.main(command) == 0, list(service.jobs.values())[-1].get("messages")
    printed = capsys.readouterr()
    submitted = list(service.jobs.values())[-1]
    assert f"europe-west4/{submitted['id']}?project=mill-project" in printed.err
    check_request(submitted)
    everything = [json.dumps(submitted).encode(), pipeline_of(submitted).SerializeToString()]
    everything += [*packages_of(pipeline_of(submitted)).values(), *map(str.encode, printed)]
    everything += (
        file.read_bytes() for file in gcs.download(output, tmp_path / "data").rglob("*.json")
    )
    assert not [each for each in everything if holds(each, secret)]
    assert_same_data(tmp_path / "data", job / dataset)


def check_request(submitted):
    """That it is what Dataflow's API takes, to the last field, and what was asked for."""
    # Here, because these files are also looked at where Google's packages are missing.
    from google.cloud.dataflow_v1beta3.types import Job, JobType
    from google.protobuf import json_format

    kept = {key: value for key, value in submitted.items() if key != "messages"}
    job = Job(json_format.ParseDict(kept, Job.pb(Job())))
    assert job.type_ == JobType.JOB_TYPE_BATCH
    assert re.fullmatch("corpusmill-[a-z]+-[0-9a-f]{12}", job.name)
    assert options_of(submitted)["region"] == "europe-west4"
    [pool] = job.environment.worker_pools
    assert pool.machine_type == "n2-standard-4"
    assert pool.autoscaling_settings.max_num_workers == 7
    packages = {package.name: package.location for package in pool.packages}
    assert set(packages) == set(packages_of(pipeline_of(submitted)))
    assert [name for name in packages if re.fullmatch(r"corpusmill-.*-none-any\.whl", name)]
    assert all(place.startswith("storage.googleapis.com/mill/") for place in packages.values())
    # One process a core, as Python needs it.
    assert "use_multiple_sdk_containers" in job.environment.experiments


def test_a_job_that_runs_is_not_started_again(service, inputs, gcs, capsys, monkeypatch):
    output = gcs.place / "dataflow" / "twice"
    command = [*map(str, steps(inputs)["tokens"]), "--output", str(output), *options(service, gcs)]
    running = {
        "id": "first",
        "name": job_name(DatasetWriter(str(output), "tokens", {})),
        "clientRequestId": "of another launch",
        "currentState": "JOB_STATE_RUNNING",
    }
    monkeypatch.setitem(service.jobs, "first", running)
    assert cli.main(command) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "is running already and will finish gs://mill/dataflow/twice" in error


def test_a_job_that_fails_says_why(service, inputs, gcs, capsys):
    """What a worker raised, in one line, and no manifest."""
    output = gcs.place / "dataflow" / "bad"
    bad = [*map(str, steps(inputs)["tokens"]), "--text-field", "body", "--output", str(output)]
    assert cli.main([*bad, *options(service, gcs)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("corpusmill: error: ")
    assert "records are bad" in error
    assert "manifest.json" not in gcs.files(output)


def test_the_template_is_a_job_that_somebody_else_starts(service, inputs, gcs, job, tmp_path):
    """As Dataflow's launcher calls it; what is in the template then runs."""
    output = gcs.place / "dataflow" / "from-template"
    place = f"{gcs.place}/launches/job_object"
    arguments = shlex.join([*map(str, steps(inputs)["tokens"][1:]), "--output", str(output)])
    command = [sys.executable, ROOT / "deploy/dataflow/template.py", "--command=tokenize"]
    command += [f"--arguments={arguments}", f"--template_location={place}"]
    launched = subprocess.run(
        [*command, *options(service, gcs)], capture_output=True, text=True, check=False
    )
    assert launched.returncode == 0, launched.stderr
    assert f"wrote the template {place}" in launched.stdout
    submitted = json.loads(read(place))
    check_request(submitted)
    service.worker(submitted)
    assert_same_data(gcs.download(output, tmp_path), job / "tokens")


def test_the_wheel_is_the_same_each_time(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    assert write_wheel(first).read_bytes() == write_wheel(second).read_bytes()

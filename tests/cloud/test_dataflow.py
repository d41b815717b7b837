"""Jobs as Dataflow gets them, and what becomes of them where they are run."""

import json
import os
import shutil

import pytest

from pipelines import cli
from tests.cloud.conftest import steps
from tests.cloud.dataflow import Workers, options_of, packages_of, pipeline_of, serving
from tests.cloud.secrets import holds, plant
from tests.cloud.servers import ROOT
from tests.integration.samples import assert_same_data

JOBS = ["tokens", "counts", "distributions", "targets", "compressed", "documents"]


@pytest.fixture(scope="module")
def service(gcs, tmp_path_factory):
    found = os.environ.get("CORPUSMILL_PRISM") or shutil.which("prism", path=ROOT / ".cluster/bin")
    assert found, "Prism is missing: make cluster-test builds it, or set CORPUSMILL_PRISM=PATH"
    workers = Workers(tmp_path_factory.mktemp("workers"), found)
    with serving(workers) as server:
        yield server
    workers.close()


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


def check_request(job):
    """What Dataflow's API asks of a job, and that it is what was asked for."""
    [pool] = job["environment"]["workerPools"]
    assert pool["machineType"] == "n2-standard-4"
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 7
    assert job["type"] == "JOB_TYPE_BATCH"
    assert job["name"].startswith("corpusmill-")
    assert options_of(job)["region"] == "europe-west4"
    packages = {package["name"]: package["location"] for package in pool["packages"]}
    [wheel] = [name for name in packages if name.endswith(".whl")]
    assert wheel.startswith("corpusmill-")
    assert set(packages) == set(packages_of(pipeline_of(job)))
    assert all(place.startswith("storage.googleapis.com/mill/") for place in packages.values())
    assert "use_multiple_sdk_containers" in job["environment"]["experiments"]

"""What is refused before a job is submitted to Dataflow; tests/cloud submits jobs."""

import pytest
from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException

from corpusmill.commands import cli
from corpusmill.pipelines.launching import dataflow

OPTIONS = ["--runner=DataflowRunner", "--project=p-1", "--region=r", "--temp_location=gs://b/t"]
NO_ACCOUNT = "--no_auth"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (OPTIONS[:1], "--project is missing"),
        (OPTIONS[:2], "--region is missing"),
        (OPTIONS[:3], "--temp_location is missing"),
        ([*OPTIONS, NO_ACCOUNT], "is on this machine, where Dataflow's workers don't see it"),
        ([*OPTIONS, "--workers=2"], "--workers is for jobs without Beam only"),
        (["--s3_secret_access_key=a-secret"], "unknown option --s3_secret_access_key"),
    ],
)
def test_refused(options, said, job, tmp_path, capsys):
    arguments = ["count", "--tokens", str(job / "tokens"), "--output", str(tmp_path / "counts")]
    assert cli.main([*arguments, *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "a-secret" not in error
    assert not (tmp_path / "counts").exists()


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("Workflow failed. Causes: no quota", "Dataflow pipeline failed. Error: Workflow failed."),
        ("Traceback:\n  File x\nKeyError: 'y'", "Dataflow pipeline failed. Error: KeyError: 'y'"),
    ],
)
def test_what_dataflow_says_becomes_one_line(said, line):
    error = DataflowRuntimeException(f"Dataflow pipeline failed. Error:\n{said}", None)
    assert str(dataflow.failure(error)).startswith(line)
    assert dataflow.failure(ValueError(said)) is None

"""What stands in deploy/dataflow/, as far as it can be checked without a cloud."""

import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions

from corpusmill.commands import cli
from corpusmill.commands.arguments import add_options, make_parser, parse_known
from corpusmill.commands.run_options import parse_job
from corpusmill.pipelines.count import CountJob
from tests.cloud.servers import ROOT

FOLDER = ROOT / "deploy" / "dataflow"


def lint(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def program(name):
    return sys.executable.removesuffix("python") + name


def test_the_image_passes_its_linter():
    lint(program("hadolint"), FOLDER / "Dockerfile")


def test_the_scripts_pass_their_linter():
    lint(program("shellcheck"), *FOLDER.glob("*.sh"))


def test_the_image_has_the_versions_of_whoever_submits():
    text = (FOLDER / "Dockerfile").read_text()
    python, beam = re.search(r"apache/beam_python([\d.]+)_sdk:([\d.]+)", text).groups()
    assert beam == importlib.metadata.version("apache-beam")
    pinned = (ROOT / "constraints.txt").read_text()
    assert f"apache-beam=={beam}\n" in pinned
    assert f"python{python.replace('.', '')}-template-launcher-base" in text
    assert f"--python-version {python} " in (ROOT / "Makefile").read_text()


def test_workers_do_not_start_among_the_sources():
    """Python would take the folder `corpusmill` there for the package."""
    steps = [line.split() for line in (FOLDER / "Dockerfile").read_text().splitlines()]
    folders = [step[1] for step in steps if step[:1] == ["WORKDIR"]]
    assert ["COPY", ".", "."] in steps
    assert folders[-1] != folders[0]


def launched(tmp_path, *arguments, **settings):
    """What `launch.sh` gives to corpusmill."""
    program = tmp_path / "corpusmill"
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    settings |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [FOLDER / "launch.sh", *arguments],
        env=settings,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines(), done.stderr


PLACE = {"PROJECT": "p-1", "REGION": "r-1", "BUCKET": "b"}


def test_launching_takes_what_the_user_gives_before_what_the_script_sets(tmp_path):
    given = ("--tokens", "gs://a bucket/t", "--output=gs://b/c", "--machine_type", "n2-highmem-4")
    (command, *arguments), _ = launched(tmp_path, "count", *given, IMAGE="r/i", **PLACE)
    assert command == "count"
    options = PipelineOptions(arguments)
    assert options.view_as(WorkerOptions).machine_type == "n2-highmem-4"
    assert options.view_as(WorkerOptions).max_num_workers == 20
    assert options.view_as(WorkerOptions).sdk_container_image == "r/i"
    assert options.view_as(GoogleCloudOptions).temp_location == "gs://b/dataflow"
    own = [arguments[arguments.index(each)] for each in given]
    assert own == list(given)


@pytest.mark.parametrize("missing", [*PLACE, "command"])
def test_launching_says_what_is_missing(tmp_path, missing):
    settings = {name: value for name, value in PLACE.items() if name != missing}
    given, error = launched(tmp_path, *(["count"] if missing != "command" else []), **settings)
    assert not given
    assert missing in error


def test_the_options_that_texts_show_are_those_of_the_command(metadata):
    [shown] = [each for each in metadata["parameters"] if each["name"] == "arguments"]
    usage = (FOLDER / "launch.sh").read_text()
    for text in (shown["helpText"], usage):
        options = re.search(r"--\S+ gs://BUCKET/tokens --output gs://BUCKET/counts", text)[0]
        parser = make_parser("count", "", "")
        add_options(parser, CountJob)
        assert parse_known(parser, options.split())[0].tokens == "gs://BUCKET/tokens"


@pytest.fixture(scope="module")
def metadata():
    return json.loads((FOLDER / "metadata.json").read_text())


def test_the_template_is_what_googles_api_takes(metadata):
    """An unknown field or a value of another type would be an error."""
    # Here, because these files are also looked at where Google's packages are missing.
    from google.cloud.dataflow_v1beta3.types import ParameterType, TemplateMetadata
    from google.protobuf import json_format

    read = json_format.ParseDict(metadata, TemplateMetadata.pb(TemplateMetadata()))
    assert read.name
    for parameter in read.parameters:
        assert parameter.name
        assert parameter.label
        assert parameter.help_text
        assert parameter.param_type == ParameterType.TEXT
        assert all(map(re.compile, parameter.regexes))


def test_the_template_takes_the_commands_that_run_on_beam(metadata):
    [command] = [each for each in metadata["parameters"] if each["name"] == "command"]
    [pattern] = command["regexes"]
    jobs = set()
    for name in cli.COMMANDS:
        source = (ROOT / "commands" / f"{name.replace('-', '_')}.py").read_text()
        if parse_job.__name__ in source:
            jobs.add(name)
    assert {name for name in cli.COMMANDS if re.fullmatch(pattern, name)} == jobs


def test_parameters_become_a_command_line():
    launched = subprocess.run(
        [
            *(sys.executable, FOLDER / "template.py", "--command=count"),
            "--arguments=--tokens 'gs://a bucket/tokens' --output gs://b/counts",
            *("--runner=DataflowRunner", "--project=p-1", "--region=r-1"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert launched.returncode == 2
    assert "--temp_location is missing" in launched.stderr, shlex.join(launched.args)

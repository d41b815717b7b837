"""What stands in deploy/dataflow/, as far as it can be checked without a cloud."""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys

import pytest

from corpusmill.commands import cli
from corpusmill.commands.run_options import parse_job
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

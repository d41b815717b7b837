"""What deploy/spark has for other programs is what those programs take."""

import subprocess
import sysconfig
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "spark"
# The oldest and the newest Kubernetes that there is a schema of.
KNOWN = kubernetes_validate.utils.all_versions()
VERSIONS = [KNOWN[0], KNOWN[-1]]


def resources():
    return list(yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text()))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", resources(), ids=lambda resource: resource["kind"])
def test_kubernetes_takes_the_manifest(resource, version):
    kubernetes_validate.validate(resource, version, strict=True)


def test_a_misspelt_field_would_be_found():
    job = resources()[-1]
    job["spec"]["template"]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="comand"):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)


def test_the_dockerfile_is_as_hadolint_wants_it():
    hadolint = Path(sysconfig.get_path("scripts"), "hadolint")
    command = [hadolint, "--no-color", FOLDER / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

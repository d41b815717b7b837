"""What a job on Google Cloud Dataflow needs besides its pipeline.

The workers get this very program as a wheel, whatever image they run, and it requires the very
versions that are installed here: the bytes of Parquet files depend on them. An image that has them
saves the time to install them, and nothing else.
"""

import base64
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import DatasetWriter
from corpusmill.corpus.errors import CorpusmillError, UsageError, one_line

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult

RUNNER = "DataflowRunner"
_NEEDED = ("project", "region", "temp_location")
_DISTRIBUTION = "corpusmill"
# What lies inside it.
PACKAGES = (
    "commands",
    "compress",
    "corpus",
    "ngram_agg",
    "pipelines",
    "report",
    "trainer",
)
# What workers need of setup.py's extras, where it is installed here.
_EXTRAS = ("gcp", "s3")


def check_options(options: "PipelineOptions") -> None:
    """Raises UsageError where an option or the user's credentials are missing, before any work."""
    from apache_beam.options.pipeline_options import GoogleCloudOptions

    given = options.view_as(GoogleCloudOptions)
    missing = [name for name in _NEEDED if not getattr(given, name)]
    if missing:
        raise UsageError(
            f"{RUNNER} needs --project, --region and --temp_location gs://BUCKET/FOLDER;"
            f" --{missing[0]} is missing"
        )
    if not given.no_auth:
        _expect_credentials()


def _expect_credentials() -> None:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    try:
        google.auth.default()
    except DefaultCredentialsError as error:
        # Beam would go on without them, and Dataflow would refuse a nameless user.
        raise UsageError(
            "there are no credentials for Google's cloud: run gcloud auth application-default"
            " login, or set GOOGLE_APPLICATION_CREDENTIALS"
        ) from error


def check_output(writer: DatasetWriter) -> None:
    """Raises UsageError where workers don't see the output."""
    if storage.is_local(writer.folder):
        raise UsageError(
            f"output {writer.folder} is on this machine, where Dataflow's workers don't see it;"
            " name a gs:// URL, and for the input too"
        )


def submit(pipeline: "beam.Pipeline", writer: DatasetWriter) -> "PipelineResult | None":
    """Starts a job, and says where it can be watched; None where it is only to be a template.

    The job's name follows from the output, and Dataflow has no two running jobs of one name: so the
    same command, given again while the first job runs, doesn't start a second one.

    Raises:
      CorpusmillError: Dataflow or the bucket refuses the job, or it runs already.
    """
    # Here, because the others are there only with the extra for Google's cloud.
    from apache_beam.options.pipeline_options import (
        DebugOptions,
        GoogleCloudOptions,
        SetupOptions,
    )
    from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
    from google.api_core.exceptions import AlreadyExists, Conflict, GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError

    cloud = pipeline.options.view_as(GoogleCloudOptions)
    setup = pipeline.options.view_as(SetupOptions)
    cloud.job_name = cloud.job_name or job_name(writer)
    # Else Beam uploads a list of what is installed here, with URLs of repositories as they are.
    pipeline.options.view_as(DebugOptions).add_experiment("disable_logging_submission_environment")
    with tempfile.TemporaryDirectory() as folder:
        setup.extra_packages = [*(setup.extra_packages or []), str(write_wheel(Path(folder)))]
        try:
            result = pipeline.run()
        except (AlreadyExists, Conflict, DataflowJobAlreadyExistsError) as error:
            raise CorpusmillError(
                f"the job {cloud.job_name} is running already and will finish {writer.folder};"
                " the same command afterwards says so, or makes what is missing"
            ) from error
        except (GoogleAPICallError, GoogleAuthError, OSError) as error:
            raise CorpusmillError(
                f"the job can't be submitted to Dataflow: {one_line(error)}"
            ) from error
    if cloud.template_location:
        print(f"wrote the template {cloud.template_location}")
        return None
    print(
        f"job {cloud.job_name}: https://console.cloud.google.com/dataflow/jobs/{cloud.region}/"
        f"{result.job_id()}?project={cloud.project}\nit goes on without this command, which waits",
        file=sys.stderr,
    )
    return result


def failure(error: Exception) -> CorpusmillError | None:
    """What Dataflow says of a job that failed, in one line; None where it is not of Dataflow."""
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException

    if not isinstance(error, DataflowRuntimeException):
        return None
    # The last line is the cause, or that of a worker's traceback.
    lines = str(error).strip().splitlines()
    return CorpusmillError(" ".join(dict.fromkeys([lines[0], lines[-1]])))


def job_name(writer: DatasetWriter) -> str:
    """`corpusmill-counts-0123456789ab`, of the output's URL."""
    digest = hashlib.sha256(writer.folder.encode()).hexdigest()
    return f"corpusmill-{writer.kind}-{digest[:12]}"


def write_wheel(folder: Path) -> Path:
    """Writes a wheel of the code that runs here, installed or not; the same bytes each time.

    Raises:
      UsageError: no distribution says what the code requires.
    """
    try:
        distribution = importlib.metadata.distribution(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            "corpusmill runs here without being installed, so that nothing says what workers need:"
            " pip install -e ."
        ) from error
    info = f"{_DISTRIBUTION}-{distribution.version}.dist-info"
    files = dict(_modules())
    files[f"{info}/METADATA"] = _metadata(distribution).encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},{_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{_DISTRIBUTION}-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            # Without a time, which would be another one each time.
            wheel.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


def _modules() -> Iterator[tuple[str, bytes]]:
    """Names and bytes of all files, where each package may lie in a folder of its own."""
    for package in (_DISTRIBUTION, *(f"{_DISTRIBUTION}.{name}" for name in PACKAGES)):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise UsageError(f"the package {package} isn't there: install corpusmill again")
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*")):
            name = f"{package.replace('.', '/')}/{path.relative_to(root).as_posix()}"
            if path.is_file() and "__pycache__" not in path.parts:
                yield name, path.read_bytes()


def _metadata(distribution: importlib.metadata.Distribution) -> str:
    from packaging.requirements import Requirement

    lines = ["Metadata-Version: 2.1", f"Name: {_DISTRIBUTION}", f"Version: {distribution.version}"]
    for text in distribution.requires or []:
        wanted = Requirement(text)
        applies = wanted.marker is None or any(
            wanted.marker.evaluate({"extra": extra}) for extra in _EXTRAS
        )
        if applies:
            extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                version = importlib.metadata.version(wanted.name)
                lines.append(f"Requires-Dist: {wanted.name}{extras}=={version}")
    return "".join(f"{line}\n" for line in lines)


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")

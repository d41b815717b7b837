"""What all tests share: the development data, and no silent skips where that data is."""

import os
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
# With CORPUSMILL_REQUIRE_SHARED=1 every test has to run, except skips whose reason starts so.
ALLOWED_SKIPS = ("needs a GPU",)

# No test reaches for a hub, and none waits for one that doesn't answer.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# In a shell's background interrupts are ignored, and by what is started there as well.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# The first example of a property may have to wait for numba's compiler.
hypothesis.settings.register_profile("corpusmill", deadline=None)
hypothesis.settings.load_profile("corpusmill")


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Tables that other runs of the tests have left in the usual one are not to be found."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("temporary"))
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of development data, ../shared/data beside the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the development data in ../shared/data")
    return SHARED_DATA


def skips_as_failures(report: Report) -> Report:
    """Makes a skip a failure where all tests have to run; the reason stays."""
    if (
        os.environ.get("CORPUSMILL_REQUIRE_SHARED") == "1"
        and report.outcome == "skipped"
        and not hasattr(report, "wasxfail")
    ):
        message = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        reason = str(message).removeprefix("Skipped: ")
        if not reason.startswith(ALLOWED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"skipped, but every test has to run here: {reason}"
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return skips_as_failures((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return skips_as_failures((yield))

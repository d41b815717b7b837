import pytest

from corpusmill.corpus import storage


@pytest.fixture(params=["folder", "memory"])
def run(request, tmp_path):
    """Where a run may be: a path and a URL."""
    if request.param == "folder":
        yield str(tmp_path / "run")
    else:
        yield "memory://a-run"
        storage.remove_tree("memory://a-run")

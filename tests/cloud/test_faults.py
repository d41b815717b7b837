"""A store that refuses, is slow or hangs up: the data is the same, or there is no dataset."""

import fsspec
import pytest

from corpusmill.commands import cli
from corpusmill.corpus import storage
from corpusmill.corpus.errors import StorageError
from tests.cloud.conftest import steps
from tests.cloud.faults import UPLOAD, Fault, proxy
from tests.integration.samples import assert_same_data, run

DOWNLOAD = ("GET", r"/download/|part-")
FAULTS = {
    "429 for uploads": (429, *UPLOAD),
    "503 for uploads": (503, *UPLOAD),
    "503 for downloads": (503, *DOWNLOAD),
    "slow answers": ("slow", "GET|POST|PUT", "."),
    "uploads cut off": ("cut request", *UPLOAD),
    "downloads cut off": ("cut answer", *DOWNLOAD),
}


@pytest.fixture
def before(monkeypatch):
    """Puts a proxy before a store, for everything that this process asks of it."""

    def lead(store, address):
        for name, value in store.at(address).items():
            monkeypatch.setenv(name, value)
        forget()

    yield lead
    forget()


def forget():
    """Drivers hold on to the address that they were made with."""
    for protocol in ("gs", "s3"):
        fsspec.get_filesystem_class(protocol).clear_instance_cache()


@pytest.fixture(scope="module")
def stores(gcs, s3, job):
    for store in (gcs, s3):
        store.upload(job / "counts", store.place / "faulty" / "counts")
    return {"gs": gcs, "s3": s3}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("protocol", ["gs", "s3"])
def test_a_job_gets_over_it(protocol, fault, stores, before, job, tmp_path):
    store = stores[protocol]
    place = store.place / "faulty"
    output = place / fault.replace(" ", "-")
    with proxy(store.address) as middle:
        # Twice in a row, now and then.
        middle.faults.append(Fault(*FAULTS[fault], times=2, every=20, seconds=1.0))
        before(store, middle.address)
        run(*steps(place)["distributions"], "--output", output)
        assert middle.faults[0].struck >= 2
    before(store, store.address)
    assert_same_data(store.download(output, tmp_path), job / "distributions")


@pytest.mark.parametrize(
    ("protocol", "status", "said"),
    [("gs", 403, "Forbidden"), ("gs", 503, "503"), ("s3", 403, "Forbidden")],
)
def test_a_job_that_cannot_says_why(protocol, status, said, stores, before, job, capsys, tmp_path):
    store = stores[protocol]
    place = store.place / "faulty"
    output = place / f"refused-{status}"
    with proxy(store.address) as middle:
        middle.faults.append(Fault(status, *UPLOAD, after=4))
        before(store, middle.address)
        assert cli.main([*map(str, steps(place)["distributions"]), "--output", str(output)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"corpusmill: error: {output}/")
    assert said in error
    before(store, store.address)
    assert "manifest.json" not in store.files(output)
    run(*steps(place)["distributions"], "--output", output)
    assert_same_data(store.download(output, tmp_path), job / "distributions")


def test_what_cannot_be_asked_is_not_taken_for_absent(stores, before):
    store = stores["gs"]
    with proxy(store.address) as middle:
        middle.faults.append(Fault(403, "GET", "manifest"))
        before(store, middle.address)
        with pytest.raises(StorageError, match=r"manifest\.json: Forbidden"):
            storage.exists(store.place / "faulty" / "counts" / "manifest.json")


@pytest.mark.parametrize("kind", ["cut request", 503])
def test_a_large_upload(kind, stores, before):
    """Of more than 100 MB, which goes in parts, to S3 as to GCS."""
    data = bytes(range(256)) * (104 << 12)
    for store in stores.values():
        url = store.place / "faulty" / "large"
        with proxy(store.address) as middle:
            middle.faults.append(Fault(kind, "POST|PUT", "upload_id|large", 1, 4))
            before(store, middle.address)
            storage.write_bytes(url, data)
            assert middle.faults[0].struck
            assert storage.read_bytes(url) == data
        before(store, store.address)
        assert storage.read_bytes(url) == data

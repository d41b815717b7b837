"""What storage says of URLs; tests/cloud has real servers."""

import errno
import io
import os

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from corpusmill.corpus import parquet, storage
from corpusmill.corpus.errors import StorageError, UsageError
from tests.corpus.counted import ROOT, counted

SECRET = "a-secret"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://key:{SECRET}@bucket/tokens",
        f"s3://key:with/slash/{SECRET}@bucket/tokens",
        f"ftp://user:{SECRET}@host/file",
        f"https://host/file.jsonl?X-Amz-Signature={SECRET}",
        f"https://host/file.jsonl?version=1&access_token={SECRET}",
    ],
)
def test_credentials_in_urls_are_refused_and_not_repeated(url):
    with pytest.raises(UsageError, match="has a credential in it") as error:
        storage.exists(url)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "gs://bucket/??/key=5/*.parquet",
        "https://host/file?version=1",
        "https://host:80/a@b",
        "a/b:c@d?token=1",
    ],
)
def test_other_urls_pass(url, monkeypatch):
    # Whether this machine is Google's is asked of the network.
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    said = said_of(url)
    assert not said or "install" in said


def said_of(url):
    """What is wrong with a URL: nothing, or that its driver isn't installed."""
    try:
        storage.filesystem(url)
    except UsageError as error:
        return str(error)
    return ""


class Refusing(fsspec.AbstractFileSystem):
    """Like a driver: with an error of its own, which tells nothing of the place."""

    protocol = "refusing"

    def info(self, path, **options):
        if "missing" in path:
            raise FileNotFoundError(path)
        return {"name": path, "type": "file", "size": 10}

    def _open(self, path, mode="rb", **options):
        return Broken(bytes(10))

    def put_file(self, *places, **options):
        raise ArithmeticError("429 slow down\nand more")

    ls = rm = put_file


class Broken(io.BytesIO):
    def read(self, size=-1):
        raise ArithmeticError("503 no")


@pytest.fixture
def refusing():
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    return "refusing://bucket/file"


def test_errors_of_drivers_are_one_line_that_names_the_place(refusing):
    with pytest.raises(StorageError, match=r"^refusing://bucket/file: 503 no$"):
        storage.read_bytes(refusing)
    with pytest.raises(StorageError, match=r"^refusing://bucket/file: 429 slow down$"):
        storage.write_bytes(refusing, b"")
    with pytest.raises(StorageError, match=r"^refusing://bucket/file: 503 no$"):
        parquet.open_reader(refusing)
    with pytest.raises(StorageError, match="429"):
        storage.list_names(refusing)
    with pytest.raises(StorageError, match="429"):
        storage.remove_tree(refusing)


def test_a_folder_goes_although_others_remove_it_and_write_there(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    meanwhile = [
        FileNotFoundError(errno.ENOENT, "gone"),
        OSError(errno.ENOTEMPTY, "not empty"),
        PermissionError(errno.EACCES, "mine"),
    ]
    remove = LocalFileSystem.rm

    def disturbed(fs, path, **options):
        if meanwhile:
            raise meanwhile.pop()
        remove(fs, path, **options)

    monkeypatch.setattr(LocalFileSystem, "rm", disturbed)
    storage.write_bytes(str(folder / "a" / "b"), b"")
    with pytest.raises(PermissionError):
        storage.remove_tree(str(folder))
    storage.remove_tree(str(folder))
    assert not folder.exists()
    storage.remove_tree(str(folder))


def test_reading_ahead_is_bounded():
    url = f"{ROOT}/large"
    data = bytes(range(256)) * (30 << 12)
    storage.write_bytes(url, data)
    with counted() as requests, storage.open_input(url) as file:
        assert file.read(1 << 16) == data[: 1 << 16]
        assert sum(size for _, _, size in requests) <= 6 << 20
        assert file.read() == data[1 << 16 :]
    assert sum(size for _, _, size in requests) == len(data)
    with counted() as requests:
        assert storage.read_bytes(url) == data
    assert [kind for kind, _, _ in requests] == ["GET"]


def test_only_what_is_not_found_is_absent(refusing):
    assert storage.exists(refusing)
    assert not storage.exists("refusing://bucket/missing")


def test_what_is_published_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """The order of the calls: file, rename, then its folder and all that were made above it."""
    calls = []
    names = {}
    real_open, real_sync, real_replace = os.open, os.fsync, os.replace

    def opened(path, *rest, **options):
        file = real_open(path, *rest, **options)
        names[file] = str(path)
        return file

    def synced(file):
        calls.append(("sync", names[file]))
        real_sync(file)

    def replaced(source, target):
        calls.append(("replace", str(source), str(target)))
        real_replace(source, target)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    target = str(tmp_path / "new" / "folder" / "file")
    storage.write_bytes(target, b"data")
    temporary = calls[0][1]
    assert os.path.dirname(temporary) == str(tmp_path)
    assert calls == [
        ("sync", temporary),
        ("replace", temporary, target),
        ("sync", str(tmp_path / "new" / "folder")),
        ("sync", str(tmp_path / "new")),
        ("sync", str(tmp_path)),
    ]


@pytest.mark.parametrize(("protocol", "extra"), [("gs", "gcp"), ("s3", "s3")])
def test_the_extra_is_named_where_a_driver_is_missing(protocol, extra, monkeypatch):
    def refuse(url):
        raise ImportError(f"install the driver of {url}")

    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
    with pytest.raises(UsageError, match=rf"pip install 'corpusmill\[{extra}\]'"):
        storage.exists(f"{protocol}://bucket/file")

"""Files by path or URL, through fsspec.

A file becomes visible under its name only when it is complete: writers write to a temporary
local file, which is then renamed (local folders) or uploaded (object stores, where an object
appears when its upload ends). What is renamed is on the disk before, and the folder after that, so
that after a power cut there is the old file or the new one.
"""

import contextlib
import errno
import functools
import hashlib
import io
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from corpusmill.corpus.errors import CorpusmillError, StorageError, UsageError, one_line

# gcsfs reads it when it is imported. Asking for a bucket's layout, which matters to zonal buckets
# only, takes a right that readers needn't have, and half a minute where nobody answers.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_CHUNK = 1 << 20
# Of many files so many are waited for at a time.
_THREADS = 32
# How often a folder is removed whose files come and go.
_REMOVALS = 100
# How much more than was asked for a driver reads of a remote file; s3fs would read 50 MiB, and
# each open file would hold as much.
_READ_AHEAD = 5 << 20
# Protocols -> the extra of setup.py that brings the driver.
_EXTRAS = {"gs": "gcp", "gcs": "gcp", "s3": "s3", "s3a": "s3"}
# A server that says nothing for so long is asked again.
_SECONDS_OF_SILENCE = 120
# A password before a host (slashes may be in it, so that it isn't a port), or a parameter that only
# its owner should know.
_CREDENTIAL = re.compile(
    r"\w+://[^/@]*:(?!\d+/)[^@]*@"
    r"|https?://.*[?&][^=&]*(token|secret|sig|password|credential|key)[^=&]*=",
    re.IGNORECASE,
)


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of `url` and the path on it.

    Raises:
      UsageError: the URL's protocol is unknown, its driver isn't installed, or a credential stands
        in it.
    """
    protocol = url.partition("://")[0]
    if _CREDENTIAL.match(url):
        raise UsageError(
            f"a {protocol}:// URL has a credential in it, which would get into manifests and logs;"
            " give it to the driver by the environment (docs/guide.md, Buckets)"
        )
    if protocol in ("gs", "gcs", "s3", "s3a"):
        _set_defaults()
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        remedy = f"pip install 'corpusmill[{extra}]'" if extra else one_line(error)
        raise UsageError(f"cannot open {url!r}: its driver is not installed: {remedy}") from error
    except ValueError as error:
        raise UsageError(f"cannot open {url!r}: {error}") from error
    return fs, cast(str, path)


@functools.cache
def _set_defaults() -> None:
    """Sets what drivers leave open; fsspec's configuration (FSSPEC_GS_TOKEN, ...) goes first."""
    # Other processes write too, so what a listing said a while ago may be wrong.
    s3 = fsspec.config.conf.setdefault("s3", {})
    gs = fsspec.config.conf.setdefault("gs", {})
    for options in (s3, gs):
        options.setdefault("use_listings_cache", False)
    # An emulator wants no credentials, and looking for some takes half a minute.
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        gs.setdefault("token", "anon")
    # What was uploaded is compared with what was meant.
    gs.setdefault("consistency", "md5")
    with contextlib.suppress(ImportError):
        import aiohttp

        silence = aiohttp.ClientTimeout(
            sock_connect=_SECONDS_OF_SILENCE, sock_read=_SECONDS_OF_SILENCE
        )
        gs.setdefault("requests_timeout", silence)


@contextlib.contextmanager
def reach(url: str) -> Iterator[tuple[fsspec.AbstractFileSystem, str]]:
    """The filesystem of `url` and the path on it, for a block that asks it for something.

    Raises:
      StorageError: whatever a driver raises, but for what says that a file is or isn't there. Local
        errors come out as they are.
    """
    fs, path = filesystem(url)
    with _naming(fs, url):
        yield fs, path


@contextlib.contextmanager
def _naming(fs: fsspec.AbstractFileSystem, url: str) -> Iterator[None]:
    try:
        yield
    except (
        CorpusmillError,
        FileExistsError,
        FileNotFoundError,
        IsADirectoryError,
        NotADirectoryError,
    ):
        raise
    except Exception as error:
        if isinstance(fs, LocalFileSystem):
            raise
        # Drivers have errors of their own; none has a base that the others share.
        raise StorageError(f"{url}: {one_line(error)}") from error


def is_local(url: str) -> bool:
    return isinstance(filesystem(url)[0], LocalFileSystem)


def join(folder: str, *names: str) -> str:
    """`folder` and `names` with single slashes between them; works for paths and URLs."""
    return "/".join([folder.rstrip("/") or "/", *names]).replace(
        "//", "/", 1 if folder == "/" else 0
    )


def absolute(url: str) -> str:
    """A local path made absolute, so that workers in other folders find it; URLs as they are.

    Without a slash at the end, so that a place has one name.
    """
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return path
    scheme, separator, place = url.partition("://")
    return f"{scheme}{separator}{place.rstrip('/')}"


def kind_on(fs: fsspec.AbstractFileSystem, path: str) -> str | None:
    """`file`, `directory`, or None where nothing is.

    Unlike fsspec's own `exists` and `isfile`, which take every failure to answer for a no.
    """
    try:
        return cast(str, fs.info(path)["type"])
    except (FileNotFoundError, NotADirectoryError):
        return None


def exists(url: str) -> bool:
    with reach(url) as (fs, path):
        return kind_on(fs, path) is not None


def is_folder(url: str) -> bool:
    with reach(url) as (fs, path):
        return kind_on(fs, path) == "directory"


def list_names(folder: str) -> list[str]:
    """Sorted base names in `folder`; empty where the folder doesn't exist."""
    with reach(folder) as (fs, path):
        try:
            entries = fs.ls(path, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
    names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)
    own = path.rstrip("/").rsplit("/", 1)[-1]
    return sorted(name for name in names if name and not (name == own and len(entries) == 1))


def make_folder(url: str) -> None:
    with reach(url) as (fs, path):
        fs.makedirs(path, exist_ok=True)


def remove_tree(url: str) -> None:
    """Removes a folder and all below it; nothing happens where it doesn't exist.

    Others may remove the same meanwhile, or still write there: what they write may stay.
    """
    with reach(url) as (fs, path):
        for _ in range(_REMOVALS):
            try:
                fs.rm(path, recursive=True)
            except FileNotFoundError:
                if kind_on(fs, path) is None:
                    return
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return


def size(url: str) -> int:
    with reach(url) as (fs, path):
        return int(fs.size(path))


def open_input(url: str) -> IO[bytes]:
    """A seekable, readable binary file, for reading it in its order.

    Reading a remote one raises StorageError, see `reach`.
    """
    with reach(url) as (fs, path):
        if isinstance(fs, LocalFileSystem):
            return cast(IO[bytes], fs.open(path, "rb"))
        file = fs.open(path, "rb", block_size=_READ_AHEAD)
    return io.BufferedReader(_RemoteFile(fs, file, url), _CHUNK)


class _RemoteFile(io.RawIOBase):
    """A driver's file whose errors name its URL."""

    def __init__(self, fs: fsspec.AbstractFileSystem, file: Any, url: str) -> None:
        super().__init__()
        self._fs = fs
        self._file = file
        self._url = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        with _naming(self._fs, self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()


def read_bytes(url: str) -> bytes:
    """A whole file, in as few requests as its driver can."""
    with reach(url) as (fs, path):
        return cast(bytes, fs.cat_file(path))


@contextlib.contextmanager
def publish(url: str, scratch: str | None = None) -> Iterator[str]:
    """Gives a local path to write to; on a clean exit its file appears as `url`, else not at all.

    Publishing the same URL twice replaces the file, so a retried shard is harmless. Where nothing
    was written nothing appears.

    Args:
      url: of the file.
      scratch: folder for what a killed process leaves, on the same disk; by default that of `url`.

    Raises:
      CorpusmillError: no space is left on the device, or of the user's quota.
      StorageError: the server doesn't take it.
    """
    fs, path = filesystem(url)
    local = isinstance(fs, LocalFileSystem)
    beside = path if scratch is None else filesystem(join(scratch, "file"))[1]
    folder = _nearest_folder(beside) if local else tempfile.gettempdir()
    temporary = os.path.join(folder, f".{os.path.basename(path)}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        if not os.path.exists(temporary):
            return
        if local:
            move_durably(temporary, path, os.replace)
        else:
            with _naming(fs, url):
                fs.put_file(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CorpusmillError(
                f"{os.strerror(error.errno).lower()} while writing {url}; free some space and run"
                " the same command again: finished parts are kept"
            ) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def move_durably(temporary: str, path: str, move: Callable[[str, str], None]) -> None:
    """Moves a local file or folder to its name so that it outlasts a power cut.

    Args:
      temporary: on the same disk; the files in a folder must be on it already.
      path: where it goes; missing folders above are made.
      move: `os.replace` or `os.rename`.
    """
    _sync(temporary)
    folder = os.path.dirname(path)
    above = _nearest_folder(path)
    os.makedirs(folder, exist_ok=True)
    move(temporary, path)
    _sync(folder)
    while folder != above:
        folder = os.path.dirname(folder)
        _sync(folder)


def _sync(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        # Some network filesystems can't sync folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(file)


def _nearest_folder(path: str) -> str:
    """The lowest folder above a local path that exists already, on the same disk as the path."""
    folder = os.path.dirname(path)
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return folder


def write_bytes(url: str, data: bytes) -> None:
    """Writes a whole file at once, visible only when complete."""
    with publish(url) as path, open(path, "wb") as file:
        file.write(data)


def copy(source: str, target: str) -> None:
    """Copies a file between any two places, streaming."""
    with open_input(source) as reader, publish(target) as path, open(path, "wb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)


def sha256(url: str) -> str:
    digest = hashlib.sha256()
    with open_input(url) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """What a function that waits for storage says of each of many files, in their order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


def open_arrow(url: str) -> pa.NativeFile:
    """A file for pyarrow's readers: memory-mapped where it is local.

    Of a remote one exactly what they ask for is read, a request each time; errors are as those of
    `open_input`.
    """
    with reach(url) as (fs, path):
        if isinstance(fs, LocalFileSystem):
            return pa.memory_map(path)
        file = fs.open(path, "rb", cache_type="none")
    return pa.PythonFile(_RemoteFile(fs, file, url), mode="r")

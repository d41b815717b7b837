"""Files by path or URL, through fsspec.

A file becomes visible under its name only when it is complete: writers write to a temporary
local file, which is then renamed (local folders) or uploaded (object stores, where an object
appears when its upload ends).
"""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import IO, cast

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from corpus.errors import CorpusmillError, UsageError

_CHUNK = 1 << 20


def filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of `url` and the path on it.

    Raises:
      UsageError: the URL's protocol is unknown or its driver isn't installed.
    """
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise UsageError(f"cannot open {url!r}: {error}") from error
    return fs, cast(str, path)


def is_local(url: str) -> bool:
    return isinstance(filesystem(url)[0], LocalFileSystem)


def join(folder: str, *names: str) -> str:
    """`folder` and `names` with single slashes between them; works for paths and URLs."""
    return "/".join([folder.rstrip("/") or "/", *names]).replace(
        "//", "/", 1 if folder == "/" else 0
    )


def absolute(url: str) -> str:
    """A local path made absolute, so that workers in other folders find it; URLs unchanged."""
    fs, path = filesystem(url)
    return path if isinstance(fs, LocalFileSystem) else url


def exists(url: str) -> bool:
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def is_folder(url: str) -> bool:
    fs, path = filesystem(url)
    return bool(fs.isdir(path))


def list_names(folder: str) -> list[str]:
    """Sorted base names in `folder`; empty where the folder doesn't exist."""
    fs, path = filesystem(folder)
    fs.invalidate_cache()
    try:
        entries = fs.ls(path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)
    own = path.rstrip("/").rsplit("/", 1)[-1]
    return sorted(name for name in names if name and not (name == own and len(entries) == 1))


def make_folder(url: str) -> None:
    fs, path = filesystem(url)
    fs.makedirs(path, exist_ok=True)


def remove_tree(url: str) -> None:
    """Removes a folder and all below it; nothing happens where it doesn't exist."""
    fs, path = filesystem(url)
    fs.invalidate_cache()
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def size(url: str) -> int:
    fs, path = filesystem(url)
    return int(fs.size(path))


def open_input(url: str) -> IO[bytes]:
    """A seekable, readable binary file."""
    fs, path = filesystem(url)
    return cast(IO[bytes], fs.open(path, "rb"))


def read_bytes(url: str) -> bytes:
    with open_input(url) as file:
        return file.read()


@contextlib.contextmanager
def publish(url: str, scratch: str | None = None) -> Iterator[str]:
    """Gives a local path to write to; on a clean exit its file appears as `url`, else not at all.

    Publishing the same URL twice replaces the file, so a retried shard is harmless. Where nothing
    was written nothing appears.

    Args:
      url: of the file.
      scratch: folder for what a killed process leaves, on the same disk; by default that of `url`.

    Raises:
      CorpusmillError: no space is left on the device.
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
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.replace(temporary, path)
        else:
            fs.put_file(temporary, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise CorpusmillError(
                f"no space left on device while writing {url}; free some and run the same command"
                " again: finished parts are kept"
            ) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


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


def open_arrow(url: str) -> pa.NativeFile:
    """A file for pyarrow's readers: memory-mapped where it is local."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return pa.memory_map(path)
    return pa.PythonFile(fs.open(path, "rb"), mode="r")

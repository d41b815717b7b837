"""Columns of tables on storage: a file each, so that processes share them memory-mapped."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import tokenize
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError, one_line

Columns = dict[str, npt.NDArray[Any]]
Check = Callable[[Columns], None]


def save_columns(folder: str, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes columns into a folder, local or remote; writing them again replaces them."""
    for name, values in columns.items():
        with storage.publish(storage.join(folder, f"{name}.npy")) as path:
            save_column(values, path)


def save_column(values: npt.NDArray[Any], path: str) -> None:
    """Writes one column to a local path, whatever its name."""
    with open(path, "wb") as file:
        np.save(file, values)


def open_columns(folder: str, check: Check, made_of: Any = None) -> Columns:
    """Saved columns, memory-mapped.

    Args:
      folder: where they are; remote ones are copied once into the folder for temporary files.
      check: raises DataError where the columns are not what they have to be: see `table_checks`.
      made_of: as JSON, what tells these columns from others that were in the same place before.

    Raises:
      DataError: they are damaged.
    """
    local = folder if storage.is_local(folder) else _local_copy(folder, made_of)
    columns = {}
    try:
        for name in sorted(os.listdir(local)):
            if name.endswith(".npy"):
                columns[name.removesuffix(".npy")] = _open_column(os.path.join(local, name))
        check(columns)
    except DataError as error:
        copy = "" if local == folder else f" (or their copy {local}; remove that)"
        raise DataError(f"the columns in {folder}{copy} are damaged: {error}") from error
    return columns


def cached_columns(folder: str, make: Callable[[], Columns], check: Check) -> Columns:
    """The columns in a local folder, memory-mapped; made if they are not there yet.

    Of several processes that ask at the same time one makes them, while the others wait.

    Raises:
      DataError: they are damaged.
    """
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with open(f"{folder}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.isdir(folder):
                _appear(folder, lambda temporary: save_columns(temporary, make()))
    try:
        return open_columns(folder, check)
    except DataError as error:
        raise DataError(f"{error}; remove the folder, and it will be made again") from error


def _open_column(path: str) -> npt.NDArray[Any]:
    # numpy checks the file's length before it maps it.
    try:
        column = np.load(path, mmap_mode="r")
    except (EOFError, OSError, SyntaxError, ValueError, tokenize.TokenError) as error:
        raise DataError(f"{os.path.basename(path)} cannot be read: {one_line(error)}") from error
    if not isinstance(column, np.ndarray):
        raise DataError(f"{os.path.basename(path)} is no array")
    return column


def _local_copy(url: str, made_of: Any) -> str:
    digest = hashlib.sha256(json.dumps([url, made_of], sort_keys=True).encode()).hexdigest()
    folder = os.path.join(tempfile.gettempdir(), f"corpusmill-{digest[:32]}")

    def copy(temporary: str) -> None:
        for name in storage.list_names(url):
            storage.copy(storage.join(url, name), os.path.join(temporary, name))

    if not os.path.isdir(folder):
        _appear(folder, copy)
    return folder


def _appear(folder: str, fill: Callable[[str], None]) -> None:
    """Makes a local folder that is complete as soon as it is there."""
    # Other processes here may be doing the same: whoever renames first has made it.
    temporary = f"{folder}.{uuid.uuid4().hex}"
    try:
        fill(temporary)
        storage.move_durably(temporary, os.path.abspath(folder), os.rename)
    except OSError:
        if not os.path.isdir(folder):
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""Columns of tables on storage: a file each, so that processes share them memory-mapped."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus import storage

Columns = dict[str, npt.NDArray[Any]]


def save_columns(folder: str, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes columns into a folder, local or remote; writing them again replaces them."""
    for name, values in columns.items():
        with storage.publish(storage.join(folder, f"{name}.npy")) as path:
            save_column(values, path)


def save_column(values: npt.NDArray[Any], path: str) -> None:
    """Writes one column to a local path, whatever its name."""
    with open(path, "wb") as file:
        np.save(file, values)


def open_columns(folder: str, made_of: Any = None) -> Columns:
    """Saved columns, memory-mapped.

    Args:
      folder: where they are; remote ones are copied once into the folder for temporary files.
      made_of: as JSON, what tells these columns from others that were in the same place before.
    """
    if not storage.is_local(folder):
        folder = _local_copy(folder, made_of)
    names = sorted(name for name in os.listdir(folder) if name.endswith(".npy"))
    return {
        name.removesuffix(".npy"): np.load(os.path.join(folder, name), mmap_mode="r")
        for name in names
    }


def cached_columns(folder: str, make: Callable[[], Columns]) -> Columns:
    """The columns in a local folder, memory-mapped; made if they are not there yet.

    Of several processes that ask at the same time one makes them, while the others wait.
    """
    if not os.path.isdir(folder):
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        with open(f"{folder}.lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.isdir(folder):
                _appear(folder, lambda temporary: save_columns(temporary, make()))
    return open_columns(folder)


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
    fill(temporary)
    try:
        os.rename(temporary, folder)
    except OSError:
        shutil.rmtree(temporary)
        if not os.path.isdir(folder):
            raise

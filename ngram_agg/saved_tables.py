"""Tables on storage: a file a column, so that processes share them memory-mapped."""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus import storage
from ngram_agg.full_tables import FullTable
from ngram_agg.packing import Packing
from ngram_agg.targets import TargetOptions, TargetTable

Columns = dict[str, npt.NDArray[Any]]

_HEADS = ("head_offsets", "heads", "tails")


def save_target_table(folder: str, table: TargetTable) -> None:
    """Writes a table into a folder, local or remote; writing it again replaces it."""
    heads = {name: getattr(table, name) for name in _HEADS}
    save_columns(folder, {**table.full.columns, **heads})


def open_target_table(
    folder: str, packing: Packing, options: TargetOptions, made_of: Any = None
) -> TargetTable:
    """A saved table, memory-mapped; `made_of` as in `open_columns`."""
    columns = open_columns(folder, made_of)
    heads = [columns.pop(name) for name in _HEADS]
    return TargetTable(FullTable(packing, columns), options, *heads)


def save_columns(folder: str, columns: Mapping[str, npt.NDArray[Any]]) -> None:
    """Writes a file a column."""
    for name, values in columns.items():
        with storage.publish(storage.join(folder, f"{name}.npy")) as path, open(path, "wb") as file:
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


def _local_copy(url: str, made_of: Any) -> str:
    digest = hashlib.sha256(json.dumps([url, made_of], sort_keys=True).encode()).hexdigest()
    folder = os.path.join(tempfile.gettempdir(), f"corpusmill-{digest[:32]}")
    if not os.path.isdir(folder):
        # Other processes here may be doing the same: whoever renames first has made it.
        temporary = f"{folder}.{uuid.uuid4().hex}"
        for name in storage.list_names(url):
            storage.copy(storage.join(url, name), os.path.join(temporary, name))
        try:
            os.rename(temporary, folder)
        except OSError:
            shutil.rmtree(temporary)
            if not os.path.isdir(folder):
                raise
    return folder

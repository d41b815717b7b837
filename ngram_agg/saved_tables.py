"""Tables on storage: a file a column, so that processes share them memory-mapped."""

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
from corpus.datasets import read_manifest
from ngram_agg.counts_files import counts_packing, read_counts
from ngram_agg.full_tables import FullTable, backward_run, build_table
from ngram_agg.packing import Packing
from ngram_agg.runs import empty_run, joined_runs, merge_runs
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


def load_full_table(
    counts: str, orders: range, min_count: int, cache: str | None = None
) -> FullTable:
    """The full distributions of a counts dataset, memory-mapped.

    The table is built in this process, which takes the memory of a few tables, and kept, so that
    the next call and other processes find it.

    Args:
      counts: path or URL of a counts dataset.
      orders: lengths of contexts.
      min_count: contexts seen fewer times are left out.
      cache: a local folder; by default one in the folder for temporary files.
    """
    manifest = read_manifest(counts, "counts")
    packing = counts_packing(manifest)
    made_of = f"{manifest.content_hash[:32]}-{orders[0]}-{orders[-1]}-{min_count}"
    folder = os.path.join(cache or tempfile.gettempdir(), f"corpusmill-full-{made_of}")
    if not os.path.isdir(folder):
        parts = [
            joined_runs(
                [empty_run(packing), *read_counts(storage.join(counts, file.name), packing)]
            )
            for file in manifest.data_files
        ]
        runs = [backward_run(part, orders, min_count) for part in parts]
        table = build_table(packing, [merge_runs(runs)], min_count)
        _appear(folder, lambda temporary: save_columns(temporary, table.columns))
    return FullTable(packing, open_columns(folder))


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

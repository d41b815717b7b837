"""Datasets of Hugging Face: saved in a folder, or by name."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import fsspec

from corpusmill.corpus import storage
from corpusmill.corpus.errors import UsageError, one_line


def saved_files(fs: fsspec.AbstractFileSystem, folder: str) -> dict[str, int | None] | None:
    """Arrow files of a folder written by `Dataset.save_to_disk`; None where it wasn't.

    Raises:
      UsageError: it holds several splits, or what it says of its files can't be used.
    """
    if storage.kind_on(fs, f"{folder}/dataset_dict.json") == "file":
        with _naming(f"{folder}/dataset_dict.json"):
            splits = json.loads(fs.cat_file(f"{folder}/dataset_dict.json"))["splits"]
            choices = ", ".join(f"{folder}/{split}" for split in splits)
        raise UsageError(f"input {folder} holds several splits; name one of {choices}")
    signs = (f"{folder}/state.json", f"{folder}/dataset_info.json")
    if any(storage.kind_on(fs, sign) != "file" for sign in signs):
        return None
    with _naming(f"{folder}/state.json"):
        state: dict[str, Any] = json.loads(fs.cat_file(f"{folder}/state.json"))
        names = [file["filename"] for file in state["_data_files"]]
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise UsageError(
            f"input {folder} was saved with an index of selected rows by an old version of"
            " datasets; load it and save it again"
        )
    return {f"{folder}/{name}": fs.size(f"{folder}/{name}") for name in names}


@contextlib.contextmanager
def _naming(url: str) -> Iterator[None]:
    """Names a file whose JSON isn't what it has to be."""
    try:
        yield
    except (RecursionError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{url} is damaged: {one_line(error)}") from error


def cached_files(pattern: str) -> dict[str, int]:
    """Parquet files that the `datasets` package makes of a dataset in its local cache.

    Args:
      pattern: `hf:NAME`, `hf:NAME:CONFIG` or `hf:NAME:CONFIG:SPLIT`.

    Raises:
      UsageError: there is no such dataset, or it has several splits and none is named.
    """
    name, config, split, *more = [*pattern.split(":")[1:], "", ""]
    if not name or any(more):
        raise UsageError(f"input {pattern!r} is not understood; accepted is hf:NAME:CONFIG:SPLIT")
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            f"input {pattern!r} needs the package datasets: pip install 'corpusmill[hf]'"
        ) from error
    problems = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)
    try:
        builder = datasets.load_dataset_builder(name, config or None)
        # The cache's own folder, which changes with the dataset's revision and configuration.
        folder = f"{builder.cache_dir}-parquet"
        builder.download_and_prepare(folder, file_format="parquet")
    except problems as error:
        raise UsageError(f"cannot load input {pattern!r}: {one_line(error)}") from error
    splits = sorted(builder.info.splits)
    if split not in splits and (split or len(splits) > 1):
        given = f"no split {split!r}" if split else f"{len(splits)} splits"
        choices = ", ".join(f"hf:{name}:{config}:{choice}" for choice in splits)
        raise UsageError(f"input {pattern!r} has {given}; name one of {choices}")
    stem = re.escape(f"{builder.dataset_name}-{split or splits[0]}")
    file_name = re.compile(rf"{stem}(-\d{{5,}}-of-\d{{5,}})?\.parquet")
    names = [entry for entry in os.listdir(folder) if file_name.fullmatch(entry)]
    return {f"{folder}/{entry}": os.path.getsize(f"{folder}/{entry}") for entry in names}

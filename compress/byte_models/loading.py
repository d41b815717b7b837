"""Byte models from counts, and on disk.

A saved model is a folder (or URL) with the model's columns as `.npy` files, or a transformer's
tensors in `weights.safetensors`, and, written last, `model.json`: `kind`, what else the model is
made of, and its content hash.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from corpusmill.compress.byte_models.byte_model import PRECISION, ByteModel
from corpusmill.compress.byte_models.ngram import NgramModel
from corpusmill.compress.byte_models.static import StaticModel
from corpusmill.compress.byte_models.transformer import TransformerModel
from corpusmill.compress.byte_tokens import bytes_packing, check_bytes
from corpusmill.corpus import storage
from corpusmill.corpus.datasets import Manifest, read_manifest
from corpusmill.corpus.errors import DataError, UsageError, one_line
from corpusmill.ngram_agg.counts_files import counts_packing, read_counts
from corpusmill.ngram_agg.full_tables import FullTable, load_full_table
from corpusmill.ngram_agg.saved_columns import Columns, open_columns, save_column
from corpusmill.ngram_agg.table_checks import check_full_columns, check_types

MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
SavedModel = StaticModel | NgramModel | TransformerModel
# What opening a model raises where its files are not what they were.
_DAMAGE = (
    DataError,
    FileNotFoundError,
    OverflowError,
    SafetensorError,
    TypeError,
    UsageError,
    ValueError,
)
# Contexts seen once take most of the memory and say next to nothing.
_MIN_COUNT = 2


def static_model(counts: str, precision: int = PRECISION) -> StaticModel:
    """The static model of a counts dataset.

    Args:
      counts: path or URL of a counts dataset of bytes (`tokenize --tokenizer bytes`).
      precision: see `ByteModel`.

    Raises:
      DatasetError: it is none.
    """
    manifest = _bytes_manifest(counts)
    packing = counts_packing(manifest)
    totals = np.zeros(256, np.uint64)
    for url in manifest.data_urls(counts):
        for run in read_counts(url, packing):
            unigrams = run.shortened(1)
            [tokens] = unigrams.columns()
            is_byte = tokens < 256
            totals[tokens[is_byte]] += unigrams.counts[is_byte]
    return StaticModel(totals, precision)


def ngram_model(counts: str, precision: int = PRECISION) -> NgramModel:
    """The n-gram model of a counts dataset, with contexts as long as were counted.

    Args:
      counts: path or URL of a counts dataset of bytes (`tokenize --tokenizer bytes`).
      precision: see `ByteModel`.

    Raises:
      DatasetError: it is none.
    """
    orders = range(_bytes_manifest(counts).properties["max_order"] + 1)
    return NgramModel(load_full_table(counts, orders, _MIN_COUNT), precision)


def model_files(model: ByteModel) -> dict[str, Callable[[str], None]]:
    """File name -> what writes that file of a model to a path; `MODEL_FILE` comes last.

    Raises:
      UsageError: models of this kind cannot be saved.
    """
    fields: dict[str, Any] = {"kind": model.kind, "precision": model.precision}
    files: dict[str, Callable[[str], None]]
    match model:
        case TransformerModel():
            weights = safetensors.numpy.save(dict(model.tensors))
            files = {WEIGHTS_FILE: partial(storage.write_bytes, data=weights)}
        case NgramModel():
            files = _column_files(model.table.columns)
            fields["context_bytes"] = model.context_bytes
        case StaticModel():
            files = _column_files({"counts": model.counts})
        case _:
            raise UsageError(f"a byte model of the kind {model.kind} cannot be saved")
    fields["content_hash"] = model.content_hash
    data = json.dumps(fields, indent=1, sort_keys=True).encode() + b"\n"
    return {**files, MODEL_FILE: partial(storage.write_bytes, data=data)}


def _column_files(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, Callable[[str], None]]:
    return {f"{name}.npy": partial(save_column, values) for name, values in columns.items()}


def save_model(model: ByteModel, folder: str) -> None:
    """Writes a model into a folder or below a URL."""
    for name, write in model_files(model).items():
        with storage.publish(storage.join(folder, name)) as path:
            write(path)


def open_model(folder: str) -> SavedModel:
    """A saved model, memory-mapped where it is local.

    Raises:
      UsageError: there is none.
      DataError: it is damaged.
    """
    url = storage.join(folder, MODEL_FILE)
    try:
        fields = json.loads(storage.read_bytes(url))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{folder} has no {MODEL_FILE}: it is no byte model") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{url} is damaged: {one_line(error)}") from error
    try:
        recorded = fields["content_hash"]
        model = _make_model(folder, fields)
        if model.content_hash != recorded:
            raise DataError("its content hash differs")
        # After hashing, which has brought the columns near; a file of another program can have the
        # right hash.
        if isinstance(model, NgramModel):
            check_full_columns(model.table.columns, model.table.packing)
    except KeyError as error:
        raise DataError(f"the byte model {folder} is damaged: {error} is missing") from error
    except _DAMAGE as error:
        raise DataError(f"the byte model {folder} is damaged: {one_line(error)}") from error
    return model


def _make_model(folder: str, fields: dict[str, Any]) -> SavedModel:
    kind, precision = fields["kind"], fields["precision"]
    if kind == TransformerModel.kind:
        data = storage.read_bytes(storage.join(folder, WEIGHTS_FILE))
        return TransformerModel(safetensors.numpy.load(data), precision)
    if kind == StaticModel.kind:
        return StaticModel(open_columns(folder, _check_static, fields)["counts"], precision)
    if kind != NgramModel.kind:
        raise DataError(f"it is of the unknown kind {kind!r}")
    columns = open_columns(folder, _unchecked, fields)
    return NgramModel(FullTable(bytes_packing(fields["context_bytes"]), columns), precision)


def _unchecked(_columns: Columns) -> None:
    """For columns that are checked later."""


def _check_static(columns: Columns) -> None:
    check_types(columns, {"counts": np.uint64})
    counts = columns["counts"].tolist()
    if len(counts) != 256 or sum(counts) >= 1 << 64:
        raise DataError(f"{len(counts)} counts of bytes, {sum(counts)} in all, are no model")


def _bytes_manifest(counts: str) -> Manifest:
    manifest = read_manifest(counts, "counts")
    check_bytes(counts, manifest)
    return manifest

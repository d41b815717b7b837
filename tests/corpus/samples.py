"""Small input files of every format, and what is found of them."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from corpusmill.corpus.inputs import ReadOptions, find_inputs

JSON_LINE = b'{"text": "a"}\n'


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def parquet_bytes(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns or {"text": ["a"]}), out)
    return out.getvalue()


def arrow_bytes(kind: Any = pa.ipc.new_stream) -> bytes:
    table = pa.table({"text": ["a"]})
    out = io.BytesIO()
    with kind(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def found(*patterns: str | Path, **options: Any) -> list[str]:
    inputs = find_inputs([str(pattern) for pattern in patterns], ReadOptions(**options))
    return [file.name for file in inputs]

"""Binary coders for what crosses a shuffle: Arrow IPC, never pickle.

Beam uses them where the element type is declared with `with_output_types`; importing this module
registers them.
"""

import dataclasses
import json
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.partitions import KeySample

_PACKING = b"packing"


class CountsRunCoder(beam.coders.Coder):
    """An Arrow stream of one batch: `high`, `low`, `counts`; the packing in the metadata."""

    def encode(self, run: CountsRun) -> bytes:
        packing = json.dumps(dataclasses.asdict(run.packing)).encode()
        columns = {"high": run.high, "low": run.low, "counts": run.counts}
        return _to_bytes(columns, {_PACKING: packing})

    def decode(self, encoded: bytes) -> CountsRun:
        columns, metadata = _from_bytes(encoded)
        return CountsRun(packing=Packing(**json.loads(metadata[_PACKING])), **columns)

    def is_deterministic(self) -> bool:
        return True


class KeySampleCoder(beam.coders.Coder):
    """An Arrow stream of one batch: `hashes`, `high`, `low`."""

    def encode(self, sample: KeySample) -> bytes:
        return _to_bytes({"hashes": sample.hashes, "high": sample.high, "low": sample.low}, {})

    def decode(self, encoded: bytes) -> KeySample:
        return KeySample(**_from_bytes(encoded)[0])

    def is_deterministic(self) -> bool:
        return True


class RecordBatchCoder(beam.coders.Coder):
    """An Arrow stream of the batch. Unlike its pickle it holds a slice's own rows only."""

    def encode(self, batch: pa.RecordBatch) -> bytes:
        return _write_stream(batch)

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        return _read_stream(encoded)

    def is_deterministic(self) -> bool:
        return True


def _to_bytes(columns: dict[str, np.ndarray], metadata: dict[bytes, bytes]) -> bytes:
    batch = pa.record_batch({name: pa.array(values) for name, values in columns.items()})
    return _write_stream(batch.replace_schema_metadata(metadata))


def _from_bytes(encoded: bytes) -> tuple[dict[str, Any], dict[bytes, bytes]]:
    batch = _read_stream(encoded)
    columns = zip(batch.schema.names, batch.columns, strict=True)
    return {name: column.to_numpy() for name, column in columns}, batch.schema.metadata or {}


def _write_stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def _read_stream(encoded: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(encoded) as reader:
        return reader.read_next_batch()


beam.coders.registry.register_coder(CountsRun, CountsRunCoder)
beam.coders.registry.register_coder(KeySample, KeySampleCoder)
beam.coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)

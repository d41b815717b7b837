"""Targets datasets: Parquet files that stand beside those of a tokens dataset, row for row."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpus import parquet
from corpus.errors import DataError
from ngram_agg.packing import Packing
from ngram_agg.runs import check_vocabulary
from ngram_agg.targets import WEIGHT_UNITS, Targets

# Row groups end where those of the tokens end.
_NO_ROW_LIMIT = 1 << 62


def targets_schema(packing: Packing) -> pa.Schema:
    token = pa.from_numpy_dtype(packing.token_dtype)

    def lists(name: str, kind: pa.DataType) -> pa.Field:
        return pa.field(name, pa.list_(pa.field("element", kind, nullable=False)), nullable=False)

    return pa.schema(
        [
            lists("target_tokens", token),
            lists("target_weights", pa.uint16()),
            lists("order", pa.uint8()),
        ]
    )


def open_writer(path: str, packing: Packing) -> parquet.RowGroupWriter:
    """A writer for one file of targets."""
    # Half as large again as with zstd, but written four times as fast (benchmarks/enrich.py).
    return parquet.RowGroupWriter(path, targets_schema(packing), _NO_ROW_LIMIT, compression="lz4")


def targets_to_batch(
    packing: Packing, targets: Targets, ends: npt.NDArray[np.int64]
) -> pa.RecordBatch:
    """The Arrow form of the targets of some rows; row i ends before position ends[i]."""
    slots = targets.tokens.shape[1]
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    columns = [
        pa.ListArray.from_arrays(
            pa.array((offsets * width).astype(np.int32)),
            pa.array(values.reshape(-1)),
            type=field.type,
        )
        for values, width, field in zip(
            (targets.tokens, targets.weights, targets.orders),
            (slots, slots, 1),
            targets_schema(packing),
            strict=True,
        )
    ]
    return pa.record_batch(columns, schema=targets_schema(packing))


def targets_of_batch(batch: pa.RecordBatch, slots: int) -> tuple[npt.NDArray[np.int64], Targets]:
    """The inverse of `targets_to_batch`: where rows end, and their targets."""
    tokens, weights, orders = (column.flatten().to_numpy() for column in batch.columns)
    ends = batch.column("order").offsets.to_numpy()[1:].astype(np.int64)
    return ends, Targets(tokens.reshape(-1, slots), weights.reshape(-1, slots), orders)


def check_targets(url: str, slots: int, vocabulary_size: int) -> tuple[int, int]:
    """Reads a whole file of targets and checks that it is what it must be.

    Returns:
      Its rows and positions.

    Raises:
      DataError: the weights of a position don't add up, or a token is outside the vocabulary.
    """
    rows = positions = 0
    with parquet.open_reader(url) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            found = len(parquet.column_values(table, "order"))
            weights = parquet.column_values(table, "target_weights")
            tokens = parquet.column_values(table, "target_tokens")
            if not len(weights) == len(tokens) == found * slots:
                raise DataError(f"row group {group} does not have {slots} slots a position")
            check_vocabulary(tokens, vocabulary_size)
            sums = weights.reshape(found, slots).sum(axis=1, dtype=np.int64)
            if (sums != WEIGHT_UNITS).any():
                bad = int(np.argmax(sums != WEIGHT_UNITS))
                raise DataError(
                    f"the weights of position {positions + bad} add up to {sums[bad]}, not"
                    f" {WEIGHT_UNITS}"
                )
            rows += table.num_rows
            positions += found
    return rows, positions

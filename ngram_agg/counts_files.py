"""Counts on disk: the Parquet files of a counts dataset, and runs spilled between stages."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from corpusmill.corpus import parquet, storage
from corpusmill.corpus.datasets import Manifest
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.tokens import check_vocabulary
from corpusmill.ngram_agg.counts_runs import CountsRun, check_run
from corpusmill.ngram_agg.packing import Key, Packing, pack_columns, prefix_keys

ROW_GROUP_ROWS = 1 << 19
_SPILL_ROWS = 1 << 17


def token_columns(length: int, name: str = "token") -> list[str]:
    """`token_1`, `token_2`, ...: the columns that hold n-grams of `length` tokens."""
    return [f"{name}_{position}" for position in range(1, length + 1)]


def counts_packing(manifest: Manifest) -> Packing:
    """The packing of a counts dataset."""
    return Packing.of(manifest.tokenizer, manifest.properties["max_order"] + 1)


def counts_schema(packing: Packing) -> pa.Schema:
    token = pa.from_numpy_dtype(packing.token_dtype)
    columns = [pa.field(name, token, nullable=False) for name in token_columns(packing.length)]
    return pa.schema([*columns, pa.field("count", pa.uint64(), nullable=False)])


def write_counts(path: str, packing: Packing, runs: Iterable[CountsRun]) -> tuple[int, int]:
    """Writes sorted runs as one file of a counts dataset.

    Returns:
      Its rows and the positions that they count.
    """
    schema = counts_schema(packing)
    positions = 0
    with parquet.RowGroupWriter(
        path, schema, ROW_GROUP_ROWS, sorted_by=token_columns(packing.length)
    ) as writer:
        for run in runs:
            columns = run.columns()
            # A spilled run was read without looking at single tokens.
            for column in columns:
                check_vocabulary(column, packing.vocabulary_size)
            writer.write(pa.record_batch([*columns, run.counts], schema=schema))
            positions += run.total()
    return writer.rows, positions


def read_counts(
    url: str, packing: Packing, lower: Key | None = None, upper: Key | None = None
) -> Iterator[CountsRun]:
    """Reads a file's n-grams, a row group at a time.

    Args:
      url: a file of a counts dataset.
      packing: the dataset's packing.
      lower: n-grams below this key are left out.
      upper: n-grams from this key on are left out.

    Raises:
      DataError: the file is damaged, or its n-grams are not what they have to be: see `check_run`.
    """
    columns = token_columns(packing.length)
    before = None
    with parquet.open_reader(url) as file:
        parquet.check_schema(url, file, counts_schema(packing))
        for group in range(file.num_row_groups):
            first, last = parquet.sorted_bounds(file.metadata.row_group(group), columns)
            if upper is not None and prefix_keys(packing, first)[0] >= upper:
                return
            if lower is not None and prefix_keys(packing, last)[1] < lower:
                continue
            table = file.read_row_group(group, use_threads=False)
            arrays = [parquet.column_values(table, name) for name in (*columns, "count")]
            for array in arrays[:-1]:
                check_vocabulary(array, packing.vocabulary_size, url)
            run = CountsRun(packing, *pack_columns(packing, arrays[:-1]), arrays[-1])
            check_run(run, before, f"row group {group} of {url}")
            before = run.key(len(run) - 1)
            yield _between(run, lower, upper)


def spilled_schema(packing: Packing) -> pa.Schema:
    return pa.schema(
        {"high": pa.from_numpy_dtype(packing.high_dtype), "low": pa.uint64(), "count": pa.uint64()}
    )


def spill_runs(path: str, packing: Packing, runs: Iterable[CountsRun]) -> None:
    """Writes sorted runs as an uncompressed Arrow file that can be read from any key on.

    Its last batch is an index: the first key of every batch before it, with that batch's rows.
    """
    schema = spilled_schema(packing)
    index = []
    with pa.ipc.new_file(path, schema) as writer:
        for run in runs:
            for start in range(0, len(run), _SPILL_ROWS):
                block = run[start : start + _SPILL_ROWS]
                columns = [block.high, block.low, block.counts]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                index.append((*block.key(0), len(block)))
        rows = [dict(zip(schema.names, entry, strict=True)) for entry in index]
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))


def read_spilled(
    url: str, packing: Packing, lower: Key | None = None, upper: Key | None = None
) -> Iterator[CountsRun]:
    """Reads back the n-grams of a spilled run from key `lower` on to (not including) `upper`.

    Raises:
      DataError: the file is damaged, or its n-grams are not what they have to be: see `check_run`.
    """
    with parquet.naming(url), storage.open_arrow(url) as source, pa.ipc.open_file(source) as file:
        if file.schema != spilled_schema(packing) or not file.num_record_batches:
            raise DataError(f"{url} is no spilled run of these n-grams")
        index = _run_of(packing, file, file.num_record_batches - 1)
        check_run(index, None, f"the index of {url}")
        if len(index) != file.num_record_batches - 1:
            raise DataError(f"{url} is damaged: its index has {len(index)} batches")
        first = 0 if lower is None else max(0, index.upper_bound(lower) - 1)
        last = len(index) if upper is None else index.lower_bound(upper)
        before = None
        for number in range(first, last):
            run = _run_of(packing, file, number)
            if len(run) != int(index.counts[number]) or run.key(0) != index.key(number):
                raise DataError(f"{url} is damaged: batch {number} is not what its index says")
            check_run(run, before, f"batch {number} of {url}")
            before = run.key(len(run) - 1)
            yield _between(run, lower, upper)


def _run_of(packing: Packing, file: pa.ipc.RecordBatchFileReader, number: int) -> CountsRun:
    batch = file.get_batch(number)
    batch.validate()
    return CountsRun(packing, *(column.to_numpy() for column in batch.columns))


def _between(run: CountsRun, lower: Key | None, upper: Key | None) -> CountsRun:
    first = 0 if lower is None else run.lower_bound(lower)
    last = len(run) if upper is None else run.lower_bound(upper)
    return run[first:last]

"""Parquet encodings of tokens, counts and tables; counts of every order against the longest."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import data, kernel, measure
from corpusmill.corpus import parquet
from corpusmill.corpus.tokens import ROW_GROUP_TOKENS
from corpusmill.ngram_agg import (
    CountsRun,
    DistributionOptions,
    counts_files,
    scan_distributions,
    tables,
)

_ENCODINGS = ("DICTIONARY", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT")
_CODECS = (("zstd", 1), ("zstd", 3), ("lz4", None), ("none", None))


def counts_table(run: CountsRun) -> pa.Table:
    schema = counts_files.counts_schema(run.packing)
    return pa.table([*run.columns(), run.counts], schema=schema)


def tables_of(run: CountsRun) -> Iterator[tuple[str, pa.Table]]:
    """The tables of contexts of 1 to 4 tokens."""
    blocks = list(scan_distributions([run], DistributionOptions()))
    for order in range(1, run.packing.length):
        batches = [tables.rows_to_batch(run.packing, order, block[order - 1]) for block in blocks]
        yield f"order {order}", pa.Table.from_batches(batches)


def options_of(
    schema: pa.Schema, encoding: str, codec: str, level: int | None
) -> dict[str, object]:
    """Arguments of pyarrow's writer."""
    chosen = {
        name: encoding if default == "BYTE_STREAM_SPLIT" else default
        for name, default in parquet._encodings(schema)
    }
    by_column = {"use_dictionary": True}
    if encoding != "DICTIONARY":
        by_column = {"use_dictionary": False, "column_encoding": chosen}
    return {
        "compression": codec,
        "compression_level": level,
        "write_statistics": False,
        **by_column,
    }


def measure_table(
    table: pa.Table, row_group_rows: int, options: dict[str, object], repeat: int
) -> tuple[float, float, int]:
    """Seconds to write and to read, and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/table.parquet"

        def write() -> None:
            pq.write_table(table, path, row_group_size=row_group_rows, **options)

        written = measure.seconds(write, repeat, gib=0.5)
        read = measure.seconds(
            lambda: pq.ParquetFile(path).read(use_threads=False), repeat, gib=0.5
        )
        return written, read, os.path.getsize(path)


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("encodings", __doc__, 10_000_000, repeat=2)
    arguments = parser.parse_args(argv)
    folder = data.tokens_dataset(arguments.tokens, arguments.corpus)
    tokens, packing = data.load_tokens(arguments.tokens, arguments.corpus)
    size = len(tokens)
    run = kernel.count(tokens, packing)
    texts = pq.read_table(
        f"{folder}/", columns=["tokens"], ignore_prefixes=["manifest", "tokenizer"]
    )
    documents = max(1, texts.num_rows * ROW_GROUP_TOKENS // size)
    subjects = {
        "tokens": [(texts, documents)],
        "counts": [(counts_table(run), counts_files.ROW_GROUP_ROWS)],
        "tables": [(table, tables.ROW_GROUP_ROWS) for _, table in tables_of(run)],
    }
    for subject, parts in subjects.items():
        rows = []
        for encoding in _ENCODINGS:
            for codec, level in _CODECS:
                totals = [0.0, 0.0, 0.0]
                for table, row_group_rows in parts:
                    options = options_of(table.schema, encoding, codec, level)
                    found = measure_table(table, row_group_rows, options, arguments.repeat)
                    totals = [a + b for a, b in zip(totals, found, strict=True)]
                name = f"{encoding.lower().replace('_', ' ')}, {codec} {level or ''}"
                write, read, stored = totals
                rows.append((name, write * 1e9 / size, read * 1e9 / size, stored / size))
        columns = ("", "write, ns/token", "read, ns/token", "bytes/token")
        measure.print_table(f"{subject} of {size:,} tokens", columns, rows)
    _print_orders(run, size, arguments.repeat)


def _print_orders(run: CountsRun, size: int, repeat: int) -> None:
    rows = []
    for order in range(run.packing.length):
        table = counts_table(run.order(order))
        options = options_of(table.schema, "BYTE_STREAM_SPLIT", "zstd", 1)
        found = measure_table(table, counts_files.ROW_GROUP_ROWS, options, repeat)
        rows.append((f"contexts of {order}", len(table), found[0] * 1e9 / size, found[2] / size))
    every = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    ratio = [a / b for a, b in zip(every, rows[-1][1:], strict=True)]
    measure.print_table(
        "counts kept of every order, against the longest n-grams alone (the last order)",
        ("", "rows", "write, ns/token", "bytes/token"),
        [*rows, ("all of them", *every), ("all / longest", *ratio)],
    )


if __name__ == "__main__":
    main(sys.argv[1:])

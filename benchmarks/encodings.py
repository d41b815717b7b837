"""Which Parquet encoding suits counts and tokens, and what would counts of every order cost?"""

import os
import sys
import tempfile
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import data, kernel
from benchmarks.measure import best_of, parse_tokens, show
from ngram_agg.counts_files import token_columns

_ENCODINGS = ("dictionary", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT")


def measure(table: pa.Table, encoding: str, level: int, path: str) -> tuple[float, float, int]:
    """Seconds to write, seconds to read, bytes."""
    options: dict[str, object] = {"use_dictionary": True}
    if encoding != "dictionary":
        columns = dict.fromkeys(table.column_names, encoding)
        options = {"use_dictionary": False, "column_encoding": columns}

    def write() -> None:
        pq.write_table(
            table,
            path,
            row_group_size=1 << 19,
            compression="zstd",
            compression_level=level,
            **options,
        )

    writing, _ = best_of(2, write)
    reading, _ = best_of(2, lambda: pq.read_table(path, use_threads=False))
    return writing, reading, os.path.getsize(path)


def main(argv: Sequence[str] | None = None) -> None:
    corpus = data.token_array(parse_tokens(argv, __doc__, default=10_000_000))
    size = len(corpus[0])
    run = kernel.count(corpus)

    def counts_table(order: int) -> pa.Table:
        shorter = run.order(order)
        return pa.table(
            dict(
                zip(
                    [*token_columns(order + 1), "count"],
                    [*shorter.columns(), shorter.counts],
                    strict=True,
                )
            )
        )

    longest = pa.table(
        dict(
            zip(
                [*token_columns(kernel.MAX_ORDER + 1), "count"],
                [*run.columns(), run.counts],
                strict=True,
            )
        )
    )
    tables = {"counts, longest n-grams": longest, "tokens": pa.table({"token": corpus[0]})}
    rows = [("table", "encoding, zstd level", "write ns/token", "read ns/token", "bytes/token")]
    costs = {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "table.parquet")
        for name, table in tables.items():
            for encoding in _ENCODINGS:
                for level in (1, 3):
                    cost = measure(table, encoding, level, path)
                    costs[name, encoding, level] = cost
                    values = (cost[0] * 1e9 / size, cost[1] * 1e9 / size, cost[2] / size)
                    rows.append((name, f"{encoding}, {level}", *(f"{v:.2f}" for v in values)))
        orders = [
            measure(counts_table(k), _ENCODINGS[2], 1, path) for k in range(kernel.MAX_ORDER + 1)
        ]
    show(rows)
    only_longest = costs["counts, longest n-grams", _ENCODINGS[2], 1]
    every = [sum(values) for values in zip(*orders, strict=True)]
    show(
        [
            ("counts kept", "bytes/token", "write ns/token"),
            (
                "longest n-grams only",
                f"{only_longest[2] / size:.2f}",
                f"{only_longest[0] * 1e9 / size:.1f}",
            ),
            (
                f"orders 0 to {kernel.MAX_ORDER}, each",
                f"{every[2] / size:.2f}",
                f"{every[0] * 1e9 / size:.1f}",
            ),
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])

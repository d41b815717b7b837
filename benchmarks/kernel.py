"""The kernel alone, on one core: against np.sort and DuckDB, and where its time and memory go."""

import sys
from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks import data, measure
from corpusmill.corpus.tokens import check_vocabulary
from corpusmill.ngram_agg import (
    CountsRun,
    DistributionOptions,
    DistributionRows,
    Packing,
    count_ngrams,
    counts_runs,
    scan_distributions,
)
from corpusmill.ngram_agg.packing import pack_sequence

_KEEP = DistributionOptions(top_k=8, min_count=2)
_CHECKED_TOKENS = 200_000
Row = tuple[int, int, list[tuple[int, int]], int, int]


def count(tokens: data.Tokens, packing: Packing) -> CountsRun:
    return count_ngrams(
        tokens,
        max_order=packing.max_order,
        vocabulary_size=packing.vocabulary_size,
        end_of_document=packing.end_of_document,
    )


def scan(run: CountsRun) -> int:
    """Makes the rows of all orders; returns how many."""
    blocks = scan_distributions([run], _KEEP)
    return sum(len(rows) for by_order in blocks for rows in by_order)


def kernel_memory(size: int, corpus: str | None) -> float:
    """Bytes a token that counting and scanning take, in a process that has done it small."""
    tokens, packing = data.load_tokens(size, corpus)
    scan(count(tokens[:1000], packing))
    return measure.memory_growth(lambda: scan(count(tokens, packing))) / len(tokens)


def kernel_steps(tokens: data.Tokens, packing: Packing, repeat: int) -> dict[str, float]:
    """Seconds of each step of the kernel."""
    clock = measure.Clock()
    ones = np.broadcast_to(np.uint64(1), len(tokens))
    for _ in range(repeat):
        measure.touch_memory()
        clock.time("check ids", lambda: check_vocabulary(tokens, packing.vocabulary_size))
        keys = clock.time("pack", lambda: pack_sequence(packing, tokens, len(tokens)))
        keys = clock.time("sort", lambda keys=keys: counts_runs._sort_keys(packing, *keys))
        summed = clock.time("sum equal", lambda keys=keys: counts_runs._sum_equal(*keys, ones))
        clock.time("scan", lambda summed=summed: scan(CountsRun(packing, *summed)))
    return clock.best


def duckdb_tables(tokens: data.Tokens, packing: Packing) -> duckdb.DuckDBPyConnection:
    """The same four tables `t1` to `t4` in SQL, on one thread.

    Contexts are packed to 64-bit keys and the top-k are the largest of (count, id) in one integer:
    both are several times faster than lists of tokens and ordered lists.
    """
    is_end = tokens == packing.end_of_document
    documents = np.cumsum(is_end, dtype=np.uint32) - is_end
    corpus = pa.table({"token": tokens, "document": documents})  # noqa: F841  (DuckDB finds it)
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    # Windows without an order stream in the order of the table.
    nexts = ", ".join(f"lead(token, {i}) OVER () AS n{i}" for i in range(1, 5))
    ends = ", ".join(f"lead(document, {i}) OVER () = document AS in{i}" for i in range(1, 5))
    connection.execute(f"CREATE TABLE ngrams AS SELECT token AS n0, {nexts}, {ends} FROM corpus")
    bits = packing.token_bits
    for order in range(1, 5):
        key = " | ".join(f"(n{i}::UBIGINT << {bits * (order - 1 - i)})" for i in range(order))
        connection.execute(
            f"""
            CREATE TABLE t{order} AS
            SELECT context, sum(seen)::UBIGINT AS total,
              max((seen << {bits}) | ({(1 << bits) - 1} - next), {_KEEP.top_k}) AS top,
              total - list_sum(list_transform(top, lambda x: x >> {bits})) AS tail_count,
              count(*) - len(top) AS tail_distinct
            FROM (
              SELECT {key} AS context, n{order}::UBIGINT AS next, count(*)::UBIGINT AS seen
              FROM ngrams WHERE in{order} GROUP BY ALL
            )
            GROUP BY context HAVING total >= {_KEEP.min_count}
            """
        )
    return connection


def duckdb_rows(connection: duckdb.DuckDBPyConnection, order: int, packing: Packing) -> list[Row]:
    mask = (1 << packing.token_bits) - 1
    rows = connection.execute(f"SELECT * FROM t{order} ORDER BY context").fetchall()
    return [
        (context, total, [(mask - (x & mask), x >> packing.token_bits) for x in top], *tail)
        for context, total, top, *tail in rows
    ]


def kernel_rows(rows: DistributionRows, packing: Packing) -> list[Row]:
    contexts = np.zeros(len(rows), np.uint64)
    for column in rows.contexts:
        contexts = contexts << np.uint64(packing.token_bits) | column
    entries = list(zip(rows.next_tokens.tolist(), rows.next_counts.tolist(), strict=True))
    tops = [entries[a:b] for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]
    columns = (contexts, rows.total, rows.tail_count, rows.tail_distinct)
    context, total, tail_count, tail_distinct = (column.tolist() for column in columns)
    return list(zip(context, total, tops, tail_count, tail_distinct, strict=True))


def check_equal(tokens: data.Tokens, packing: Packing) -> int:
    """Compares all rows of both on some documents; returns how many there are."""
    connection = duckdb_tables(tokens, packing)
    blocks = list(scan_distributions([count(tokens, packing)], _KEEP))
    compared = 0
    for order in range(1, 5):
        ours = [row for block in blocks for row in kernel_rows(block[order - 1], packing)]
        if ours != duckdb_rows(connection, order, packing):
            raise AssertionError(f"DuckDB and the kernel differ in order {order}")
        compared += len(ours)
    return compared


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("kernel", __doc__, 20_000_000, repeat=5)
    arguments = parser.parse_args(argv)
    tokens, packing = data.load_tokens(arguments.tokens, arguments.corpus)
    ends = np.flatnonzero(tokens[:_CHECKED_TOKENS] == packing.end_of_document) + 1
    checked = check_equal(tokens[: ends[-1]], packing)
    memory = measure.in_fresh_process(kernel_memory, arguments.tokens, arguments.corpus)
    yardstick = measure.sort_seconds(len(tokens), arguments.repeat)
    whole = measure.seconds(lambda: scan(count(tokens, packing)), arguments.repeat)
    steps = kernel_steps(tokens, packing, arguments.repeat)
    duck = measure.seconds(lambda: duckdb_tables(tokens, packing), 1)
    spent = {
        "np.sort of random uint64": yardstick,
        "kernel": whole,
        **{f"  {name}": spent for name, spent in steps.items()},
        "DuckDB, one thread": duck,
    }
    measure.print_table(
        f"contexts of 1 to 4 tokens, totals and top-8, {len(tokens):,} tokens, one core"
        f" ({checked:,} rows compared with DuckDB's)",
        ("", "ns/token", "np.sort = 1", "Mtokens/s"),
        [
            (name, time * 1e9 / len(tokens), time / yardstick, len(tokens) / time / 1e6)
            for name, time in spent.items()
        ],
    )
    measure.print_goal("kernel, in times of np.sort", whole / yardstick, at_most=5)
    measure.print_goal("kernel, times as fast as DuckDB", duck / whole, at_least=15)
    measure.print_goal("kernel's memory, bytes a token", memory, at_most=50)


if __name__ == "__main__":
    main(sys.argv[1:])

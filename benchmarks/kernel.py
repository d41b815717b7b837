"""How fast is the counting kernel, against np.sort and DuckDB, and how much memory does it take?

The kernel makes the distributions (total, top 8, tail) of all contexts of 1 to 4 tokens seen twice
or more from an array of tokens, on one core. S is np.sort of as many random uint64.
"""

import sys
from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks import data
from benchmarks.measure import best_of, in_own_process, parse_tokens, peak_bytes, show
from ngram_agg import CountsRun, DistributionOptions, count_ngrams, scan_distributions

MAX_ORDER, TOP_K, MIN_COUNT = 4, 8, 2
_DUCKDB_TOKENS = 2_000_000


def count(corpus: tuple[np.ndarray, int, int]) -> CountsRun:
    tokens, vocabulary, end = corpus
    return count_ngrams(
        tokens, max_order=MAX_ORDER, vocabulary_size=vocabulary, end_of_document=end
    )


def scan(run: CountsRun) -> list[int]:
    """Contexts of each order; the rows are let go, as a writer would."""
    contexts = [0] * MAX_ORDER
    for rows_by_order in scan_distributions([run], DistributionOptions(TOP_K, MIN_COUNT)):
        contexts = [n + len(rows) for n, rows in zip(contexts, rows_by_order, strict=True)]
    return contexts


def count_with_duckdb(tokens: np.ndarray, end: int) -> list[int]:
    """The same four tables in SQL on one thread; returns contexts of each order."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    documents = np.concatenate([[0], np.cumsum(tokens == end)[:-1]])
    table = pa.table({"i": np.arange(len(tokens)), "d": documents, "t": tokens})
    connection.register("tokens", table)
    lags = ", ".join(f"lag(t, {k}) OVER w AS c{k}" for k in range(1, MAX_ORDER + 1))
    connection.execute(
        f"CREATE TABLE seen AS SELECT t, {lags} FROM tokens WINDOW w AS (PARTITION BY d ORDER BY i)"
    )
    contexts = []
    for order in range(1, MAX_ORDER + 1):
        context = ", ".join(f"c{k}" for k in range(order, 0, -1))
        connection.execute(
            f"""CREATE OR REPLACE TABLE result AS
            WITH counts AS (SELECT {context}, t, count(*) AS n FROM seen
                            WHERE c{order} IS NOT NULL GROUP BY ALL)
            SELECT {context}, sum(n) AS total,
                (list({{'n': n, 't': t}} ORDER BY n DESC, t))[:{TOP_K}] AS head, count(*) AS nexts
            FROM counts GROUP BY {context} HAVING sum(n) >= {MIN_COUNT}"""
        )
        contexts.append(connection.execute("SELECT count(*) FROM result").fetchone()[0])
    return contexts


def measure_memory(path: str, vocabulary: int, end: int) -> float:
    """Bytes a token that the kernel adds to a process that has run it on a small corpus."""
    tokens = np.load(path)
    scan(count((tokens[-10_000:], vocabulary, end)))
    before = peak_bytes()
    scan(count((tokens, vocabulary, end)))
    return (peak_bytes() - before) / len(tokens)


def main(argv: Sequence[str] | None = None) -> None:
    size = parse_tokens(argv, __doc__)
    corpus = data.token_array(size)
    tokens, _, end = corpus
    random = np.random.default_rng(0).integers(0, 1 << 64, len(tokens), np.uint64)
    copying, _ = best_of(3, random.copy)
    sorting, _ = best_of(3, lambda: random.copy().sort())
    yardstick = sorting - copying
    counting, run = best_of(3, lambda: count(corpus))
    scanning, contexts = best_of(3, lambda: scan(run))
    kernel = counting + scanning
    # DuckDB gets fewer tokens, which is to its advantage: its time grows faster than theirs.
    sample = tokens[: min(len(tokens), _DUCKDB_TOKENS)].copy()
    sample[-1] = end
    sql, sql_contexts = best_of(1, lambda: count_with_duckdb(sample, end))
    if sql_contexts != scan(count((sample, *corpus[1:]))):
        raise AssertionError(f"DuckDB counts other contexts: {sql_contexts}")
    path = str(data.DATA / "tokens.npy")
    np.save(path, tokens)
    call = f"kernel.measure_memory({path!r}, {corpus[1]}, {end})"
    memory = float(in_own_process(f"from benchmarks import kernel; print({call})"))
    rate = len(tokens) / 1e6
    print(f"{len(tokens):,} tokens, contexts of each order kept: {contexts}\n")
    show(
        [
            ("what", "ns/token", "million tokens/s", "in S", "goal"),
            ("np.sort of random uint64 (S)", f"{yardstick * 1e3 / rate:.1f}", "", "1.0", ""),
            (
                "count: pack, sort, add up",
                f"{counting * 1e3 / rate:.1f}",
                f"{rate / counting:.1f}",
                f"{counting / yardstick:.1f}",
                "",
            ),
            (
                "scan: totals, top 8, tail",
                f"{scanning * 1e3 / rate:.1f}",
                f"{rate / scanning:.1f}",
                f"{scanning / yardstick:.1f}",
                "",
            ),
            (
                "kernel: both",
                f"{kernel * 1e3 / rate:.1f}",
                f"{rate / kernel:.1f}",
                f"{kernel / yardstick:.1f}",
                "at most 5",
            ),
        ]
    )
    per_token = sql / len(sample)
    show(
        [
            ("kernel against", "ratio", "goal"),
            (
                f"DuckDB, 1 thread, {len(sample):,} tokens",
                f"{per_token / (kernel / len(tokens)):.0f} times faster",
                "at least 15",
            ),
            ("memory, bytes a token", f"{memory:.0f}", "at most 50"),
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])

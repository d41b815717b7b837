"""What it costs to check files where they are opened, beside the rest of opening.

Each is opened with its check and with the check left out. The files are in the page cache, so the
time is that of hashing, decoding and copying.
"""

import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from unittest.mock import patch

import numpy as np

from benchmarks import data, measure
from corpusmill.compress import Codebook, FreezeOptions, NgramModel, freeze, open_model, save_model
from corpusmill.ngram_agg.counts_files import read_counts, read_spilled, spill_runs, write_counts
from corpusmill.ngram_agg.counts_runs import count_ngrams
from corpusmill.ngram_agg.full_tables import build_table, forward_contexts
from corpusmill.ngram_agg.merging import merge_streams
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.saved_columns import open_columns
from corpusmill.ngram_agg.table_checks import check_full_columns


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("checks", __doc__, 8_000_000, repeat=7)
    arguments = parser.parse_args(argv)
    tokens = _bytes(arguments.tokens, arguments.corpus)
    run = count_ngrams(tokens, max_order=4, vocabulary_size=257, end_of_document=256)
    table = build_table(run.packing, forward_contexts(run.packing, [run], range(5), 2))
    with tempfile.TemporaryDirectory() as folder:
        book, model, counts, spilled = (f"{folder}/{name}" for name in "bmcs")
        freeze(NgramModel(table), FreezeOptions("optimal", 16), {}).write(book)
        save_model(NgramModel(table), model)
        write_counts(counts, run.packing, [run])
        spill_runs(spilled, run.packing, [run])
        cases: list[tuple[str, str, Callable[[], object]]] = [
            (
                "codebook",
                "corpusmill.compress.codebooks.codebook.check_columns",
                partial(Codebook.open, book),
            ),
            (
                "codebook, and its first text",
                "corpusmill.compress.codebooks.codebook.check_trie",
                lambda: Codebook.open(book).encode(b"the"),
            ),
            (
                "n-gram model",
                "corpusmill.compress.byte_models.loading.check_full_columns",
                partial(open_model, model),
            ),
            (
                "table, all of it read",
                "benchmarks.checks.check_full_columns",
                partial(_read_columns, model, run.packing),
            ),
            (
                "counts run",
                "corpusmill.ngram_agg.counts_files.check_run",
                lambda: sum(map(len, read_counts(counts, run.packing))),
            ),
            (
                "spilled runs, merged",
                "corpusmill.ngram_agg.counts_files.check_run",
                lambda: sum(
                    map(len, merge_streams([read_spilled(spilled, run.packing) for _ in range(2)]))
                ),
            ),
        ]
        rows = []
        for name, check, work in cases:
            whole = measure.seconds(work, arguments.repeat)
            with patch(check):
                without = measure.seconds(work, arguments.repeat)
            rows.append((name, 1e3 * without, 1e3 * whole, f"{whole / without - 1:.1%}"))
    measure.print_table(
        f"{len(tokens):,} bytes of text: {len(run):,} n-grams, {len(table):,} contexts",
        ("file", "unchecked, ms", "checked, ms", "more"),
        rows,
    )


def _bytes(count: int, corpus: str | None) -> np.ndarray:
    found: list[np.ndarray] = []
    size = 0
    paths, _ = data.documents(corpus)
    for path in itertools.cycle(paths):
        for text in data.texts(path):
            codes = np.frombuffer(text.encode(), np.uint8)
            found.append(np.append(codes, np.uint16(256)).astype(np.uint16))
            size += len(found[-1])
            if size >= count:
                return np.concatenate(found)
    raise AssertionError("a cycle doesn't end")


def _read_columns(folder: str, packing: Packing) -> None:
    columns = open_columns(folder, lambda columns: check_full_columns(columns, packing))
    for column in columns.values():
        np.array(column)


if __name__ == "__main__":
    main(sys.argv[1:])

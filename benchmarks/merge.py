"""Merging 16 runs of 4-grams."""

import sys
from collections.abc import Sequence

import numpy as np

from benchmarks import data, measure
from corpusmill.ngram_agg import CountsRun, Packing, counts_runs, merge_runs, merging

_RUNS = 16


def slice_runs(tokens: data.Tokens, packing: Packing) -> list[CountsRun]:
    """The counts of 16 slices of a corpus."""
    return [
        counts_runs.count_ngrams(
            piece,
            max_order=packing.max_order,
            vocabulary_size=packing.vocabulary_size,
            end_of_document=packing.end_of_document,
        )
        for piece in np.array_split(tokens, _RUNS)
    ]


def sort_runs(parts: Sequence[CountsRun]) -> CountsRun:
    """The alternative: one argsort of all keys of at most 64 bits."""
    low = np.concatenate([part.low for part in parts])
    high = np.concatenate([part.high for part in parts])
    order = np.argsort(low)
    counts = np.concatenate([part.counts for part in parts])[order]
    return CountsRun(parts[0].packing, *counts_runs._sum_equal(high[order], low[order], counts))


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("merge", __doc__, 20_000_000, repeat=5)
    arguments = parser.parse_args(argv)
    tokens, packing = data.load_tokens(arguments.tokens, arguments.corpus)
    size = len(tokens)
    parts = slice_runs(tokens, packing.shortened(4))
    merged = merge_runs(parts)
    if not np.array_equal(merged.low, sort_runs(parts).low):
        raise AssertionError("both ways give the same n-grams")
    yardstick = measure.sort_seconds(size, arguments.repeat)
    tree = measure.seconds(lambda: merge_runs(parts), arguments.repeat)
    flat = measure.seconds(lambda: sort_runs(parts), arguments.repeat)
    clock = measure.Clock()
    moved: dict[str, int] = {}
    for _ in range(arguments.repeat):
        measure.touch_memory()
        level = parts
        while len(level) > 1:
            name, rows = f"  {len(level)} runs to {len(level) // 2}", sum(map(len, level))
            pairs = list(zip(level[::2], level[1::2], strict=True))
            level = clock.time(name, lambda p=pairs: [merging._merge_pair(*pair) for pair in p])
            moved[name] = rows
    timed = {"merge_runs, pair by pair": tree, **clock.best, "concatenate, argsort": flat}
    measure.print_table(
        f"{_RUNS} runs of 4-grams of {size:,} tokens: {sum(map(len, parts)):,} rows to"
        f" {len(merged):,}",
        ("", "Mtokens/s", "ns/row moved", "np.sort of as many uint64 = 1"),
        [
            (name, size / s / 1e6, s * 1e9 / moved.get(name, sum(map(len, parts))), s / yardstick)
            for name, s in timed.items()
        ],
    )
    measure.print_goal("merging, million tokens a second", size / tree / 1e6, at_least=28)


if __name__ == "__main__":
    main(sys.argv[1:])

"""How fast are 16 runs of 4-grams merged, against concatenating and sorting them?"""

import sys
from collections.abc import Sequence

import numpy as np

from benchmarks import data
from benchmarks.measure import best_of, parse_tokens, show
from ngram_agg import CountsRun, count_ngrams, merge_runs

_RUNS, _MAX_ORDER = 16, 3


def sort_all(runs: list[CountsRun]) -> int:
    """The same sum by one argsort of all keys; 4-grams of 15-bit tokens fit in one word."""
    low = np.concatenate([run.low for run in runs])
    counts = np.concatenate([run.counts for run in runs])
    order = np.argsort(low)
    low = low[order]
    starts = np.flatnonzero(np.append(True, low[1:] != low[:-1]))
    return len(np.add.reduceat(counts[order], starts))


def main(argv: Sequence[str] | None = None) -> None:
    tokens, vocabulary, end = data.token_array(parse_tokens(argv, __doc__))
    runs = [
        count_ngrams(
            np.append(part, np.array(end, part.dtype)),
            max_order=_MAX_ORDER,
            vocabulary_size=vocabulary,
            end_of_document=end,
        )
        for part in np.array_split(tokens, _RUNS)
    ]
    merging, merged = best_of(3, lambda: merge_runs(runs))
    sorting, rows = best_of(3, lambda: sort_all(runs))
    if runs[0].packing.high_bits == 0 and rows != len(merged):
        raise AssertionError(f"sorting gives {rows} n-grams, merging {len(merged)}")
    million = len(tokens) / 1e6
    show(
        [
            (f"{_RUNS} runs, {sum(map(len, runs)):,} rows", "million tokens/s", "goal"),
            ("merge_runs", f"{million / merging:.0f}", "at least 28"),
            ("concatenate and argsort", f"{million / sorting:.0f}", ""),
        ]
    )


if __name__ == "__main__":
    main(sys.argv[1:])

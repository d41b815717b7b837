"""Full next-token distributions, looked up by the tokens that stand before a position.

A context is read backwards, the token next to the position first, and filled up with the
end-of-document token, which no context holds. So the contexts of all orders live in one table, a
shorter context of a position is a prefix of its longer ones, and an n-gram of (context backwards,
next token) is an n-gram like those in counts: it is packed, spilled, merged and partitioned by
the same code.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus import storage
from corpus.datasets import read_manifest
from ngram_agg.counts_files import counts_packing, read_counts
from ngram_agg.hash_index import build_index
from ngram_agg.packing import Key, Packing, Words, pack_columns, prefix_keys
from ngram_agg.partitions import Cut
from ngram_agg.runs import CountsRun, empty_run, joined_runs, merge_runs
from ngram_agg.saved_columns import Columns, cached_columns
from ngram_agg.table_checks import check_full_columns


@dataclass(frozen=True)
class FullTable:
    """All next tokens of contexts, in memory or memory-mapped.

    Attributes:
      packing: of (context backwards, next token).
      columns: `high` and `low`, the keys of the contexts, with 0 for the next token, rising;
        `slots`, an index of them; `offsets`, int64 [contexts + 1]: context i has the entries
        offsets[i] to offsets[i + 1] of `tokens` (ids, rising) and `cumulative` (how often this
        or an earlier one of the context's tokens followed, uint64).
    """

    packing: Packing
    columns: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["low"])

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values())


def load_full_table(
    counts: str, orders: range, min_count: int, cache: str | None = None
) -> FullTable:
    """The full distributions of a counts dataset, memory-mapped.

    The table is built in this process, which takes the memory of a few tables, and kept, so that
    the next call and other processes find it.

    Args:
      counts: path or URL of a counts dataset.
      orders: lengths of contexts.
      min_count: contexts seen fewer times are left out.
      cache: a local folder; by default the one for temporary files.
    """
    manifest = read_manifest(counts, "counts")
    packing = counts_packing(manifest)

    def make() -> Columns:
        runs = []
        for file in manifest.data_files:
            blocks = read_counts(storage.join(counts, file.name), packing)
            part = joined_runs([empty_run(packing), *blocks])
            runs.append(backward_run(part, orders, min_count))
        return dict(build_table(packing, [merge_runs(runs)], min_count).columns)

    made_of = f"{manifest.content_hash[:32]}-{orders[0]}-{orders[-1]}-{min_count}"
    folder = os.path.join(cache or tempfile.gettempdir(), f"corpusmill-full-{made_of}")
    check = partial(check_full_columns, packing=packing)
    return FullTable(packing, cached_columns(folder, make, check))


def backward_key(packing: Packing, context: Cut) -> Key:
    """The key of a context in a `FullTable`: its tokens backwards, filled up."""
    filling = (packing.end_of_document,) * (packing.max_order - len(context))
    return prefix_keys(packing, (*reversed(context), *filling))[0]


def backward_run(part: CountsRun, orders: Iterable[int], min_count: int) -> CountsRun:
    """The (context backwards, next token) n-grams of contexts of some orders.

    Args:
      part: counts of all n-grams between two cuts, so that only the first and the last context
        of an order can have n-grams elsewhere too.
      orders: lengths of contexts.
      min_count: contexts seen fewer times are left out, unless they can have n-grams elsewhere.
    """
    packing = part.packing
    keys, counts = [], []
    for order in orders:
        run = _without_rare_contexts(part.order(order), min_count)
        *context, tokens = run.columns()
        filling = [np.full(len(run), packing.end_of_document, packing.token_dtype)]
        columns = [*reversed(context), *(filling * (packing.max_order - order)), tokens]
        keys.append(pack_columns(packing, columns))
        counts.append(run.counts)
    high = np.concatenate([high for high, _ in keys])
    low = np.concatenate([low for _, low in keys])
    # As np.lexsort((low, high)), but with the faster sort of single words.
    rows = np.argsort(low)
    if packing.high_bits:
        rows = rows[np.argsort(high[rows], kind="stable")]
    return CountsRun(packing, high[rows], low[rows], np.concatenate(counts)[rows])


def _without_rare_contexts(run: CountsRun, min_count: int) -> CountsRun:
    if not len(run):
        return run
    starts = _context_starts(run)
    keep = np.add.reduceat(run.counts, starts) >= min_count
    keep[[0, -1]] = True
    rows = np.repeat(keep, np.diff(starts, append=len(run)))
    return CountsRun(run.packing, run.high[rows], run.low[rows], run.counts[rows])


def build_table(packing: Packing, runs: Iterable[CountsRun], min_count: int) -> FullTable:
    """The table of sorted (context backwards, next token) n-grams.

    Args:
      packing: of the n-grams.
      runs: all n-grams of each context; keys rise from run to run.
      min_count: contexts seen fewer times are left out.
    """
    parts = [_no_rows(packing)]
    parts += [_table_rows(run, min_count) for run in _whole_contexts(packing, runs)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    sizes = columns.pop("sizes")
    columns["offsets"] = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    columns["slots"] = build_index(columns["high"], columns["low"])
    return FullTable(packing, columns)


def _whole_contexts(packing: Packing, runs: Iterable[CountsRun]) -> Iterator[CountsRun]:
    """The same n-grams in runs that end where a context ends."""
    held = empty_run(packing)
    for run in runs:
        if len(held):
            run = joined_runs([held, run])
        last = int(_context_starts(run)[-1]) if len(run) else 0
        yield run[:last]
        held = run[last:]
    yield held


def _context_starts(run: CountsRun) -> npt.NDArray[np.int64]:
    """Rows at which the n-grams of another context begin."""
    bits = np.uint64(run.packing.token_bits)
    low = run.low >> bits
    starts = np.ones(len(run), bool)
    starts[1:] = (low[1:] != low[:-1]) | (run.high[1:] != run.high[:-1])
    return np.flatnonzero(starts)


def _table_rows(run: CountsRun, min_count: int) -> dict[str, npt.NDArray[Any]]:
    if not len(run):
        return _no_rows(run.packing)
    starts = _context_starts(run)
    sizes = np.diff(starts, append=len(run))
    totals = np.add.reduceat(run.counts, starts)
    before = np.cumsum(totals) - totals
    cumulative = np.cumsum(run.counts) - np.repeat(before, sizes)
    kept = totals >= min_count
    entries = np.repeat(kept, sizes)
    mask = np.uint64((1 << run.packing.token_bits) - 1)
    return {
        "high": run.high[starts][kept],
        "low": run.low[starts][kept] & ~mask,
        "sizes": sizes[kept],
        "tokens": (run.low[entries] & mask).astype(run.packing.token_dtype),
        "cumulative": cumulative[entries],
    }


def _no_rows(packing: Packing) -> dict[str, npt.NDArray[Any]]:
    words: Words = np.empty(0, np.uint64)
    return {
        "high": np.empty(0, packing.high_dtype),
        "low": words,
        "sizes": np.empty(0, np.int64),
        "tokens": np.empty(0, packing.token_dtype),
        "cumulative": words,
    }

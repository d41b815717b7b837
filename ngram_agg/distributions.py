"""From sorted n-gram counts to next-token distributions of every order, in one scan.

Sorted n-grams are a depth-first walk of the tree of contexts: where a key first differs from the
next one says which contexts end there. A context's total is the count of the n-gram one order
below, so the scan keeps one total and one top-k list an order and writes a context when it ends.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import option
from corpusmill.ngram_agg.compiled import compiled, leading_zeros
from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.packing import Key, Packing, Tokens, Words, pack_one, prefix_keys
from corpusmill.ngram_agg.partitions import Cut

Offsets = npt.NDArray[np.int64]

MAX_TOP_K = 1 << 16
_SCAN_ROWS = 1 << 17


@dataclass(frozen=True)
class DistributionOptions:
    """What a distribution table keeps.

    Raises:
      UsageError: an option is outside its range.
    """

    top_k: int = option(
        "next tokens kept for a context, those with the highest counts",
        8,
        metavar="K",
        least=1,
    )
    min_count: int = option("contexts seen fewer times are dropped", 2, least=1)

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise UsageError(f"top-k {self.top_k} is not between 1 and {MAX_TOP_K}")
        if self.min_count < 1:
            raise UsageError(f"min-count {self.min_count} is not at least 1")


@dataclass(frozen=True)
class DistributionRows:
    """Next-token distributions of contexts of one order, sorted by context.

    Attributes:
      contexts: one array a position, the oldest token first, each of shape [rows].
      total: how often each context was seen, uint64 [rows].
      offsets: int64 [rows + 1]; row i has the entries offsets[i] to offsets[i + 1] of the next two.
      next_tokens: token ids, by count descending, then by id ascending.
      next_counts: their counts, uint64.
      tail_count: how often other tokens followed, uint64 [rows].
      tail_distinct: how many other tokens there were, uint32 [rows].
    """

    contexts: list[Tokens]
    total: Words
    offsets: Offsets
    next_tokens: Tokens
    next_counts: Words
    tail_count: Words
    tail_distinct: Words

    def __len__(self) -> int:
        return len(self.total)


def scan_distributions(
    blocks: Iterable[CountsRun],
    options: DistributionOptions,
    *,
    lower: Cut = (),
    upper: Cut = (),
) -> Iterator[list[DistributionRows]]:
    """Distributions of all contexts that lie wholly in one partition of the counts.

    A context that is a proper prefix of a cut goes on in the neighbouring partition; it is left
    out here and `split_children` gives this partition's part of it. The empty context is left out
    always.

    Args:
      blocks: the partition's counts, keys rising from block to block.
      options: what to keep.
      lower: the cut at which the partition begins; () for the first.
      upper: the cut at which it ends; () for the last.

    Yields:
      Again and again the next rows of orders 1 to `max_order`, contexts rising.
    """
    scanner = None
    pending = None
    for block in _cut_blocks(blocks):
        if pending is None:
            scanner = _Scanner(block, options, lower)
        elif scanner is not None:
            yield scanner.scan(pending, block.key(0))
        pending = block
    if scanner is not None and pending is not None:
        yield scanner.scan(pending, pack_one(pending.packing, upper) if upper else None)


def _cut_blocks(blocks: Iterable[CountsRun]) -> Iterator[CountsRun]:
    """The same rows in blocks of 1 to `_SCAN_ROWS` rows."""
    for block in blocks:
        for first in range(0, len(block), _SCAN_ROWS):
            yield block[first : first + _SCAN_ROWS]


def split_contexts(lower: Cut, upper: Cut) -> list[Cut]:
    """Contexts that may reach over the border of the partition between two cuts."""
    prefixes = {cut[:length] for cut in (lower, upper) for length in range(len(cut))}
    return sorted(prefixes | {()})


def split_children(block: CountsRun, context: Cut) -> CountsRun:
    """The part of a block that continues `context`, as (context, next token) n-grams."""
    first, last = prefix_keys(block.packing, context)
    return block[block.lower_bound(first) : block.upper_bound(last)].shortened(len(context) + 1)


def distribution_row(children: CountsRun, options: DistributionOptions) -> DistributionRows:
    """The distribution of one context from all the n-grams that continue it; no row if too rare."""
    *context, tokens = children.columns()
    total = children.total()
    if total < options.min_count:
        return _no_rows(children.packing)
    order = np.lexsort((tokens, -children.counts.astype(np.int64)))[: options.top_k]
    head = children.counts[order]
    return DistributionRows(
        contexts=[column[:1] for column in context],
        total=np.array([total], np.uint64),
        offsets=np.array([0, len(order)], np.int64),
        next_tokens=tokens[order],
        next_counts=head,
        tail_count=np.array([total - int(head.sum())], np.uint64),
        tail_distinct=np.array([len(tokens) - len(order)], np.uint32),
    )


def _no_rows(packing: Packing) -> DistributionRows:
    tokens = np.empty(0, packing.token_dtype)
    counts = np.empty(0, np.uint64)
    return DistributionRows(
        contexts=[tokens] * packing.max_order,
        total=counts,
        offsets=np.zeros(1, np.int64),
        next_tokens=tokens,
        next_counts=counts,
        tail_count=counts,
        tail_distinct=np.empty(0, np.uint32),
    )


class _Scanner:
    """What the scan carries from one block to the next: the contexts that are still open."""

    def __init__(self, first: CountsRun, options: DistributionOptions, lower: Cut) -> None:
        packing = first.packing
        orders = packing.length
        self.packing = packing
        self.options = options
        self.totals = np.zeros(orders, np.int64)
        self.distinct = np.zeros(orders, np.int64)
        self.top_counts = np.zeros((orders, options.top_k), np.int64)
        self.top_tokens = np.zeros((orders, options.top_k), packing.token_dtype)
        self.top_sizes = np.zeros(orders, np.int64)
        # The longest context that may have begun before this partition: a proper prefix of the
        # cut that the first key has too.
        shared = 0
        if lower:
            in_common = _shared_tokens(packing, first.key(0), pack_one(packing, lower))
            shared = min(in_common, len(lower) - 1)
        self.shared = np.array([shared], np.int64)
        self.split = np.arange(orders) <= shared
        # Where a block's rows are written, before they are copied: memory that is new costs more
        # than the scan itself.
        rows, entries = _SCAN_ROWS, _SCAN_ROWS + options.top_k
        tables = packing.max_order
        self.contexts = np.empty((tables, tables, rows), packing.token_dtype)
        self.total = np.empty((tables, rows), np.uint64)
        self.offsets = np.zeros((tables, rows + 1), np.int64)
        self.next_tokens = np.empty((tables, entries), packing.token_dtype)
        self.next_counts = np.empty((tables, entries), np.uint64)
        self.tail_count = np.empty((tables, rows), np.uint64)
        self.tail_distinct = np.empty((tables, rows), np.uint32)

    def scan(self, block: CountsRun, following: Key | None) -> list[DistributionRows]:
        """Scans a block of at most `_SCAN_ROWS`; `following` is the key after it, if any."""
        shared = 0
        if following is not None:
            shared = _shared_tokens(self.packing, block.key(len(block) - 1), following)
        written = np.zeros(self.packing.max_order, np.int64)
        _scan(
            block.high,
            block.low,
            block.counts,
            self.packing.length,
            self.packing.token_bits,
            self.packing.end_of_document,
            self.options.min_count,
            shared,
            self.shared,
            self.split,
            self.totals,
            self.distinct,
            self.top_counts,
            self.top_tokens,
            self.top_sizes,
            self.contexts,
            self.total,
            self.offsets,
            self.next_tokens,
            self.next_counts,
            self.tail_count,
            self.tail_distinct,
            written,
        )
        return [self._copy_rows(order, rows) for order, rows in enumerate(written.tolist())]

    def _copy_rows(self, order: int, rows: int) -> DistributionRows:
        entries = int(self.offsets[order, rows])
        return DistributionRows(
            contexts=[self.contexts[order, token, :rows].copy() for token in range(order + 1)],
            total=self.total[order, :rows].copy(),
            offsets=self.offsets[order, : rows + 1].copy(),
            next_tokens=self.next_tokens[order, :entries].copy(),
            next_counts=self.next_counts[order, :entries].copy(),
            tail_count=self.tail_count[order, :rows].copy(),
            tail_distinct=self.tail_distinct[order, :rows].copy(),
        )


def _shared_tokens(packing: Packing, key: Key, other: Key) -> int:
    """How many tokens two different n-grams have in common at their beginning."""
    differing = (key[0] << 64 | key[1]) ^ (other[0] << 64 | other[1])
    return (packing.length * packing.token_bits - differing.bit_length()) // packing.token_bits


@compiled
def _scan(
    high: Words,
    low: Words,
    counts: Words,
    length: int,
    bits: int,
    end: int,
    min_count: int,
    shared_at_end: int,
    shared_before: Offsets,
    split: npt.NDArray[np.bool_],
    totals: Offsets,
    distinct: Offsets,
    top_counts: Words,
    top_tokens: Tokens,
    top_sizes: Offsets,
    contexts: Tokens,
    total: Words,
    offsets: Offsets,
    next_tokens: Tokens,
    next_counts: Words,
    tail_count: Words,
    tail_distinct: Words,
    written: Offsets,
) -> None:
    # One flat function: calls of helpers that take arrays cost more than the work here.
    # Depth d is a context of d tokens; its n-grams are contexts of d + 1 tokens or, at
    # d = length - 1, whole keys.
    rows = len(low)
    # By the number of leading zeros in which two keys agree; a table, because division is slow.
    shared_tokens = np.maximum(np.arange(129) - (128 - length * bits), 0) // bits
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    top_k = top_counts.shape[1]
    before = shared_before[0]
    for i in range(rows):
        above = np.uint64(high[i])
        below = low[i]
        after = shared_at_end
        if i + 1 < rows:
            differs = above ^ np.uint64(high[i + 1])
            if differs != 0:
                after = shared_tokens[leading_zeros(differs)]
            else:
                after = shared_tokens[leading_zeros(below ^ low[i + 1]) + 64]
        count = np.int64(counts[i])
        depth = length
        if count < min_count:
            # Longer contexts than its neighbours share are seen in this n-gram alone: too rare.
            depth = min(length, max(before, after) + 1)
        is_context = False
        while depth > after:
            # The n-gram of `depth` tokens ends here: as a context, and as its context's child.
            shift = (length - depth) * bits
            if shift >= 64:
                token = (above >> np.uint64(shift - 64)) & mask
            else:
                # In two steps, because a shift by 64 is undefined.
                spilled = (above << np.uint64(1)) << np.uint64(63 - shift)
                token = ((below >> np.uint64(shift)) | spilled) & mask
            if is_context:
                count = totals[depth]
                if count >= min_count and not split[depth] and token != np.uint64(end):
                    order = depth - 1
                    row = written[order]
                    first = offsets[order, row]
                    size = top_sizes[depth]
                    head = np.int64(0)
                    for j in range(size):
                        next_tokens[order, first + j] = top_tokens[depth, j]
                        next_counts[order, first + j] = top_counts[depth, j]
                        head += top_counts[depth, j]
                    for position in range(depth):
                        at = (length - 1 - position) * bits
                        if at >= 64:
                            part = above >> np.uint64(at - 64)
                        elif at == 0:
                            part = below
                        else:
                            part = (below >> np.uint64(at)) | (above << np.uint64(64 - at))
                        contexts[order, position, row] = part & mask
                    total[order, row] = count
                    offsets[order, row + 1] = first + size
                    tail_count[order, row] = count - head
                    tail_distinct[order, row] = distinct[depth] - size
                    written[order] = row + 1
                split[depth] = False
                totals[depth] = 0
                distinct[depth] = 0
                top_sizes[depth] = 0
            is_context = True
            context = depth - 1
            totals[context] += count
            distinct[context] += 1
            slot = top_sizes[context]
            # Children come by rising id, so a later one only passes those with smaller counts.
            if slot < top_k or count > top_counts[context, top_k - 1]:
                if slot < top_k:
                    top_sizes[context] = slot + 1
                else:
                    slot = top_k - 1
                while slot > 0 and top_counts[context, slot - 1] < count:
                    top_counts[context, slot] = top_counts[context, slot - 1]
                    top_tokens[context, slot] = top_tokens[context, slot - 1]
                    slot -= 1
                top_counts[context, slot] = count
                top_tokens[context, slot] = token
            depth -= 1
        before = after
    shared_before[0] = before

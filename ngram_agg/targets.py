"""Compact targets: for every position a few weighted tokens that stand for a whole distribution.

The schemes, their variances and the proof that `retain` and `split` are unbiased are in
docs/targets.md; the idea is from arXiv 2407.02819.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus.errors import UsageError
from ngram_agg.compiled import compiled, prefetch
from ngram_agg.full_tables import FullTable, backward_key
from ngram_agg.hash_index import EMPTY, ROW
from ngram_agg.hashing import mix
from ngram_agg.packing import Packing, Tokens, Words
from ngram_agg.saved_columns import open_columns, save_columns
from ngram_agg.table_checks import check_full_columns

Rows = npt.NDArray[np.int64]

SCHEMES = ("retain", "split", "renormalize")
ESTIMATORS = ("longest", "fixed", "interpolated")
# The weights of a position add up to this.
WEIGHT_UNITS = 65535
# The order of a position without a context, whose target is the observed token.
NO_CONTEXT = 255
MAX_HEAD = 256
_HEADS = ("head_offsets", "heads", "tails")
# The time goes to waiting for memory: so many positions wait at once, and what a position needs
# is asked for so many positions before.
_BLOCK = 512
_AHEAD = 16


@dataclass(frozen=True)
class TargetOptions:
    """What a target is made of.

    Attributes:
      scheme: `retain`, `split` or `renormalize`.
      estimator: `longest` (the longest kept context), `fixed` (contexts of `max_order` tokens
        only) or `interpolated` (Witten-Bell mixture of all kept contexts).
      head: the most frequent next tokens that are kept (r).
      tail_draws: tokens drawn for all others (d); 0 but for `retain`.
      min_order: tokens in the shortest context used.
      max_order: tokens in the longest context used.
      min_count: contexts seen fewer times are not used.
      seed: of the draws.

    Raises:
      UsageError: an option is outside its range.
    """

    scheme: str = "retain"
    estimator: str = "longest"
    head: int = 16
    tail_draws: int = 4
    min_order: int = 1
    max_order: int = 3
    min_count: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("scheme", self.scheme, SCHEMES)
        _check_choice("estimator", self.estimator, ESTIMATORS)
        draws_needed = self.scheme == "retain"
        if not int(not draws_needed) <= self.head <= MAX_HEAD:
            raise UsageError(
                f"head {self.head} is not between {int(not draws_needed)} and {MAX_HEAD}"
            )
        if draws_needed and not 1 <= self.tail_draws <= MAX_HEAD:
            raise UsageError(f"tail-draws {self.tail_draws} is not between 1 and {MAX_HEAD}")
        if not draws_needed and self.tail_draws:
            raise UsageError(
                f"tail-draws {self.tail_draws} with the scheme {self.scheme}, which draws nothing:"
                " 0 is accepted"
            )
        if not 0 <= self.min_order <= self.max_order:
            raise UsageError(
                f"min-order {self.min_order} is not between 0 and max-order {self.max_order}"
            )
        if self.min_count < 1:
            raise UsageError(f"min-count {self.min_count} is not at least 1")

    @property
    def slots(self) -> int:
        """Tokens with weights stored for a position."""
        return self.head + self.tail_draws

    @property
    def orders(self) -> range:
        """Lengths of the contexts used."""
        shortest = self.max_order if self.estimator == "fixed" else self.min_order
        return range(shortest, self.max_order + 1)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} {value!r} is none of {', '.join(choices)}")


@dataclass(frozen=True)
class Positions:
    """What a target depends on, for some positions of a corpus.

    Attributes:
      high, low: keys of the longest context before each position, as in a `FullTable`.
      lengths: tokens in it, uint8; fewer than the packing's max_order at a document's begin.
      hashes: uint64, of the seed, the document and the position in it.
      tokens: the token at the position.
    """

    high: Words
    low: Words
    lengths: Words
    hashes: Words
    tokens: Tokens

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Targets:
    """Compact targets of some positions.

    Attributes:
      tokens: ids of shape [positions, slots]; 0 where the weight is 0.
      weights: uint16 of that shape, `WEIGHT_UNITS` in all for each position.
      orders: uint8 [positions], tokens in the (longest) context used; `NO_CONTEXT` without one.
    """

    tokens: Tokens
    weights: Words
    orders: Words


def find_positions(
    packing: Packing,
    tokens: Tokens,
    ends: npt.NDArray[np.int64],
    document_hashes: Words,
    first_position: int,
    before: Tokens,
    seed: int,
) -> Positions:
    """The positions of some documents, one after the other, each in one row or more.

    Args:
      packing: of (context backwards, next token).
      tokens: of the rows of a tokens dataset.
      ends: int64 [rows], where each row's tokens end; a row has one token or more.
      document_hashes: uint64 [rows], of the rows' documents.
      first_position: where in its document the first token stands.
      before: the tokens before it, as many of the last `packing.max_order` as there are.
      seed: of the draws.
    """
    positions = len(tokens)
    high = np.empty(positions, packing.high_dtype)
    low = np.empty(positions, np.uint64)
    lengths = np.empty(positions, np.uint8)
    hashes = np.empty(positions, np.uint64)
    _find_positions(
        np.concatenate([before, tokens]),
        len(before),
        ends,
        document_hashes ^ np.uint64(seed & (1 << 64) - 1),
        first_position,
        packing.max_order,
        packing.token_bits,
        packing.end_of_document,
        *_words(backward_key(packing, ())),
        high,
        low,
        lengths,
        hashes,
    )
    return Positions(high, low, lengths, hashes, tokens)


def hash_strings(offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8]) -> Words:
    """A hash of each string, uint64 [strings]; string i is data[offsets[i] : offsets[i + 1]]."""
    hashes = np.empty(len(offsets) - 1, np.uint64)
    _hash_strings(offsets, data, hashes)
    return hashes


@dataclass(frozen=True)
class TargetTable:
    """A full table with what targets of certain options take from each context.

    Attributes:
      full: the full distributions.
      options: what the targets are made of.
      head_offsets: int64 [contexts + 1]: context i has the heads head_offsets[i] to
        head_offsets[i + 1].
      heads: uint64, the most frequent next tokens, by count descending, then id ascending: the
        token id, and in the lowest 16 bits its weight. The tail's weight is what is missing to
        `WEIGHT_UNITS`.
      tails: like the full table's `cumulative`, but with nothing for the tokens in the head.
    """

    full: FullTable
    options: TargetOptions
    head_offsets: npt.NDArray[np.int64]
    heads: Words
    tails: Words


def make_target_table(full: FullTable, options: TargetOptions) -> TargetTable:
    """Chooses every context's head."""
    offsets, cumulative = full.columns["offsets"], full.columns["cumulative"]
    sizes = np.minimum(np.diff(offsets), options.head)
    head_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    heads = np.empty(head_offsets[-1], np.uint64)
    has_tail = options.scheme == "retain"
    tails = np.empty_like(cumulative if has_tail else cumulative[:0])
    _choose_heads(
        offsets,
        full.columns["tokens"],
        cumulative,
        head_offsets,
        options.head,
        has_tail,
        heads,
        tails,
    )
    return TargetTable(full, options, head_offsets, heads, tails)


def save_target_table(folder: str, table: TargetTable) -> None:
    """Writes a table into a folder, local or remote; writing it again replaces it."""
    heads = {name: getattr(table, name) for name in _HEADS}
    save_columns(folder, {**table.full.columns, **heads})


def open_target_table(
    folder: str, packing: Packing, options: TargetOptions, made_of: Any = None
) -> TargetTable:
    """A saved table, memory-mapped; `made_of` as in `open_columns`."""
    columns = open_columns(folder, partial(check_full_columns, packing=packing), made_of)
    heads = [columns.pop(name) for name in _HEADS]
    return TargetTable(FullTable(packing, columns), options, *heads)


def make_targets(table: TargetTable, positions: Positions) -> Targets:
    """The targets of positions; whatever was kept of their contexts must be in the table."""
    options = table.options
    full = table.full.columns
    mixed = options.estimator == "interpolated"
    rows, orders = _find_contexts(
        table.full, positions, options.orders, len(options.orders) if mixed else 1
    )
    shape = len(positions), options.slots
    tokens = np.zeros(shape, table.full.packing.token_dtype)
    weights = np.zeros(shape, np.uint16)
    inputs = rows, positions.hashes, positions.tokens, SCHEMES.index(options.scheme)
    slots = options.head, options.tail_draws
    entries = full["offsets"], full["tokens"]
    heads = table.head_offsets, table.heads
    if mixed:
        _mixed_targets(*inputs, *slots, *entries, full["cumulative"], *heads, tokens, weights)
    else:
        _longest_targets(*inputs, *slots, *entries, table.tails, *heads, tokens, weights)
    return Targets(tokens, weights, orders)


def longest_contexts(table: FullTable, positions: Positions, orders: range) -> Rows:
    """The table's row of the longest kept context of each position, -1 for none: int64."""
    return _find_contexts(table, positions, orders, 1)[0][:, 0]


def full_distributions(
    table: FullTable, rows: Rows, observed: Tokens
) -> tuple[npt.NDArray[np.int64], Tokens, npt.NDArray[np.float32]]:
    """y_all of each position: the whole distribution of its context.

    Args:
      table: the full table.
      rows: of the positions' contexts, from `longest_contexts`.
      observed: the token at each position, which is all there is without a context.

    Returns:
      Offsets, int64 [positions + 1], tokens and probabilities: position i has the entries
      offsets[i] to offsets[i + 1].
    """
    starts = table.columns["offsets"]
    sizes = np.where(rows < 0, 1, starts[rows + 1] - starts[rows])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    tokens = np.empty(offsets[-1], table.packing.token_dtype)
    probabilities = np.empty(offsets[-1], np.float32)
    entries = table.columns["tokens"], table.columns["cumulative"]
    _copy_distributions(rows, observed, starts, *entries, offsets, tokens, probabilities)
    return offsets, tokens, probabilities


def _find_contexts(
    table: FullTable, positions: Positions, orders: range, most: int
) -> tuple[npt.NDArray[np.int64], Words]:
    """The `most` longest kept contexts of each position.

    Returns:
      Their rows in the table, int64 [positions, most], -1 where there are no more of them; and
      the order of the longest, uint8 [positions], or `NO_CONTEXT`.
    """
    rows = np.full((len(positions), most), -1, np.int64)
    found = np.full(len(positions), NO_CONTEXT, np.uint8)
    _find_rows(
        positions.high,
        positions.low,
        positions.lengths,
        *_prefixes(table.packing),
        orders[0],
        orders[-1],
        table.columns["slots"],
        table.columns["high"],
        table.columns["low"],
        rows,
        found,
    )
    return rows, found


def _words(key: tuple[int, int]) -> tuple[np.uint64, np.uint64]:
    return np.uint64(key[0]), np.uint64(key[1])


def _prefixes(packing: Packing) -> tuple[Words, Words, Words, Words]:
    """For every order: masks of the context's tokens in a key, and the filling of the others."""
    masks, fillings = [], []
    bits = packing.token_bits
    for order in range(packing.max_order + 1):
        key = ((1 << order * bits) - 1) << (packing.length - order) * bits
        masks.append((key >> 64, key & (1 << 64) - 1))
        high, low = backward_key(packing, ())
        fillings.append((high & ~masks[-1][0], low & ~masks[-1][1]))
    words = np.array([masks, fillings], np.uint64)
    return (
        words[0, :, 0].copy(),
        words[0, :, 1].copy(),
        words[1, :, 0].copy(),
        words[1, :, 1].copy(),
    )


@compiled
def _hash_strings(
    offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], hashes: Words
) -> None:
    for i in range(len(hashes)):
        size = np.uint64(offsets[i + 1] - offsets[i])
        value = mix(size)
        word = np.uint64(0)
        filled = 0
        for j in range(offsets[i], offsets[i + 1]):
            word = (word << np.uint64(8)) | np.uint64(data[j])
            filled += 1
            if filled == 8:
                value = mix(value ^ word)
                word = np.uint64(0)
                filled = 0
        hashes[i] = mix(value ^ word)


@compiled
def _find_positions(
    tokens: Tokens,
    before: int,
    ends: npt.NDArray[np.int64],
    document_hashes: Words,
    first_position: int,
    max_order: int,
    bits: int,
    end: int,
    none_high: np.uint64,
    none_low: np.uint64,
    high: Words,
    low: Words,
    lengths: Words,
    hashes: Words,
) -> None:
    top = max_order * bits
    shift = np.uint64(bits)
    carry = np.uint64(64 - bits)
    # No bits are left where the next token stands, the lowest ones.
    kept = ~((np.uint64(1) << shift) - np.uint64(1))
    above = none_high
    below = none_low
    length = 0
    document = 0
    start = -first_position
    is_first = False
    base = mix(document_hashes[0]) if len(document_hashes) else np.uint64(0)
    for i in range(len(tokens)):
        position = i - before
        if position >= 0:
            if position == ends[document]:
                document += 1
                base = mix(document_hashes[document])
            if is_first:
                start = position
            high[position] = above
            low[position] = below
            lengths[position] = length
            hashes[position] = mix(base + np.uint64(position - start))
        token = np.uint64(tokens[i])
        if token == np.uint64(end):
            above = none_high
            below = none_low
            length = 0
            is_first = True
            continue
        is_first = False
        if max_order:
            below = ((below >> shift) | (above << carry)) & kept
            above = above >> shift
            if top >= 64:
                above |= token << np.uint64(top - 64)
            else:
                below |= token << np.uint64(top)
                if top + bits > 64:
                    above |= token >> np.uint64(64 - top)
            length = min(length + 1, max_order)


@compiled
def _choose_heads(
    offsets: npt.NDArray[np.int64],
    tokens: Tokens,
    cumulative: Words,
    head_offsets: npt.NDArray[np.int64],
    most: int,
    has_tail: bool,
    heads: Words,
    tails: Words,
) -> None:
    units = np.uint64(WEIGHT_UNITS)
    counts = np.zeros(most + 1, np.uint64)
    entries = np.zeros(most + 1, np.int64)
    rest = np.zeros(most + 1, np.uint64)
    for row in range(len(offsets) - 1):
        size = 0
        previous = np.uint64(0)
        for entry in range(offsets[row], offsets[row + 1]):
            count = cumulative[entry] - previous
            previous = cumulative[entry]
            # Tokens come by rising id, so a later one only passes those with smaller counts.
            if size < most or (most > 0 and count > counts[most - 1]):
                slot = size if size < most else most - 1
                size = min(size + 1, most)
                while slot > 0 and counts[slot - 1] < count:
                    counts[slot] = counts[slot - 1]
                    entries[slot] = entries[slot - 1]
                    slot -= 1
                counts[slot] = count
                entries[slot] = entry
        in_head = np.uint64(0)
        for slot in range(size):
            in_head += counts[slot]
        total = previous if has_tail else in_head
        # Largest remainders: units in proportion, rounded down, and what is left to those that
        # lost most (the first of equals; the tail, which comes last, is what nobody else gets).
        left = units
        head = head_offsets[row]
        for slot in range(size):
            share = counts[slot] * units
            heads[head + slot] = (np.uint64(tokens[entries[slot]]) << np.uint64(16)) | (
                share // total
            )
            rest[slot] = share % total
            left -= share // total
        rest[size] = ((total - in_head) * units) % total
        left -= ((total - in_head) * units) // total
        for _ in range(left):
            best = 0
            for slot in range(1, size + 1):
                if rest[slot] > rest[best]:
                    best = slot
            if best < size:
                heads[head + best] += np.uint64(1)
            rest[best] = 0
        if has_tail:
            previous = np.uint64(0)
            tail = np.uint64(0)
            for entry in range(offsets[row], offsets[row + 1]):
                is_head = False
                for slot in range(size):
                    is_head |= entries[slot] == entry
                if not is_head:
                    tail += cumulative[entry] - previous
                previous = cumulative[entry]
                tails[entry] = tail


@compiled
def _scaled(word: np.uint64, size: np.uint64) -> np.uint64:
    """A word, evenly distributed over 64 bits, as a number below `size`."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    low = (word & mask) * (size & mask)
    middle = (word >> half) * (size & mask) + (low >> half)
    other = (word & mask) * (size >> half) + (middle & mask)
    return (word >> half) * (size >> half) + (middle >> half) + (other >> half)


@compiled
def _find_rows(
    high: Words,
    low: Words,
    lengths: Words,
    mask_high: Words,
    mask_low: Words,
    filling_high: Words,
    filling_low: Words,
    min_order: int,
    max_order: int,
    slots: Words,
    table_high: Words,
    table_low: Words,
    rows: npt.NDArray[np.int64],
    orders: Words,
) -> None:
    # One loop asks for the slots of a block of positions, the next one for the keys that these
    # name, and only then are they looked at.
    last_slot = np.uint64(len(slots) - 1)
    above = np.empty(_BLOCK, np.uint64)
    below = np.empty(_BLOCK, np.uint64)
    words = np.empty(_BLOCK, np.uint64)
    first_slots = np.empty(_BLOCK, np.uint64)
    waiting = np.empty(_BLOCK, np.int64)
    found = np.empty(_BLOCK, np.int64)
    for start in range(0, len(low), _BLOCK):
        size = min(_BLOCK, len(low) - start)
        for j in range(size):
            waiting[j] = start + j
            found[j] = 0
        for order in range(max_order, min_order - 1, -1):
            for j in range(size):
                i = waiting[j]
                above[j] = (np.uint64(high[i]) & mask_high[order]) | filling_high[order]
                below[j] = (low[i] & mask_low[order]) | filling_low[order]
                words[j] = mix(mix(above[j]) ^ below[j])
            for j in range(size):
                first_slots[j] = slots[words[j] & last_slot]
            for j in range(size):
                if (first_slots[j] ^ words[j]) <= ROW and first_slots[j] != EMPTY:
                    prefetch(table_low, first_slots[j] & ROW)
                    prefetch(table_high, first_slots[j] & ROW)
            left = 0
            for j in range(size):
                i = waiting[j]
                place = words[j] & last_slot
                slot = first_slots[j]
                while lengths[i] >= order and slot != EMPTY:
                    row = slot & ROW
                    is_it = (slot ^ words[j]) <= ROW
                    if is_it and table_low[row] == below[j] and table_high[row] == above[j]:
                        if found[i - start] == 0:
                            orders[i] = order
                        rows[i, found[i - start]] = row
                        found[i - start] += 1
                        break
                    place = (place + np.uint64(1)) & last_slot
                    slot = slots[place]
                waiting[left] = i
                left += int(found[i - start] < rows.shape[1])
            size = left


@compiled
def _copy_distributions(
    rows: npt.NDArray[np.int64],
    observed: Tokens,
    table_offsets: npt.NDArray[np.int64],
    table_tokens: Tokens,
    cumulative: Words,
    offsets: npt.NDArray[np.int64],
    tokens: Tokens,
    probabilities: npt.NDArray[np.float32],
) -> None:
    for i in range(len(rows)):
        out = offsets[i]
        if rows[i] < 0:
            tokens[out] = observed[i]
            probabilities[out] = 1
        else:
            last = table_offsets[rows[i] + 1]
            total = np.float64(cumulative[last - 1])
            previous = np.uint64(0)
            for entry in range(table_offsets[rows[i]], last):
                tokens[out] = table_tokens[entry]
                probabilities[out] = np.float64(cumulative[entry] - previous) / total
                previous = cumulative[entry]
                out += 1


@compiled
def _longest_targets(
    rows: npt.NDArray[np.int64],
    hashes: Words,
    observed: Tokens,
    scheme: int,
    most: int,
    draws: int,
    offsets: npt.NDArray[np.int64],
    table_tokens: Tokens,
    tails: Words,
    head_offsets: npt.NDArray[np.int64],
    heads: Words,
    tokens: Tokens,
    weights: Words,
) -> None:
    # One flat function: calls of helpers that take arrays cost more than the work here.
    for i in range(len(rows)):
        if i + 2 * _AHEAD < len(rows):
            prefetch(head_offsets, max(rows[i + 2 * _AHEAD, 0], 0))
            prefetch(offsets, max(rows[i + 2 * _AHEAD, 0], 0))
            near = max(rows[i + _AHEAD, 0], 0)
            if head_offsets[near] < len(heads):
                prefetch(heads, head_offsets[near])
            if len(tails):
                prefetch(tails, offsets[near + 1] - 1)
        row = rows[i, 0]
        one_hot = row < 0
        if scheme == 1 and not one_hot:
            # split: what is not in the head stands for itself alone.
            one_hot = True
            for j in range(head_offsets[row], head_offsets[row + 1]):
                one_hot &= heads[j] >> np.uint64(16) != np.uint64(observed[i])
        if one_hot:
            tokens[i, 0] = observed[i]
            weights[i, 0] = WEIGHT_UNITS
            continue
        tail_weight = np.int64(WEIGHT_UNITS)
        head = head_offsets[row]
        for j in range(head_offsets[row + 1] - head):
            weight = np.int64(heads[head + j] & np.uint64(0xFFFF))
            if weight:
                tokens[i, j] = heads[head + j] >> np.uint64(16)
                weights[i, j] = weight
                tail_weight -= weight
        if tail_weight == 0:
            continue
        first = offsets[row]
        last = offsets[row + 1] - 1
        for draw in range(draws):
            weight = tail_weight // draws + (draw < tail_weight % draws)
            if weight == 0:
                break
            wanted = _scaled(mix(hashes[i] + np.uint64(draw)), tails[last])
            start = first
            stop = last
            while start < stop:
                middle = (start + stop) // 2
                if tails[middle] > wanted:
                    stop = middle
                else:
                    start = middle + 1
            tokens[i, most + draw] = table_tokens[start]
            weights[i, most + draw] = weight


@compiled
def _mixed_targets(
    rows: npt.NDArray[np.int64],
    hashes: Words,
    observed: Tokens,
    scheme: int,
    most: int,
    draws: int,
    offsets: npt.NDArray[np.int64],
    table_tokens: Tokens,
    cumulative: Words,
    head_offsets: npt.NDArray[np.int64],
    heads: Words,
    tokens: Tokens,
    weights: Words,
) -> None:
    # One flat function: calls of helpers that take arrays cost more than the work here.
    contexts = rows.shape[1]
    shares = np.zeros(contexts, np.float64)
    # Candidates for the head with their probabilities and, by context, their counts.
    tokens_of = np.zeros(contexts * most + 1, np.int64)
    chances = np.zeros(contexts * most + 1, np.float64)
    counts_of = np.zeros((contexts * most + 1, contexts), np.uint64)
    before_of = np.zeros((contexts * most + 1, contexts), np.uint64)
    chosen = np.zeros(most + 1, np.int64)
    rest = np.zeros(most + 1, np.float64)
    by_id = np.zeros(most + 1, np.int64)
    for i in range(len(rows)):
        found = 0
        while found < contexts and rows[i, found] >= 0:
            found += 1
        if found == 0:
            tokens[i, 0] = observed[i]
            weights[i, 0] = WEIGHT_UNITS
            continue
        # Witten & Bell 1991: a context with n next tokens in N occurrences leaves n / (n + N) to
        # the next shorter one.
        left = 1.0
        for c in range(found):
            total = np.float64(cumulative[offsets[rows[i, c] + 1] - 1])
            distinct = np.float64(offsets[rows[i, c] + 1] - offsets[rows[i, c]])
            shares[c] = left if c + 1 == found else left * total / (total + distinct)
            left -= shares[c]
        candidates = 0
        for c in range(found):
            for j in range(head_offsets[rows[i, c]], head_offsets[rows[i, c] + 1]):
                token = np.int64(heads[j] >> np.uint64(16))
                known = False
                for k in range(candidates):
                    known |= tokens_of[k] == token
                if not known:
                    tokens_of[candidates] = token
                    candidates += 1
        for k in range(candidates):
            chances[k] = 0.0
            for c in range(found):
                start = offsets[rows[i, c]]
                stop = offsets[rows[i, c] + 1]
                total = np.float64(cumulative[stop - 1])
                end = stop
                while start < stop:
                    middle = (start + stop) // 2
                    if np.int64(table_tokens[middle]) < tokens_of[k]:
                        start = middle + 1
                    else:
                        stop = middle
                before_of[k, c] = cumulative[start - 1] if start > offsets[rows[i, c]] else 0
                counts_of[k, c] = 0
                if start < end and np.int64(table_tokens[start]) == tokens_of[k]:
                    counts_of[k, c] = cumulative[start] - before_of[k, c]
                chances[k] += shares[c] * (np.float64(counts_of[k, c]) / total)
        size = 0
        for k in range(candidates):
            slot_ = size
            if size == most:
                slot_ = most - 1
                last = chosen[slot_]
                if chances[k] < chances[last] or (
                    chances[k] == chances[last] and tokens_of[k] > tokens_of[last]
                ):
                    continue
            else:
                size += 1
            while slot_ > 0 and (
                chances[chosen[slot_ - 1]] < chances[k]
                or (
                    chances[chosen[slot_ - 1]] == chances[k]
                    and tokens_of[chosen[slot_ - 1]] > tokens_of[k]
                )
            ):
                chosen[slot_] = chosen[slot_ - 1]
                slot_ -= 1
            chosen[slot_] = k
        in_head = 0.0
        is_head = False
        for j in range(size):
            in_head += chances[chosen[j]]
            is_head |= tokens_of[chosen[j]] == np.int64(observed[i])
        if scheme == 1 and not is_head:
            tokens[i, 0] = observed[i]
            weights[i, 0] = WEIGHT_UNITS
            continue
        # Whether anything is left for the tail is a question for the counts: sums are rounded.
        tail_mass = 0.0
        if scheme == 0:
            for c in range(found):
                tail = cumulative[offsets[rows[i, c] + 1] - 1]
                total = np.float64(tail)
                for j in range(size):
                    tail -= counts_of[chosen[j], c]
                tail_mass += shares[c] * (np.float64(tail) / total)
        mass = in_head + tail_mass
        # Largest remainders, as for a single context.
        left_units = np.int64(WEIGHT_UNITS)
        for j in range(size + 1):
            chance = chances[chosen[j]] if j < size else tail_mass
            share = chance / mass * WEIGHT_UNITS
            units = np.int64(share)
            rest[j] = share - units
            left_units -= units
            if j < size:
                weights[i, j] = units
        tail_weight = np.int64(tail_mass / mass * WEIGHT_UNITS)
        for _ in range(left_units):
            best = 0
            for j in range(1, size + 1):
                if rest[j] > rest[best]:
                    best = j
            if best < size:
                weights[i, best] += 1
            else:
                tail_weight += 1
            rest[best] = -1.0
        for j in range(size):
            if weights[i, j]:
                tokens[i, j] = tokens_of[chosen[j]]
            slot_ = j
            while slot_ > 0 and tokens_of[by_id[slot_ - 1]] > tokens_of[chosen[j]]:
                by_id[slot_] = by_id[slot_ - 1]
                slot_ -= 1
            by_id[slot_] = chosen[j]
        if tail_weight == 0:
            continue
        for draw in range(draws):
            weight = tail_weight // draws + (draw < tail_weight % draws)
            if weight == 0:
                break
            # First the context that the token is drawn from, then the token.
            word = mix(hashes[i] + np.uint64(draw))
            point = np.float64(word >> np.uint64(11)) * 2.0**-53 * tail_mass
            context = -1
            for c in range(found):
                tail = cumulative[offsets[rows[i, c] + 1] - 1]
                total = np.float64(tail)
                for j in range(size):
                    tail -= counts_of[chosen[j], c]
                if tail > 0 and (context < 0 or point >= 0.0):
                    context = c
                point -= shares[c] * (np.float64(tail) / total)
            first = offsets[rows[i, context]]
            tail = cumulative[offsets[rows[i, context] + 1] - 1]
            for j in range(size):
                tail -= counts_of[chosen[j], context]
            wanted = _scaled(mix(word), tail)
            for j in range(size):
                if wanted < before_of[by_id[j], context]:
                    break
                wanted += counts_of[by_id[j], context]
            start = first
            stop = offsets[rows[i, context] + 1] - 1
            while start < stop:
                middle = (start + stop) // 2
                if cumulative[middle] > wanted:
                    stop = middle
                else:
                    start = middle + 1
            tokens[i, most + draw] = table_tokens[start]
            weights[i, most + draw] = weight

"""Byte models expanded to the strings of a codebook.

The strings are the nodes of a trie in which every node has a code. Codes are in depth-first order,
children by their bytes, so that the trie is two arrays (`trie`). docs/codebooks.md says
why the results are what the definitions ask for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from corpusmill.compress.byte_models.byte_model import ByteModel, Frequencies
from corpusmill.compress.byte_strings import Bytes, ByteStrings, Offsets
from corpusmill.compress.codebooks.trie import NO_PARENT, Trie, Words, renumbered
from corpusmill.compress.coders.apportionment import divide_seats
from corpusmill.compress.coders.equal_info import no_codes
from corpusmill.ngram_agg.compiled import compiled

Progress = Callable[[int], None]

# A string of this length has no children in the allocation `optimal`; the window code has no limit.
MAX_STRING = 1023
# Probabilities are in units of 2^-63; single bytes count as more than certain.
_PROBABILITY_BITS = 63
_CERTAIN = np.uint64((1 << 64) - 1)
# So many prefixes at a time: their frequencies take 4 MiB.
_BATCH = 4096
# One in so many known strings is expanded in a round: few while all their children are kept, for
# memory's sake, and not all at once afterwards, because many turn out not to be needed.
_SHARE_AT_FIRST = 128
_SHARE = 16
# The columns of a window code that is under way.
_CODER_STATE = ("parents", "bytes", "first", "counts")
# The bound is found again when the known strings have become more by one in so many.
_SHARE_OF_NEWS = 64


class Keeper(Protocol):
    """Keeps an expansion that is under way, for another process to go on with."""

    def found(self) -> Mapping[str, Words] | None:
        """What was kept of this expansion; None where it has to begin."""
        ...

    def is_due(self) -> bool:
        """Whether it is time to keep it again."""
        ...

    def keep(self, columns: Mapping[str, Words]) -> None:
        """Keeps the expansion as it is now."""
        ...


class Forgetful:
    """The keeper of what need not be kept."""

    def found(self) -> None:
        return None

    def is_due(self) -> bool:
        return False

    def keep(self, columns: Mapping[str, Words]) -> None:
        """Is never called."""


_FORGETFUL = Forgetful()


def expand_coder(
    model: ByteModel, window_bits: int, progress: Progress, keeper: Keeper = _FORGETFUL
) -> Trie:
    """The strings of the window code (docs/codebooks.md).

    Args:
      model: drives the code.
      window_bits: there are 2^window_bits strings.
      progress: is told how many more strings are found, round by round.
      keeper: is asked after every batch of questions to the model.

    Raises:
      UsageError: some single byte has no code: the model's precision is too high for so few.
    """
    state = keeper.found() or _first_division(model, window_bits)
    # The nodes in `first` still have to divide their codes, so many as `counts` says.
    parents, last_bytes, first, counts = (state[name] for name in _CODER_STATE)
    progress(len(parents) - int(np.sum(counts - 1)))
    while len(first):
        rows = slice(0, 0)
        divided = []
        for rows, frequencies in _asked(model, first, parents, last_bytes):
            nodes = first[rows], counts[rows], frequencies
            divided.append(_divide(*nodes, model.precision, parents, last_bytes))
            if keeper.is_due():
                break
        children, shares = _concatenated(divided)
        progress(len(children))
        inner = shares > 1
        first = np.concatenate([first[rows.stop :], children[inner]])
        counts = np.concatenate([counts[rows.stop :], shares[inner]])
        if keeper.is_due():
            keeper.keep(dict(zip(_CODER_STATE, (parents, last_bytes, first, counts), strict=True)))
    return Trie(parents, last_bytes)


def expand_optimal(
    model: ByteModel, window_bits: int, progress: Progress, keeper: Keeper = _FORGETFUL
) -> Trie:
    """The strings that `most_probable` finds."""
    trie, _ = most_probable(model, window_bits, progress, keeper)
    return trie


def most_probable(
    model: ByteModel, window_bits: int, progress: Progress, keeper: Keeper = _FORGETFUL
) -> tuple[Trie, Words]:
    """All 256 single bytes and the most probable longer strings, 2^window_bits in all.

    The probability of a string is the product of frequency / 2^precision of its bytes, rounded down
    to a multiple of 2^-63 after each byte. Of strings that are equally probable the first in the
    order of byte strings are taken. Strings are at most `MAX_STRING` bytes long.

    Args:
      model: says how probable strings are.
      window_bits: at least 9.
      progress: is told how many more strings were expanded, round by round.
      keeper: is asked after every batch of strings.

    Returns:
      The strings, and the probability of each, uint64 in units of 2^-63.
    """
    size = 1 << window_bits
    state = keeper.found()
    known = _Known.of_single_bytes(model) if state is None else _Known(**state)
    if state is not None:
        progress(int(np.count_nonzero(known.expanded)))
    looked_at = 0
    while True:
        # Finding the bound takes as long as expanding many strings; an old one is only too low.
        if len(known.bytes) > looked_at + looked_at // _SHARE_OF_NEWS:
            # At least this probable is whatever will be taken: so many strings are known already.
            bound = known.bound(size)
            known = known.without_below(bound)
            looked_at = len(known.bytes)
        open_ = ~known.expanded & (known.probabilities > bound) & (known.lengths < MAX_STRING)
        rows = np.flatnonzero(open_)
        if not len(rows):
            return known.best(size)
        most = max(256, len(known.bytes) // (_SHARE if bound else _SHARE_AT_FIRST))
        if len(rows) > most:
            falling = np.argpartition(-known.probabilities[rows].astype(np.float64), most)
            rows = np.sort(rows[falling[:most]])
        children = []
        for part, frequencies in _asked(model, rows, known.parents, known.bytes):
            asked = rows[part]
            known.expanded[asked] = True
            children.append(
                _multiply(asked, frequencies, known.probabilities, bound, model.precision)
            )
            progress(len(asked))
            if keeper.is_due():
                break
        known = known.joined(*_concatenated(children))
        if keeper.is_due():
            keeper.keep(vars(known))


def _first_division(model: ByteModel, window_bits: int) -> dict[str, Words]:
    """The window code with the codes of the empty string divided among the single bytes."""
    size = 1 << window_bits
    parents = np.full(size, NO_PARENT, np.int32)
    last_bytes = np.empty(size, np.uint8)
    root = np.full(1, -1), np.full(1, size + 1), _root(model)
    first, counts = _divide(*root, model.precision, parents, last_bytes)
    if len(first) < 256:
        raise no_codes(window_bits, model.precision)
    inner = counts > 1
    return dict(zip(_CODER_STATE, (parents, last_bytes, first[inner], counts[inner]), strict=True))


def _root(model: ByteModel) -> Frequencies:
    return model.frequencies(ByteStrings.of([b""]))


def _concatenated(parts: Sequence[tuple[Words, ...]]) -> list[Any]:
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _asked(
    model: ByteModel, nodes: Words, parents: Words, last_bytes: Bytes
) -> Iterator[tuple[slice, Frequencies]]:
    """The frequencies after each node's string, and which nodes these are, batch by batch."""
    for start in range(0, max(1, len(nodes)), _BATCH):
        rows = slice(start, start + _BATCH)
        batch = nodes[rows]
        prefixes = ByteStrings(*_gather(batch, parents, last_bytes, model.context_bytes))
        yield rows, model.frequencies(prefixes)


@dataclass(frozen=True)
class _Known:
    """Strings that may be among the most probable ones; parents stand before their children."""

    parents: Words
    bytes: Bytes
    lengths: Words
    probabilities: Words
    expanded: Words

    @classmethod
    def of_single_bytes(cls, model: ByteModel) -> "_Known":
        """All of them, none expanded."""
        unit = np.uint64(_PROBABILITY_BITS - model.precision)
        return cls(
            np.full(256, NO_PARENT, np.int32),
            np.arange(256, dtype=np.uint8),
            np.ones(256, np.uint16),
            _root(model)[0].astype(np.uint64) << unit,
            np.zeros(256, bool),
        )

    def ranks(self) -> Words:
        """What decides who is taken: single bytes always are."""
        return np.where(self.parents == NO_PARENT, _CERTAIN, self.probabilities)

    def bound(self, size: int) -> np.uint64:
        """The probability of the last one taken if no more were known; 0 if there is room."""
        if len(self.bytes) < size:
            return np.uint64(0)
        place = len(self.bytes) - size
        return np.uint64(np.partition(self.ranks(), place)[place])

    def without_below(self, bound: np.uint64) -> "_Known":
        return self._only(self.ranks() >= bound)

    def joined(self, parents: Words, last_bytes: Bytes, probabilities: Words) -> "_Known":
        """With children of strings that are known."""
        return _Known(
            np.concatenate([self.parents, parents]),
            np.concatenate([self.bytes, last_bytes]),
            np.concatenate([self.lengths, self.lengths[parents] + np.uint16(1)]),
            np.concatenate([self.probabilities, probabilities]),
            np.concatenate([self.expanded, np.zeros(len(parents), bool)]),
        )

    def best(self, size: int) -> tuple[Trie, Words]:
        """The `size` best ones, in depth-first order, and their probabilities."""
        ranks = self.ranks()
        bound = self.bound(size)
        taken = ranks > bound
        tied = np.flatnonzero(ranks == bound)
        tied = tied[np.argsort(_depth_first(self.parents, self.bytes)[tied])]
        taken[tied[: size - np.count_nonzero(taken)]] = True
        chosen = self._only(taken)
        codes = _depth_first(chosen.parents, chosen.bytes)
        parents, last_bytes = np.empty_like(chosen.parents), np.empty_like(chosen.bytes)
        is_single = chosen.parents == NO_PARENT
        parents[codes] = np.where(is_single, NO_PARENT, codes[chosen.parents])
        last_bytes[codes] = chosen.bytes
        probabilities = np.empty_like(chosen.probabilities)
        probabilities[codes] = chosen.probabilities
        return Trie(parents, last_bytes), probabilities

    def _only(self, keep: Words) -> "_Known":
        """A selection that has the parents of all that it has."""
        if keep.all():
            return self
        return _Known(
            renumbered(self.parents, keep),
            self.bytes[keep],
            self.lengths[keep],
            self.probabilities[keep],
            self.expanded[keep],
        )


def _depth_first(parents: Words, last_bytes: Bytes) -> Words:
    """The place of each node in depth-first order, children by their bytes."""
    keys = (parents.astype(np.int64) + 1) << 8 | last_bytes
    codes = np.empty(len(parents), np.int32)
    _number(parents, np.argsort(keys), codes)
    return codes


@compiled
def _number(parents: Words, order: Words, codes: Words) -> None:
    # Parents stand before their children, so the nodes below each are summed up from the end.
    below = np.ones(len(parents), np.int32)
    for node in range(len(parents) - 1, -1, -1):
        if parents[node] >= 0:
            below[parents[node]] += below[node]
    parent = -1
    code = 0
    for node in order:
        if parents[node] != parent:
            parent = parents[node]
            code = codes[parent] + 1
        codes[node] = code
        code += below[node]


@compiled
def _gather(nodes: Words, parents: Words, last_bytes: Bytes, longest: int) -> tuple[Bytes, Offsets]:
    """The last `longest` bytes of each node's string, and where each begins."""
    offsets = np.zeros(len(nodes) + 1, np.int64)
    for i in range(len(nodes)):
        length = 0
        node = nodes[i]
        while node >= 0 and length < longest:
            length += 1
            node = parents[node]
        offsets[i + 1] = offsets[i] + length
    data = np.empty(offsets[-1], np.uint8)
    for i in range(len(nodes)):
        node = nodes[i]
        for place in range(offsets[i + 1] - 1, offsets[i] - 1, -1):
            data[place] = last_bytes[node]
            node = parents[node]
    return data, offsets


@compiled
def _multiply(
    rows: Words, frequencies: Frequencies, probabilities: Words, bound: np.uint64, precision: int
) -> tuple[Words, Bytes, Words]:
    """Children that are at least as probable as `bound`: their parents, bytes, probabilities."""
    parents = np.empty(len(rows) * 256, np.int32)
    last_bytes = np.empty(len(rows) * 256, np.uint8)
    products = np.empty(len(rows) * 256, np.uint64)
    bits = np.uint64(precision)
    mask = (np.uint64(1) << bits) - np.uint64(1)
    count = 0
    for i in range(len(rows)):
        whole = probabilities[rows[i]] >> bits
        part = probabilities[rows[i]] & mask
        for byte in range(256):
            frequency = np.uint64(frequencies[i, byte])
            product = whole * frequency + ((part * frequency) >> bits)
            if product >= bound and product > np.uint64(0):
                parents[count] = rows[i]
                last_bytes[count] = byte
                products[count] = product
                count += 1
    return parents[:count].copy(), last_bytes[:count].copy(), products[:count].copy()


@compiled
def _divide(
    first: Words,
    counts: Words,
    frequencies: Frequencies,
    precision: int,
    parents: Words,
    last_bytes: Bytes,
) -> tuple[Words, Words]:
    """Divides the codes of nodes, but for each one's own, among its children.

    Args:
      first: each node's own code, int64.
      counts: how many codes it has, int64.
      frequencies: of the bytes after its string.
      precision: they add up to 2^precision.
      parents: filled at the children's own codes.
      last_bytes: filled there.

    Returns:
      The children's own codes, and how many each has.
    """
    child_first = np.empty(np.sum(np.minimum(counts - 1, 256)), np.int64)
    child_counts = np.empty(len(child_first), np.int64)
    shares = np.empty(256, np.uint64)
    sums = np.zeros(257, np.uint32)
    rows = 0
    for i in range(len(first)):
        for byte in range(256):
            sums[byte + 1] = sums[byte] + frequencies[i, byte]
        divide_seats(sums, precision, np.uint64(counts[i] - 1), shares)
        code = first[i] + 1
        for byte in range(256):
            if shares[byte]:
                parents[code] = first[i]
                last_bytes[code] = byte
                child_first[rows] = code
                child_counts[rows] = shares[byte]
                rows += 1
                code += np.int64(shares[byte])
    return child_first[:rows].copy(), child_counts[:rows].copy()

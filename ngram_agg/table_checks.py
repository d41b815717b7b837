"""What the saved columns of tables have to be, so that compiled look-ups stay in their arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.corpus.errors import DataError
from corpusmill.corpus.ragged import row_sums
from corpusmill.corpus.tokens import check_vocabulary
from corpusmill.ngram_agg.compiled import compiled, prefetch
from corpusmill.ngram_agg.hash_index import EMPTY, ROW, index_slots
from corpusmill.ngram_agg.hashing import hash_key
from corpusmill.ngram_agg.heads import WEIGHT_UNITS
from corpusmill.ngram_agg.packing import Packing, Words, keys_rise

Columns = Mapping[str, npt.NDArray[Any]]

# How many rows ahead a key's first slot is asked for: a look-up waits for memory.
_AHEAD = 16
_SOUND = -1


def check_types(columns: Columns, types: Mapping[str, npt.DTypeLike]) -> None:
    """Checks that columns are there, each one array of its type.

    Raises:
      DataError: one is missing, has another type, or isn't a single row of numbers.
    """
    for name, dtype in types.items():
        column = columns.get(name)
        if column is None:
            raise DataError(f"the column {name} is missing")
        if column.dtype != np.dtype(dtype) or column.ndim != 1:
            raise DataError(
                f"the column {name} has the type {column.dtype} and the shape {column.shape};"
                f" one row of {np.dtype(dtype)} is needed"
            )


def check_keys(columns: Columns) -> None:
    """Checks that the keys `high` and `low` rise, and that `slots` is their index.

    Each key is found by looking for it, as many slots as there are keys are taken, and more than
    half of them are free. So every row in a slot exists, and every look-up ends.

    Raises:
      DataError: it isn't so.
    """
    high, low, slots = (columns[name] for name in ("high", "low", "slots"))
    _check_sizes(high, low, slots)
    if not keys_rise(high, low):
        raise DataError("its keys do not rise")
    _check_index(high, low, slots)


def _check_sizes(high: Words, low: Words, slots: Words) -> None:
    if len(high) != len(low) or len(slots) != index_slots(len(low)):
        raise DataError(
            f"{len(high)} and {len(low)} words of keys and {len(slots)} slots do not go together"
        )


def _check_index(high: Words, low: Words, slots: Words) -> None:
    row = _first_missing_key(high, low, slots)
    if row != _SOUND:
        raise DataError(f"its index does not have the key in row {row}")
    if np.count_nonzero(slots != EMPTY) != len(low):
        raise DataError("its index has rows that there are not")


def check_offsets(
    columns: Columns, name: str, rows: int, entries: tuple[str, ...], least: int = 0
) -> None:
    """Checks that rows' entries, `least` (0 or 1) or more each, are all that there are.

    Args:
      columns: of a table.
      name: of the offsets.
      rows: how many there must be.
      entries: names of the columns that these are offsets in.
      least: entries of each row.

    Raises:
      DataError: it isn't so.
    """
    offsets = columns[name]
    # Compared, not subtracted: a difference can overflow.
    falls = np.less if least == 0 else np.less_equal
    if len(offsets) != rows + 1 or offsets[0] != 0 or falls(offsets[1:], offsets[:-1]).any():
        raise DataError(f"{name} do not rise from 0, one a row")
    for each in entries:
        if len(columns[each]) != offsets[-1]:
            raise DataError(f"there are {len(columns[each])} {each}, not {offsets[-1]}")


def check_full_columns(columns: Columns, packing: Packing) -> None:
    """Checks the columns of a `FullTable`; what stands in others doesn't matter.

    Besides keys, index and offsets: a row's tokens rise and are in the vocabulary, so it has no
    more entries than that; its cumulative counts rise from 1, so none is negative.

    Raises:
      DataError: it isn't so.
    """
    check_types(
        columns,
        {
            "high": packing.high_dtype,
            "low": np.uint64,
            "slots": np.uint64,
            "offsets": np.int64,
            "tokens": packing.token_dtype,
            "cumulative": np.uint64,
        },
    )
    check_offsets(columns, "offsets", len(columns["low"]), ("tokens", "cumulative"), least=1)
    entries = columns["offsets"], columns["tokens"], columns["cumulative"]
    if not _entries_rise(*entries, packing.vocabulary_size):
        raise DataError("a row's entries do not rise, or leave the vocabulary")
    check_keys(columns)


def check_target_columns(columns: Columns, packing: Packing, head: int, tail_draws: int) -> None:
    """Checks the columns of a `TargetTable`.

    The index is that of the keys, which need not rise. There are heads for all contexts, then one
    for each order and one for none, which have no entries and a draw. No head has more than `head`
    tokens; its weights leave something if it draws, at most `tail_draws` tokens, and then it has a
    tail, which counts up to more than 0; a guide stays in its tail. So a search in a tail ends
    there.

    Raises:
      DataError: it isn't so.
    """
    check_types(
        columns,
        {
            "high": packing.high_dtype,
            "low": np.uint64,
            "slots": np.uint64,
            "head_offsets": np.int64,
            "head_tokens": packing.token_dtype,
            "head_weights": np.uint16,
            "head_orders": np.uint8,
            "head_draws": np.uint16,
            "tail_offsets": np.int64,
            "tail_tokens": packing.token_dtype,
            "tail_cumulative": np.uint64,
            "tail_guides": np.uint32,
        },
    )
    keys = columns["high"], columns["low"], columns["slots"]
    _check_sizes(*keys)
    _check_index(*keys)
    contexts = len(columns["low"])
    observed = packing.max_order + 2
    check_offsets(columns, "head_offsets", contexts + observed, ("head_tokens", "head_weights"))
    in_tails = ("tail_tokens", "tail_cumulative", "tail_guides")
    check_offsets(columns, "tail_offsets", contexts, in_tails)
    if not len(columns["head_orders"]) == len(columns["head_draws"]) == contexts + observed:
        raise DataError(f"there are not {contexts + observed} orders and draws of heads")
    for name in ("head_tokens", "tail_tokens"):
        check_vocabulary(columns[name], packing.vocabulary_size, name)
    sizes, draws = np.diff(columns["head_offsets"]), columns["head_draws"]
    tails = np.diff(columns["tail_offsets"])
    last_orders = np.arange(-1, packing.max_order + 1).astype(np.uint8)
    if (
        sizes[contexts:].any()
        or (draws[contexts:] != 1).any()
        or (columns["head_orders"][contexts:] != last_orders).any()
    ):
        raise DataError("the last heads are not those of observed tokens")
    left = WEIGHT_UNITS - row_sums(columns["head_weights"], columns["head_offsets"])
    if (sizes > head).any() or (left < 0).any() or ((left > 0) != (draws > 0)).any():
        raise DataError("heads have too many tokens, or weights that don't add up")
    if (draws[:contexts] > tail_draws).any() or (tails[draws[:contexts] > 0] == 0).any():
        raise DataError("heads draw too many tokens, or from no tail")
    has_tail = tails > 0
    totals = columns["tail_cumulative"][columns["tail_offsets"][1:][has_tail] - 1]
    if not totals.all() or (columns["tail_guides"] >= np.repeat(tails, tails)).any():
        raise DataError("tails count nothing, or their guides leave them")


@compiled
def _first_missing_key(high: Words, low: Words, slots: Words) -> int:
    mask = np.uint64(len(slots) - 1)
    words = np.empty(_AHEAD, np.uint64)
    rows = len(low)
    for ahead in range(rows + _AHEAD):
        row = ahead - _AHEAD
        if row >= 0:
            word = words[row % _AHEAD]
            wanted = (word & ~ROW) | np.uint64(row)
            place = word & mask
            while slots[place] != wanted:
                if slots[place] == EMPTY:
                    return row
                place = (place + np.uint64(1)) & mask
                if place == word & mask:
                    return row
        if ahead < rows:
            word = hash_key(high[ahead], low[ahead])
            words[ahead % _AHEAD] = word
            prefetch(slots, np.int64(word & mask))
    return _SOUND


@compiled
def _entries_rise(offsets: Words, tokens: Words, cumulative: Words, vocabulary_size: int) -> bool:
    # Without a branch, many entries are compared at once: where they fall a row must begin.
    falls = 0
    outside = 0
    for entry in range(1, len(tokens)):
        rises = (tokens[entry] > tokens[entry - 1]) & (cumulative[entry] > cumulative[entry - 1])
        falls += int(not rises)
    for entry in range(len(tokens)):
        outside += int(np.int64(tokens[entry]) >= vocabulary_size)
    zeros = 0
    for row in range(len(offsets) - 1):
        entry = offsets[row]
        zeros += int(cumulative[entry] == np.uint64(0))
        if entry > 0:
            rises = (tokens[entry] > tokens[entry - 1]) & (
                cumulative[entry] > cumulative[entry - 1]
            )
            falls -= int(not rises)
    return falls == 0 and outside == 0 and zeros == 0

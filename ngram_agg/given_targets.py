"""Compact targets of distributions that somebody else has: a model's, for instance.

A position's distribution is given as a few likely tokens with their probabilities, and tokens drawn
from all others in proportion to theirs, which share what is left evenly. In expectation that is the
whole distribution, as with the scheme `retain`; without drawn tokens it is not.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import (
    TOKENIZER_FOLDER,
    Completion,
    DatasetWriter,
    Manifest,
    read_manifest,
)
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.ragged import offsets_of
from corpusmill.corpus.tokens import read_rows
from corpusmill.ngram_agg.heads import NO_CONTEXT, WEIGHT_UNITS, Heads, Targets
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.target_options import MAX_HEAD
from corpusmill.ngram_agg.targets_files import TargetsWriter, heads_name

Ids = npt.NDArray[np.integer[Any]]
Probabilities = npt.NDArray[np.floating[Any]]
Part = tuple[Ids, Probabilities]
"""Ids of shape [positions, head + tail_draws], and probabilities of shape [positions, head]."""

# How far the sum of a head's probabilities may be above 1: float32 rounds.
_TOLERANCE = 1e-3


def write_targets(
    tokens: str,
    output: str,
    parts: Iterable[Part],
    *,
    head: int,
    tail_draws: int,
    made_of: Mapping[str, Any],
) -> Manifest:
    """Writes a targets dataset for a tokens dataset.

    Args:
      tokens: folder or URL of the tokens dataset.
      output: folder or URL of the targets dataset.
      parts: the positions of all files, by name, one after the other, cut anywhere: for each the
        distribution of the token there. Ids, the first `head` of them with their probabilities,
        the others drawn from what is left.
      head: likely tokens of a position.
      tail_draws: tokens drawn for all others.
      made_of: what decides the parts, as JSON: an output of something else is refused.

    Returns:
      The manifest, as it is written; an output that is complete is left as it is.

    Raises:
      UsageError: there is no such dataset, the output holds something else, or numbers of tokens
        are out of range.
      DataError: the parts have more or fewer positions than the tokens, other shapes, ids outside
        the vocabulary, or what is no probability.
    """
    if not (1 <= head <= MAX_HEAD and 0 <= tail_draws <= MAX_HEAD):
        raise UsageError(
            f"head {head} and tail_draws {tail_draws}: 1 and 0 to {MAX_HEAD} each are accepted"
        )
    source = read_manifest(tokens, "tokens")
    shape = {"head": head, "tail_draws": tail_draws}
    config = {"tokens": source.content_hash, **shape, "made_of": dict(made_of)}
    writer = DatasetWriter(storage.absolute(output), "targets", config)
    if not writer.begin():
        return read_manifest(output, "targets")
    writer.copy_tokenizer(tokens, source)
    packing = Packing.of(source.tokenizer, 1)
    positions = _Positions(parts, head, tail_draws, source.tokenizer["vocabulary_size"])
    names = []
    for record in source.data_files:
        names.append(record.name)
        with (
            writer.new_file(record.name) as file,
            writer.new_file(heads_name(record.name)) as heads,
            TargetsWriter(file.path, heads.path, packing, record.sha256) as target_file,
        ):
            for _, ends in read_rows(storage.join(tokens, record.name)):
                target_file.write(positions.take(int(ends[-1]), packing), ends)
            target_file.close()
            file.rows, file.tokens = target_file.rows, target_file.positions
            heads.rows = target_file.heads
        writer.complete(record.name, Completion((file.written, heads.written), {}))
    positions.expect_end()
    return writer.finish(
        writer.completed([TOKENIZER_FOLDER, *names]),
        inputs={storage.absolute(tokens): source.content_hash},
        tokenizer=source.tokenizer,
        properties={
            "tokens": source.tokens,
            "tokens_hash": source.content_hash,
            "slots": head + tail_draws,
            "max_order": 0,
            **shape,
        },
    )


class _Positions:
    """Parts, taken in other pieces than they come in."""

    def __init__(self, parts: Iterable[Part], head: int, tail_draws: int, vocabulary: int) -> None:
        self._parts = iter(parts)
        self._head, self._slots, self._vocabulary = head, head + tail_draws, vocabulary
        self._left: Part = np.empty((0, self._slots), np.int64), np.empty((0, head))

    def take(self, count: int, packing: Packing) -> Targets:
        """The targets of the next so many positions."""
        found = [self._left]
        while sum(len(ids) for ids, _ in found) < count:
            found.append(self._checked(self._next()))
        ids, probabilities = (np.concatenate([part[i] for part in found]) for i in (0, 1))
        self._left = ids[count:], probabilities[count:]
        return targets_of(ids[:count], probabilities[:count], packing)

    def _next(self) -> Part:
        part = next(self._parts, None)
        if part is None:
            raise DataError("there are fewer positions than tokens; give all, those at ends too")
        return part

    def expect_end(self) -> None:
        if len(self._left[0]) or any(len(ids) for ids, _ in self._parts):
            raise DataError("there are more positions than tokens")

    def _checked(self, part: Part) -> Part:
        ids, probabilities = np.asarray(part[0]), np.asarray(part[1])
        if ids.shape != (len(ids), self._slots) or probabilities.shape != (len(ids), self._head):
            raise DataError(
                f"ids of shape {ids.shape} and probabilities of shape {probabilities.shape}:"
                f" [n, {self._slots}] and [n, {self._head}] are needed"
            )
        if len(ids) and not 0 <= ids.min() <= ids.max() < self._vocabulary:
            raise DataError(f"ids from {ids.min()} to {ids.max()}: 0 to {self._vocabulary - 1}")
        # Written so that a NaN is refused.
        if not ((probabilities >= 0).all() and (probabilities.sum(1) <= 1 + _TOLERANCE).all()):
            raise DataError("probabilities of a position are below 0, or add up to more than 1")
        return ids, probabilities


def targets_of(ids: Ids, probabilities: Probabilities, packing: Packing) -> Targets:
    """Compact targets of positions, a head for each.

    Weights are the probabilities in units of 1/65535, rounded so that those of a position and what
    is left add up to 65535: down, then up where the most was lost, the first slot of equals.

    Args:
      ids: of shape [positions, head + tail_draws].
      probabilities: of shape [positions, head].
      packing: says the type of ids.
    """
    head = probabilities.shape[1]
    tail_draws = ids.shape[1] - head
    weights = _units(probabilities, has_rest=tail_draws > 0)
    kept = weights[:, :head] > 0
    left = WEIGHT_UNITS - weights[:, :head].sum(1)
    draws = np.minimum(left, tail_draws)
    heads = Heads(
        offsets_of(kept.sum(1)),
        ids[:, :head][kept].astype(packing.token_dtype),
        weights[:, :head][kept].astype(np.uint16),
        np.full(len(ids), NO_CONTEXT, np.uint8),
        draws.astype(np.uint16),
    )
    drawn = ids[:, head:][np.arange(tail_draws) < draws[:, None]]
    return Targets(heads, np.arange(len(ids), dtype=np.uint32), drawn.astype(packing.token_dtype))


def _units(probabilities: Probabilities, *, has_rest: bool) -> npt.NDArray[np.int64]:
    """Whole units of the head, and with drawn tokens of the rest: `WEIGHT_UNITS` in all."""
    shares = probabilities.astype(np.float64)
    if has_rest:
        shares = np.concatenate([shares, np.maximum(1 - shares.sum(1, keepdims=True), 0)], 1)
    exact = shares / shares.sum(1, keepdims=True) * WEIGHT_UNITS
    units: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    order = np.argsort(units - exact, axis=1, kind="stable")
    missing = WEIGHT_UNITS - units.sum(1, keepdims=True)
    rounded_up = np.arange(shares.shape[1]) < missing
    np.put_along_axis(units, order, np.take_along_axis(units, order, 1) + rounded_up, 1)
    return units

"""The positions of a tokens dataset: the context before each, and the hash that its draws use."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from corpusmill.corpus import parquet
from corpusmill.corpus.ragged import offsets_of
from corpusmill.corpus.tokens import check_vocabulary
from corpusmill.ngram_agg.compiled import compiled
from corpusmill.ngram_agg.full_tables import backward_key
from corpusmill.ngram_agg.hashing import mix, mix_all
from corpusmill.ngram_agg.packing import Packing, Tokens, Words


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
class Documents:
    """The documents that some positions are in: what the hash of a position is made from.

    Attributes:
      starts: int64 [documents], the first of the positions in each.
      bases: uint64 [documents]; the hash of position i, in document d, is mix(bases[d] + i).
    """

    starts: npt.NDArray[np.int64]
    bases: Words

    def hashes(self, positions: npt.NDArray[Any]) -> Words:
        """The hashes of some of the positions."""
        documents = np.searchsorted(self.starts, positions, side="right") - 1
        return mix_all(self.bases[documents] + positions.astype(np.uint64))


def joined_documents(parts: Sequence[tuple[Documents, int]]) -> Documents:
    """The documents of positions that follow one another; with each part, its positions."""
    firsts = offsets_of(np.array([positions for _, positions in parts]))[:-1].tolist()
    return Documents(
        np.concatenate([part.starts + at for (part, _), at in zip(parts, firsts, strict=True)]),
        np.concatenate(
            [part.bases - np.uint64(at) for (part, _), at in zip(parts, firsts, strict=True)]
        ),
    )


@dataclass(frozen=True)
class Place:
    """What stands before the first token of a row group, as far as its positions depend on it.

    Attributes:
      position: where in its document that token stands.
      before: the tokens before it in its document, as many of the last ones as a context has.
    """

    position: int
    before: Tokens

    def after(self, packing: Packing, tokens: Tokens) -> "Place":
        """The place behind `tokens`, which begin here."""
        ends = np.flatnonzero(tokens == packing.end_of_document)
        here = len(tokens) - 1 - int(ends[-1]) if len(ends) else self.position + len(tokens)
        known = np.concatenate([self.before, tokens[-packing.max_order or len(tokens) :]])
        return Place(here, known[len(known) - min(here, packing.max_order, len(known)) :])


def start_of_file(packing: Packing) -> Place:
    """The place at the begin of a file, where a document begins."""
    return Place(0, np.empty(0, packing.token_dtype))


def read_place(url: str, group: int, packing: Packing) -> Place:
    """The place at the begin of a row group of a tokens dataset's file.

    It reads row groups before it as far back as the document goes, one at a time.
    """
    start = place = start_of_file(packing)
    with parquet.open_reader(url) as file:
        for earlier in range(group - 1, -1, -1):
            table = file.read_row_group(earlier, columns=["tokens"], use_threads=False)
            tokens = parquet.column_values(table, "tokens")
            first = start.after(packing, tokens)
            known = np.concatenate([first.before, place.before])
            known = known[max(0, len(known) - packing.max_order) :]
            place = Place(first.position + place.position, known)
            if first.position < len(tokens):  # A document ended here.
                break
    return place


@dataclass(frozen=True)
class PositionRows:
    """The rows of a row group of tokens.

    Attributes:
      ends: int64 [rows], where each row's tokens end.
      documents: that the positions are in.
      positions: of all their tokens.
    """

    ends: npt.NDArray[np.int64]
    documents: Documents
    positions: Positions


def read_positions(
    url: str, packing: Packing, seed: int, groups: range | None = None
) -> Iterator[PositionRows]:
    """Neighbouring row groups of a tokens dataset's file, by default all of them.

    Raises:
      DataError: the file cannot be read, or has an id that is outside the vocabulary.
    """
    with parquet.open_reader(url) as file:
        groups = range(file.num_row_groups) if groups is None else groups
        place = read_place(url, groups.start, packing)
        for group in groups:
            table = file.read_row_group(group, columns=["doc_id", "tokens"], use_threads=False)
            yield positions_of(packing, table, place, seed)
            place = place.after(packing, parquet.column_values(table, "tokens"))


def positions_of(packing: Packing, rows: pa.Table, place: Place, seed: int) -> PositionRows:
    """The positions of rows (`doc_id`, `tokens`) of a tokens dataset that begin at a place.

    Raises:
      DataError: an id is outside the vocabulary.
    """
    tokens = parquet.column_values(rows, "tokens")
    check_vocabulary(tokens, packing.vocabulary_size)
    ends = parquet.list_offsets(rows, "tokens")[1:]
    hashes = _hash_ids(rows.column("doc_id").combine_chunks())
    documents = find_documents(packing, tokens, ends, hashes, place, seed)
    return PositionRows(ends, documents, find_positions(packing, tokens, documents, place))


def _hash_ids(ids: pa.StringArray) -> Words:
    _, offsets, data = ids.buffers()
    starts = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    return hash_strings(starts, np.frombuffer(data or b"", np.uint8))


def hash_strings(offsets: npt.NDArray[np.int32], data: npt.NDArray[np.uint8]) -> Words:
    """A hash of each string, uint64 [strings]; string i is data[offsets[i] : offsets[i + 1]]."""
    hashes = np.empty(len(offsets) - 1, np.uint64)
    _hash_strings(offsets, data, hashes)
    return hashes


def find_documents(
    packing: Packing,
    tokens: Tokens,
    ends: npt.NDArray[np.int64],
    document_hashes: Words,
    place: Place,
    seed: int,
) -> Documents:
    """The documents of some rows of a tokens dataset.

    Args:
      packing: of its n-grams.
      tokens: of the rows, one row after the other.
      ends: int64 [rows], where each row's tokens end; a row has one token or more.
      document_hashes: uint64 [rows], of the rows' documents.
      place: where they begin.
      seed: of the draws.
    """
    after_ends = np.flatnonzero(tokens[:-1] == packing.end_of_document) + 1
    starts = np.concatenate([np.zeros(min(1, len(tokens)), np.int64), after_ends])
    rows = np.searchsorted(ends, starts, side="right")
    bases = mix_all(document_hashes[rows] ^ np.uint64(seed & (1 << 64) - 1))
    bases -= starts.astype(np.uint64)
    bases[:1] += np.uint64(place.position)
    return Documents(starts, bases)


def find_positions(
    packing: Packing, tokens: Tokens, documents: Documents, place: Place
) -> Positions:
    """The positions of the tokens of some documents, one document after the other.

    Args:
      packing: of (context backwards, next token).
      tokens: of the documents.
      documents: what they are.
      place: where the first token stands.
    """
    positions = len(tokens)
    high = np.empty(positions, packing.high_dtype)
    low = np.empty(positions, np.uint64)
    lengths = np.empty(positions, np.uint8)
    hashes = np.empty(positions, np.uint64)
    none = backward_key(packing, ())
    _find_positions(
        np.concatenate([place.before, tokens]),
        len(place.before),
        documents.starts,
        documents.bases,
        packing.max_order,
        packing.token_bits,
        packing.end_of_document,
        np.uint64(none[0]),
        np.uint64(none[1]),
        high,
        low,
        lengths,
        hashes,
    )
    return Positions(high, low, lengths, hashes, tokens)


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
    starts: npt.NDArray[np.int64],
    bases: Words,
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
    document = -1
    for i in range(len(tokens)):
        position = i - before
        if position >= 0:
            if document + 1 < len(starts) and position == starts[document + 1]:
                document += 1
            high[position] = above
            low[position] = below
            lengths[position] = length
            hashes[position] = mix(bases[document] + np.uint64(position))
        token = np.uint64(tokens[i])
        if token == np.uint64(end):
            above = none_high
            below = none_low
            length = 0
            continue
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

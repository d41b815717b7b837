"""Examples of compressed text, for models to learn from (Lester et al. 2024, arXiv 2404.03626).

Documents, each with an end mark behind it, are joined in groups; a group is cut into pieces of so
many bytes, the last one shorter; and each piece is compressed by itself. The mark is the byte 0xFF,
which occurs in no UTF-8.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets
from corpusmill.compress.codecs import Codec
from corpusmill.compress.datasets.compressed import CodecEncoder, read_rows
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.options import option
from corpusmill.corpus.tokens import tokens_schema
from corpusmill.ngram_agg.hashing import hash_keys

END_MARK = 0xFF

_MOST_PIECE_BYTES = 1 << 20
# Pieces that are shuffled together hold so much; they are in memory together.
_SHUFFLED_BYTES = 64 << 20
_ENCODED_BYTES = 4 << 20


@dataclass(frozen=True)
class ExampleOptions:
    """How examples are cut.

    Attributes:
      piece_bytes: end marks included.
      length: shorter examples are kept, so that no text at a group's end is lost.

    Raises:
      UsageError: a piece would be too large, or the seed is negative.
    """

    group: int = option("documents that are joined", 128, least=1)
    piece_bytes: int = option("text of an example, before it is compressed", 10_240, least=1)
    length: int | None = option(
        "ids of an example; those beyond are dropped (default: none)",
        None,
        name="max-ids",
        least=1,
    )
    seed: int = option("seed of the shuffling", 0)

    def __post_init__(self) -> None:
        if self.piece_bytes > _MOST_PIECE_BYTES:
            raise UsageError(
                f"--piece-bytes {self.piece_bytes} is too large: {_MOST_PIECE_BYTES} at most"
            )
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} is not a whole number from 0 on")


def make_examples(
    encoder: CodecEncoder,
    part: int,
    documents: Iterable[pa.RecordBatch],
    options: ExampleOptions,
) -> Iterator[pa.RecordBatch]:
    """Token batches of the examples of one part of a dataset.

    Pieces are shuffled within stretches of 64 MiB of text, by a hash of seed, part and number. So
    the memory taken is about twice that, and a few times the largest document.

    Args:
      encoder: of pieces.
      part: the number of the part.
      documents: document batches, whose texts are UTF-8.
      options: how to cut.

    Yields:
      Rows whose `doc_id` is PART:NUMBER, the pieces being numbered before they are shuffled.
      `byte_length` is the piece's; with `length`, how much of it is known from the ids.
    """
    number = 0
    pieces_at_once = max(1, _ENCODED_BYTES // options.piece_bytes)
    texts = (ByteStrings.of_array(batch.column("text")) for batch in documents)
    for stretch in _stretches(cut_pieces(texts, options), options):
        order = _shuffled(options.seed, part, number, len(stretch))
        for first in range(0, len(order), pieces_at_once):
            chosen = order[first : first + pieces_at_once]
            names = [f"{part}:{number + index}" for index in chosen.tolist()]
            yield _token_batch(encoder.codec, options.length, names, stretch.take(chosen))
        number += len(stretch)


def cut_pieces(documents: Iterable[ByteStrings], options: ExampleOptions) -> Iterator[ByteStrings]:
    """The pieces of documents, in their order, however the documents are batched."""
    held = np.zeros(0, np.uint8)
    read = 0
    for batch in documents:
        marked = with_end_marks(batch)
        data = np.concatenate([held, marked.data])
        ends_group = (read + 1 + np.arange(len(batch))) % options.group == 0
        read += len(batch)
        groups = [0, *(marked.offsets[1:][ends_group] + len(held)).tolist()]
        starts = [np.arange(*bounds, options.piece_bytes) for bounds in pairwise(groups)]
        # Of the group that goes on, what fills no piece waits for the next documents.
        whole = len(data) - (len(data) - groups[-1]) % options.piece_bytes
        starts.append(np.arange(groups[-1], whole + 1, options.piece_bytes))
        yield ByteStrings(data[:whole], np.concatenate(starts))
        held = data[whole:]
    if len(held):
        yield ByteStrings(held, np.array([0, len(held)]))


def with_end_marks(documents: ByteStrings) -> ByteStrings:
    """The documents, each with `END_MARK` behind it."""
    first, last = documents.offsets[[0, -1]]
    offsets = documents.offsets - first + np.arange(len(documents.offsets))
    data = np.full(offsets[-1], END_MARK, np.uint8)
    is_text = np.ones(len(data), np.bool_)
    is_text[offsets[1:] - 1] = False
    data[is_text] = documents.data[first:last]
    return ByteStrings(data, offsets)


def check_trimmed(url: str, codec: Codec, length: int) -> None:
    """Compares the ids of every example in a file of trimmed ones with its `byte_length`.

    Raises:
      DataError: the file can't be read, or an example, which is named, has too many ids, or ids of
        more or less text.
    """
    for names, ids, offsets, recorded in read_rows(url):
        known = _known_bytes(codec, ids, offsets)
        counts = np.diff(offsets)
        wrong = (known != recorded) | (counts > length) | (counts == 0)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"example {names[row].as_py()!r}: its {counts[row]} ids are of {known[row]} bytes,"
                f" its byte_length is {recorded[row]}; there may be 1 to {length} ids"
            )


def _stretches(pieces: Iterable[ByteStrings], options: ExampleOptions) -> Iterator[ByteStrings]:
    """The same pieces, as many at a time as are shuffled together."""
    size = max(1, _SHUFFLED_BYTES // options.piece_bytes)
    held: list[ByteStrings] = []
    for batch in pieces:
        held.append(batch)
        while sum(map(len, held)) >= size:
            joined = ByteStrings.join(held)
            yield joined.part(0, size)
            held = [joined.part(size, len(joined))]
    if sum(map(len, held)):
        yield ByteStrings.join(held)


def _shuffled(seed: int, part: int, first: int, count: int) -> Offsets:
    """Places 0 to `count` - 1 of the pieces from number `first` on, in a random order."""
    key = hash_keys(np.array([seed], np.uint64), np.array([part], np.uint64))
    numbers = np.arange(first, first + count, dtype=np.uint64)
    order: Offsets = np.argsort(hash_keys(np.repeat(key, count), numbers))
    return order


def _token_batch(
    codec: Codec, length: int | None, names: list[str], pieces: ByteStrings
) -> pa.RecordBatch:
    ids, offsets = codec.encode_batch(pieces)
    byte_lengths = pieces.lengths()
    if length is not None:
        ids, offsets = _trimmed(ids, offsets, length)
        byte_lengths = _known_bytes(codec, ids, offsets)
    schema = tokens_schema(codec.dtype)
    lists = pa.ListArray.from_arrays(
        pa.array(offsets.astype(np.int32)), pa.array(ids), type=schema.field("tokens").type
    )
    columns = [pa.array(names), lists, pa.array(byte_lengths.astype(np.uint32))]
    return pa.record_batch(columns, schema=schema)


def _trimmed(ids: Ids, offsets: Offsets, length: int) -> tuple[Ids, Offsets]:
    lengths = np.diff(offsets)
    kept = np.arange(len(ids)) - np.repeat(offsets[:-1], lengths) < length
    ends = np.cumsum(np.minimum(lengths, length))
    return ids[kept], np.concatenate([np.zeros(1, np.int64), ends])


def _known_bytes(codec: Codec, ids: Ids, offsets: Offsets) -> Offsets:
    """How much text the ids of each example stand for."""
    known = np.zeros(len(offsets) - 1, np.int64)
    has_ids = np.diff(offsets) > 0
    known[has_ids] = codec.text_ends(ids, offsets)[offsets[1:][has_ids] - 1]
    return known

"""Codebooks on streams of any length, in bounded memory."""

from collections.abc import Iterable, Iterator

import numpy as np

from corpusmill.compress.byte_strings import Ids
from corpusmill.compress.codebooks.codebook import Codebook
from corpusmill.compress.codebooks.word_starts import CONTEXT_BYTES
from corpusmill.corpus.errors import DataError


def encode_stream(
    book: Codebook, chunks: Iterable[bytes], parse: str | None = None
) -> Iterator[Ids]:
    """The ids of one document that comes in chunks: those that encoding it at once gives.

    Which string is taken at a place depends, when parsing greedily, on no more bytes from there on
    than the longest string has; when parsing flexibly, which looks one string ahead, on no more
    than twice as many. Where words make a difference, it is a few more bytes, and some before. So
    an id is settled as soon as that many bytes are known, and the bytes from
    the first unsettled id on are encoded again with the next chunk.

    Args:
      book: the codebook.
      chunks: of the document, cut anywhere.
      parse: see `Codebook.encode`.
    """
    parse = book.resolve_parse(parse)
    lengths = book.strings.lengths()
    look_ahead = int(lengths.max()) * (2 if parse == "flexible" else 1) + CONTEXT_BYTES
    context = held = b""
    for chunk in chunks:
        held += chunk
        ids = book.encode_next(context, held, parse)
        ends = np.cumsum(lengths[ids])
        starts = ends - lengths[ids]
        settled = int(np.searchsorted(starts, len(held) - look_ahead, "right"))
        if settled:
            yield ids[:settled]
            end = ends[settled - 1]
            context = (context + held[:end])[-CONTEXT_BYTES:]
            held = held[end:]
    yield book.encode_next(context, held, parse)


def decode_stream(book: Codebook, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of ids that come as raw little-endian integers of the codebook's type.

    Args:
      book: the codebook.
      chunks: of the ids, cut anywhere.

    Raises:
      DataError: an id is outside the codebook, or the last one is cut off.
    """
    dtype = book.dtype.newbyteorder("<")
    done = 0
    held = b""
    for chunk in chunks:
        held += chunk
        ids = np.frombuffer(held, dtype, len(held) // dtype.itemsize)
        outside = np.flatnonzero(ids >= book.vocab_size)
        if len(outside):
            raise DataError(
                f"id {ids[outside[0]]} at place {done + outside[0]} is outside the codebook of"
                f" {book.vocab_size:,} strings"
            )
        yield book.decode(ids)
        done += len(ids)
        held = held[ids.nbytes :]
    if held:
        raise DataError(
            f"the ids end in the middle of one: {len(held)} bytes are left, an id of this codebook"
            f" has {dtype.itemsize}"
        )

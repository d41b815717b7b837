"""Documents from everywhere in an input, for estimates."""

import bisect
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from corpusmill.corpus import storage
from corpusmill.corpus.formats import open_table
from corpusmill.corpus.inputs import InputFile, ReadOptions, Segment
from corpusmill.corpus.readers import read_segment

# Places that a sample is taken from, at most.
_PLACES = 64
# Less at one place is mostly the time to get there.
_LEAST_BYTES = 1 << 16

# Of `first_texts`.
_FILES = 8
_DOCUMENTS = 32
_CHARACTERS = 2048

Piece = tuple[list[str], int]
"""Texts, and how many bytes of the input they take as stored."""


@dataclass(frozen=True)
class Sample:
    """Documents of an input.

    Attributes:
      texts: theirs.
      stored_bytes: how much of the input they take, as stored.
    """

    texts: tuple[str, ...]
    stored_bytes: int

    @cached_property
    def text_bytes(self) -> int:
        """Of the texts in UTF-8."""
        return sum(len(text.encode()) for text in self.texts)


def sample_documents(files: Sequence[InputFile], options: ReadOptions, most_bytes: int) -> Sample:
    """Reads documents at places at equal distances in an input.

    Of compressed files only the beginnings are read, because there is no other way in; of Parquet
    whole row groups; and whole files where a file is one document, or a compressed table. Bad
    records are passed over.

    Args:
      files: the input, some of it not empty.
      options: how to read it.
      most_bytes: about how much of it is read, as stored.
    """
    texts: list[str] = []
    stored = 0
    for found, size in _pieces(files, options, most_bytes):
        texts += found
        stored += size
    return Sample(tuple(texts), stored)


def first_texts(files: Sequence[InputFile], options: ReadOptions) -> list[str]:
    """The beginnings of the first documents of a few files, to try something out on.

    Bad records are passed over.
    """
    full = [file for file in files if file.size]
    chosen = full[:: -(-len(full) // _FILES)]
    return [
        text[:_CHARACTERS]
        for file in chosen
        for text in _first_batch(file, options).slice(0, _DOCUMENTS // len(chosen)).to_pylist()
    ]


def _first_batch(file: InputFile, options: ReadOptions) -> pa.Array:
    """The texts of the first delivery of a file's readers."""
    empty = pa.array([], pa.large_string())
    # As a segment of everything: it is left before much of it is read.
    deliveries = read_segment(_segment(file, 0, file.size), options)
    return next((documents.column("text") for documents, _ in deliveries), empty)


def _pieces(files: Sequence[InputFile], options: ReadOptions, most_bytes: int) -> Iterator[Piece]:
    ends = list(itertools.accumulate(file.size for file in files))
    if most_bytes >= ends[-1]:
        yield from ((_texts(_segment(file, 0, file.size), options), file.size) for file in files)
        return
    count = max(1, min(_PLACES, most_bytes // _LEAST_BYTES))
    share = -(-most_bytes // count)
    places: dict[int, list[int]] = {}
    for number in range(count):
        place = (2 * number + 1) * ends[-1] // (2 * count)
        index = bisect.bisect_right(ends, place)
        places.setdefault(index, []).append(place - (ends[index] - files[index].size))
    for index, offsets in places.items():
        file = files[index]
        if file.format == "parquet" and file.compression is None:
            yield from _row_groups(file, offsets, options)
        elif file.format == "jsonl" or (file.format == "text" and options.text_unit == "line"):
            if file.compression is not None:
                yield _beginning(file, share * len(offsets), options)
            else:
                for offset in offsets:
                    start = max(0, min(offset - share // 2, file.size - share))
                    end = min(start + share, file.size)
                    yield _texts(_segment(file, start, end), options), end - start
        else:
            yield _texts(_segment(file, 0, file.size), options), file.size


def _row_groups(file: InputFile, offsets: Sequence[int], options: ReadOptions) -> Iterator[Piece]:
    with open_table(file.url, file.format, file.compression) as table:
        count = table.num_row_groups
    for group in sorted({offset * count // file.size for offset in offsets}):
        yield _texts(_segment(file, group, group + 1), options), file.size // count


def _beginning(file: InputFile, size: int, options: ReadOptions) -> Piece:
    """The whole lines in the first bytes of a compressed file; a copy of these breaks off there."""
    with storage.open_input(file.url) as source:
        data = source.read(size)
    handle, path = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "wb") as copy:
            copy.write(data)
        segment = Segment(path, file.name, file.format, file.compression, 0, max(1, len(data)))
        return _texts(segment, options), len(data)
    finally:
        os.remove(path)


def _segment(file: InputFile, start: int, end: int) -> Segment:
    return Segment(file.url, file.name, file.format, file.compression, start, end)


def _texts(segment: Segment, options: ReadOptions) -> list[str]:
    return [
        text
        for documents, _ in read_segment(segment, options)
        for text in documents.column("text").to_pylist()
    ]

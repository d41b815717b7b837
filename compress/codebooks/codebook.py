"""Codebooks: dictionaries of 2^N byte strings, made of text or of a byte model.

A codebook encodes and decodes without what it was made of, at the speed of memory, the same bits on
every machine. It is one file, described byte by byte in docs/formats.md; the SHA-256 of its
contents is its id. What its strings are: docs/codebooks.md.

book = Codebook.open("gs://bucket/english.codebook")
ids = book.encode(b"any bytes")
book.decode(ids) == b"any bytes"
ids, offsets = book.encode_batch(ByteStrings.of(documents))
"""

import hashlib
import json
import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from corpusmill.compress.byte_strings import ByteStrings, Ids, Offsets, read_only
from corpusmill.compress.codebooks import walks
from corpusmill.compress.codebooks.checks import check_columns, check_trie
from corpusmill.compress.codebooks.double_array import build_double_array
from corpusmill.compress.codebooks.trie import Trie
from corpusmill.compress.codebooks.word_starts import with_word_starts
from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError, UsageError, one_line
from corpusmill.corpus.tokens import id_dtype

MAGIC = b"\x89CMBOOK\n"
# The second one has the column `ends`, for strings whose prefixes aren't all strings.
CLOSED_VERSION, FORMAT_VERSION = 1, 2
PARSES = ("greedy", "flexible")
BOUNDARIES = ("none", "words")
MIN_WINDOW_BITS, MAX_WINDOW_BITS = 9, 24

_BLOCK = 64
# Bytes behind the pool, so that strings can be copied 8 bytes at a time.
_SLACK = 8
_ALIGNMENT = 64
# magic, version, window bits, bytes of each of `begins`, bytes of the description, slots, bytes of
# strings, content hash
_HEADER = struct.Struct("<8sIIIIQQ32s")
_HASH_AT = _HEADER.size - 32


@dataclass(frozen=True)
class Codebook:
    """A complete dictionary of byte strings: every code has one, every single byte is one of them.

    Attributes:
      window_bits: there are 2^window_bits codes.
      made_of: what it was made of, as JSON.
      columns: `blocks` and `begins` (where strings begin), `pool` (the strings), `slots`,
        `low_codes`, `high_codes` and `ends` (the double array of `double_array`; `ends`
        only where some string's prefix is no string).
    """

    window_bits: int
    made_of: Mapping[str, Any]
    columns: Mapping[str, npt.NDArray[Any]]

    @classmethod
    def of(cls, trie: Trie, made_of: Mapping[str, Any]) -> "Codebook":
        """The codebook of 2^window_bits strings.

        Raises:
          UsageError: the strings take too much room.
        """
        strings = trie.strings()
        blocks = strings.offsets[::_BLOCK].astype(np.uint64)
        inside = strings.offsets - np.repeat(strings.offsets[::_BLOCK], _BLOCK)[: len(strings) + 1]
        array = build_double_array(trie)
        columns: dict[str, npt.NDArray[Any]] = {
            "blocks": blocks,
            "begins": inside.astype(np.uint16 if inside.max() < 1 << 16 else np.uint32),
            "pool": np.concatenate([strings.data, np.zeros(_SLACK, np.uint8)]),
            "slots": array.slots,
            "low_codes": array.low_codes,
            "high_codes": array.high_codes,
        }
        if array.ends is not None:
            columns["ends"] = array.ends
        read_only_columns = {name: read_only(column) for name, column in columns.items()}
        return cls((len(strings) - 1).bit_length(), made_of, read_only_columns)

    @classmethod
    def open(cls, url: str) -> "Codebook":
        """A codebook by path (memory-mapped) or URL (read into memory).

        Raises:
          UsageError: there is no such file.
          DataError: it is no codebook, of a newer format, or damaged.
        """
        try:
            if storage.is_local(url):
                with open(storage.filesystem(url)[1], "rb") as file:
                    data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            else:
                data = memoryview(storage.read_bytes(url))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise UsageError(f"there is no codebook {url}; is the path right?") from error
        # An empty file can't be mapped.
        except ValueError as error:
            raise DataError(f"{url} is no codebook: it is empty") from error
        return _parse_file(url, data)

    def write(self, url: str) -> None:
        """Writes the file; it appears when it is whole."""
        with storage.publish(url) as path, open(path, "wb") as file:
            file.writelines(self._parts())

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of all that is in the file but of itself: the codebook's id."""
        _, digest, *_ = self._parts()
        return str(digest.hex())

    @property
    def vocab_size(self) -> int:
        """How many codes there are; all of them have a string."""
        return 1 << self.window_bits

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of ids: uint16 where they fit, else uint32."""
        return id_dtype(self.vocab_size)

    @cached_property
    def strings(self) -> ByteStrings:
        """The string of every code, in their order, which is that of the strings."""
        begins = self.columns["begins"].astype(np.int64)
        blocks = self.columns["blocks"].astype(np.int64)
        offsets = begins + np.repeat(blocks, _BLOCK)[: len(begins)]
        return ByteStrings(self.columns["pool"][:-_SLACK], offsets)

    @property
    def boundaries(self) -> str:
        """`words` if a string that goes beyond a word begins and ends with words, else `none`.

        Raises:
          DataError: the description says something else.
        """
        found = str(self.made_of.get("boundaries", BOUNDARIES[0]))
        if found not in BOUNDARIES:
            raise DataError(
                f"the codebook's boundaries {found!r} are none of {', '.join(BOUNDARIES)}"
            )
        return found

    def resolve_parse(self, parse: str | None) -> str:
        """The parse that is meant: by default the one that the strings were fitted for.

        Raises:
          UsageError: there is no such parse.
        """
        chosen = str(self.made_of.get("parse", PARSES[0])) if parse is None else parse
        check_parse(chosen)
        return chosen

    def encode(self, data: bytes | bytearray | memoryview | str, parse: str | None = None) -> Ids:
        """The ids of a document.

        Args:
          data: any bytes, or a text, whose UTF-8 is meant; empty ones have no ids.
          parse: `greedy` takes the longest string at each place; `flexible` looks one string ahead,
            which saves up to 2% of the ids and takes a few times as long. Decoding is the same. By
            default it is what `made_of` says under `parse`, or else `greedy`.
        """
        ids, _ = self.encode_batch(ByteStrings.of([data]), parse)
        return ids

    def decode(self, ids: npt.ArrayLike) -> bytes:
        """The bytes of ids, for every sequence of ids.

        Raises:
          DataError: an id is outside the codebook, or it is no row of whole numbers.
        """
        ids = np.asarray(ids)
        if ids.ndim != 1:
            raise DataError(f"ids have the shape {ids.shape}; one row of them is needed")
        return self.decode_batch(ids, np.array([0, len(ids)])).data.tobytes()

    def encode_batch(self, documents: ByteStrings, parse: str | None = None) -> tuple[Ids, Offsets]:
        """The ids of many documents, without holding the GIL: threads may share a codebook.

        Args:
          documents: each is cut into strings for itself.
          parse: see `encode`.

        Returns:
          The ids of all documents one after the other, and int64 [documents + 1]: document i has
          the ids from offsets[i] to offsets[i + 1].

        Raises:
          UsageError: there is no such parse.
          DataError: the codebook's trie doesn't have its strings.
        """
        first, last = documents.offsets[[0, -1]]
        own = ByteStrings(documents.data[first:last], documents.offsets - first)
        return self._encode(own, own.offsets, parse)

    def encode_next(self, context: bytes, data: bytes, parse: str | None = None) -> Ids:
        """The ids of a part of a document.

        Args:
          context: what stands before it; the last `CONTEXT_BYTES` are enough.
          data: the part; it ends where the document does.
          parse: see `encode`.
        """
        whole = ByteStrings.of([context + data])
        return self._encode(whole, np.array([len(context), len(whole.data)]), parse)[0]

    def _encode(
        self, documents: ByteStrings, offsets: Offsets, parse: str | None
    ) -> tuple[Ids, Offsets]:
        parse = self.resolve_parse(parse)
        is_marked = self.boundaries == "words"
        text = with_word_starts(documents) if is_marked else read_only(documents.data)
        bounds = read_only(offsets)
        # An id stands for a byte at least. Memory that isn't written to is never really taken.
        ids = np.empty(bounds[-1] - bounds[0], self.dtype)
        id_offsets = np.zeros(len(bounds), np.int64)
        if parse == "flexible":
            walks.encode_flexible(self._nodes, text, bounds, self._longest, ids, id_offsets[1:])
            return ids[: id_offsets[-1]].copy(), id_offsets
        cuts = walks.lane_cuts(bounds)
        walks.encode_greedy(self._nodes, text, bounds, cuts, ids, id_offsets[1:])
        return _close_gaps(ids, id_offsets, bounds[cuts] - bounds[0], cuts)

    def windows(self, documents: ByteStrings, parse: str | None = None) -> tuple[Offsets, Offsets]:
        """Where the strings begin into which documents are cut.

        Returns:
          int64, a place in `documents.data` for each string; and where its document ends.
        """
        ids, offsets = self.encode_batch(documents, parse)
        lengths = self.strings.lengths()[ids]
        starts = np.cumsum(lengths) - lengths + documents.offsets[0]
        return starts, np.repeat(documents.offsets[1:], np.diff(offsets))

    def decode_batch(self, ids: Ids, offsets: Offsets) -> ByteStrings:
        """The documents that have these ids; the inverse of `encode_batch`.

        Raises:
          DataError: an id is outside the codebook.
        """
        ids = self._checked(ids)
        index = self.columns["blocks"], self.columns["begins"]
        bounds = np.empty(len(offsets), np.int64)
        walks.decoded_offsets(*index, ids, read_only(offsets), bounds)
        text = np.empty(bounds[-1] + _SLACK, np.uint8)
        walks.decode(*index, self.columns["pool"], ids[offsets[0] : offsets[-1]], text)
        return ByteStrings(text[:-_SLACK], bounds)

    @cached_property
    def _nodes(self) -> npt.NDArray[np.uint64]:
        """What is walked to encode, checked when it is first needed: decoding goes without it."""
        check_trie(self.columns, self._longest)
        slots, low_codes, high_codes = (
            self.columns[name] for name in ("slots", "low_codes", "high_codes")
        )
        nodes = np.empty(len(slots), np.uint64)
        walks.fuse_nodes(slots, low_codes, high_codes, self.columns.get("ends"), nodes)
        return read_only(nodes)

    @cached_property
    def _longest(self) -> int:
        return int(self.strings.lengths().max())

    def _checked(self, ids: Ids) -> Ids:
        """Ids in the type that they are stored in."""
        if not len(ids):
            return read_only(np.empty(0, self.dtype))
        if ids.dtype.kind not in "iu":
            raise DataError(f"ids are of the type {ids.dtype}; whole numbers are needed")
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            place = int(np.flatnonzero((ids < 0) | (ids >= self.vocab_size))[0])
            raise DataError(
                f"id {ids[place]} at place {place} is outside the codebook of"
                f" {self.vocab_size:,} strings"
            )
        return read_only(ids.astype(self.dtype, copy=False))

    def _parts(self) -> list[Any]:
        """What the file consists of: the header up to the hash, the hash, all that follows."""
        description = json.dumps(self.made_of, sort_keys=True).encode()
        sizes = (
            self.columns["begins"].itemsize,
            len(description),
            len(self.columns["slots"]),
            len(self.columns["pool"]) - _SLACK,
        )
        version = FORMAT_VERSION if "ends" in self.columns else CLOSED_VERSION
        start = _HEADER.pack(MAGIC, version, self.window_bits, *sizes, b"")[:_HASH_AT]
        rest: list[Any] = [description]
        end = _HEADER.size + len(description)
        for name, (dtype, begin, count) in _sections(version, self.window_bits, *sizes).items():
            rest += [bytes(begin - end), self.columns[name].astype(dtype, copy=False).data]
            end = begin + count * np.dtype(dtype).itemsize
        digest = hashlib.sha256(start)
        for part in rest:
            digest.update(part)
        return [start, digest.digest(), *rest]


def check_parse(parse: str) -> None:
    """Raises UsageError where there is no such parse."""
    if parse not in PARSES:
        raise UsageError(f"parse {parse!r} is none of {', '.join(PARSES)}")


def _sections(
    version: int, window_bits: int, begin_bytes: int, description: int, slots: int, pool: int
) -> dict[str, tuple[str, int, int]]:
    """Type, place in the file and length of each column."""
    strings = 1 << window_bits
    lengths = {
        "blocks": ("<u8", strings // _BLOCK + 1),
        "begins": (f"<u{begin_bytes}", strings + 1),
        "pool": ("<u1", pool + _SLACK),
        "slots": ("<u4", slots),
        "low_codes": ("<u2", slots),
        "high_codes": ("<u1", slots if window_bits > 16 else 1),
    }
    if version != CLOSED_VERSION:
        lengths["ends"] = "<u1", slots
    sections = {}
    end = _HEADER.size + description
    for name, (dtype, count) in lengths.items():
        begin = -(-end // _ALIGNMENT) * _ALIGNMENT
        sections[name] = dtype, begin, count
        end = begin + count * np.dtype(dtype).itemsize
    return sections


def _parse_file(url: str, data: memoryview) -> Codebook:
    if data[: len(MAGIC)].tobytes() != MAGIC:
        raise DataError(f"{url} is no codebook: it does not begin like one")
    if len(data) < _HEADER.size:
        raise DataError(f"codebook {url} is damaged: it ends in its header")
    fields = _HEADER.unpack(data[: _HEADER.size].tobytes())
    _, version, window_bits, *sizes, recorded = fields
    if not CLOSED_VERSION <= version <= FORMAT_VERSION:
        raise DataError(
            f"codebook {url} has format version {version}; this corpusmill reads"
            f" {CLOSED_VERSION} to {FORMAT_VERSION}"
        )
    digest = hashlib.sha256(data[:_HASH_AT])
    digest.update(data[_HEADER.size :])
    if digest.digest() != recorded:
        raise DataError(f"codebook {url} is damaged: its bytes are not those that were written")
    # A file of another program can have the right hash.
    try:
        made_of, columns = _read_parts(data, version, window_bits, sizes)
    except (DataError, RecursionError, ValueError) as error:
        raise DataError(f"codebook {url} is damaged: {one_line(error)}") from error
    return Codebook(window_bits, made_of, columns)


def _read_parts(
    data: memoryview, version: int, window_bits: int, sizes: Sequence[int]
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The description and the columns, checked; `sizes` are the header's, as in `_sections`."""
    width, description, slots, pool = sizes
    if not MIN_WINDOW_BITS <= window_bits <= MAX_WINDOW_BITS or width not in (2, 4):
        raise DataError(f"its header says {window_bits} window bits, {width} bytes a place")
    sections = _sections(version, window_bits, width, description, slots, pool)
    *_, (dtype, begin, count) = sections.values()
    if begin + count * np.dtype(dtype).itemsize != len(data):
        raise DataError("its parts don't have the sizes that its header says")
    made_of = json.loads(data[_HEADER.size :][:description].tobytes())
    if not isinstance(made_of, dict):
        raise DataError("its description is no JSON object")
    columns = {
        name: read_only(np.frombuffer(data, dtype, count, begin))
        for name, (dtype, begin, count) in sections.items()
    }
    check_columns(columns, _SLACK)
    return made_of, columns


def _close_gaps(ids: Ids, ends: Offsets, begins: Offsets, cuts: Offsets) -> tuple[Ids, Offsets]:
    """Brings together what the lanes wrote apart.

    Args:
      ids: lane l wrote from begins[l] on.
      ends: a 0, then where each document's ids end; changed.
      begins: of each lane's ids.
      cuts: documents of each lane.
    """
    parts = []
    moved = 0
    for lane in range(len(cuts) - 1):
        documents = slice(cuts[lane] + 1, cuts[lane + 1] + 1)
        if cuts[lane] == cuts[lane + 1]:
            continue
        part = ids[begins[lane] : ends[cuts[lane + 1]]]
        ends[documents] += moved - begins[lane]
        moved += len(part)
        parts.append(part)
    return np.concatenate([ids[:0], *parts]), ends

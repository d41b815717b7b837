"""Codebooks: any bytes go in and come out again."""

import dataclasses
import hashlib
import itertools
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.compress import CodebookCodec, CodebookTokenizer, encode_stream
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codebooks import walks
from corpusmill.compress.codebooks.codebook import PARSES, Codebook
from corpusmill.compress.codebooks.freeze import FreezeOptions, freeze
from corpusmill.corpus.errors import DataError, UsageError
from tests.compress.oracles import word_starts_of
from tests.compress.samples import DATA, HARD, TEXT, ngram, static
from tests.compress.windows import WindowCode

MADE_OF = {"model": "a test's", "tokens": None}
KINDS = {
    "coder 9": lambda: freeze(static(precision=9), FreezeOptions("coder", 9), MADE_OF),
    "coder 16": lambda: freeze(ngram(), FreezeOptions("coder", 16), MADE_OF),
    "coder 18": lambda: freeze(static(), FreezeOptions("coder", 18), MADE_OF),
    # Strings of up to 8,104 zeros.
    "certain 16": lambda: freeze(static([bytes(10_000)]), FreezeOptions("coder", 16), MADE_OF),
    "optimal 10": lambda: freeze(ngram(), FreezeOptions("optimal", 10), MADE_OF),
    "optimal 16": lambda: freeze(ngram(), FreezeOptions("optimal", 16), MADE_OF),
    "optimal 17": lambda: freeze(static(), FreezeOptions("optimal", 17), MADE_OF),
    "fitted 12": lambda: freeze(
        ngram(), FreezeOptions("optimal", 12), MADE_OF, ByteStrings.of(TEXT * 3 + HARD)
    ),
    "used 10": lambda: used("greedy", 10, "none"),
    "used 17": lambda: used("greedy", 17, "none"),
    "used words 10": lambda: used("flexible", 10, "words"),
    "used words 16": lambda: used("greedy", 16, "words"),
    "words 10": lambda: dataclasses.replace(
        KINDS["optimal 10"](), made_of={**MADE_OF, "boundaries": "words"}
    ),
}


def used(parse, window_bits, boundaries):
    options = FreezeOptions("used", window_bits, parse, boundaries)
    return freeze(None, options, MADE_OF, ByteStrings.of(TEXT * 3 + HARD))


@pytest.fixture(scope="module")
def books():
    return {kind: make() for kind, make in KINDS.items()}


def parsed(strings, data, parse, boundaries="none"):
    """What `Codebook.encode` is to do, one string after the other."""
    codes = {string: code for code, string in enumerate(strings)}
    most = max(map(len, strings))
    starts = word_starts_of(data) if boundaries == "words" else [0] * (len(data) + 1)

    def lengths(start):
        """Of all strings that may stand there, falling."""
        found = [0]
        for end in range(start + 1, min(start + most, len(data)) + 1):
            within = not any(starts[start + 1 : end])
            if data[start:end] in codes and (within or (starts[start] and starts[end])):
                found.append(end - start)
        return found[::-1]

    ids = []
    start = 0
    while start < len(data):
        length, *shorter = lengths(start)[:-1]
        if parse == "flexible":
            length = max([length, *shorter], key=lambda first: first + lengths(start + first)[0])
        ids.append(codes[data[start : start + length]])
        start += length
    return ids


@pytest.mark.parametrize("parse", PARSES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(data=DATA)
def test_what_was_encoded_is_decoded(books, kind, parse, data):
    book = books[kind]
    ids = book.encode(data, parse)
    assert ids.dtype == (np.uint16 if book.window_bits <= 16 else np.uint32)
    assert book.decode(ids) == data
    assert len(ids) <= len(data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_code_has_a_string_that_has_this_code(books, kind):
    book = books[kind]
    everything = np.arange(1 << book.window_bits)
    strings = book.decode_batch(everything, np.arange(len(everything) + 1))
    assert (strings.lengths() > 0).all()
    assert len(set(strings)) == len(everything) == book.vocab_size
    for parse in PARSES:
        ids, offsets = book.encode_batch(strings, parse)
        assert (ids == everything).all()
        assert (np.diff(offsets) == 1).all()
    assert list(book.strings) == list(strings)


@pytest.mark.parametrize("allocation", ["coder", "optimal"])
def test_every_code_of_20_bits_has_a_string_that_has_this_code(allocation):
    book = freeze(ngram(), FreezeOptions(allocation, 20), MADE_OF)
    everything = np.arange(1 << 20)
    strings = book.decode_batch(everything, np.arange(len(everything) + 1))
    assert (strings.lengths() > 0).all()
    # Equal strings would have equal codes.
    for parse in PARSES:
        ids, offsets = book.encode_batch(strings, parse)
        assert (ids == everything).all()
        assert (np.diff(offsets) == 1).all()


@pytest.mark.parametrize("parse", PARSES)
@pytest.mark.parametrize("kind", KINDS)
def test_parses_are_those_of_the_oracle(books, kind, parse):
    book = books[kind]
    strings = list(book.strings)
    for data in (*TEXT, *HARD):
        data = data[:80]
        assert book.encode(data, parse).tolist() == parsed(strings, data, parse, book.boundaries)


@pytest.mark.parametrize(
    ("kind", "model"), [("coder 9", static(precision=9)), ("coder 16", ngram())]
)
def test_coder_is_the_window_code(books, kind, model):
    reference = WindowCode(model, books[kind].window_bits)
    for data in (*TEXT, *HARD):
        data = data[:60]
        codes = books[kind].encode(data).tolist()
        assert codes == reference.encode(data)
        assert books[kind].decode(codes) == reference.decode(codes)


@pytest.mark.parametrize("parse", PARSES)
@settings(max_examples=30)
@given(st.lists(DATA, max_size=40), st.integers(0, 3))
def test_batches_are_their_documents(books, parse, documents, skipped):
    book = books["optimal 16"]
    whole = ByteStrings.of([b"before", *documents])
    # Batches may be parts of others.
    skipped = min(skipped, len(documents))
    batch = ByteStrings(whole.data, whole.offsets[skipped:])
    ids, offsets = book.encode_batch(batch, parse)
    for i, document in enumerate(batch):
        assert ids[offsets[i] : offsets[i + 1]].tolist() == book.encode(document, parse).tolist()
    assert list(book.decode_batch(ids, offsets)) == list(batch)
    assert list(book.decode_batch(ids, offsets[1:])) == list(batch)[1:]


@pytest.mark.parametrize("lanes", [1, 2, 5, 64])
def test_lanes_make_no_difference(books, lanes, monkeypatch):
    batch = ByteStrings.of(TEXT * 5 + HARD * 3)
    expected = books["optimal 16"].encode_batch(batch)
    monkeypatch.setattr(walks, "LANES", lanes)
    found = books["optimal 16"].encode_batch(batch)
    assert all((a == b).all() for a, b in zip(expected, found, strict=True))


def test_threads_may_share_a_codebook(books):
    book = books["optimal 16"]
    batches = [ByteStrings.of(HARD[i:] + TEXT * i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(book.encode_batch, batches * 4))
    for batch, (ids, offsets) in zip(batches * 4, results, strict=True):
        assert list(book.decode_batch(ids, offsets)) == list(batch)


@pytest.mark.parametrize("ids", [[0, 65_536], [7, -1], np.array([1, 1 << 40])])
def test_ids_outside_the_codebook_are_named(books, ids):
    with pytest.raises(DataError, match=rf"id {ids[1]} at place 1 .* 65,536 strings"):
        books["optimal 16"].decode(ids)


def test_what_is_no_id_is_refused(books):
    with pytest.raises(DataError, match="float64"):
        books["optimal 16"].decode([1.0, 2.0])
    assert books["optimal 16"].decode([]) == b""


def test_text_is_cut_as_the_strings_were_fitted_for(books):
    book = books["fitted 12"]
    text = ByteStrings.of(TEXT * 3 + HARD)
    greedy, flexible = (book.encode_batch(text, parse)[0].tolist() for parse in PARSES)
    assert len(flexible) < len(greedy)
    assert book.encode_batch(text)[0].tolist() == greedy
    for parse, ids in (("greedy", greedy), ("flexible", flexible)):
        fitted = dataclasses.replace(book, made_of={"parse": parse})
        assert fitted.encode_batch(text)[0].tolist() == ids
        assert fitted.encode_batch(text, "greedy")[0].tolist() == greedy
        assert fitted.encode_batch(text, "flexible")[0].tolist() == flexible
        assert CodebookCodec(fitted).options == {"parse": parse, "token_bits": None}
        assert CodebookTokenizer(fitted).parse == parse
        whole = b"".join(text)
        assert [*itertools.chain(*encode_stream(fitted, [whole]))] == fitted.encode(whole).tolist()
    with pytest.raises(UsageError, match="'best' is none of"):
        dataclasses.replace(book, made_of={"parse": "best"}).encode(b"text")


def test_an_unknown_parse_is_refused(books):
    with pytest.raises(UsageError, match="'best' is none of greedy, flexible"):
        books["optimal 16"].encode(b"text", "best")


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_the_codebook(books, kind, tmp_path):
    book = books[kind]
    path = str(tmp_path / "folder" / "a.codebook")
    book.write(path)
    found = Codebook.open(path)
    assert found.content_hash == book.content_hash
    assert (found.window_bits, found.made_of) == (book.window_bits, book.made_of)
    for data in HARD:
        assert found.encode(data).tolist() == book.encode(data).tolist()
        assert found.decode(found.encode(data)) == data
    again = str(tmp_path / "again")
    KINDS[kind]().write(again)
    with open(path, "rb") as first, open(again, "rb") as second:
        assert first.read() == second.read()


def test_codebooks_have_urls(books):
    books["optimal 10"].write("memory://books/a.codebook")
    found = Codebook.open("memory://books/a.codebook")
    assert found.decode(found.encode(b"the cat")) == b"the cat"
    fsspec.filesystem("memory").rm("/books", recursive=True)


def _with_right_hash(data):
    return bytes(data[:40] + hashlib.sha256(data[:40] + data[72:]).digest() + data[72:])


def test_damaged_files_are_refused(books, tmp_path):
    path = tmp_path / "a.codebook"
    books["optimal 10"].write(str(path))
    whole = path.read_bytes()
    faults = {
        "does not begin like one": b"PK" + whole[2:],
        "format version 3": whole[:8] + struct.pack("<I", 3) + whole[12:],
        "its parts don't have": _with_right_hash(whole[:8] + struct.pack("<I", 2) + whole[12:]),
        "it ends in its header": whole[:40],
        "not those that were written": whole[:-1],
        "it is empty": b"",
    }
    for place in range(12, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 0x40
        faults[f"place {place}|not those that were written"] = bytes(damaged)
    # What sizes are made of, with a hash that fits.
    for place, message in (
        (12, "74 window bits"),
        (16, "66 bytes a place"),
        (20, "its parts don't"),
        (24, "its parts don't"),
        (32, "its parts don't"),
    ):
        foreign = bytearray(whole)
        foreign[place] ^= 0x40
        faults[f"{message}|place {place} has no message of its own"] = _with_right_hash(foreign)
    for message, data in faults.items():
        path.write_bytes(data)
        with pytest.raises(DataError, match=message) as error:
            Codebook.open(str(path))
        assert str(path) in str(error.value)
    with pytest.raises(UsageError, match="there is no codebook"):
        Codebook.open(str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="there is no codebook"):
        Codebook.open(str(tmp_path))


class Decoder:
    """A decoder written from docs/formats.md alone."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = data = file.read()
        magic, version, bits, width, text, slots, pool, digest = struct.unpack_from(
            "<8sIIIIQQ32s", data
        )
        assert magic == b"\x89CMBOOK\n"
        assert version in (1, 2)
        assert hashlib.sha256(data[:40] + data[72:]).digest() == digest
        self.strings = 1 << bits
        self.width = width
        sizes = [8 * (self.strings // 64 + 1), width * (self.strings + 1), pool + 8]
        sizes += [4 * slots, 2 * slots, slots if bits > 16 else 1]
        sizes += [slots] * (version - 1)
        made_of = json.loads(data[72 : 72 + text])
        self.is_word_by_word = made_of.get("boundaries") == "words"
        self.places = []
        end = 72 + text
        for size in sizes:
            begin = (end + 63) // 64 * 64
            self.places.append(begin)
            end = begin + size
        assert end == len(data)

    def begin(self, code):
        [block] = struct.unpack_from("<Q", self.data, self.places[0] + code // 64 * 8)
        place = self.places[1] + code * self.width
        inside = int.from_bytes(self.data[place : place + self.width], "little")
        return self.places[2] + block + inside

    def decode(self, ids):
        return b"".join(self.data[self.begin(i) : self.begin(i + 1)] for i in ids)

    def encode(self, text):
        starts = word_starts_of(text) if self.is_word_by_word else [0] * (len(text) + 1)
        ids, begin = [], 0
        while begin < len(text):
            base, found = 256, None
            for place in range(begin, len(text)):
                slot = base + text[place]
                [word] = struct.unpack_from("<I", self.data, self.places[3] + 4 * slot)
                if word % 256 != text[place]:
                    break
                is_end = len(self.places) == 6 or self.data[self.places[6] + slot]
                within = not any(starts[begin + 1 : place + 1])
                if is_end and (within or (starts[begin] and starts[place + 1])):
                    [code] = struct.unpack_from("<H", self.data, self.places[4] + 2 * slot)
                    if self.strings > 1 << 16:
                        code += self.data[self.places[5] + slot] << 16
                    found = code, place + 1
                base = word // 256 + word // 256 // 16
            code, begin = found
            ids.append(code)
        return ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_format_is_enough(books, kind, tmp_path):
    book = books[kind]
    book.write(str(tmp_path / "a.codebook"))
    decoder = Decoder(tmp_path / "a.codebook")
    for data in (*TEXT, *HARD):
        ids = book.encode(data).tolist()
        assert decoder.decode(ids) == data
        assert decoder.decode(book.encode(data, "flexible").tolist()) == data
        assert decoder.encode(data) == ids


def test_options_are_checked():
    with pytest.raises(UsageError, match="none of coder, optimal, used"):
        FreezeOptions("best", 16)
    for window_bits in (8, 25):
        with pytest.raises(UsageError, match="between 9 and 24"):
            FreezeOptions("coder", window_bits)
    with pytest.raises(UsageError, match="none of greedy, flexible"):
        FreezeOptions("optimal", 16, "best")
    with pytest.raises(UsageError, match="'lines' is none of none, words"):
        FreezeOptions("used", 16, boundaries="lines")
    with pytest.raises(UsageError, match="for the allocation used only, not optimal"):
        FreezeOptions("optimal", 16, boundaries="words")
    text = ByteStrings.of(TEXT)
    for arguments, message in (
        ((static(), FreezeOptions("coder", 16), {}, text), "coder is not fitted on text"),
        ((None, FreezeOptions("coder", 16), {}), "coder needs a byte model"),
        ((None, FreezeOptions(), {}), "fitted on text, and there is none"),
        ((static(), FreezeOptions(), {}, text), "not of a byte model"),
    ):
        with pytest.raises(UsageError, match=message):
            freeze(*arguments)


@pytest.fixture(scope="module")
def wiki_books(articles):
    model = ngram(articles[0], order=5)
    text = ByteStrings.of(articles[0])
    books = {
        allocation: freeze(model, FreezeOptions(allocation, 16), MADE_OF)
        for allocation in ("coder", "optimal")
    }
    for parse in PARSES:
        books[parse] = freeze(model, FreezeOptions("optimal", 16, parse), MADE_OF, text)
    return model, books


def test_codebooks_of_real_text(wiki_books, articles):
    _, books = wiki_books
    held_out = ByteStrings.of(articles[1])
    lengths = {}
    for (name, book), parse in itertools.product(books.items(), PARSES):
        ids, offsets = book.encode_batch(held_out, parse)
        decoded = book.decode_batch(ids, offsets)
        assert (decoded.data == held_out.data).all()
        assert (decoded.offsets == held_out.offsets).all()
        lengths[name, parse] = len(ids)
        everything = np.arange(book.vocab_size, dtype=book.dtype)
        assert (book.encode_batch(book.strings, parse)[0] == everything).all()
    assert lengths["optimal", "greedy"] < lengths["coder", "greedy"]
    assert 1.07 * lengths["greedy", "greedy"] < lengths["optimal", "greedy"]
    assert lengths["flexible", "flexible"] < lengths["greedy", "flexible"]
    assert 1.01 * lengths["greedy", "flexible"] < lengths["greedy", "greedy"]


def test_at_most_ten_bytes_a_node(wiki_books, tmp_path):
    model, books = wiki_books
    larger = freeze(model, FreezeOptions("optimal", 18), MADE_OF)
    for book in (*books.values(), larger):
        path = tmp_path / "a.codebook"
        book.write(str(path))
        assert path.stat().st_size - len(book.strings.data) < 10 * book.vocab_size


def test_the_window_code_of_real_text(wiki_books, articles):
    model, books = wiki_books
    reference = WindowCode(model, 16)
    for article in articles[1][:5]:
        data = article[:150]
        assert books["coder"].encode(data).tolist() == reference.encode(data)


def test_a_codebook_of_english_takes_everything(wiki_books):
    _, books = wiki_books
    with open(__file__, "rb") as file:
        source = file.read()
    chinese = "雖然這個模型只見過英文。但任何位元組都有編碼。".encode() * 50
    for data in (source, chinese, bytes(100_000), np.random.default_rng(1).bytes(1 << 20)):
        for book, parse in itertools.product(books.values(), PARSES):
            ids = book.encode(data, parse)
            assert book.decode(ids) == data
            assert len(ids) <= len(data)

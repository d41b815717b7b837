import gzip
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.compress import (
    ArithmeticCodec,
    ByteStrings,
    CodebookCodec,
    CodebookTokenizer,
    EqualInfoCodec,
    PaddedCodec,
    StaticArithmeticCodec,
    open_codec,
)
from corpusmill.compress.codecs import BASELINES, CODEBOOK_FILE, BytesCodec, GzipCodec, expect_codec
from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError, UsageError
from tests.codebooks import small_book
from tests.compress.samples import ngram, static

WINDOWED = [
    EqualInfoCodec(ngram(), token_bits, window_bits, reset)
    for token_bits, window_bits, reset in [
        (16, 16, 1),
        (8, 16, 2),
        (16, 20, 1),
        (8, 20, None),
        (16, 24, 1),
        (16, 32, 1),
        (16, 32, 3),
        (8, 33, 1),
        (16, 64, 1),
        (8, 64, None),
        (16, 128, 1),
        (16, 128, None),
    ]
]
MODELLED = [
    *WINDOWED,
    EqualInfoCodec(static(), 8, 15),
    EqualInfoCodec(ngram(precision=24), 16, 128, 2),
    ArithmeticCodec(ngram()),
    ArithmeticCodec(ngram(precision=24), 8),
    ArithmeticCodec(ngram(precision=9), 16),
    StaticArithmeticCodec(static(), 8),
    PaddedCodec(ngram(), 16, 16, "delay"),
    PaddedCodec(ngram(), 8, 64, "delay"),
]
CODECS = [
    CodebookCodec(small_book()),
    CodebookCodec(small_book(), "flexible"),
    CodebookCodec(small_book(17)),
    *(codec() for codec in BASELINES.values()),
    *MODELLED,
]


def name_of(codec):
    return "-".join([codec.kind, *map(str, codec.options.values())])


def save(codec, folder):
    for name, write in codec.files.items():
        write(storage.join(str(folder), name))
    return str(folder)


@pytest.mark.parametrize("codec", CODECS, ids=name_of)
@given(documents=st.lists(st.binary(max_size=80) | st.text("the cat", max_size=80).map(str.encode)))
def test_every_codec_gives_back_what_it_took(codec, documents):
    strings = ByteStrings.of([b"before", *documents])
    # As Arrow hands a slice over: what stands before it is none of its business.
    ids, offsets = codec.encode_batch(ByteStrings(strings.data, strings.offsets[1:]))
    assert ids.dtype == codec.dtype
    assert ids.max(initial=0) < codec.vocab_size
    assert (offsets[0], offsets[-1], len(offsets)) == (0, len(ids), len(documents) + 1)
    assert list(codec.decode_batch(ids, offsets)) == documents


@pytest.mark.parametrize("codec", CODECS, ids=name_of)
def test_text_ends_say_what_a_beginning_of_the_ids_stands_for(codec):
    documents = [b"the cat sat on the mat", b"", b"the dog" * 30]
    ids, offsets = codec.encode_batch(ByteStrings.of(documents))
    ends = codec.text_ends(ids, offsets)
    for number, document in enumerate(documents):
        own = slice(*offsets[number : number + 2])
        assert len(ends[own]) == 0 or ends[own][-1] == len(document)
        assert (np.diff(ends[own]) >= 0).all()
        if codec.window_ids:
            for i in range(codec.window_ids, len(ends[own]) + 1, codec.window_ids):
                beginning = ids[own][:i]
                decoded = codec.decode_batch(beginning, np.array([0, i]))[0]
                assert decoded == document[: ends[own][i - 1]]
        # What follows doesn't matter.
        for i in range(1, len(ends[own])):
            assert (
                codec.text_ends(ids[own][:i], np.array([0, i])).tolist() == ends[own][:i].tolist()
            )


def test_large_codebooks_have_wide_ids():
    assert CodebookCodec(small_book(17)).dtype == np.uint32


@pytest.mark.parametrize("codec", CODECS, ids=name_of)
def test_a_codec_is_kept_as_a_folder(codec, tmp_path):
    folder = save(codec, tmp_path)
    found = open_codec(folder)
    assert found.description == codec.description
    assert expect_codec(folder, codec.content_hash).marker == codec.marker


def test_gzip_is_what_gzip_reads():
    ids, _ = GzipCodec().encode_batch(ByteStrings.of([b"a text"]))
    stream = ids.astype(np.uint8).tobytes()
    assert stream[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    assert gzip.decompress(stream) == b"a text"


@pytest.mark.parametrize(
    ("codec", "ids", "message"),
    [
        (CODECS[0], [5, 4096], "id 4096 at place 1 is outside"),
        (BytesCodec(), [5, 256], "id 256 is outside the vocabulary of 256"),
        (GzipCodec(), [5, 6], "is no gzip stream"),
        (GzipCodec(), list(gzip.compress(b"x")[:-1]), "is not one whole gzip stream"),
        (GzipCodec(), [*gzip.compress(b"x"), 0], "is not one whole gzip stream"),
    ],
)
def test_ids_that_stand_for_nothing(codec, ids, message):
    ids = np.array(ids, np.uint16)
    with pytest.raises(DataError, match=message):
        codec.decode_batch(ids, np.array([0, len(ids)]))


def test_folders_that_are_no_codec(tmp_path):
    with pytest.raises(UsageError, match=r"it has no corpusmill\.json"):
        open_codec(str(tmp_path))
    (tmp_path / "corpusmill.json").write_text('{"kind": "sentencepiece"}')
    with pytest.raises(UsageError, match="sentencepiece, which is no codec"):
        open_codec(str(tmp_path))
    (tmp_path / "corpusmill.json").write_text('{"kind":')
    with pytest.raises(DataError, match="is damaged"):
        open_codec(str(tmp_path))


def test_another_codebook_than_expected_is_refused(tmp_path):
    folder = save(CODECS[0], tmp_path)
    with pytest.raises(DataError, match="but the dataset was made with"):
        expect_codec(folder, CODECS[2].content_hash)
    (tmp_path / CODEBOOK_FILE).unlink()
    with pytest.raises(DataError, match="the dataset's codec is missing"):
        expect_codec(folder, CODECS[0].content_hash)


def test_there_are_two_parses():
    with pytest.raises(UsageError, match="parse 'best' is none of greedy, flexible"):
        CodebookCodec(small_book(), "best")


@given(documents=st.lists(st.binary(max_size=80) | st.text("the cat", max_size=80).map(str.encode)))
def test_codes_cut_in_halves(documents):
    book = small_book(16)
    codec = CodebookCodec(book, token_bits=8)
    strings = ByteStrings.of(documents)
    ids, offsets = codec.encode_batch(strings)
    codes, code_offsets = book.encode_batch(strings)
    assert ids.tolist() == [half for code in codes.tolist() for half in divmod(code, 256)]
    assert (offsets == 2 * code_offsets).all()
    assert list(codec.decode_batch(ids, offsets)) == documents
    ends = codec.text_ends(ids, offsets)
    known = CodebookCodec(book).text_ends(codes, code_offsets)
    assert (ends[1::2] == known).all()
    for first, last in itertools.pairwise(offsets):
        assert (
            ends[first:last:2] == [0, *ends[first + 1 : last - 1 : 2]][: (last - first) // 2]
        ).all()
    if len(ids):
        cut = codec.text_ends(ids[:-1], np.minimum(offsets, len(ids) - 1))
        assert (cut == ends[:-1]).all()


def test_halves_that_are_none(tmp_path):
    codec = CodebookCodec(small_book(16), token_bits=8)
    with pytest.raises(DataError, match="its last code has one id"):
        codec.decode_batch(np.array([1], np.uint16), np.array([0, 1]))
    with pytest.raises(DataError, match="id 256 is outside the vocabulary of 256"):
        codec.decode_batch(np.array([1, 256], np.uint16), np.array([0, 2]))
    with pytest.raises(UsageError, match="codes of 17 bits cannot be cut into ids of 8 bits"):
        CodebookCodec(small_book(17), token_bits=8)
    folder = save(codec, tmp_path)
    assert open_codec(folder).description == codec.description
    with pytest.raises(UsageError, match="codes cut in halves"):
        CodebookTokenizer.from_pretrained(folder)
    assert codec.content_hash != codec.book.content_hash

"""Examples: how documents become pieces, beside the definition read literally."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.compress import ByteStrings, CodebookCodec
from corpusmill.compress.codecs import BytesCodec, GzipCodec
from corpusmill.compress.datasets import examples as module
from corpusmill.compress.datasets.compressed import CodecEncoder, read_documents
from corpusmill.compress.datasets.examples import (
    ExampleOptions,
    check_trimmed,
    cut_pieces,
    make_examples,
)
from corpusmill.corpus.documents import DOCUMENT_SCHEMA
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.tokens import TokensWriter
from tests.codebooks import HARD_TEXTS, small_book

CODECS = [CodebookCodec(small_book()), CodebookCodec(small_book(), "flexible"), BytesCodec()]
CODECS += [GzipCodec()]

Documents = st.lists(st.lists(st.text(max_size=60), max_size=5), max_size=5)


def pieces_of(texts, group, piece_bytes):
    """By the definition."""
    found = []
    for first in range(0, len(texts), group):
        joined = b"".join(text.encode() + b"\xff" for text in texts[first : first + group])
        found += [joined[i : i + piece_bytes] for i in range(0, len(joined), piece_bytes)]
    return found


@given(Documents, st.integers(1, 6), st.integers(1, 50))
def test_pieces_are_those_of_the_definition(batches, group, piece_bytes):
    options = ExampleOptions(group, piece_bytes)
    documents = [ByteStrings.of(text.encode() for text in texts) for texts in batches]
    found = [piece for pieces in cut_pieces(documents, options) for piece in pieces]
    texts = [text for batch in batches for text in batch]
    assert found == pieces_of(texts, group, piece_bytes)


def batch_of(texts):
    columns = [pa.array(["name"] * len(texts)), pa.array(texts, pa.large_string())]
    return pa.record_batch(columns, DOCUMENT_SCHEMA)


def examples_of(codec, texts, options, part=0, batch=3):
    batches = [batch_of(texts[first : first + batch]) for first in range(0, len(texts), batch)]
    rows = make_examples(CodecEncoder(codec), part, batches, options)
    return [row for batch in rows for row in batch.to_pylist()]


def decoded(codec, ids):
    return codec.decode_batch(np.array(ids, codec.dtype), np.array([0, len(ids)]))[0]


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=20)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=12), st.integers(1, 8))
def test_whole_examples_are_the_pieces_in_another_order(codec, texts, batch):
    options = ExampleOptions(group=4, piece_bytes=30)
    rows = examples_of(codec, texts, options, part=7, batch=batch)
    pieces = pieces_of(texts, 4, 30)
    numbers = [int(row["doc_id"].removeprefix("7:")) for row in rows]
    assert sorted(numbers) == list(range(len(pieces)))
    for number, row in zip(numbers, rows, strict=True):
        assert decoded(codec, row["tokens"]) == pieces[number]
        assert row["byte_length"] == len(pieces[number])
    assert rows == examples_of(codec, texts, options, part=7, batch=1)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=20)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=12), st.integers(1, 12))
def test_trimmed_examples_are_beginnings_of_the_whole_ones(codec, texts, length):
    whole = examples_of(codec, texts, ExampleOptions(4, 30))
    trimmed = examples_of(codec, texts, ExampleOptions(4, 30, length))
    for row, beginning in zip(whole, trimmed, strict=True):
        assert beginning["doc_id"] == row["doc_id"]
        assert beginning["tokens"] == row["tokens"][:length]
        ends = codec.text_ends(
            np.array(row["tokens"], codec.dtype), np.array([0, len(row["tokens"])])
        )
        assert beginning["byte_length"] == ends[len(beginning["tokens"]) - 1]


def orders(texts, **options):
    """The numbers of the pieces in the order of the examples."""
    rows = examples_of(BytesCodec(), texts, ExampleOptions(4, 10, **options))
    return [int(row["doc_id"].partition(":")[2]) for row in rows]


def test_the_order_is_random_and_follows_from_seed_and_part():
    texts = HARD_TEXTS * 3
    found = orders(texts)
    assert found != sorted(found)
    assert found == orders(texts)
    assert found != orders(texts, seed=1)
    rows = examples_of(BytesCodec(), texts, ExampleOptions(4, 10), part=1)
    assert found != [int(row["doc_id"].removeprefix("1:")) for row in rows]


def test_stretches_bound_what_is_shuffled(monkeypatch):
    monkeypatch.setattr(module, "_SHUFFLED_BYTES", 200)
    found = orders(HARD_TEXTS)
    for first in range(0, len(found), 20):
        stretch = found[first : first + 20]
        assert sorted(stretch) == list(range(first, first + len(stretch)))
    monkeypatch.setattr(module, "_ENCODED_BYTES", 30)
    assert orders(HARD_TEXTS) == found


def write(path, codec, texts, options):
    with TokensWriter(str(path), codec.dtype) as writer:
        for rows in make_examples(CodecEncoder(codec), 0, [batch_of(texts)], options):
            writer.write(rows)
    return str(path)


@pytest.mark.parametrize("codec", CODECS)
def test_files_are_read_and_checked(codec, tmp_path):
    whole = write(tmp_path / "whole", codec, HARD_TEXTS, ExampleOptions(4, 100))
    found = [piece for _, pieces in read_documents(whole, codec) for piece in pieces]
    assert sorted(found) == sorted(pieces_of(HARD_TEXTS, 4, 100))
    trimmed = write(tmp_path / "trimmed", codec, HARD_TEXTS, ExampleOptions(4, 100, 20))
    check_trimmed(trimmed, codec, 20)
    with pytest.raises(DataError, match=r"example '0:\d+': its .* there may be 1 to 10 ids"):
        check_trimmed(trimmed, codec, 10)
    table = pq.read_table(trimmed)
    lengths = table.column("byte_length").to_numpy() + np.uint32(1)
    pq.write_table(table.set_column(2, "byte_length", pa.array(lengths)), trimmed)
    with pytest.raises(DataError, match=r"example '0:\d+': its"):
        check_trimmed(trimmed, codec, 20)
    none = pa.array([[]] * len(table), table.schema.field("tokens").type)
    pq.write_table(table.set_column(1, "tokens", none), trimmed)
    with pytest.raises(DataError, match="its 0 ids are of 0 bytes"):
        check_trimmed(trimmed, codec, 20)
    with pytest.raises(DataError, match="cannot be read"):
        check_trimmed(str(tmp_path / "missing"), codec, 20)


def test_options_are_checked():
    with pytest.raises(UsageError, match="--piece-bytes 1048577 is too large"):
        ExampleOptions(piece_bytes=(1 << 20) + 1)
    with pytest.raises(UsageError, match="--seed -1"):
        ExampleOptions(seed=-1)

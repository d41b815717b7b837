import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.compress import CodebookCodec
from corpusmill.compress.codecs import GzipCodec
from corpusmill.compress.datasets.compressed import CodecEncoder, read_documents
from corpusmill.corpus import tokens
from corpusmill.corpus.documents import DOCUMENT_SCHEMA
from corpusmill.corpus.errors import DataError
from tests.codebooks import small_book

CODECS = [CodebookCodec(small_book()), GzipCodec()]


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(tokens, "ROW_GROUP_TOKENS", 20)
    monkeypatch.setattr(tokens, "MAX_ROW_TOKENS", 7)


def write(path, codec, texts):
    encoder = CodecEncoder(codec)
    ids = [f"{number}" for number in range(len(texts))]
    documents = pa.record_batch([ids, pa.array(texts, pa.large_string())], DOCUMENT_SCHEMA)
    with tokens.TokensWriter(str(path), encoder.dtype) as writer:
        writer.write(tokens.tokenize_batch(encoder, documents))
    return str(path)


@pytest.mark.parametrize("codec", CODECS)
@given(texts=st.lists(st.text(max_size=200), min_size=1, max_size=8))
def test_documents_come_back_in_order(codec, texts, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("compressed") / "part.parquet", codec, texts)
    found = [
        pair
        for names, documents in read_documents(path, codec)
        for pair in zip(names, documents, strict=True)
    ]
    assert found == [(str(number), text.encode()) for number, text in enumerate(texts)]
    # The last row of a document is the one that has a length, or nothing else.
    rows = pq.ParquetFile(path).read().to_pylist()
    last = [row for row in rows if row["byte_length"] or not row["tokens"]]
    assert [row["byte_length"] for row in last] == [len(text.encode()) for text in texts]
    assert all(len(row["tokens"]) <= 7 for row in rows)


def rewrite(path, change):
    rows = pq.ParquetFile(path).read().to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, tokens.tokens_schema(np.uint16)), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1]["tokens"].append(4096), "document '1': id 4096 at place"),
        (lambda rows: rows[1].update(byte_length=9), "document '1': its ids are of 7 bytes,"),
        (lambda rows: rows[2].update(byte_length=0), "document '2': its last row is missing"),
        (lambda rows: rows[1].update(byte_length=0), "document '2': its ids are of 14 bytes,"),
    ],
)
def test_the_document_at_fault_is_named(change, message, tmp_path):
    path = write(tmp_path / "part.parquet", CODECS[0], ["a cat", "the dog", "the log"])
    rewrite(path, change)
    with pytest.raises(DataError, match=message):
        list(read_documents(path, CODECS[0]))


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path):
    path = tmp_path / "part.parquet"
    with pytest.raises(DataError, match=r"part\.parquet cannot be read"):
        list(read_documents(str(path), CODECS[0]))
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"part\.parquet cannot be read"):
        list(read_documents(str(path), CODECS[0]))


def test_an_error_of_the_codec_is_no_damage_of_the_file(tmp_path):
    class Failing(GzipCodec):
        def decode_batch(self, ids, offsets):
            raise OSError("the device is gone")

    path = write(tmp_path / "part.parquet", GzipCodec(), ["a cat"])
    with pytest.raises(OSError, match=r"^the device is gone$"):
        list(read_documents(path, Failing()))

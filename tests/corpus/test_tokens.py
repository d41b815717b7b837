import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus import parquet, tokens
from corpusmill.corpus.documents import DOCUMENT_SCHEMA
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.tokenizers import load_tokenizer


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(tokens, "ROW_GROUP_TOKENS", 20)
    monkeypatch.setattr(tokens, "MAX_ROW_TOKENS", 7)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("bytes")


def write(path, tokenizer, batches):
    with tokens.TokensWriter(str(path), tokenizer.dtype) as writer:
        for texts in batches:
            ids = [f"{text}!" for text in texts]
            documents = pa.record_batch([ids, pa.array(texts, pa.large_string())], DOCUMENT_SCHEMA)
            writer.write(tokens.tokenize_batch(tokenizer, documents))
    return writer


@given(st.lists(st.lists(st.text(max_size=40), max_size=8), max_size=5))
def test_documents_come_back_whole_in_order(tmp_path_factory, tokenizer, batches):
    path = tmp_path_factory.mktemp("tokens") / "part.parquet"
    writer = write(path, tokenizer, batches)
    texts = [text for batch in batches for text in batch]
    expected = [[*text.encode(), 256] for text in texts]
    assert writer.tokens == sum(map(len, expected))
    if not texts:
        assert not path.exists()
        return
    groups, group_rows = tokens.row_group_sizes(str(path))
    flat = np.concatenate(list(tokens.read_row_groups(str(path)))).tolist()
    assert flat == [token for document in expected for token in document]
    # Full row groups, and none so large that it couldn't have been cut before its last row.
    assert sum(groups) == len(flat)
    assert all(20 <= size < 27 for size in groups[:-1])
    with parquet.open_reader(str(path)) as file:
        rows = file.read().to_pylist()
    assert len(rows) == writer.rows == sum(group_rows)
    assert all(1 <= len(row["tokens"]) <= 7 for row in rows)
    ends = [row for row in rows if row["tokens"][-1] == 256]
    assert [row["doc_id"] for row in ends] == [f"{text}!" for text in texts]
    assert [row["byte_length"] for row in ends] == [len(text.encode()) for text in texts]
    assert sum(row["byte_length"] for row in rows) == sum(len(text.encode()) for text in texts)


def test_ids_outside_a_vocabulary_are_named():
    ids = np.array([0, 9, 10], np.uint16)
    tokens.check_vocabulary(ids, 11)
    with pytest.raises(DataError, match=r"^here: token id 10 at position 2 is outside the"):
        tokens.check_vocabulary(ids, 10, "here")
    with pytest.raises(DataError, match=r"^token id -1 at position 0"):
        tokens.check_vocabulary(np.array([-1]), 10)


def test_row_groups_do_not_depend_on_the_batches(tmp_path, tokenizer):
    texts = ["a" * (i % 13) for i in range(50)]
    write(tmp_path / "one", tokenizer, [texts])
    write(tmp_path / "many", tokenizer, [[text] for text in texts])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()

"""Ids one by one give the text of all of them, and never a part of a character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus.tokenizers import TextStream, load_tokenizer
from tests.integration.conftest import byte_level_bpe

TEXTS = ["", "a", "thé à la crème, 猫は好き 🐈‍⬛ ", "e\u0301\n\n  x"]


@pytest.fixture(scope="module", params=["bytes", "byte-level"])
def tokenizer(request, tmp_path_factory):
    if request.param == "bytes":
        return load_tokenizer("bytes")
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    byte_level_bpe().save(str(path))
    return load_tokenizer(str(path))


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_of_the_text(tokenizer, text):
    stream = TextStream(tokenizer)
    pieces = [stream.add(int(token)) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert stream.finish() == ""
    assert not any("\ufffd" in piece for piece in pieces)


@given(data=st.binary(max_size=12))
def test_what_is_no_text_comes_out_as_by_the_whole(data):
    tokenizer = load_tokenizer("bytes")
    stream = TextStream(tokenizer)
    pieces = [stream.add(byte) for byte in data]
    assert "".join([*pieces, stream.finish()]) == tokenizer.decode(data)

from types import SimpleNamespace

import pytest

from corpusmill.compress.byte_tokens import bytes_packing, check_bytes
from corpusmill.corpus.errors import DatasetError
from corpusmill.ngram_agg.packing import Packing

BYTES = {"kind": "bytes", "vocabulary_size": 257, "end_of_document": 256}


@pytest.mark.parametrize(
    "other", [{"kind": "pieces"}, {"vocabulary_size": 258}, {"end_of_document": None}]
)
def test_only_tokens_of_the_tokenizer_bytes_are_bytes(other):
    check_bytes("data", SimpleNamespace(tokenizer=BYTES))
    with pytest.raises(DatasetError, match=r"^data has .* tokens; bytes are needed: make the"):
        check_bytes("data", SimpleNamespace(tokenizer=BYTES | other))


def test_contexts_of_bytes_are_packed_as_their_counts_are():
    assert bytes_packing(3) == Packing.of(BYTES, 4)

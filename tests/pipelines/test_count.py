import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus import tokens
from corpusmill.corpus.documents import DOCUMENT_SCHEMA
from corpusmill.corpus.tokenizers import load_tokenizer
from corpusmill.ngram_agg import Packing, count_ngrams, merge_runs
from corpusmill.pipelines.count import cut_stretches, token_blocks


@given(
    texts=st.lists(st.text("abc", max_size=60), min_size=1, max_size=8),
    run_tokens=st.integers(1, 80),
    order=st.integers(0, 4),
)
def test_blocks_count_every_position_once(tmp_path_factory, texts, run_tokens, order):
    """Documents that reach over rows, row groups, blocks and stretches are counted as if whole."""
    folder = tmp_path_factory.mktemp("tokens")
    tokenizer = load_tokenizer("bytes")
    documents = pa.record_batch([texts, pa.array(texts, pa.large_string())], DOCUMENT_SCHEMA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "ROW_GROUP_TOKENS", 10)
        patch.setattr(tokens, "MAX_ROW_TOKENS", 4)
        with tokens.TokensWriter(str(folder / "part.parquet"), np.uint16) as writer:
            writer.write(tokens.tokenize_batch(tokenizer, documents))
    packing = Packing(order + 1, 257, 256)

    def count(ids, starts=None):
        return count_ngrams(
            ids, max_order=order, vocabulary_size=257, end_of_document=256, starts=starts
        )

    stretches = list(cut_stretches(["part.parquet"], str(folder), run_tokens))
    blocks = [
        block
        for stretch in stretches
        for block in token_blocks(stretch, str(folder), run_tokens, packing)
    ]
    assert all(starts > 0 for _, starts in blocks)
    runs = [count(ids, starts) for ids, starts in blocks]
    whole = count(np.array([t for text in texts for t in [*text.encode(), 256]], np.uint16))
    merged = merge_runs(runs)
    assert np.array_equal(merged.low, whole.low)
    assert np.array_equal(merged.counts, whole.counts)

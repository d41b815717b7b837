"""Random token streams for property tests, and the bounds of their partitions."""

import numpy as np
from hypothesis import strategies as st

from corpusmill.ngram_agg.packing import pack_one

# Small vocabularies make repeats, large ones need two words a key.
VOCABULARIES = st.sampled_from([1, 2, 3, 7, 256, 257, 32_000, 50_257, 65_536, 200_000, 1 << 20])


@st.composite
def corpora(draw, max_order=5, max_documents=12, max_length=30):
    """(tokens, vocabulary size, end-of-document id, max order): whole documents, some empty."""
    vocabulary = draw(VOCABULARIES)
    end = draw(st.integers(0, vocabulary - 1))
    # Few distinct ids, spread over the whole range, so that contexts repeat.
    ids = draw(st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=5))
    ids = [token for token in ids if token != end]
    document = st.lists(st.sampled_from(ids), max_size=max_length) if ids else st.just([])
    documents = draw(st.lists(document, max_size=max_documents))
    dtype = np.uint16 if vocabulary <= 1 << 16 else np.uint32
    tokens = np.array([t for each in documents for t in [*each, end]], dtype)
    longest = 128 // max(1, (vocabulary - 1).bit_length()) - 1
    return tokens, vocabulary, end, draw(st.integers(0, min(max_order, longest)))


def partition_bounds(packing, cuts):
    """The lowest key of each partition and the lowest beyond it (None for the last)."""
    keys = [pack_one(packing, cut) for cut in cuts]
    return list(zip([(0, 0), *keys], [*keys, None], strict=True))

"""Where row groups begin, against reading a file from its beginning."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.corpus.tokens import tokens_schema
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.positions import read_place, start_of_file

END = 9


@pytest.mark.parametrize("max_order", [0, 1, 3, 7])
@pytest.mark.parametrize("ends", [[], [4], [5], [4, 5, 17], [0, 19]])
def test_a_place_is_the_same_from_either_side(tmp_path, ends, max_order):
    packing = Packing(max_order + 1, 10, END)
    tokens = (np.arange(20) % 9).astype(np.uint16)
    tokens[ends] = END
    url, schema = str(tmp_path / "part.parquet"), tokens_schema(np.uint16)
    groups = np.split(tokens, [2, 3, 8, 8 + 7])
    with pq.ParquetWriter(url, schema) as writer:
        for group in groups:
            row = {"doc_id": ["a"], "tokens": [group], "byte_length": [0]}
            writer.write_table(pa.table(row, schema=schema))
    expected = start_of_file(packing)
    for number, group in enumerate(groups):
        found = read_place(url, number, packing)
        assert found.position == expected.position
        assert found.before.tolist() == expected.before.tolist()
        expected = expected.after(packing, group)

"""Folders of columns that appear as a whole, or not at all."""

import numpy as np
import pytest

from corpusmill.ngram_agg import saved_columns


def test_what_could_not_be_made_leaves_nothing(tmp_path):
    """As when the disk is full: a second attempt would find it fuller."""

    class Unwritable:
        def __array__(self, dtype=None, copy=None):
            raise OSError("no space left on device")

    columns = {"a": np.arange(5), "b": Unwritable()}
    with pytest.raises(OSError, match="no space"):
        saved_columns.cached_columns(str(tmp_path / "table"), lambda: columns, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["table.lock"]
    made = saved_columns.cached_columns(
        str(tmp_path / "table"), lambda: {"a": np.arange(5)}, lambda _: None
    )
    assert made["a"].tolist() == [0, 1, 2, 3, 4]

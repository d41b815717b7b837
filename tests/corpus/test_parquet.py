import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.corpus import parquet, storage
from corpusmill.corpus.errors import StorageError
from tests.corpus.counted import ROOT, CountedFileSystem, counted

SCHEMA = pa.schema(
    [
        pa.field("a", pa.uint16(), nullable=False),
        pa.field("b", pa.uint32(), nullable=False),
        pa.field(
            "items", pa.list_(pa.field("element", pa.uint64(), nullable=False)), nullable=False
        ),
        pa.field("name", pa.string(), nullable=False),
    ]
)


def table_of(rows):
    numbers = np.arange(rows)
    return pa.table(
        [
            pa.array(numbers // 7, pa.uint16()),
            pa.array(numbers, pa.uint32()),
            pa.array([list(range(n % 3)) for n in range(rows)], SCHEMA.field("items").type),
            pa.array([str(n) for n in range(rows)]),
        ],
        schema=SCHEMA,
    )


def write(path, table, cuts, row_group_rows):
    with parquet.RowGroupWriter(str(path), SCHEMA, row_group_rows, ["a", "b"]) as writer:
        for first, last in zip([0, *cuts], [*cuts, table.num_rows], strict=True):
            for batch in table.slice(first, last - first).to_batches():
                writer.write(batch)
    return writer.rows


@given(rows=st.integers(1, 60), group=st.integers(1, 25), cuts=st.lists(st.integers(0, 60)))
def test_the_bytes_do_not_depend_on_the_batches(tmp_path_factory, rows, group, cuts):
    folder = tmp_path_factory.mktemp("parquet")
    table = table_of(rows)
    cuts = sorted(min(cut, rows) for cut in cuts)
    assert write(folder / "cut", table, cuts, group) == rows
    write(folder / "whole", table, [], group)
    assert (folder / "cut").read_bytes() == (folder / "whole").read_bytes()
    with pq.ParquetFile(folder / "cut") as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert sizes == [group] * (rows // group) + [rows % group] * (rows % group > 0)
        assert file.read().equals(table)


def test_without_rows_there_is_no_file(tmp_path):
    with parquet.RowGroupWriter(str(tmp_path / "empty"), SCHEMA, 10) as writer:
        writer.write(pa.RecordBatch.from_pylist([], SCHEMA))
    assert not (tmp_path / "empty").exists()


def test_bounds_come_from_statistics(tmp_path):
    write(tmp_path / "file", table_of(20), [], 7)
    with pq.ParquetFile(tmp_path / "file") as file:
        bounds = [
            parquet.sorted_bounds(file.metadata.row_group(i), ["a", "b"])
            for i in range(file.num_row_groups)
        ]
        # Only the columns asked for have statistics.
        assert file.metadata.row_group(0).column(3).statistics is None
    assert bounds == [([0, 0], [0, 6]), ([1, 7], [1, 13]), ([2, 14], [2, 19])]


def test_list_columns_are_flattened_with_their_offsets():
    table = pa.concat_tables([table_of(10).slice(4), table_of(5)])
    assert parquet.list_offsets(table, "items").tolist()[:4] == [0, 1, 3, 3]
    assert len(parquet.list_offsets(table, "items")) == table.num_rows + 1
    flat = [value for row in table["items"].to_pylist() for value in row]
    assert parquet.column_values(table, "items").tolist() == flat
    assert parquet.column_values(table, "b").tolist() == table["b"].to_pylist()


def test_an_error_while_writing_leaves_no_full_file(tmp_path):
    def fail():
        with parquet.RowGroupWriter(str(tmp_path / "half"), SCHEMA, 5) as writer:
            writer.write(table_of(8).to_batches()[0])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert pq.read_metadata(tmp_path / "half").num_rows == 5


def test_of_a_remote_file_only_what_is_needed_is_read(tmp_path, monkeypatch):
    columns = {
        f"c{i}": pa.array(np.random.default_rng(i).integers(0, 1 << 62, 400_000)) for i in (0, 1, 2)
    }
    table = pa.table(columns)
    with parquet.RowGroupWriter(str(tmp_path / "file"), table.schema, 100_000) as writer:
        for batch in table.to_batches():
            writer.write(batch)
    url = f"{ROOT}/file"
    storage.copy(str(tmp_path / "file"), url)
    group = pq.read_metadata(tmp_path / "file").row_group(2)
    sizes = [group.column(i).total_compressed_size for i in range(3)]
    with counted() as requests, parquet.open_reader(url) as file:
        assert [(kind, size) for kind, _, size in requests] == [("HEAD", 0), ("GET", 1 << 16)]
        requests.clear()
        for names, expected in (
            (["c1"], [sizes[1]]),
            (["c0", "c1"], [sizes[0] + sizes[1]]),
            (["c0", "c2"], [sizes[0], sizes[2]]),
        ):
            read = file.read_row_group(2, columns=names, use_threads=False)
            assert read.equals(table.slice(200_000, 100_000).select(names))
            assert sorted(size for _, _, size in requests) == sorted(expected)
            requests.clear()

        def refuse(*_, **options):
            raise ArithmeticError("503 no")

        monkeypatch.setattr(CountedFileSystem, "cat_file", refuse)
        with pytest.raises(StorageError, match=f"^{url}: 503 no$"):
            file.read_row_group(1, columns=["c0", "c1"], use_threads=False)

import gzip
import io
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given

from corpusmill.corpus import storage
from corpusmill.corpus.documents import DOCUMENT_SCHEMA, BadRecord
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.inputs import ReadOptions, Segment, find_inputs, plan_shards
from corpusmill.corpus.readers import BATCH_BYTES, BATCH_DOCUMENTS, read_segment
from tests.corpus import samples
from tests.corpus.counted import ROOT, counted

Documents = list[tuple[str, str]]
PACKERS = {None: bytes, **samples.PACKERS}


def read(*segments: Segment, **options: Any) -> tuple[Documents, list[BadRecord]]:
    """All documents and bad records of segments, after checks that hold for every delivery."""
    documents: Documents = []
    bad: list[BadRecord] = []
    for segment in segments:
        for batch, bad_records in read_segment(segment, ReadOptions(**options)):
            assert batch.schema == DOCUMENT_SCHEMA
            batch.validate(full=True)
            assert batch.num_rows <= BATCH_DOCUMENTS
            assert batch.num_rows or bad_records
            documents += zip(*batch.to_pydict().values(), strict=True)
            bad += bad_records
    return documents, bad


def segment_of(
    path: Path, data: bytes, file_format: str, compression: str | None = None
) -> Segment:
    path.write_bytes(data)
    return Segment(str(path), path.name, file_format, compression, 0, len(data))


def cut(segment: Segment, places: list[int]) -> list[Segment]:
    marks = [0, *sorted({place for place in places if 0 < place < segment.end}), segment.end]
    return [replace(segment, start=start, end=end) for start, end in itertools.pairwise(marks)]


def faults(bad: list[BadRecord]) -> list[int]:
    return [record.offset for record in bad]


class TestJsonLines:
    @given(
        texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=20),
        ends=st.lists(
            st.sampled_from(["\n", "\r\n", "\n\n", "\r\n \t\r\n"]), min_size=20, max_size=20
        ),
        head=st.sampled_from([b"", b"\xef\xbb\xbf", b"\n\n"]),
        last_newline=st.booleans(),
        ascii_only=st.booleans(),
        places=st.lists(st.integers(0, 600), max_size=10),
    )
    @example(["é", "x"], ["\n"] * 20, b"\xef\xbb\xbf", False, False, list(range(60)))
    def test_segments_give_each_document_once_in_order(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        texts: list[str],
        ends: list[str],
        head: bytes,
        last_newline: bool,
        ascii_only: bool,
        places: list[int],
    ) -> None:
        data = bytearray(head)
        expected = []
        for text, end in zip(texts, ends, strict=False):
            # The mark at the file's start belongs to the first line, which starts at 0.
            offset = 0 if len(data) == 3 else len(data)
            expected.append((f"x:{offset}", text))
            data += json.dumps({"text": text}, ensure_ascii=ascii_only).encode() + end.encode()
        content = bytes(data) if last_newline else bytes(data).rstrip(b"\r\n \t")
        path = tmp_path_factory.getbasetemp() / "x"
        whole = segment_of(path, content, "jsonl")
        assert read(whole) == (expected, [])
        assert read(*cut(whole, places)) == (expected, [])
        assert read(*cut(whole, list(range(len(content))))) == (expected, [])

    @pytest.mark.parametrize("compression", PACKERS)
    def test_every_kind_of_bad_record_is_told(
        self, tmp_path: Path, compression: str | None
    ) -> None:
        lines = [
            (b'{"text": "good"}', None),
            (b"not json", "is not JSON: "),
            (b'{"text": "cut', "is not JSON: "),
            (b'["text"]', "is an array, not a JSON object"),
            (b"7", "is a number, not a JSON object"),
            (b'{"body": "x"}', "has no field 'text'"),
            (b'{"text": null}', "field 'text' is null, not a string"),
            (b'{"text": 5}', "field 'text' is a number, not a string"),
            (b'{"text": ["x"]}', "field 'text' is an array, not a string"),
            (b'{"text": "\xff"}', "is not UTF-8: "),
            (b'{"text": "\\ud800"}', "is not JSON: "),
            (b'{"text": "\\udc00x"}', "is not JSON: "),
            (b'{"text": "' + b"x" * 100 + b'"}', "is longer than 100 bytes"),
            (b'{"text": "\x00"}', "is not JSON: "),
            (b'{"text": "a\\u0000\\ud83d\\ude00"}', None),
        ]
        content = b"\n\r\n".join(line for line, _ in lines)
        data = PACKERS[compression](content)
        segment = segment_of(tmp_path / "x", data, "jsonl", compression)
        documents, bad = read(segment, max_document_bytes=100)
        assert [text for _, text in documents] == ["good", "a\0😀"]
        reasons = [(i, reason) for i, (_, reason) in enumerate(lines) if reason]
        assert len(bad) == len(reasons)
        for record, (index, reason) in zip(bad, reasons, strict=True):
            assert record.reason.startswith(reason)
            assert "\n" not in record.reason
            assert record.source == segment.url
            assert record.offset == len(b"\n\r\n".join([line for line, _ in lines[:index]] + [b""]))

    def test_only_the_fields_that_are_asked_for_matter(self, tmp_path: Path) -> None:
        others = ["NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', "[NaN, {}]"]
        lines = [f'{{"other": {value}, "text": "t", "key": 1}}' for value in others]
        # In a field that is asked for they are wrong.
        lines += ['{"other": NaN, "text": "\\ud800"}', '{"text": NaN}', '{"text": "t", "key": NaN}']
        segment = segment_of(tmp_path / "x", "\n".join(lines).encode(), "jsonl")
        documents, bad = read(segment)
        assert [text for _, text in documents] == ["t"] * 7
        starts = [len("\n".join([*lines[:i], ""])) for i in range(len(lines))]
        assert faults(bad) == starts[6:8]
        documents, bad = read(segment, id_field="key")
        assert documents == [("1", "t")] * 6
        assert faults(bad) == starts[6:9]

    def test_ids_from_a_field(self, tmp_path: Path) -> None:
        values = ['"a"', "12", "-3", '""', "null", "true", "1.5", "1e400", "[1]"]
        lines = [f'{{"key": {value}, "text": "t"}}' for value in values] + ['{"text": "t"}']
        segment = segment_of(tmp_path / "x", "\n".join(lines).encode(), "jsonl")
        documents, bad = read(segment, id_field="key")
        assert [doc_id for doc_id, _ in documents] == ["a", "12", "-3", ""]
        assert faults(bad) == [len("\n".join([*lines[:i], ""])) for i in range(4, 10)]
        assert bad[-1].reason.startswith("has no field 'key'; --id-field can name one of 'text'")
        assert bad[0].reason == "field 'key' is null, not a string or a 64-bit integer"

    def test_the_text_field_can_be_another(self, tmp_path: Path) -> None:
        segment = segment_of(tmp_path / "x", b'{"body": "b", "text": "t"}', "jsonl")
        assert read(segment, text_field="body") == ([("x:0", "b")], [])

    def test_bad_records_are_the_same_in_all_segments(self, tmp_path: Path) -> None:
        lines = [b"bad" if i % 3 == 0 else b'{"text": "a"}\n' for i in range(40)]
        whole = segment_of(tmp_path / "x", b"\n".join(lines), "jsonl")
        _, expected = read(whole)
        assert len(expected) == 14
        assert read(*cut(whole, list(range(0, whole.end, 17))))[1] == expected

    def test_bad_records_are_told_without_reading_what_is_before_a_segment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = (b'{"text": "' + b"a" * 1000 + b'"}\n') * 500 + b"bad\n"
        whole = segment_of(tmp_path / "x", lines * 16, "jsonl")
        sizes = []

        class Counted(io.FileIO):
            def read(self, size: int | None = -1, /) -> bytes:
                data = super().read(size) or b""
                sizes.append(len(data))
                return data

        monkeypatch.setattr(storage, "open_input", Counted)
        _, bad = read(*cut(whole, list(range(0, whole.end, 1 << 20))))
        assert len(bad) == 16
        # A segment ends within a block.
        assert sum(sizes) < 3 * whole.end

    def test_a_long_line_is_told_once_and_not_held(self, tmp_path: Path) -> None:
        long = b'{"text": "' + b"x" * 5_000_000 + b'"}\n'
        good = b'{"text": "a"}\n'
        whole = segment_of(tmp_path / "x", good + long + good, "jsonl")
        expected = [("x:0", "a"), (f"x:{len(good + long)}", "a")]
        limit = 1000
        for places in ([], [1_000_000, 2_000_000], [len(good)], [len(good + long)]):
            documents, bad = read(*cut(whole, places), max_document_bytes=limit)
            assert documents == expected
            assert faults(bad) == [len(good)]
        documents, bad = read(whole, max_document_bytes=len(long) - 1)
        assert [len(text) for _, text in documents] == [1, 5_000_000, 1]
        assert not bad

    def test_segments_inside_a_long_line_read_no_further_than_their_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = segment_of(tmp_path / "x", b"x" * 10_000_000, "jsonl")
        consumed = 0

        class Counted(io.FileIO):
            def read(self, size: int | None = -1, /) -> bytes:
                nonlocal consumed
                data = super().read(-1 if size is None else size)
                consumed += len(data)
                return data

        monkeypatch.setattr("corpusmill.corpus.storage.open_input", Counted)
        segments = cut(whole, list(range(0, whole.end, 1_000_000)))
        assert faults(read(*segments, max_document_bytes=10)[1]) == [0]
        assert consumed < 1.5 * whole.end

    def test_batches_have_about_a_mebibyte(self, tmp_path: Path) -> None:
        texts = ["x" * 1000] * 3000 + ["y"] * 20_000 + ["z" * 3_000_000] * 2
        data = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)
        segment = segment_of(tmp_path / "x", data, "jsonl")
        batches = [batch for batch, _ in read_segment(segment, ReadOptions())]
        sizes = [sum(map(len, batch.column("text").to_pylist())) for batch in batches]
        assert [text for b in batches for text in b.column("text").to_pylist()] == texts
        assert max(b.num_rows for b in batches) <= BATCH_DOCUMENTS
        assert all(size < BATCH_BYTES + 1000 for size in sizes[:3])
        assert len(batches) == 6

    def test_bad_records_alone_are_delivered_in_batches(self, tmp_path: Path) -> None:
        segment = segment_of(tmp_path / "x", b"bad\n" * (2 * BATCH_DOCUMENTS + 1), "jsonl")
        deliveries = list(read_segment(segment, ReadOptions()))
        assert [batch.num_rows for batch, _ in deliveries] == [0, 0, 0]
        assert [len(bad) for _, bad in deliveries] == [BATCH_DOCUMENTS, BATCH_DOCUMENTS, 1]

    def test_a_url(self) -> None:
        fs = fsspec.filesystem("memory")
        fs.pipe_file("/d/x.jsonl", b'{"text": "a"}\nbad\n{"text": "b"}\n')
        (file,) = find_inputs(["memory://d"], ReadOptions())
        whole = Segment(file.url, file.name, file.format, None, 0, file.size)
        documents, bad = read(*cut(whole, [10, 15, 20]))
        assert documents == [("x.jsonl:0", "a"), ("x.jsonl:18", "b")]
        assert bad[0].source == "memory:///d/x.jsonl"

    def test_a_file_that_went_away_is_an_error(self, tmp_path: Path) -> None:
        segment = Segment(str(tmp_path / "gone"), "gone", "jsonl", None, 0, 10)
        with pytest.raises(FileNotFoundError):
            read(segment)


class TestTextLines:
    @pytest.mark.parametrize("compression", PACKERS)
    def test_lines_are_documents(self, tmp_path: Path, compression: str | None) -> None:
        content = "\ufeff one \r\n\r\n  \nzwei: é\u2028\0\rx\n".encode() + b"\xe9t\xe9\nlast"
        data = PACKERS[compression](content)
        segment = segment_of(tmp_path / "x", data, "text", compression)
        documents, bad = read(segment)
        assert documents == [("x:0", " one "), ("x:15", "zwei: é\u2028\0\rx"), ("x:34", "last")]
        assert faults(bad) == [30]
        assert bad[0].reason.startswith("is not UTF-8")

    def test_segments(self, tmp_path: Path) -> None:
        lines = [f"line {i} é".encode() for i in range(300)]
        whole = segment_of(tmp_path / "x", b"\n".join(lines), "text")
        expected = read(whole)
        assert len(expected[0]) == 300
        assert read(*cut(whole, list(range(0, whole.end, 7)))) == expected


class TestTextFiles:
    @pytest.mark.parametrize("compression", PACKERS)
    def test_a_file_is_a_document(self, tmp_path: Path, compression: str | None) -> None:
        pack = PACKERS[compression]
        text = "\none\r\ntwo\n\0é" * 100_000
        segment = segment_of(
            tmp_path / "x", pack(b"\xef\xbb\xbf" + text.encode()), "text", compression
        )
        assert read(segment, text_unit="file") == ([("x:0", text)], [])
        assert read(
            segment_of(tmp_path / "x", pack(b" \n"), "text", compression), text_unit="file"
        ) == ([], [])

    def test_bad_files(self, tmp_path: Path) -> None:
        cases = {
            "is not UTF-8": segment_of(tmp_path / "a", b"a\xff", "text"),
            "is longer than 10 bytes": segment_of(tmp_path / "b", b"x" * 11, "text"),
            "truncated gzip": segment_of(tmp_path / "c", gzip.compress(b"x")[:-1], "text", "gzip"),
        }
        for reason, segment in cases.items():
            documents, bad = read(segment, text_unit="file", max_document_bytes=10)
            assert documents == []
            assert faults(bad) == [0]
            assert bad[0].reason.startswith(reason)


class TestDamagedStreams:
    @pytest.fixture
    def lines(self) -> list[bytes]:
        rng = random.Random(1)
        return [json.dumps({"text": rng.randbytes(200).hex()}).encode() for _ in range(5000)]

    @pytest.mark.parametrize("compression", ["gzip", "zstd"])
    @pytest.mark.parametrize("kept", [0.5, 0.999])
    def test_documents_before_a_cut_are_delivered(
        self, tmp_path: Path, lines: list[bytes], compression: str, kept: float
    ) -> None:
        data = PACKERS[compression](b"\n".join(lines))
        data = data[: int(len(data) * kept)]
        segment = segment_of(tmp_path / "x", data, "jsonl", compression)
        documents, (fault,) = read(segment)
        assert fault.reason == f"truncated {compression} stream"
        assert len(documents) > 4990 * kept - 700
        assert [text for _, text in documents] == [
            json.loads(line)["text"] for line in lines[: len(documents)]
        ]
        assert fault.offset == sum(len(line) + 1 for line in lines[: len(documents)])

    @pytest.mark.parametrize("compression", ["gzip", "zstd"])
    def test_documents_before_garbage_are_delivered(
        self, tmp_path: Path, lines: list[bytes], compression: str
    ) -> None:
        pack = PACKERS[compression]
        members = [pack(line + b"\n") for line in lines[:100]]
        data = b"".join(members) + b"garbage" + pack(lines[0])
        segment = segment_of(tmp_path / "x", data, "jsonl", compression)
        documents, (fault,) = read(segment)
        assert len(documents) == 100
        assert fault.reason.startswith(f"corrupt {compression} stream")
        assert fault.offset == sum(len(line) + 1 for line in lines[:100])

    def test_a_wrong_checksum_is_told(self, tmp_path: Path, lines: list[bytes]) -> None:
        data = bytearray(gzip.compress(b"\n".join(lines)))
        data[-8] ^= 1
        segment = segment_of(tmp_path / "x", bytes(data), "jsonl", "gzip")
        documents, (fault,) = read(segment)
        assert fault.reason.startswith("corrupt gzip stream")
        assert len(documents) > 4900


def parquet_segment(path: Path, table: pa.Table, row_group_size: int = 100) -> Segment:
    pq.write_table(table, path, row_group_size=row_group_size)
    return Segment(str(path), path.name, "parquet", None, 0, path.stat().st_size)


def arrow_segment(path: Path, table: pa.Table, new: Any = pa.ipc.new_stream) -> Segment:
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return Segment(str(path), path.name, "arrow", None, 0, path.stat().st_size)


class TestTables:
    @pytest.mark.parametrize(
        "text_type",
        [
            pa.string(),
            pa.large_string(),
            pa.string_view(),
            pa.binary(),
            pa.large_binary(),
            pa.binary_view(),
            pa.dictionary(pa.int32(), pa.string()),
        ],
    )
    @pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
    def test_columns_of_every_text_type(self, tmp_path: Path, kind: str, text_type: Any) -> None:
        texts = [None if i % 50 == 7 else f"{i} é\0" for i in range(300)]
        column = pa.array(texts).cast(text_type)
        table = pa.table({"other": range(300), "text": column})
        segment = {
            "parquet": lambda path: parquet_segment(path, table),
            "stream": lambda path: arrow_segment(path, table),
            "file": lambda path: arrow_segment(path, table, pa.ipc.new_file),
        }[kind](tmp_path / "x")
        documents, bad = read(segment)
        assert documents == [(f"x:{i}", text) for i, text in enumerate(texts) if text is not None]
        assert faults(bad) == list(range(7, 300, 50))
        assert {record.reason for record in bad} == {"column 'text' is null"}

    @pytest.mark.parametrize("compression", ["gzip", "zstd"])
    @pytest.mark.parametrize("new", [None, pa.ipc.new_stream, pa.ipc.new_file])
    def test_compressed_tables(self, tmp_path: Path, compression: str, new: Any) -> None:
        table = pa.table({"text": ["a", "b"]})
        path = tmp_path / "x"
        plain = arrow_segment(path, table, new) if new else parquet_segment(path, table)
        path.write_bytes(PACKERS[compression](path.read_bytes()))
        (file,) = find_inputs([str(path)], ReadOptions())
        assert (file.format, file.compression) == (plain.format, compression)
        ((segment,),) = plan_shards([file], ReadOptions(), 10)
        assert read(segment) == ([("x:0", "a"), ("x:1", "b")], [])

    def test_row_group_ranges_keep_row_numbers(self, tmp_path: Path) -> None:
        whole = parquet_segment(tmp_path / "x", pa.table({"text": [str(i) for i in range(950)]}))
        expected = [(f"x:{i}", str(i)) for i in range(950)]
        assert read(whole) == (expected, [])
        parts = [replace(whole, start=start, end=end) for start, end in [(0, 3), (3, 4), (4, 10)]]
        assert read(*parts) == (expected, [])
        assert read(parts[1])[0] == expected[300:400]

    def test_ids_from_a_column(self, tmp_path: Path) -> None:
        texts = pa.array(["a", "b", None, "d"])
        for ids in (pa.array([1, None, 3, 2**40]), pa.array(["1", None, "3", str(2**40)])):
            segment = parquet_segment(tmp_path / "x", pa.table({"key": ids, "text": texts}))
            documents, bad = read(segment, id_field="key")
            assert documents == [("1", "a"), (str(2**40), "d")]
            assert [record.reason for record in bad] == [
                "column 'key' is null",
                "column 'text' is null",
            ]

    def test_one_column_can_be_both(self, tmp_path: Path) -> None:
        segment = parquet_segment(tmp_path / "x", pa.table({"text": ["a"]}))
        assert read(segment, id_field="text") == ([("a", "a")], [])

    @pytest.mark.parametrize("text_type", [pa.string(), pa.binary()])
    def test_invalid_utf8_is_bad_whatever_the_column_says(
        self, tmp_path: Path, text_type: Any
    ) -> None:
        values = pa.array([b"good", b"\xff", None, "é".encode()], pa.binary())
        offsets, data = values.buffers()[1:]
        # As broken writers leave them: a column of strings that aren't.
        column = pa.Array.from_buffers(text_type, 4, [values.buffers()[0], offsets, data])
        for write in (parquet_segment, arrow_segment):
            documents, bad = read(write(tmp_path / "x", pa.table({"text": column})))
            assert documents == [("x:0", "good"), ("x:3", "é")]
            assert faults(bad) == [1, 2]
            assert bad[0].reason.startswith("is not UTF-8")

    def test_long_values_are_bad(self, tmp_path: Path) -> None:
        segment = parquet_segment(tmp_path / "x", pa.table({"text": ["xxx", "éé", "yy"]}))
        documents, bad = read(segment, max_document_bytes=3)
        assert documents == [("x:0", "xxx"), ("x:2", "yy")]
        assert bad == [BadRecord(segment.url, 1, "is longer than 3 bytes")]

    @pytest.mark.parametrize("write", [parquet_segment, arrow_segment])
    def test_batches_have_about_a_mebibyte(self, tmp_path: Path, write: Any) -> None:
        texts = ["x" * 10_000] * 300 + ["y"] * 20_000 + ["z" * 3_000_000] * 2
        segment = write(tmp_path / "x", pa.table({"text": texts}))
        batches = [batch for batch, _ in read_segment(segment, ReadOptions())]
        assert [text for b in batches for text in b.column("text").to_pylist()] == texts
        for batch in batches:
            assert sum(map(len, batch.column("text").to_pylist()[:-1])) < BATCH_BYTES

    def test_a_missing_column_is_an_error(self, tmp_path: Path) -> None:
        segment = parquet_segment(tmp_path / "x", pa.table({"body": ["a"], "n": [1]}))
        with pytest.raises(UsageError, match="its columns are body, n"):
            read(segment)

    def test_no_rows(self, tmp_path: Path) -> None:
        table = pa.table({"text": pa.array([], pa.string())})
        assert read(parquet_segment(tmp_path / "x", table)) == ([], [])
        assert read(arrow_segment(tmp_path / "x", table)) == ([], [])

    @pytest.mark.parametrize("keep", [4, 6, 100, 0.5, 0.99])
    @pytest.mark.parametrize("write", [parquet_segment, arrow_segment])
    @pytest.mark.parametrize("compression", PACKERS)
    def test_a_truncated_file_is_one_bad_record(
        self, tmp_path: Path, write: Any, compression: str | None, keep: float
    ) -> None:
        texts = [random.Random(i).randbytes(50).hex() for i in range(1000)]
        segment = write(tmp_path / "x", pa.table({"text": texts}))
        data = Path(segment.url).read_bytes()
        data = PACKERS[compression](data[: int(keep * len(data)) if keep < 1 else int(keep)])
        damaged = segment_of(tmp_path / "x", data, segment.format, compression)
        documents, bad = read(damaged)
        assert [text for _, text in documents] == texts[: len(documents)]
        assert faults(bad) == [len(documents)]
        assert bad[0].reason.startswith("is damaged: ")

    def test_a_damaged_page_ends_the_segment(self, tmp_path: Path) -> None:
        texts = [random.Random(i).randbytes(50).hex() for i in range(1000)]
        segment = parquet_segment(tmp_path / "x", pa.table({"text": texts}))
        data = bytearray(Path(segment.url).read_bytes())
        data[len(data) // 2 : len(data) // 2 + 3000] = b"\xff" * 3000
        documents, bad = read(segment_of(tmp_path / "x", bytes(data), "parquet"))
        assert 300 <= len(documents) <= 600
        assert [text for _, text in documents] == texts[: len(documents)]
        assert faults(bad) == [len(documents)]

    def test_an_error_on_the_way_to_the_data_is_no_bad_record(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        segment = parquet_segment(tmp_path / "x", pa.table({"text": ["a"]}))

        class Unreachable(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                raise ConnectionResetError("peer is gone")

        monkeypatch.setattr(
            "corpusmill.corpus.storage.open_arrow",
            lambda url: pa.PythonFile(Unreachable(Path(url).read_bytes()), mode="r"),
        )
        with pytest.raises(ConnectionResetError):
            read(segment)

    def test_remote_tables(self) -> None:
        fs = fsspec.filesystem("memory")
        out = io.BytesIO()
        pq.write_table(pa.table({"text": ["a", "b"]}), out)
        fs.pipe_file("/t/x.parquet", out.getvalue())
        (file,) = find_inputs(["memory://t"], ReadOptions())
        ((segment,),) = plan_shards([file], ReadOptions())
        assert read(segment) == ([("x.parquet:0", "a"), ("x.parquet:1", "b")], [])

    def test_of_a_remote_stream_much_is_read_at_a_time(self) -> None:
        texts = [str(i) for i in range(1000)]
        out = io.BytesIO()
        batches = pa.table({"text": texts}).to_batches(max_chunksize=1)
        with pa.ipc.new_stream(out, batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        storage.write_bytes(f"{ROOT}/x.arrow", out.getvalue())
        segment = Segment(f"{ROOT}/x.arrow", "x.arrow", "arrow", None, 0, len(out.getvalue()))
        with counted() as requests:
            documents, bad = read(segment)
        assert ([text for _, text in documents], bad) == (texts, [])
        # Its size, what it is, and itself.
        assert [kind for kind, _, _ in requests] == ["HEAD", "GET", "GET"]


def test_saved_hugging_face_datasets_are_read_without_the_package(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    texts = [str(i) for i in range(100)]
    data = datasets.Dataset.from_dict({"text": texts}).filter(lambda row: row["text"] != "5")
    data.save_to_disk(str(tmp_path / "saved"), num_shards=3)
    inputs = find_inputs([str(tmp_path / "saved")], ReadOptions())
    shards = plan_shards(inputs, ReadOptions())
    documents, bad = read(*(segment for shard in shards for segment in shard))
    assert [text for _, text in documents] == [text for text in texts if text != "5"]
    assert not bad
    assert len({doc_id for doc_id, _ in documents}) == 99


@pytest.fixture
def wiki(shared_data: Path) -> Iterator[tuple[Path, list[str]]]:
    path = shared_data / "corpora" / "simplewiki.jsonl.gz"
    with gzip.open(path) as file:
        yield path, [json.loads(line)["text"] for line in file]


def test_a_real_corpus(wiki: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, texts = wiki
    plain = tmp_path / "wiki.jsonl"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    for source, shard_bytes in ((path, 1 << 26), (plain, 1 << 20)):
        inputs = find_inputs([str(source)], ReadOptions())
        shards = plan_shards(inputs, ReadOptions(), shard_bytes)
        documents, bad = read(*(segment for shard in shards for segment in shard), id_field="id")
        assert [text for _, text in documents] == texts
        assert not bad
        assert len(shards) == (1 if source == path else 43)


@pytest.mark.parametrize("compression", PACKERS)
@pytest.mark.parametrize("file_format", ["jsonl", "text", "file", "parquet"])
def test_how_much_has_been_read_is_told(
    tmp_path: Path, file_format: str, compression: str | None
) -> None:
    texts = [f"text {i} " * 100 for i in range(300)]
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    if file_format == "parquet":
        data = samples.parquet_bytes(text=texts)
    kind = "text" if file_format == "file" else file_format
    segment = segment_of(tmp_path / "x", PACKERS[compression](data), kind, compression)
    told: list[int] = []
    options = ReadOptions(text_unit="file" if file_format == "file" else "line")
    for _ in read_segment(segment, options, told.append):
        pass
    if file_format != "parquet":
        assert sum(told) == segment.end
    elif compression is None:
        assert 0.5 * segment.end < sum(told) < segment.end

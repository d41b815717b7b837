import builtins
import gzip
import io
import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given

from corpus.errors import UsageError
from corpus.inputs import (
    DamagedStreamError,
    InputFile,
    ReadOptions,
    Segment,
    check_columns,
    decompressed,
    find_inputs,
    plan_shards,
)

JSON_LINE = b'{"text": "a"}\n'


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def parquet_bytes(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns or {"text": ["a"]}), out)
    return out.getvalue()


def arrow_bytes(kind: Any = pa.ipc.new_stream) -> bytes:
    table = pa.table({"text": ["a"]})
    out = io.BytesIO()
    with kind(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def found(*patterns: str | Path, **options: Any) -> list[str]:
    inputs = find_inputs([str(pattern) for pattern in patterns], ReadOptions(**options))
    return [file.name for file in inputs]


def detected(path: Path, data: bytes, **options: Any) -> tuple[str, str | None]:
    path.write_bytes(data)
    (file,) = find_inputs([str(path)], ReadOptions(**options))
    assert file.size == len(data)
    return file.format, file.compression


class TestReadOptions:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("text_field", ""),
            ("id_field", ""),
            ("input_format", "csv"),
            ("text_unit", "paragraph"),
            ("max_document_bytes", 0),
            ("max_document_bytes", 2**31),
        ],
    )
    def test_names_the_bad_value_in_one_line(self, name: str, value: Any) -> None:
        with pytest.raises(UsageError) as caught:
            ReadOptions(**{name: value})
        assert str(value) in str(caught.value)
        assert "\n" not in str(caught.value)


class TestFindInputs:
    def test_order_and_repetition_of_patterns_make_no_difference(self, tmp_path: Path) -> None:
        write(tmp_path, a__x=b"x", b__y=b"y", c=b"z")
        patterns = [tmp_path / "b", f"{tmp_path}/*", tmp_path / "a" / "x", tmp_path / "c"]
        expected = ["a/x", "b/y", "c"]
        assert found(*patterns) == expected
        assert found(*reversed(patterns), *patterns) == expected

    def test_names_are_below_the_common_folder(self, tmp_path: Path) -> None:
        write(tmp_path, d__a__x=b"x", d__ab__x=b"x", d__b=b"y")
        assert found(tmp_path) == ["a/x", "ab/x", "b"]
        assert found(tmp_path / "d" / "a", tmp_path / "d" / "ab") == ["a/x", "ab/x"]
        assert found(tmp_path / "d" / "a" / "x") == ["x"]

    def test_urls_are_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, x=b"x")
        monkeypatch.chdir(tmp_path)
        (file,) = find_inputs(["x"], ReadOptions())
        assert file == InputFile(str(tmp_path / "x"), "x", "text", None, 1)
        assert find_inputs([f"file://{tmp_path}/x", "./x", "*"], ReadOptions()) == [file]

    def test_folders_and_globs_leave_out_hidden_names(self, tmp_path: Path) -> None:
        write(
            tmp_path, a=b"x", _SUCCESS=b"", **{".a.crc": b"x", "_tmp__a": b"x", "s__.git__a": b""}
        )
        assert found(tmp_path) == found(f"{tmp_path}/*") == found(f"{tmp_path}/**") == ["a"]
        assert found(tmp_path / "_tmp") == ["a"]
        assert found(f"{tmp_path}/_*") == ["_SUCCESS", "_tmp/a"]
        assert found(f"{tmp_path}/.a.*") == [".a.crc"]

    def test_a_name_with_brackets_is_found_as_it_is(self, tmp_path: Path) -> None:
        write(tmp_path, **{"a[1].txt": b"x", "a1.txt": b"y"})
        assert found(tmp_path / "a[1].txt") == ["a[1].txt"]
        assert found(tmp_path / "a[12].txt") == ["a1.txt"]

    @pytest.mark.parametrize("name", ["none", "none*", "empty"])
    def test_a_pattern_without_files_is_named(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "empty").mkdir()
        write(tmp_path, some=b"x")
        with pytest.raises(UsageError, match="matches no file") as caught:
            found(tmp_path / "some", tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)

    def test_no_pattern_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="no input"):
            find_inputs([], ReadOptions())

    def test_an_unknown_protocol_is_an_error(self) -> None:
        with pytest.raises(UsageError, match="nowhere://x"):
            found("nowhere://x")

    def test_an_unreadable_file_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, x=b"x")

        def refuse(url: str) -> None:
            raise PermissionError(13, "Permission denied", url)

        monkeypatch.setattr("corpus.storage.open_input", refuse)
        with pytest.raises(UsageError, match=r"cannot read input .*/x.*Permission denied"):
            found(tmp_path)

    def test_an_unreadable_folder_is_not_left_out(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, a=b"x", closed__b=b"x")
        real_scandir = os.scandir

        def scandir(path: str) -> Any:
            if path == str(tmp_path / "closed"):
                raise PermissionError(13, "Permission denied", path)
            return real_scandir(path)

        monkeypatch.setattr(os, "scandir", scandir)
        with pytest.raises(UsageError, match=r"Permission denied: .*/closed"):
            found(tmp_path)

    def test_linked_folders_are_read_and_broken_links_told(self, tmp_path: Path) -> None:
        write(tmp_path, d__x=b"x", other__y=b"y")
        (tmp_path / "d" / "link").symlink_to(tmp_path / "other")
        assert found(tmp_path / "d") == ["link/y", "x"]
        (tmp_path / "d" / "gone").symlink_to(tmp_path / "none")
        with pytest.raises(UsageError, match="No such file"):
            found(tmp_path / "d")

    def test_other_filesystems(self, memory: Any) -> None:
        memory.pipe({"/corpus/a/x.jsonl": JSON_LINE, "/corpus/b.txt": b"text", "/corpus/_b": b""})
        expected = [
            InputFile("memory:///corpus/a/x.jsonl", "a/x.jsonl", "jsonl", None, len(JSON_LINE)),
            InputFile("memory:///corpus/b.txt", "b.txt", "text", None, 4),
        ]
        assert find_inputs(["memory://corpus"], ReadOptions()) == expected
        assert find_inputs(["memory://corpus/*"], ReadOptions()) == expected
        urls = [file.url for file in expected]
        assert find_inputs(urls, ReadOptions()) == expected


class TestDetection:
    @pytest.mark.parametrize("pack", [None, gzip.compress, zstd])
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (JSON_LINE, "jsonl"),
            (b"\xef\xbb\xbf\r\n  \n" + JSON_LINE.replace(b"\n", b"\r\n"), "jsonl"),
            (b'{"text": "' + b"long " * 50_000 + b'"}\n', "jsonl"),
            (b"plain\n" + JSON_LINE, "text"),
            (b"[1, 2]\n", "text"),
            (b"{not json\n", "text"),
            (b"\xff\xfe\x00", "text"),
            (parquet_bytes(), "parquet"),
            (arrow_bytes(), "arrow"),
            (arrow_bytes(pa.ipc.new_file), "arrow"),
        ],
    )
    def test_content_decides(
        self, tmp_path: Path, content: bytes, expected: str, pack: Any
    ) -> None:
        compression = {None: None, gzip.compress: "gzip", zstd: "zstd"}[pack]
        data = pack(content) if pack else content
        assert detected(tmp_path / "x.bin", data) == (expected, compression)

    @pytest.mark.parametrize("name", ["x.jsonl", "X.JSON", "x.ndjson.gz", "x.json.zst"])
    def test_a_json_name_decides_where_the_first_line_is_bad(
        self, tmp_path: Path, name: str
    ) -> None:
        data = b"not json\n" + JSON_LINE
        assert detected(tmp_path / name, data) == ("jsonl", None)
        assert detected(tmp_path / name, gzip.compress(data)) == ("jsonl", "gzip")

    def test_damaged_compressed_heads_still_have_a_format(self, tmp_path: Path) -> None:
        assert detected(tmp_path / "x.jsonl.gz", b"\x1f\x8bnonsense") == ("jsonl", "gzip")
        assert detected(tmp_path / "x.zst", zstd(JSON_LINE)[:7]) == ("text", "zstd")

    def test_skippable_zstd_frames(self, tmp_path: Path) -> None:
        frame = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
        assert detected(tmp_path / "x", frame + zstd(JSON_LINE)) == ("jsonl", "zstd")

    def test_empty_files_are_allowed(self, tmp_path: Path) -> None:
        assert detected(tmp_path / "x.jsonl", b"") == ("jsonl", None)
        assert detected(tmp_path / "x", b"", input_format="parquet") == ("parquet", None)

    @pytest.mark.parametrize(
        ("wanted", "content"),
        [
            ("jsonl", parquet_bytes()),
            ("text", gzip.compress(parquet_bytes())),
            ("jsonl", arrow_bytes()),
            ("parquet", arrow_bytes()),
            ("parquet", JSON_LINE),
            ("arrow", JSON_LINE),
        ],
    )
    def test_a_format_against_the_content_is_refused(
        self, tmp_path: Path, wanted: str, content: bytes
    ) -> None:
        with pytest.raises(UsageError, match=f"--input-format is {wanted}"):
            detected(tmp_path / "x", content, input_format=wanted)

    def test_a_format_may_be_set_where_content_allows_it(self, tmp_path: Path) -> None:
        assert detected(tmp_path / "x", JSON_LINE, input_format="text") == ("text", None)
        assert detected(tmp_path / "x", b"no\n", input_format="jsonl") == ("jsonl", None)

    @pytest.mark.parametrize(
        "content", [b"BZh91AY&SY..", b"\xfd7zXZ\x00..", b"PK\x03\x04..", b"\x04\x22\x4d\x18.."]
    )
    def test_other_compressions_are_refused(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(UsageError, match="accepted are plain, gzip and zstd"):
            detected(tmp_path / "x", content)


class TestSavedDatasets:
    def test_its_arrow_files_are_the_input(self, tmp_path: Path) -> None:
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict({"text": ["a", "b", "c"]})
        data.save_to_disk(str(tmp_path / "saved"), num_shards=2)
        inputs = find_inputs([str(tmp_path / "saved")], ReadOptions())
        assert [(file.name, file.format) for file in inputs] == [
            ("data-00000-of-00002.arrow", "arrow"),
            ("data-00001-of-00002.arrow", "arrow"),
        ]

    def test_several_splits_have_to_be_chosen_from(self, tmp_path: Path) -> None:
        write(tmp_path, **{"dataset_dict.json": b'{"splits": ["train", "test"]}'})
        with pytest.raises(UsageError, match=f"{tmp_path}/train, {tmp_path}/test"):
            found(tmp_path)

    @pytest.mark.parametrize(
        ("state", "message"),
        [
            (b"{", "damaged"),
            (b'{"_data_files": null}', "damaged"),
            (b'{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow"),
            (b'{"_data_files": [], "_indices_data_files": [{}]}', "save it again"),
        ],
    )
    def test_what_is_wrong_with_one_is_named(
        self, tmp_path: Path, state: bytes, message: str
    ) -> None:
        write(tmp_path, **{"state.json": state, "dataset_info.json": b"{}"})
        with pytest.raises(UsageError, match=message):
            found(tmp_path)


class TestHuggingFaceDatasets:
    """`datasets` takes the path of a folder as a name, so no network is needed."""

    @pytest.fixture
    def source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        write(tmp_path, **{"src__train.jsonl": JSON_LINE * 3, "src__test.jsonl": JSON_LINE})
        return tmp_path / "src"

    def test_a_split_becomes_parquet_files(self, source: Path) -> None:
        for _ in range(2):  # The second time from the cache.
            (file,) = find_inputs([f"hf:{source}::train"], ReadOptions())
            assert (file.name, file.format) == ("src-train.parquet", "parquet")
            assert pq.read_table(file.url).column("text").to_pylist() == ["a"] * 3

    def test_the_only_split_needs_no_name(self, source: Path) -> None:
        (source / "test.jsonl").unlink()
        assert found(f"hf:{source}") == found(f"hf:{source}:default") == ["src-train.parquet"]

    def test_splits_to_choose_from_are_named(self, source: Path) -> None:
        with pytest.raises(UsageError, match=f"2 splits; name one of hf:{source}::test"):
            found(f"hf:{source}")
        with pytest.raises(UsageError, match="no split 'dev'"):
            found(f"hf:{source}:default:dev")

    def test_what_is_not_found_is_named_in_one_line(self, source: Path) -> None:
        for name in (f"hf:{source}/gone", f"hf:{source}:other", "hf:", "hf:a:b:c:d"):
            with pytest.raises(UsageError) as caught:
                found(name)
            assert repr(name) in str(caught.value)
            assert "\n" not in str(caught.value)

    def test_the_remedy_is_named_where_the_package_is_missing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real_import = builtins.__import__

        def refuse(name: str, *rest: Any) -> Any:
            if name == "datasets":
                raise ImportError(name)
            return real_import(name, *rest)

        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(UsageError, match="pip install datasets"):
            found("hf:some/name")


class TestCheckColumns:
    @pytest.mark.parametrize("pack", [None, gzip.compress, zstd])
    def test_a_missing_column_is_named_with_those_there_are(
        self, tmp_path: Path, pack: Any
    ) -> None:
        data = parquet_bytes(body=["a"], number=[1])
        write(tmp_path, x=pack(data) if pack else data)
        inputs = find_inputs([str(tmp_path)], ReadOptions())
        with pytest.raises(UsageError, match=r"'text'.*its columns are body, number"):
            check_columns(inputs, ReadOptions())
        with pytest.raises(UsageError, match="id field 'key' is not a column"):
            check_columns(inputs, ReadOptions(text_field="body", id_field="key"))
        with pytest.raises(UsageError, match=r"'number' .* is of type int64"):
            check_columns(inputs, ReadOptions(text_field="number"))
        check_columns(inputs, ReadOptions(text_field="body", id_field="number"))

    def test_arrow_files_are_checked_too(self, tmp_path: Path) -> None:
        write(tmp_path, x=arrow_bytes(), y=arrow_bytes(pa.ipc.new_file))
        inputs = find_inputs([str(tmp_path)], ReadOptions())
        check_columns(inputs, ReadOptions())
        with pytest.raises(UsageError, match="'body'"):
            check_columns(inputs, ReadOptions(text_field="body"))

    def test_damaged_and_empty_files_pass(self, tmp_path: Path) -> None:
        write(tmp_path, a=b"PAR1 and no more", b=gzip.compress(parquet_bytes())[:-20], c=b"")
        inputs = find_inputs([f"{tmp_path}/[ab]"], ReadOptions())
        assert [file.format for file in inputs] == ["parquet", "parquet"]
        check_columns(inputs, ReadOptions())
        check_columns(
            find_inputs([f"{tmp_path}/c"], ReadOptions(input_format="parquet")), ReadOptions()
        )


def text_file(name: str, size: int, compression: str | None = None) -> InputFile:
    return InputFile(f"/in/{name}", name, "jsonl", compression, size)


def ranges(shards: Sequence[Sequence[Segment]]) -> list[list[tuple[str, int, int]]]:
    return [[(part.name, part.start, part.end) for part in shard] for shard in shards]


class TestPlanShards:
    @given(
        st.lists(st.integers(0, 5_000_000), max_size=30),
        st.integers(1_000_000, 2_000_000),
        st.randoms(use_true_random=False),
    )
    def test_every_byte_is_in_one_segment(
        self, sizes: list[int], shard_bytes: int, shuffler: random.Random
    ) -> None:
        files = [text_file(f"{i:03}", size) for i, size in enumerate(sizes)]
        shards = plan_shards(files, ReadOptions(), shard_bytes)
        segments = [segment for shard in shards for segment in shard]
        covered = {file.name: 0 for file in files}
        for segment in segments:
            assert segment.start == covered[segment.name] < segment.end
            covered[segment.name] = segment.end
        assert covered == {file.name: file.size for file in files}
        assert [segment.name for segment in segments] == sorted(s.name for s in segments)
        assert all(sum(s.end - s.start for s in shard) <= shard_bytes for shard in shards)
        shuffler.shuffle(files)
        assert plan_shards(files, ReadOptions(), shard_bytes) == shards

    def test_neighbours_share_a_shard_as_long_as_there_is_room(self) -> None:
        files = [text_file("a", 30), text_file("b", 2_000_000), text_file("c", 40)]
        assert ranges(plan_shards(files, ReadOptions(), 1_200_000)) == [
            [("a", 0, 30), ("b", 0, 1_000_000)],
            [("b", 1_000_000, 2_000_000), ("c", 0, 40)],
        ]

    def test_many_tiny_files_make_few_shards_of_not_too_many_files(self) -> None:
        files = [text_file(f"{i:06}", 10) for i in range(20_000)]
        sizes = [len(shard) for shard in plan_shards(files, ReadOptions())]
        assert len(sizes) == 20
        assert max(sizes) <= 1024

    def test_what_cannot_be_cut_stays_whole(self) -> None:
        files = [
            text_file("a", 50_000_000, "gzip"),
            InputFile("/in/b", "b", "arrow", None, 50_000_000),
            InputFile("/in/c", "c", "text", None, 50_000_000),
        ]
        whole = [[(file.name, 0, file.size)] for file in files]
        assert ranges(plan_shards(files, ReadOptions(text_unit="file"), 1_000_000)) == whole
        assert len(plan_shards(files, ReadOptions(), 1_000_000)) == 52

    def test_parquet_is_cut_at_row_groups(self, tmp_path: Path) -> None:
        rng = random.Random(1)
        texts = [rng.randbytes(500).hex() for _ in range(1000)]
        pq.write_table(pa.table({"text": texts}), tmp_path / "x", row_group_size=100)
        (file,) = find_inputs([str(tmp_path)], ReadOptions())
        shards = plan_shards([file], ReadOptions(), file.size // 4)
        assert len(shards) == 5
        assert ranges(shards)[0] == [("x", 0, 2)]
        assert ranges(shards)[-1] == [("x", 8, 10)]
        assert ranges(plan_shards([file], ReadOptions())) == [[("x", 0, file.size)]]

    def test_damaged_parquet_stays_whole(self, tmp_path: Path) -> None:
        write(tmp_path, x=b"PAR1" + os.urandom(1000))
        (file,) = find_inputs([str(tmp_path)], ReadOptions())
        assert ranges(plan_shards([file], ReadOptions(), 100)) == [[("x", 0, 1004)]]

    def test_empty_input_has_no_shards(self) -> None:
        assert plan_shards([text_file("a", 0)], ReadOptions()) == []
        assert plan_shards([], ReadOptions()) == []


class TestDecompressed:
    @pytest.mark.parametrize("compression", ["gzip", "zstd"])
    def test_members_and_padding(self, compression: str) -> None:
        pack = {"gzip": gzip.compress, "zstd": zstd}[compression]
        data = b"".join(pack(bytes([65 + i]) * 100_000) for i in range(5))
        data += pack(b"") + pack(b"end") + b"\0" * 100_000
        expected = b"".join(bytes([65 + i]) * 100_000 for i in range(5)) + b"end"
        assert b"".join(decompressed(io.BytesIO(data), compression)) == expected

    @pytest.mark.parametrize("compression", ["gzip", "zstd"])
    def test_damage_comes_after_what_is_good(self, compression: str) -> None:
        good = random.Random(1).randbytes(300_000).hex().encode()
        packed = {"gzip": gzip.compress, "zstd": zstd}[compression](good)
        for data in (packed[: len(packed) // 2], packed + b"garbage"):
            parts: list[bytes] = []
            blocks = decompressed(io.BytesIO(data), compression)
            with pytest.raises(DamagedStreamError, match=compression):
                parts.extend(blocks)
            content = b"".join(parts)
            assert good.startswith(content)
            assert len(content) > len(good) // 2 - 200_000

    def test_a_bomb_is_given_out_in_parts(self) -> None:
        packed = zstd(b"\0" * 300_000_000)
        largest = max(len(block) for block in decompressed(io.BytesIO(packed), "zstd"))
        assert largest <= 1 << 28

    def test_long_windows(self) -> None:
        parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        packed = packer.compress(b"text" * 1000) + packer.flush()
        assert b"".join(decompressed(io.BytesIO(packed), "zstd")) == b"text" * 1000


def test_state_files_are_json_as_datasets_writes_them(tmp_path: Path) -> None:
    """What `TestSavedDatasets` makes by hand looks like the real thing."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "s"))
    state = json.loads((tmp_path / "s" / "state.json").read_bytes())
    assert [set(file) for file in state["_data_files"]] == [{"filename"}]
    splits = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a"]}))
    splits.save_to_disk(str(tmp_path / "d"))
    assert json.loads((tmp_path / "d" / "dataset_dict.json").read_bytes()) == {"splits": ["train"]}

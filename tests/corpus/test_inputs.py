import gzip
import os
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.inputs import (
    InputFile,
    ReadOptions,
    Segment,
    check_columns,
    find_inputs,
    plan_shards,
)
from tests.corpus.samples import JSON_LINE, arrow_bytes, found, parquet_bytes, write, zstd


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


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

    @pytest.mark.parametrize(
        "pattern",
        [
            "*",
            "**",
            "*/",
            "a*/x",
            "*/*",
            "**/x",
            "a/**",
            "**/a/**",
            "?/**/[xy]",
            "a/b/*",
            "[!a]/a/*",
        ],
    )
    def test_patterns_mean_the_same_as_elsewhere(self, tmp_path: Path, pattern: str) -> None:
        """Only that what can't be read is an error here."""
        write(tmp_path, top=b"1", a__x=b"1", a__b__x=b"1", a__b__y=b"1", b__a__x=b"1", ab__x=b"1")
        memory = fsspec.filesystem("memory")
        for file in tmp_path.rglob("*"):
            if file.is_file():
                memory.pipe(f"/patterns/{file.relative_to(tmp_path)}", b"1")
        there = [file.url for file in find_inputs([f"memory://patterns/{pattern}"], ReadOptions())]
        here = [file.url for file in find_inputs([f"{tmp_path}/{pattern}"], ReadOptions())]
        names = [url.removeprefix("memory://").removeprefix("/patterns/") for url in there]
        assert [url.removeprefix(f"{tmp_path}/") for url in here] == names
        assert names

    @pytest.mark.parametrize("pattern", ["*/x*", "**/x", "*"])
    def test_what_a_pattern_cannot_look_into_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
    ) -> None:
        write(tmp_path, a__x=b"1", b__x=b"1")
        for name in ("listdir", "scandir"):
            monkeypatch.setattr(os, name, partial(self._refuse, getattr(os, name)))
        with pytest.raises(UsageError, match=r"Permission denied: '.*/b'"):
            found(f"{tmp_path}/{pattern}")

    @staticmethod
    def _refuse(look: Any, folder: Any) -> Any:
        if os.fspath(folder).endswith("/b"):
            raise PermissionError(13, "Permission denied", folder)
        return look(folder)

    def test_a_file_that_links_lead_to_is_read_once(self, tmp_path: Path) -> None:
        write(tmp_path, a__x=b"1", b__y=b"1")
        (tmp_path / "latest").symlink_to("b")
        (tmp_path / "a" / "z").symlink_to("x")
        for pattern in (tmp_path, f"{tmp_path}/*/*", f"{tmp_path}/**"):
            assert found(pattern) == ["a/x", "b/y"]
        assert found(tmp_path / "latest") == ["y"]

    def test_a_link_to_nowhere_is_an_error(self, tmp_path: Path) -> None:
        write(tmp_path, a=b"1")
        (tmp_path / "b").symlink_to("c")
        for pattern in (tmp_path, f"{tmp_path}/*", f"{tmp_path}/b*"):
            with pytest.raises(UsageError, match=r"No such file or directory: '.*/b'"):
                found(pattern)

    def test_a_name_that_is_not_unicode_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_text("{}")
        with pytest.raises(UsageError, match=r"the name of input .*caf\\xe9.*is not UTF-8"):
            found(tmp_path)

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

        monkeypatch.setattr("corpusmill.corpus.storage.open_input", refuse)
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

    def test_a_name_of_two_columns_is_refused(self, tmp_path: Path) -> None:
        columns = [pa.array(["a"]), pa.array(["b"])]
        pq.write_table(pa.Table.from_arrays(columns, ["text", "text"]), tmp_path / "x")
        inputs = find_inputs([str(tmp_path)], ReadOptions())
        with pytest.raises(UsageError, match="'text' is the name of several columns"):
            check_columns(inputs, ReadOptions())

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

import builtins
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.inputs import ReadOptions, find_inputs
from tests.corpus.samples import JSON_LINE, found, write


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

    @pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"splits": null}', b"[" * 100_000])
    def test_splits_that_are_damaged_are_named(self, tmp_path: Path, content: bytes) -> None:
        write(tmp_path, **{"dataset_dict.json": content})
        with pytest.raises(UsageError, match=r"dataset_dict\.json is damaged"):
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
        with pytest.raises(UsageError, match=r"pip install 'corpusmill\[hf\]'"):
            found("hf:some/name")


def test_state_files_are_json_as_datasets_writes_them(tmp_path: Path) -> None:
    """What `TestSavedDatasets` makes by hand looks like the real thing."""
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "s"))
    state = json.loads((tmp_path / "s" / "state.json").read_bytes())
    assert [set(file) for file in state["_data_files"]] == [{"filename"}]
    splits = datasets.DatasetDict(train=datasets.Dataset.from_dict({"text": ["a"]}))
    splits.save_to_disk(str(tmp_path / "d"))
    assert json.loads((tmp_path / "d" / "dataset_dict.json").read_bytes()) == {"splits": ["train"]}

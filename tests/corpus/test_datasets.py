import dataclasses
import errno
import json
import os

import pytest

from corpusmill.corpus import datasets, storage
from corpusmill.corpus.datasets import Completion, DatasetWriter, damaged_files, read_manifest
from corpusmill.corpus.errors import CorpusmillError, DataError, DatasetError, UsageError
from tests.corpus.counted import ROOT, counted

TOKENIZER = {"vocabulary_size": 257, "end_of_document": 256}


def write_file(writer, name, data, rows=1, tokens=1):
    with writer.new_file(name) as file:
        with open(file.path, "wb") as out:
            out.write(data)
        file.rows, file.tokens = rows, tokens
    return file.written


def finish(writer, parts):
    completions = writer.completed(parts)
    return writer.finish(completions, inputs={}, tokenizer=TOKENIZER, properties={"max_order": 1})


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return str(tmp_path / "set") if request.param == "local" else f"memory:/{tmp_path}/set"


@pytest.fixture
def dataset(folder):
    writer = DatasetWriter(folder, "counts", {"max_order": 1})
    assert writer.begin()
    for part in ("b", "a"):
        record = write_file(writer, f"{part}.parquet", part.encode() * 100, rows=2, tokens=3)
        writer.complete(part, Completion((record,), {"ngrams": 5, "seconds": 0.5}))
    finish(writer, ["a", "b"])
    return folder


def test_a_finished_dataset_is_described_by_its_manifest(dataset):
    manifest = read_manifest(dataset, "counts")
    assert [(f.name, f.rows, f.tokens, f.bytes) for f in manifest.files] == [
        ("a.parquet", 2, 3, 100),
        ("b.parquet", 2, 3, 100),
    ]
    assert manifest.counters == {"ngrams": 10, "seconds": 1.0}
    assert not any(damage for _, damage in damaged_files(dataset, manifest))
    assert storage.list_names(dataset) == ["a.parquet", "b.parquet", "manifest.json"]


def test_the_content_hash_is_of_the_data_alone(tmp_path):
    hashes = []
    for place, seconds in (("one", 1.0), ("two", 2.0)):
        writer = DatasetWriter(str(tmp_path / place), "counts", {"max_order": 1})
        writer.begin()
        record = write_file(writer, "a.parquet", b"same")
        writer.complete("a", Completion((record,), {"seconds": seconds}))
        hashes.append(finish(writer, ["a"]).content_hash)
    assert hashes[0] == hashes[1]


def test_without_a_manifest_there_is_no_dataset(folder):
    writer = DatasetWriter(folder, "counts", {})
    writer.begin()
    with pytest.raises(DatasetError, match="its job has not finished"):
        read_manifest(folder)
    with pytest.raises(DatasetError, match="is the path right"):
        read_manifest(folder + "-other")


def test_an_incomplete_part_stops_the_manifest(folder):
    writer = DatasetWriter(folder, "counts", {})
    writer.begin()
    with pytest.raises(DataError, match=r"part a of .* is not complete"):
        finish(writer, ["a"])
    assert not storage.exists(storage.join(folder, "manifest.json"))


def test_a_complete_dataset_is_not_begun_again(dataset):
    assert not DatasetWriter(dataset, "counts", {"max_order": 1}).begin()


@pytest.mark.parametrize("finished", [True, False])
def test_other_options_are_refused_with_the_difference(folder, finished):
    writer = DatasetWriter(folder, "counts", {"max_order": 1, "same": 0})
    writer.begin()
    if finished:
        finish(writer, [])
    with pytest.raises(UsageError, match=r"\(max_order: 1 there, 2 now\)"):
        DatasetWriter(folder, "counts", {"max_order": 2, "same": 0}).begin()
    with pytest.raises(UsageError, match="holds a counts dataset, not tokens"):
        DatasetWriter(folder, "tokens", {"max_order": 1, "same": 0}).begin()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("format_version", r"format_version: 2 there, 3 now"),
        ("corpusmill_version", r'corpusmill_version: "0\.1\.0" there, "0\.2\.0" now'),
    ],
)
def test_what_another_version_has_begun_is_refused(folder, version, said, monkeypatch):
    writer = DatasetWriter(folder, "counts", {"max_order": 1})
    monkeypatch.setattr(datasets, "__version__", "0.1.0")
    assert writer.begin()
    assert writer.begin()
    if version == "format_version":
        monkeypatch.setitem(datasets._FORMAT_VERSIONS, "counts", 3)
    else:
        monkeypatch.setattr(datasets, "__version__", "0.2.0")
    with pytest.raises(UsageError, match=rf"another version of corpusmill \({said}\); finish it"):
        writer.begin()
    # Other options of the other version aren't what has to be said.
    with pytest.raises(UsageError, match="another version"):
        dataclasses.replace(writer, config={}).begin()


def test_a_folder_with_something_else_is_refused(folder):
    storage.write_bytes(storage.join(folder, "thesis.tex"), b"!")
    with pytest.raises(UsageError, match=r"holds something else \(thesis.tex"):
        DatasetWriter(folder, "counts", {}).begin()


def test_a_begun_dataset_goes_on_with_its_completed_parts(folder):
    writer = DatasetWriter(folder, "counts", {"max_order": 1})
    writer.begin()
    record = write_file(writer, "a.parquet", b"data")
    writer.complete("a", Completion((record,), {"ngrams": 5}))
    again = DatasetWriter(folder, "counts", {"max_order": 1})
    assert again.begin()
    assert again.completion("a") == Completion((record,), {"ngrams": 5})
    assert again.completion("b") is None
    assert again.completed_parts("") == ["a"]


def test_each_completion_record_is_read_once():
    writer = DatasetWriter(f"{ROOT}/counts", "counts", {})
    writer.begin()
    parts = [str(number) for number in range(50)]
    for part in parts:
        record = write_file(writer, f"{part}.parquet", part.encode())
        writer.complete(part, Completion((record,), {"number": int(part)}))
    with counted() as requests:
        completions = writer.completed(parts)
        assert writer.completion("missing") is None
    assert [completion.counters["number"] for completion in completions] == list(range(50))
    assert sorted(path.rsplit("/")[-1] for _, path, _ in requests) == sorted(
        f"{part}.json" for part in [*parts, "missing"]
    )
    with counted() as requests:
        writer.finish(completions, inputs={}, tokenizer=TOKENIZER, properties={})
    assert not [path for kind, path, _ in requests if kind == "GET"]


def test_damage_is_found_and_named(dataset):
    manifest = read_manifest(dataset)
    storage.write_bytes(storage.join(dataset, "a.parquet"), b"c" * 100)
    storage.write_bytes(storage.join(dataset, "b.parquet"), b"b" * 99)
    assert [(r.name, d) for r, d in damaged_files(dataset, manifest)] == [
        ("a.parquet", "has other bytes than were written (sha256 differs)"),
        ("b.parquet", "has 99 bytes, not 100"),
    ]
    storage.remove_tree(storage.join(dataset, "a.parquet"))
    assert next(damaged_files(dataset, manifest))[1] == "is missing"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m | {"format_version": 3}, "format version 3; this corpusmill reads 2"),
        (lambda m: m | {"tokenizer": {}}, "damaged: its content hash does not fit"),
        (lambda m: {k: v for k, v in m.items() if k != "files"}, "is damaged"),
        (lambda m: [], "is damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(dataset, edit, message):
    url = storage.join(dataset, "manifest.json")
    storage.write_bytes(url, json.dumps(edit(json.loads(storage.read_bytes(url)))).encode())
    with pytest.raises(CorpusmillError, match=message):
        read_manifest(dataset)


def test_a_file_outside_its_dataset_is_refused(dataset):
    """As what copies files by their names would write elsewhere."""
    url = storage.join(dataset, "manifest.json")
    manifest = read_manifest(dataset)
    files = [dataclasses.replace(manifest.files[0], name="tokenizer/../../a"), *manifest.files[1:]]
    storage.write_bytes(url, dataclasses.replace(manifest, files=files).to_json().encode())
    with pytest.raises(CorpusmillError, match="is no name of a file below it"):
        read_manifest(dataset)


def test_a_failed_file_does_not_appear(folder):
    writer = DatasetWriter(folder, "counts", {})
    writer.begin()
    paths = []

    def fail():
        with writer.new_file("a") as file, open(file.path, "wb") as out:
            paths.append(file.path)
            out.write(b"half")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert storage.list_names(folder) == ["_incomplete"]
    assert not os.path.exists(paths[0])


def test_an_unwritten_file_does_not_appear(folder):
    writer = DatasetWriter(folder, "counts", {})
    writer.begin()
    with writer.new_file("a") as file:
        pass
    assert file.record is None
    assert storage.list_names(folder) == ["_incomplete"]
    with pytest.raises(DataError, match="nothing was written to a"):
        _ = file.written


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "no space left on device"), (errno.EDQUOT, "disk quota exceeded")],
)
def test_a_full_disk_says_what_to_do(folder, number, message):
    def fail():
        with storage.publish(storage.join(folder, "a")):
            raise OSError(number, "full")

    with pytest.raises(CorpusmillError, match=f"{message} while writing"):
        fail()


def test_a_tokenizer_is_taken_over(dataset, tmp_path):
    source = DatasetWriter(str(tmp_path / "source"), "tokens", {})
    source.begin()
    name = f"{datasets.TOKENIZER_FOLDER}/t.json"
    source.complete("t", Completion((write_file(source, name, b"{}"),), {}))
    manifest = finish(source, ["t"])
    target = DatasetWriter(str(tmp_path / "target"), "counts", {})
    target.begin()
    target.copy_tokenizer(source.folder, manifest)
    assert storage.read_bytes(target.url(name)) == b"{}"
    (completion,) = target.completed([datasets.TOKENIZER_FOLDER])
    assert completion.files == manifest.files


def test_joining_paths_and_urls():
    assert storage.join("/", "a") == "/a"
    assert storage.join("/a/", "b", "c") == "/a/b/c"
    assert storage.join("gs://bucket/a", "b") == "gs://bucket/a/b"
    with pytest.raises(UsageError, match="cannot open 'nonsense://x'"):
        storage.filesystem("nonsense://x")


def test_a_job_record_that_was_not_on_disk_is_none(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data"), "tokens", {"a": 1})
    for damaged in (b"", b"\0" * 40, b"[1]", b"{"):
        assert writer.begin()
        (tmp_path / "data" / "_incomplete" / "job.json").write_bytes(damaged)
    (tmp_path / "data" / "_incomplete" / "rest").write_bytes(b"of the job")
    assert DatasetWriter(str(tmp_path / "data"), "tokens", {"a": 2}).begin()
    assert not (tmp_path / "data" / "_incomplete" / "rest").exists()


def test_a_damaged_job_record_beside_finished_parts_says_what_to_do(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data"), "tokens", {"a": 1})
    writer.begin()
    writer.complete("part", Completion((), {}))
    (tmp_path / "data" / "_incomplete" / "job.json").write_bytes(b"")
    with pytest.raises(UsageError, match=r"job.json is damaged.*remove .*_incomplete to begin"):
        writer.begin()


def test_a_part_with_a_damaged_record_is_made_again(tmp_path):
    writer = DatasetWriter(str(tmp_path / "data"), "tokens", {})
    writer.begin()
    writer.complete("part", Completion((), {"n": 1}))
    assert writer.completion("part") == Completion((), {"n": 1})
    for damaged in (b"", b"{}", b"[]", b'{"files": [{}], "counters": {}}', b'{"files": 3}'):
        (tmp_path / "data" / "_incomplete" / "done" / "part.json").write_bytes(damaged)
        assert writer.completion("part") is None

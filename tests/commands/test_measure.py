"""measure on the command line: all kinds of datasets against hand-made numbers, bad usage."""

import json
import math
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.compress import Codebook
from corpusmill.compress.codecs import open_codec
from corpusmill.compress.datasets import samples
from corpusmill.compress.datasets.measures import measure
from corpusmill.corpus import tokens
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.tokens import tokens_schema
from tests.codebooks import ENGLISH, HARD_TEXTS, small_book
from tests.pipelines.samples import command, tokenize, write_jsonl
from tests.pipelines.test_bad_input import error_of
from tests.report.test_report import report, rows_of

PART = "part-00000-of-00001.parquet"
TEXTS = [*HARD_TEXTS, *(f"{number} {ENGLISH * 20}" for number in range(30))]
TEXT_BYTES = sum(len(text.encode()) for text in TEXTS)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The same text as ids of a codebook, of bytes, of gzip, and as a tokens dataset of bytes."""
    folder = tmp_path_factory.mktemp("datasets")
    source, book = write_jsonl(folder / "in.jsonl", TEXTS), folder / "small.codebook"
    small_book().write(str(book))
    options = {"codebook": ("--codebook", book)}
    options |= {codec: ("--codec", codec) for codec in ("bytes", "gzip")}
    for name, codec in options.items():
        assert command("compress", "--input", source, *codec, "--output", folder / name) == 0
    assert tokenize(source, folder / "tokens") == 0
    return folder


@pytest.fixture(scope="module")
def measured(datasets):
    """Name -> what measure writes of it."""
    names = ("codebook", "bytes", "gzip", "tokens")
    output = datasets / "measures.json"
    folders = [datasets / name for name in names]
    assert command("measure", *folders, "--output", output) == 0
    found = json.loads(output.read_text())["measures"]
    assert [each["dataset"] for each in found] == list(map(str, folders))
    return dict(zip(names, found, strict=True))


def all_ids(folder):
    return [each for row in pq.read_table(folder / PART)["tokens"].to_pylist() for each in row]


@pytest.mark.parametrize("name", ["codebook", "bytes", "gzip"])
def test_compression_is_counted(name, datasets, measured):
    found, ids = measured[name], all_ids(datasets / name)
    bits = 12 if name == "codebook" else 8
    assert (found["documents"], found["ids"]) == (len(TEXTS), len(ids))
    assert (found["text_bytes"], found["vocabulary_size"]) == (TEXT_BYTES, 1 << bits)
    assert found["bytes_per_id"] == round(TEXT_BYTES / len(ids), 6)
    assert found["bit_compression"] == round(8 * TEXT_BYTES / bits / len(ids), 6)
    assert found["uniform_bits_per_byte"] == round(len(ids) * bits / TEXT_BYTES, 6)
    counts = Counter(ids).values()
    plugin = -sum(n / len(ids) * math.log2(n / len(ids)) for n in counts)
    known = found["unigram_bits_per_byte"] / len(ids) * TEXT_BYTES
    # By how much the counts' own entropy is too low, about.
    correction = (len(counts) - 1) / (2 * len(ids) * math.log(2))
    assert plugin + correction / 4 < known < plugin + 2 * correction
    assert found["divergences"][bits - 1] in (None, pytest.approx(bits - known, abs=1e-3))


def test_ends_of_documents_do_not_count(measured):
    """A tokens dataset of bytes is measured as the codec of bytes is."""
    bytes_, tokens_ = measured["bytes"], measured["tokens"]
    same = bytes_.keys() - {"dataset", "content_hash", "kind", "sample"}
    assert {name: bytes_[name] for name in same} == {name: tokens_[name] for name in same}
    assert tokens_["sample"]["lengths"] == bytes_["sample"]["lengths"]
    assert tokens_["sample"]["stability"] is None


def test_samples_show_texts_and_lengths(datasets, measured):
    sample = measured["codebook"]["sample"]
    book = Codebook.open(str(datasets / "small.codebook"))
    assert sample["text_bytes"] == TEXT_BYTES
    # The empty documents have nothing to be measured.
    assert sample["documents"] == sum(map(bool, TEXTS))
    lengths = Counter(len(book.decode([each])) for each in all_ids(datasets / "codebook"))
    total = sum(lengths.values())
    for length, share in enumerate(sample["lengths"][:-1]):
        assert share == round(lengths[length] / total, 6)
    for texts in sample["texts"]:
        text = book.decode(texts["ids"]).decode(errors="backslashreplace")
        assert texts["most_frequent"] == [[text, 1.0]]
    assert all(edit["recovered"] == 1 for edit in sample["stability"]["edits"].values())
    gzip = measured["gzip"]["sample"]
    assert max(texts["different"] for texts in gzip["texts"]) > 10
    assert all(edit["recovered"] == 0 for edit in gzip["stability"]["edits"].values())


def test_rows_of_ids_are_shown_for_codecs_with_windows(datasets):
    folder = str(datasets / "bytes")
    manifest = read_manifest(folder)
    manifest.tokenizer["window_ids"] = 2
    sample = measure(folder, manifest, 1 << 20, lambda *_: None).sample
    assert (sample.window_ids, len(sample.window_texts[0].ids)) == (2, 2)
    assert all(texts.different == 1 for texts in sample.window_texts)
    # Rows that are too long to occur twice.
    manifest.tokenizer["window_ids"] = 9
    assert measure(folder, manifest, 1 << 20, lambda *_: None).sample.window_texts is None


def test_examples_without_their_ends_are_not_decoded(datasets, tmp_path):
    """As `examples` writes them: the last ids of some rows are missing."""
    folder = tmp_path / "trimmed"
    shutil.copytree(datasets / "gzip", folder)
    codec = open_codec(str(folder / "tokenizer"))
    table = pq.read_table(folder / PART).to_pylist()
    for row in table:
        row["tokens"] = row["tokens"][:100]
        ids = np.array(row["tokens"], np.uint16)
        ends = codec.text_ends(ids, np.array([0, len(ids)]))
        row["byte_length"] = int(ends[-1]) if len(ids) else 0
    pq.write_table(pa.Table.from_pylist(table, tokens_schema(np.uint16)), folder / PART)
    manifest = read_manifest(str(folder))
    manifest.properties["length"] = 100
    found = measure(str(folder), manifest, 1 << 20, lambda *_: None)
    assert found.ids == sum(len(row["tokens"]) for row in table)
    assert found.text_bytes == found.sample.text_bytes == sum(r["byte_length"] for r in table)
    assert (found.sample.texts, found.sample.stability) == (None, None)


def test_samples_have_whole_documents_only(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "ROW_GROUP_TOKENS", 100)
    monkeypatch.setattr(tokens, "MAX_ROW_TOKENS", 40)
    texts = ["a" * 30, "b" * 130, "", "c" * 20, "d" * 40, "e" * 41, "", "", "f"] * 3
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    folder = str(tmp_path / "out")
    assert command("compress", "--input", source, "--codec", "bytes", "--output", folder) == 0
    ids, offsets = samples.sample_ids(folder, read_manifest(folder), 1 << 20)
    found = [bytes(part.tolist()).decode() for part in np.split(ids, offsets[1:-1])]
    # At the beginning of a row group, what stands behind an empty document may be lost.
    whole = [text for text in texts if 0 < len(text) <= 40]
    assert set(found) <= set(whole)
    assert len(found) >= len(whole) - 3
    few, _ = samples.sample_ids(folder, read_manifest(folder), 60)
    assert 0 < len(few) < len(ids)


def test_tables_name_datasets(datasets, capsys):
    assert command("measure", datasets / "codebook", datasets / "tokens") == 0
    printed, logged = capsys.readouterr()
    first = printed.splitlines()[2].split()
    ids = len(all_ids(datasets / "codebook"))
    assert first[:5] == ["codebook", f"{TEXT_BYTES:,}", "B", "4,096", f"{ids:,}"]
    assert "tokens: texts" not in printed
    assert "codebook: texts of the most frequent ids" in printed
    assert logged.splitlines() == [
        str(datasets / "codebook"),
        f"{datasets / 'codebook'}, a sample",
        str(datasets / "tokens"),
    ]


def test_urls_and_a_second_run_give_the_same(datasets, measured, tmp_path):
    output = tmp_path / "out.json"
    for folder in (datasets / "gzip", f"file://{datasets}/gzip"):
        assert command("measure", folder, "--output", f"file://{output}") == 0
        (found,) = json.loads(output.read_text())["measures"]
        assert found | {"dataset": ""} == measured["gzip"] | {"dataset": ""}


def test_bad_usage_is_named_before_any_work(datasets, job, tmp_path, capsys):
    for arguments, message in [
        ((job / "counts",), "is a counts dataset; measure takes compressed, examples or tokens"),
        ((tmp_path,), "no manifest.json"),
        ((), "required: DIR"),
        ((datasets / "bytes", "--sample", "3"), "did you mean --sample-mib?"),
        ((datasets / "bytes", "--sample-mib", "0"), "is not a whole number above 0"),
        ((datasets / "bytes", "--output", tmp_path), "is a folder"),
    ]:
        assert command("measure", *arguments) == 2
        assert message in error_of(capsys)


def test_damage_and_empty_text_are_named(datasets, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(datasets / "codebook", copy)
    rows = [{"doc_id": "odd", "tokens": [4096], "byte_length": 1}]
    pq.write_table(pa.Table.from_pylist(rows, tokens_schema(np.uint16)), copy / PART)
    assert command("measure", copy) == 1
    assert f"{PART}: token id 4096 at position 0" in error_of(capsys)
    (copy / PART).write_bytes(b"PAR1 and no more")
    assert command("measure", copy) == 1
    assert f"{PART} cannot be read" in error_of(capsys)
    source, empty = write_jsonl(tmp_path / "in.jsonl", [""]), tmp_path / "empty"
    assert command("compress", "--input", source, "--codec", "bytes", "--output", empty) == 0
    assert command("measure", empty) == 1
    assert "has no text to measure" in error_of(capsys)


def write_evaluation(path, shares):
    places = {"dataset": "held-out", "checkpoint": "runs/a/step-9"}
    numbers = {"loss": 3.25, "bits_per_byte": 1.5, "accuracy": 0.4, "accuracy_by_position": shares}
    path.write_text(json.dumps(places | numbers | {"tokens": 7}))
    return path


def test_report_shows_measures_and_evaluations(datasets, measured, tmp_path):
    short, long = (write_evaluation(tmp_path / f"{n}.json", [0.5, 0.3][:n]) for n in (1, 2))
    none = write_evaluation(tmp_path / "none.json", None)
    found = report(tmp_path, datasets / "measures.json", datasets / "bytes", short, long, none)
    assert found.foreign == []
    for title in (
        "Ids",
        "Divergence of pieces of n bits from uniform bits",
        "Ids that agree again after an edit of the document's front",
        "Ids by the bytes of text that they add",
        "Evaluations",
        "Accuracy by the id's position in its window",
        "Compressed: bytes",
    ):
        assert title in found.texts
    first = rows_of(found, "codebook")[0]
    assert first[0:3] == ["codebook", "4,096", f"{measured['codebook']['ids']:,}"]
    assert first[3] == f"{measured['codebook']['bytes_per_id']:.3f}"
    assert [row for row in rows_of(found, "gzip") if row[0].startswith("never, ")]
    # Without a codec there are no texts and nothing to edit.
    assert sum(len(row) > 1 for row in rows_of(found, "tokens")) == 1
    assert rows_of(found, "2.json") == [["held-out", "1.5000", "3.2500", "40%"]]


def test_report_of_one_dataset_without_much_to_draw(tmp_path):
    source, small = write_jsonl(tmp_path / "in.jsonl", ["a"]), tmp_path / "small"
    assert command("compress", "--input", source, "--codec", "bytes", "--output", small) == 0
    assert command("measure", small, "--output", tmp_path / "measures.json") == 0
    found = report(tmp_path, tmp_path / "measures.json")
    assert not {"Details", "Divergence of pieces of n bits from uniform bits"} & {*found.texts}
    assert "Ids by the bytes of text that they add" in found.texts


def test_report_is_the_same_each_time(datasets, measured, tmp_path):
    pages = []
    for name in ("first.html", "second.html"):
        source = datasets / "measures.json"
        assert command("report", source, "--output", tmp_path / name) == 0
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("no JSON", 2, "is no JSON that measure or evaluate wrote"),
        ("[]", 2, "is no JSON that measure or evaluate wrote"),
        ('{"other": 1}', 2, "is no JSON that measure or evaluate wrote"),
        ('{"measures": [{"dataset": "x"}]}', 1, "is damaged"),
        ('{"measures": 3}', 1, "is damaged"),
        ('{"accuracy_by_position": [0.1]}', 1, "is damaged"),
    ],
)
def test_files_that_report_cannot_show_are_named(text, code, message, tmp_path, capsys):
    file = tmp_path / "some.json"
    file.write_text(text)
    assert command("report", file, "--output", tmp_path / "page.html") == code
    error = error_of(capsys)
    assert str(file) in error
    assert message in error

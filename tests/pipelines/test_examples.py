"""`corpusmill examples` on the command line, and what other commands make of its datasets."""

import shutil

import pyarrow.parquet as pq
import pytest

from corpusmill.corpus.datasets import part_name, read_manifest
from tests.codebooks import HARD_TEXTS, small_book
from tests.pipelines.samples import command, write_jsonl
from tests.pipelines.test_bad_input import dead_letters, error_of

PARTS = [part_name(number, 2) for number in range(2)]
CUT = ("--group", 4, "--piece-bytes", 1000, "--shard-mib", 1)
TEXTS = HARD_TEXTS * 60


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A file of two shards."""
    return write_jsonl(tmp_path_factory.mktemp("source") / "in.jsonl", TEXTS)


@pytest.fixture(scope="module")
def codebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("codebook") / "small.codebook"
    small_book().write(str(path))
    return path


def run(source, output, *options):
    return command("examples", "--input", source, "--output", output, *CUT, *options)


@pytest.fixture(scope="module")
def made(source, codebook, tmp_path_factory):
    output = tmp_path_factory.mktemp("examples") / "out"
    assert run(source, output, "--codebook", codebook) == 0
    return output


def test_the_manifest_says_how_they_were_cut(made, source):
    manifest = read_manifest(str(made), "examples")
    assert manifest.tokenizer["content_hash"] == small_book().content_hash
    rows = [row for part in PARTS for row in pq.read_table(made / part).to_pylist()]
    assert manifest.properties == {
        "documents": len(TEXTS),
        "tokens": sum(len(row["tokens"]) for row in rows),
        "group": 4,
        "piece_bytes": 1000,
        "length": None,
        "seed": 0,
    }
    marked = sum(len(text.encode()) + 1 for text in TEXTS)
    assert sum(row["byte_length"] for row in rows) == marked
    assert manifest.counters["text_bytes"] == marked - len(TEXTS)


def test_other_commands_know_them(made, source, codebook, tmp_path, capsys):
    assert command("verify", made) == 0
    assert "OK   examples dataset" in capsys.readouterr().out
    trimmed = tmp_path / "trimmed"
    assert run(source, trimmed, "--codebook", codebook, "--max-ids", 5) == 0
    assert command("verify", trimmed) == 0
    assert ": 5 ids of " in capsys.readouterr().out
    assert command("decompress", "--compressed", made, "--output", tmp_path / "back") == 2
    assert "kind compressed is needed" in error_of(capsys)
    page = tmp_path / "report.html"
    assert command("report", made, trimmed, "--output", page) == 0
    rows = sum(file.rows for file in read_manifest(str(made)).files)
    assert f"{rows:,} examples of " in page.read_text()


def test_damage_is_found(made, tmp_path, capsys):
    shutil.copytree(made, tmp_path / "out")
    part = tmp_path / "out" / PARTS[0]
    part.write_bytes(part.read_bytes()[:-1])
    assert command("verify", tmp_path / "out") == 1
    assert f"BAD  {PARTS[0]}" in capsys.readouterr().out


@pytest.mark.slow
def test_neither_workers_nor_interruptions_change_the_files(made, source, codebook, tmp_path):
    output = tmp_path / "out"
    assert run(source, output, "--codebook", codebook, "--workers", 2) == 0
    for part in PARTS:
        assert (output / part).read_bytes() == (made / part).read_bytes()


def test_a_second_run_makes_what_is_missing(codebook, tmp_path, capsys):
    source, output = tmp_path / "in.jsonl", tmp_path / "out"
    source.write_text('{"text": "good"}\n' * 4 + "{broken\n")
    options = ("--codebook", codebook)
    assert run(source, output, *options) == 1
    assert "1 of 5 records are bad" in error_of(capsys)
    assert [letter["offset"] for letter in dead_letters(output)] == [4 * 17]
    assert run(source, output, *options, "--max-bad-records", "20%") == 0
    assert read_manifest(str(output)).counters["documents"] == 4
    assert run(source, output, *options) == 0
    assert "is complete already" in capsys.readouterr().out
    assert run(source, output, *options, "--seed", 1) == 2
    assert "seed: 0 there, 1 now" in error_of(capsys)


def test_bad_usage_is_named_before_any_work(source, codebook, tmp_path, capsys):
    for options, message in [
        (("--codec", "bytes", "--piece-bytes", 1 << 21), "--piece-bytes 2097152 is too large"),
        (("--codec", "bytes", "--group", 0), "is not a whole number above 0"),
        (("--codec", "bytes", "--max-ids", 0), "is not a whole number above 0"),
        (("--codec", "bytes", "--seed", -1), "--seed -1 is not"),
        ((), "give --codebook"),
        (("--codec", "subword", "--tokenizer", "bytes"), "which --codec subword can't encode"),
    ]:
        assert run(source, tmp_path / "out", *options) == 2, options
        assert message in error_of(capsys)
    assert not (tmp_path / "out").exists()

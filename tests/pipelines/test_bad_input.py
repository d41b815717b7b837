"""What goes wrong, and what happens then: the rows of the guide's table, one by one."""

import ctypes
import dataclasses
import gzip
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers

from corpusmill.corpus.datasets import Completion, DatasetWriter, read_manifest
from corpusmill.corpus.tokenizers.pieces import PieceTokenizer
from corpusmill.corpus.tokens import TokensWriter, tokens_schema
from tests.codebooks import small_book
from tests.pipelines.samples import command, tokenize, write_jsonl

GOOD = b'{"text": "good"}\n'


def error_of(capsys):
    """The one line of the error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    return lines[0]


def dead_letters(output):
    return [
        json.loads(line)
        for path in sorted((output / "dead-letter").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"{broken\n", "is not JSON"),
        (b'["text"]\n', "is an array, not a JSON object"),
        (b'{"body": "x"}\n', "has no field 'text'"),
        (b'{"text": null}\n', "not a string"),
        (b'{"text": 5}\n', "is a number, not a string"),
        (b'{"text": "\xff"}\n', "is not UTF-8"),
        (b'{"text": "\\ud800"}\n', "is not JSON"),
    ],
)
def test_a_bad_record_stops_the_job_unless_it_is_allowed(record, reason, tmp_path, capsys):
    source, output = tmp_path / "in.jsonl", tmp_path / "out"
    source.write_bytes(GOOD * 3 + record + GOOD)
    assert tokenize(source, output) == 1
    message = error_of(capsys)
    assert "1 of 5 records are bad, more than --max-bad-records 0.1" in message
    assert str(output / "dead-letter") in message
    assert not (output / "manifest.json").exists()
    (letter,) = dead_letters(output)
    assert letter["source"] == str(source)
    assert letter["offset"] == 3 * len(GOOD)
    assert reason in letter["reason"]
    # The same command with a higher limit goes on from where it was.
    assert tokenize(source, output, "--max-bad-records", "20%") == 0
    manifest = read_manifest(str(output))
    assert (manifest.counters["documents"], manifest.counters["bad_records"]) == (4, 1)
    assert [f.rows for f in manifest.files if f.name.startswith("dead-letter/")] == [1]


def test_a_truncated_gzip_keeps_what_stood_before_and_is_no_record_among_many(tmp_path, capsys):
    data = gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(50_000)))
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "cut.jsonl.gz").write_bytes(data[: len(data) // 2])
    (folder / "whole.jsonl.gz").write_bytes(data)
    assert tokenize(folder, tmp_path / "out") == 1
    message = error_of(capsys)
    assert (
        "1 of 2 files, or pieces of large ones, are damaged, more than --max-bad-records 0.1"
        in message
    )
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert tokenize(folder, tmp_path / "out", "--max-bad-records", "50%") == 0
    counters = read_manifest(str(tmp_path / "out")).counters
    assert counters["documents"] > 60_000
    assert counters["damaged_pieces"] == 1
    (letter,) = dead_letters(tmp_path / "out")
    assert "truncated gzip stream" in letter["reason"]
    assert letter["rest_is_lost"] is True


def test_a_file_that_is_damaged_in_several_shards_can_be_allowed(tmp_path, capsys):
    generator = np.random.default_rng(0)
    texts = ["".join(map(chr, generator.integers(33, 126, 2000))) for _ in range(2500)]
    path, groups = tmp_path / "in.parquet", 5
    pq.write_table(pa.table({"text": texts}), path, row_group_size=500, compression="none")
    metadata = pq.read_metadata(path)
    data = bytearray(path.read_bytes())
    for group in (1, 4):
        begin = metadata.row_group(group).column(0).dictionary_page_offset
        data[begin : begin + 200] = b"\xff" * 200
    path.write_bytes(data)
    arguments = (path, tmp_path / "out", "--shard-mib", 1)
    assert tokenize(*arguments) == 1
    assert f"2 of {groups} files, or pieces of large ones" in error_of(capsys)
    assert tokenize(*arguments, "--max-bad-records", "40%") == 0
    assert read_manifest(str(tmp_path / "out")).counters["documents"] == 1500


def test_a_shard_full_of_bad_records_stops_at_once(tmp_path, capsys):
    (tmp_path / "in.jsonl").write_bytes(GOOD + b"bad\n" * 200_000)
    assert tokenize(tmp_path / "in.jsonl", tmp_path / "out") == 1
    assert "records are bad" in error_of(capsys)
    assert 1000 <= len(dead_letters(tmp_path / "out")) < 100_000


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_corpus_is_refused(content, tmp_path, capsys):
    (tmp_path / "in.jsonl").write_bytes(content)
    assert tokenize(tmp_path / "in.jsonl", tmp_path / "out") in (1, 2)
    message = error_of(capsys)
    assert "is empty" in message or "has no documents" in message
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_empty_file_among_others_is_nothing_special(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "empty.jsonl").touch()
    write_jsonl(folder / "full.jsonl", ["x"])
    assert tokenize(folder, tmp_path / "out") == 0
    assert read_manifest(str(tmp_path / "out")).counters["documents"] == 1


def test_bad_usage_is_named_before_any_work(job, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "file").touch()
    read = ("tokenize", "--input", job / "corpus.jsonl")
    from_text = (*read, "--tokenizer", "bytes", "--output")
    count = ("count", "--tokens", job / "tokens", "--output", out)
    tables = ("distributions", "--counts", job / "counts", "--output", out)
    typo = "unknown option --tokeniser; did you mean --tokenizer?"
    for arguments, message in [
        ((*from_text, out, "--input", tmp_path / "none*"), "matches no file"),
        ((*read, "--tokenizer", "none.json", "--output", out), "accepted are a tokenizer.json"),
        ((*read, "--tokeniser", "bytes", "--output", out), typo),
        ((*read, "--output", out), "required: --tokenizer"),
        ((*from_text, tmp_path / "full"), "holds something else (thesis.tex"),
        ((*from_text, tmp_path / "file" / "x"), "cannot write to output"),
        ((*from_text, out, "--max-bad-records", "200%"), "not a share such as 0.1%"),
        ((*count, "--max-order", 14), "allows orders 0 to 13"),
        ((*count, "--max-order", -1), "allows orders 0 to 13"),
        ((*count, "--run-tokens", 0), "not a whole number above 0"),
        ((*count, "--workers", 0), "--workers 0 is not at least 1"),
        ((*count, "--runner", "SparkRunner", "--workers", 2), "for jobs without Beam only"),
        ((*count, "--regoin", "x"), "unknown option --regoin; did you mean --region?"),
        ((*count, "--tokens", job / "counts"), "kind tokens is needed"),
        ((*count, "--tokens", tmp_path / "none"), "no manifest.json: is the path right?"),
        ((*tables, "--top-k", 0), "not a whole number above 0"),
        (("merge", "--counts", job / "counts", "--output", out), "two or more different datasets"),
        (("query", job / "distributions"), "one of the two"),
        (("query", job / "distributions", "--ids", "1,x"), "not a list of token ids from 0"),
        (("nonsense",), "unknown command 'nonsense'"),
    ]:
        assert command(*arguments) == 2, arguments
        assert message in error_of(capsys)
    assert not out.exists()


def test_a_dry_run_writes_nothing(job, tmp_path, capsys):
    out = tmp_path / "out"
    assert tokenize(job / "corpus.jsonl", out, "--dry-run") == 0
    assert command("count", "--tokens", job / "tokens", "--output", out, "--dry-run") == 0
    assert command("distributions", "--counts", job / "counts", "--output", out, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "1 shards" in printed
    assert printed.count("would write the") == 3
    assert not out.exists()


def test_an_id_outside_the_vocabulary_is_named(tmp_path, capsys):
    folder = tmp_path / "tokens"
    writer = DatasetWriter(str(folder), "tokens", {})
    writer.begin()
    with (
        writer.new_file("part-00000-of-00001.parquet") as file,
        TokensWriter(file.path, np.uint16) as output,
    ):
        lists = pa.array([[1, 300, 256]], tokens_schema(np.uint16).field("tokens").type)
        columns = [["document"], lists, pa.array([2], pa.uint32())]
        output.write(pa.record_batch(columns, schema=tokens_schema(np.uint16)))
        output.close()
        file.rows, file.tokens = output.rows, output.tokens
    writer.complete("part", Completion((file.written,), {}))
    tokenizer = {"vocabulary_size": 257, "end_of_document": 256}
    properties = {"documents": 1, "tokens": 3}
    completions = writer.completed(["part"])
    writer.finish(completions, inputs={}, tokenizer=tokenizer, properties=properties)
    assert command("count", "--tokens", folder, "--output", tmp_path / "counts") == 1
    assert "token id 300 at position 1 is outside the vocabulary of 257" in error_of(capsys)
    assert command("verify", folder) == 1
    assert "token id 300 at position 1" in capsys.readouterr().out


def with_one_more(name, source, target):
    """A copy of a dataset whose manifest fits its files, but for a number."""
    shutil.copytree(source, target)
    manifest = read_manifest(str(target))
    properties = manifest.properties | {name: manifest.properties[name] + 1}
    (target / "manifest.json").write_text(
        dataclasses.replace(manifest, properties=properties).to_json()
    )
    return target


def test_what_does_not_add_up_is_never_finished(job, tmp_path, capsys):
    small_book().write(str(tmp_path / "book"))
    inputs = ("--input", job / "corpus.jsonl", "--codebook", tmp_path / "book")
    assert command("compress", *inputs, "--output", tmp_path / "small") == 0
    tokens = with_one_more("tokens", job / "tokens", tmp_path / "tokens")
    small = with_one_more("documents", tmp_path / "small", tmp_path / "smaller")
    out = tmp_path / "out"
    for arguments, message in (
        (("count", "--tokens", tokens), "positions counted, "),
        (("enrich", "--tokens", tokens, "--counts", job / "counts"), "positions, "),
        (("decompress", "--compressed", small), "documents, its manifest says "),
    ):
        capsys.readouterr()
        assert command(*arguments, "--output", out / arguments[0]) == 1, arguments
        assert message in error_of(capsys)
        assert not (out / arguments[0] / "manifest.json").exists()
    assert command("verify", tokens) == 1
    assert "tokens, the manifest says" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
@pytest.mark.parametrize("kind", ["tokens", "counts", "distributions"])
def test_verify_names_a_damaged_file(kind, damage, job, tmp_path, capsys):
    copy = tmp_path / kind
    subprocess.run(["cp", "-r", job / kind, copy], check=True)
    assert command("verify", copy) == 0
    assert capsys.readouterr().out.startswith("OK ")
    victim = sorted(copy.rglob("*.parquet"))[-1]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(data if damage == "flip" else data[:-1])
    assert command("verify", copy) == 1
    printed = capsys.readouterr()
    assert f"BAD  {victim.relative_to(copy)}" in printed.out
    assert "1 faults" in printed.err


def run_on_a_small_disk(arguments, limit):
    """Runs a command in a process whose files may not grow beyond `limit` bytes."""
    code = (
        "import resource, signal, sys; from corpusmill.commands import cli;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def mount_small_disk(path, kilobytes):
    libc = ctypes.CDLL(None, use_errno=True)
    size = f"size={kilobytes}k".encode()
    return libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, size) == 0


def test_a_full_disk_stops_the_job_and_it_can_go_on(tmp_path, capsys):
    generator = np.random.default_rng(0)
    texts = ["".join(map(chr, generator.integers(33, 126, 2000))) for _ in range(200)]
    source = write_jsonl(tmp_path / "in.jsonl", texts)
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = ["tokenize", "--input", source, "--tokenizer", "bytes", "--output", disk / "out"]
    if mount_small_disk(disk, 100):
        try:
            assert command(*arguments) == 1
            assert "no space left on device while writing" in error_of(capsys)
            assert not (disk / "out" / "manifest.json").exists()
            subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
            assert command(*arguments) == 0
            assert read_manifest(str(disk / "out")).counters["documents"] == 200
        finally:
            subprocess.run(["umount", disk], check=True)
    else:
        # Without the right to mount: a limit on the size of files fails in the same place.
        assert run_on_a_small_disk(arguments, 100_000).returncode == 1
        assert not (disk / "out" / "manifest.json").exists()
        assert command(*arguments) == 0


def test_documents_of_every_length(tmp_path):
    lengths = [0, 3_000_000, 0, 1] + [1] * 20_000
    source = write_jsonl(tmp_path / "in.jsonl", ["x" * length for length in lengths])
    assert tokenize(source, tmp_path / "tokens") == 0
    counts, tables = tmp_path / "counts", tmp_path / "tables"
    assert command("count", "--tokens", tmp_path / "tokens", "--output", counts) == 0
    assert command("distributions", "--counts", counts, "--output", tables) == 0
    manifest = read_manifest(str(counts))
    assert manifest.properties["tokens"] == sum(lengths) + len(lengths)
    assert [command("verify", folder) for folder in (tmp_path / "tokens", counts, tables)] == [
        0
    ] * 3


def test_the_commonest_reason_is_told_with_the_fields_that_are_there(tmp_path, capsys):
    source = tmp_path / "in.jsonl"
    lines = [b"not json\n"] + [b'{"content": "x", "id": %d}\n' % i for i in range(50)]
    source.write_bytes(b"".join(lines))
    assert tokenize(source, tmp_path / "out") == 1
    message = error_of(capsys)
    assert "51 of 51 records are bad" in message
    assert "has no field 'text'; --text-field can name one of 'content', 'id'; all are" in message
    assert (
        tokenize(source, tmp_path / "out2", "--text-field", "content", "--max-bad-records", 1) == 0
    )


def test_a_folder_of_many_kinds_says_what_is_a_document_in_each(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", ["x"])
    write_jsonl(folder / "b.jsonl", ["y"])
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(GOOD))
    (folder / "d.txt").write_text("one\ntwo\n")
    pq.write_table(pa.table({"text": ["z"]}), folder / "e.parquet")
    assert tokenize(folder, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "input: 5 files" in said
    for line in (
        "  1 jsonl gzip: a document is a line of JSON",
        "  2 jsonl plain: a document is a line of JSON",
        "  1 parquet plain: a document is a row",
        "  1 text plain: a document is a line of text",
    ):
        assert line in said.splitlines()
    assert tokenize(folder, tmp_path / "other", "--text-unit", "file", "--dry-run") == 0
    assert "1 text plain: a document is the whole file" in capsys.readouterr().out


def test_names_that_are_nearly_right(tmp_path, capsys):
    assert command("tokenise", "--input", "x") == 2
    assert "did you mean tokenize?" in error_of(capsys)
    read = ("tokenize", "--input", tmp_path, "--output", tmp_path / "out", "--tokenizer")
    write_jsonl(tmp_path / "a.jsonl", ["x"])
    assert command(*read, "gpt2") == 2
    message = error_of(capsys)
    assert "names of a hub are not looked up" in message
    assert "accepted are a tokenizer.json" in message


def test_a_tokenizer_that_loses_text_says_so(tmp_path, capsys):
    words = tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "[SEP]": 2}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "t.json"))
    write_jsonl(tmp_path / "in.jsonl", ["a", "a b", "b"])
    arguments = ("tokenize", "--input", tmp_path / "in.jsonl", "--tokenizer", tmp_path / "t.json")
    assert command(*arguments, "--output", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "loses text: 2 of the first 3 documents don't come back" in said
    assert "documents end with [SEP] (by its name; --end-of-document names another)" in said
    assert "texts are encoded by tokenizers" in said
    assert "which is slow: fastokens does not take it" in said


class TestBackend:
    """Which library encodes can't change the data, and what it errs in stops the job."""

    @pytest.fixture
    def spec(self, shared_data):
        return shared_data / "tokenizers" / "gptneox_tokenizer.json"

    def run(self, source, spec, output, *options):
        arguments = ("--input", source, "--tokenizer", spec, "--output", output)
        return command("tokenize", *arguments, *options)

    def test_it_is_in_the_manifest_and_not_in_the_content(self, spec, tmp_path, monkeypatch):
        source = tmp_path / "in.jsonl"
        write_jsonl(source, [f"document {i}\n\u00e9" for i in range(2500)])
        assert self.run(source, spec, tmp_path / "fast", "--shard-mib", 1) == 0
        assert self.run(source, spec, tmp_path / "two", "--workers", 2) == 0
        monkeypatch.setenv("CORPUSMILL_TOKENIZER_BACKEND", "reference")
        assert self.run(source, spec, tmp_path / "slow") == 0
        manifests = [read_manifest(str(tmp_path / name)) for name in ("fast", "two", "slow")]
        backends = [manifest.backend.split()[0] for manifest in manifests]
        assert backends == ["fastokens", "fastokens", "tokenizers"]
        assert len({manifest.content_hash for manifest in manifests}) == 1
        assert all("backend" not in manifest.tokenizer for manifest in manifests)
        in_file = json.loads((tmp_path / "fast" / "manifest.json").read_text())
        assert in_file["tokenizer"]["backend"] == manifests[0].backend

    def test_a_difference_stops_the_job_and_names_the_document(
        self, spec, tmp_path, capsys, monkeypatch
    ):
        source = tmp_path / "in.jsonl"
        write_jsonl(source, ["fine"] * 2000 + ["wrong"] + ["fine"] * 10)
        make = PieceTokenizer.check

        def erring(tokenizer, doc_ids, texts):
            right = tokenizer.reference

            def start(texts):
                ids, lengths = right.start(texts)
                return ids + np.repeat(["wrong" in text for text in texts], lengths), lengths

            tokenizer.use(dataclasses.replace(right, name="hasty 1", start=start))
            make(tokenizer, doc_ids, texts)

        monkeypatch.setattr(PieceTokenizer, "check", erring)
        assert self.run(source, spec, tmp_path / "out") == 1
        message = error_of(capsys)
        offset = len(json.dumps({"text": "fine"}) + "\n") * 2000
        assert f"document 'in.jsonl:{offset}' has other ids by hasty 1" in message
        assert "CORPUSMILL_TOKENIZER_BACKEND=reference" in message
        assert not (tmp_path / "out" / "manifest.json").exists()

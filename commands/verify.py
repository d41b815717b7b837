"""Checks a dataset against its manifest, and its contents against what they must be."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from corpusmill.commands.arguments import make_parser, parse_known
from corpusmill.compress.codecs import Codec, expect_codec
from corpusmill.compress.datasets.compressed import decoded_documents, read_documents
from corpusmill.compress.datasets.examples import check_trimmed
from corpusmill.corpus import parquet, storage
from corpusmill.corpus.datasets import (
    TOKENIZER_FOLDER,
    FileRecord,
    Manifest,
    damaged_files,
    read_manifest,
)
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.tokenizers import Tokenizer, load_tokenizer
from corpusmill.corpus.tokens import check_vocabulary, read_rows
from corpusmill.ngram_agg.counts_files import counts_packing, read_counts
from corpusmill.ngram_agg.heads import WEIGHT_UNITS
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.tables import check_table, order_of
from corpusmill.ngram_agg.targets_files import HEADS_FOLDER, TargetsReader

_SAMPLE_CHARACTERS = 300
# Kinds whose files have every token of the text once.
_OF_ALL_TOKENS = ("tokens", "counts", "compressed", "examples")


def main(argv: Sequence[str]) -> None:
    """`corpusmill verify`"""
    parser = make_parser(
        "verify",
        "Checks that a dataset is complete and undamaged, and decodes a sample of it.",
        "corpusmill verify tokens",
    )
    parser.add_argument("dataset", metavar="DIR", help="folder or URL of a dataset")
    arguments, _ = parse_known(parser, argv)
    started = time.monotonic()
    manifest = read_manifest(arguments.dataset)
    faults = list(find_faults(arguments.dataset, manifest))
    for fault in faults:
        print(f"BAD  {fault}")
    size = sum(file.bytes for file in manifest.files)
    if faults:
        raise DataError(f"{arguments.dataset}: {len(faults)} faults in {len(manifest.files)} files")
    print(
        f"OK   {manifest.kind} dataset {arguments.dataset}: {len(manifest.files)} files,"
        f" {size / 2**20:,.1f} MiB, {time.monotonic() - started:.1f} s"
    )
    for line in sample(arguments.dataset, manifest):
        print(line)
    if manifest.tokenizer.get("lossy"):
        print(f"     {_lost(arguments.dataset, manifest)}")


def find_faults(folder: str, manifest: Manifest) -> Iterator[str]:
    """Everything that is wrong with a dataset, a line each.

    The bytes of every file are compared with the manifest; where they agree the contents are
    read, to show a file that was wrong from the beginning.
    """
    check = _CHECKS.get(manifest.kind)
    for record, damage in damaged_files(folder, manifest):
        if damage:
            yield f"{record.name} {damage}"
        elif check and record in manifest.data_files:
            try:
                check(folder, record, manifest)
            except DataError as error:
                yield f"{record.name}: {error}"
    if manifest.kind in _OF_ALL_TOKENS and manifest.tokens != manifest.properties["tokens"]:
        yield f"{manifest.tokens} tokens, the manifest says {manifest.properties['tokens']}"


def _check_tokens(folder: str, record: FileRecord, manifest: Manifest) -> None:
    tokens = rows = 0
    for ids, ends in read_rows(storage.join(folder, record.name)):
        check_vocabulary(ids, manifest.tokenizer["vocabulary_size"])
        tokens += len(ids)
        rows += len(ends)
    _expect("tokens", tokens, record.tokens)
    _expect("rows", rows, record.rows)


def _check_counts(folder: str, record: FileRecord, manifest: Manifest) -> None:
    url = storage.join(folder, record.name)
    rows = positions = 0
    # Order and vocabulary are checked where they are read.
    for run in read_counts(url, counts_packing(manifest)):
        rows += len(run)
        positions += run.total()
    _expect("rows", rows, record.rows)
    _expect("positions", positions, record.tokens)


def _check_distributions(folder: str, record: FileRecord, manifest: Manifest) -> None:
    url = storage.join(folder, record.name)
    order = order_of(record.name)
    packing = Packing.of(manifest.tokenizer, max(1, order))
    rows, positions = check_table(url, packing, order, manifest.properties["min_count"])
    _expect("rows", rows, record.rows)
    _expect("positions", positions, record.tokens)


def _check_targets(folder: str, record: FileRecord, manifest: Manifest) -> None:
    # Heads are read with the positions that use them.
    if record.name.startswith(f"{HEADS_FOLDER}/"):
        return
    rows = positions = 0
    for ends, targets in TargetsReader(folder, manifest).read_file(record.name):
        rows += len(ends)
        positions += len(targets)
    _expect("rows", rows, record.rows)
    _expect("positions", positions, record.tokens)


def _check_compressed(folder: str, record: FileRecord, manifest: Manifest) -> None:
    # Decoding finds lengths that are wrong.
    for _ in read_documents(storage.join(folder, record.name), _codec(folder, manifest)):
        pass
    _check_tokens(folder, record, manifest)


def _check_examples(folder: str, record: FileRecord, manifest: Manifest) -> None:
    length = manifest.properties["length"]
    if length is None:
        _check_compressed(folder, record, manifest)
    else:
        check_trimmed(storage.join(folder, record.name), _codec(folder, manifest), length)


def _lost(folder: str, manifest: Manifest) -> str:
    """How many documents a codec that loses text has lost; a wrong byte is always one too many."""
    codec = _codec(folder, manifest)
    lost = total = 0
    for record in manifest.data_files:
        url = storage.join(folder, record.name)
        for _, documents, lengths in decoded_documents(url, codec):
            lost += int((documents.lengths() != lengths).sum())
            total += len(lengths)
    return f"{lost:,} of {total:,} documents ({lost / total:.1%}) do not come back"


def _codec(folder: str, manifest: Manifest) -> Codec:
    return expect_codec(storage.join(folder, TOKENIZER_FOLDER), manifest.tokenizer["content_hash"])


_CHECKS = {
    "tokens": _check_tokens,
    "counts": _check_counts,
    "distributions": _check_distributions,
    "targets": _check_targets,
    "compressed": _check_compressed,
    "examples": _check_examples,
}


def _expect(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise DataError(f"{found} {what}, the manifest says {expected}")


def sample(folder: str, manifest: Manifest) -> list[str]:
    """The dataset's first row as text, to show that it decodes."""
    if manifest.kind == "targets":
        return [_sample_target(folder, manifest)]
    files = manifest.data_files or list(manifest.files)
    if not files:
        return ["it has no files"]
    name = files[0].name
    url = storage.join(folder, name)
    trimmed = manifest.properties.get("length") is not None
    if manifest.kind in ("compressed", "examples") and not trimmed:
        names, documents = next(read_documents(url, _codec(folder, manifest)))
        shown = _shown_document(names[0], documents[0].decode(errors="replace"))
    elif manifest.kind == "documents":
        with storage.open_input(url) as file:
            document = orjson.loads(file.readline())
        shown = _shown_document(document["id"], document["text"])
    else:
        with parquet.open_reader(url) as file:
            row = next(file.iter_batches(batch_size=1)).to_pylist()[0]
        if trimmed:
            shown = f"{len(row['tokens'])} ids of {row['byte_length']} bytes"
            return [f"     first row of {name}: {row['doc_id']}: {shown}"]
        tokenizer = load_tokenizer(storage.join(folder, TOKENIZER_FOLDER))
        shown = _shown_row(row, tokenizer)
    return [f"     first row of {name}: {shown}"]


def _shown_row(row: dict[str, Any], tokenizer: Tokenizer) -> str:
    if "tokens" in row:
        return _shown_document(row["doc_id"], tokenizer.decode(row["tokens"][:-1]))
    ids = [value for column, value in row.items() if column.startswith(("token_", "context_"))]
    shown = " ".join(tokenizer.quoted(token) for token in ids) or "(empty context)"
    return f"{shown} {row.get('count', row.get('total')):,} times"


def _sample_target(folder: str, manifest: Manifest) -> str:
    reader = TargetsReader(folder, manifest)
    name = reader.names[0]
    ends, targets = next(reader.read_file(name))
    *_, row = targets.split([int(ends[0]) - 1, 1])
    dense = row.dense(manifest.properties["head"], manifest.properties["tail_draws"])
    tokenizer = load_tokenizer(storage.join(folder, TOKENIZER_FOLDER))
    shown = ", ".join(
        f"{tokenizer.quoted(token)} {weight / WEIGHT_UNITS:.1%}"
        for token, weight in zip(dense[0][0].tolist(), dense[1][0].tolist(), strict=True)
        if weight
    )
    return f"     last target of the first row of {name}: {shown}"


def _shown_document(doc_id: str, text: str) -> str:
    return f"{doc_id}: {text[:_SAMPLE_CHARACTERS]!r}"

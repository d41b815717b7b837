"""Small tokens and targets datasets, written with pyarrow, and what their sequences must be."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.corpus.datasets import Completion, DatasetWriter, part_name, read_manifest
from corpusmill.corpus.tokens import tokens_schema

END = 0
VOCABULARY = 1000
SLOTS = 3
HEAD = 2
TOKENIZER = {
    "kind": "test",
    "content_hash": "0",
    "vocabulary_size": VOCABULARY,
    "end_of_document": END,
}


def row(tokens, byte_length=0):
    return {"doc_id": "id", "tokens": list(tokens), "byte_length": byte_length}


def random_files(seed, sizes):
    """Rows by file and row group; `sizes` has about how many tokens each row group gets."""
    generator = random.Random(seed)
    return [[_random_group(generator, size) for size in file] for file in sizes]


def _random_group(generator, size):
    rows = []
    while size > 0:
        length = min(size, generator.choice((1, 2, 3, 7, 20)))
        text = [generator.randrange(1, VOCABULARY) for _ in range(length - 1)]
        rows.append(row([*text, END], generator.randrange(100)))
        size -= length
    return rows


def write_tokens(
    folder, files, dtype=np.uint16, name=None, *, kind="tokens", tokenizer=None, **properties
):
    """Writes a tokens dataset; `files` are lists of row groups, which are lists of rows."""
    writer = DatasetWriter(str(folder), kind, {})
    writer.begin()
    tables = [
        [pa.Table.from_pylist(group, schema=tokens_schema(dtype)) for group in file]
        for file in files
    ]
    _write_files(
        writer,
        tables,
        [_token_count(file) for file in files],
        {"made for": name} | properties,
        tokenizer,
    )
    return str(folder)


def _token_count(file):
    return sum(len(row["tokens"]) for group in file for row in group)


def write_targets(folder, files, tokens, tokens_hash=None):
    """Writes the targets of `target` for the files of a tokens dataset, a head for each token."""
    manifest = read_manifest(tokens)
    schema = pa.schema(
        {name: pa.list_(kind) for name, kind in (("head", pa.uint32()), ("drawn", pa.uint16()))}
    )
    tables = []
    for file, record in zip(files, manifest.data_files, strict=True):
        # What joins the files is checked against each other only, so any words do.
        metadata = {
            "corpusmill.tokens_sha256": record.sha256,
            "corpusmill.heads_sha256": f"heads of {record.name}",
        }
        groups = []
        for group in file:
            drawn = [[target(t)[0][2] for t in row["tokens"] if t % 2] for row in group]
            columns = [[row["tokens"] for row in group], drawn]
            groups.append(pa.table(columns, schema=schema).replace_schema_metadata(metadata))
        tables.append(groups)
    writer = DatasetWriter(str(folder), "targets", {})
    writer.begin()
    properties = {
        "slots": SLOTS,
        "head": HEAD,
        "tail_draws": SLOTS - HEAD,
        "max_order": 1,
        "tokens_hash": tokens_hash or manifest.content_hash,
    }
    counts = [_token_count(file) for file in files]
    heads = [f"heads/{part_name(number, len(tables))}" for number in range(len(tables))]
    for name, groups in zip(heads, tables, strict=True):
        with writer.new_file(name) as output:
            pq.write_table(_heads(groups[0].schema.metadata), output.path)
        writer.complete(name, Completion((output.written,), {}))
    _write_files(writer, tables, counts, properties, more=heads)
    return str(folder)


def _heads(metadata):
    tokens, weights = zip(*(target(token) for token in range(VOCABULARY)), strict=True)
    columns = {
        "tokens": pa.array([each[:HEAD] for each in tokens], pa.list_(pa.uint16())),
        "weights": pa.array([each[:HEAD] for each in weights], pa.list_(pa.uint16())),
        "order": pa.array([1] * VOCABULARY, pa.uint8()),
        "draws": pa.array([token % 2 for token in range(VOCABULARY)], pa.uint16()),
    }
    digest = {key: value for key, value in metadata.items() if b"heads" in key}
    return pa.table(columns).replace_schema_metadata(digest)


def target(token):
    """Tokens and weights of a position, in units of 1/65535; for odd tokens one is drawn."""
    first = 60_000 + token
    if token % 2:
        drawn = (7 * token + 3) % VOCABULARY
        return [token, (token + 1) % VOCABULARY, drawn], [first, 1000, 65535 - 1000 - first]
    return [token, (token + 1) % VOCABULARY, 0], [first, 65535 - first, 0]


def _write_files(writer, tables, token_counts, properties, tokenizer=None, more=()):
    parts = [part_name(number, len(tables)) for number in range(len(tables))]
    for part, groups, count in zip(parts, tables, token_counts, strict=True):
        with writer.new_file(part) as file:
            with pq.ParquetWriter(
                file.path, groups[0].schema, compression="zstd", write_page_checksum=True
            ) as output:
                for group in groups:
                    output.write_table(group, row_group_size=max(1, group.num_rows))
            file.tokens = count
        writer.complete(part, Completion((file.written,), {}))
    completions = writer.completed([*parts, *more])
    writer.finish(completions, inputs={}, tokenizer=tokenizer or TOKENIZER, properties=properties)


def sequences_of(files, length):
    """The sequences of a dataset, by the definition and token by token.

    Each is what the model reads, what it predicts (None: nothing) and how many bytes end in it.
    """
    found = []
    for group in (group for file in files for group in file):
        stream = [token for row in group for token in row["tokens"]]
        ends, position = {}, 0
        for row in group:
            position += len(row["tokens"])
            ends[position - 1] = row["byte_length"]
        for first in range(0, len(stream), length):
            places = range(first, first + length)
            found.append(
                (
                    tuple(stream[i - 1] if 0 < i <= len(stream) else END for i in places),
                    tuple(stream[i] if i < len(stream) else None for i in places),
                    sum(ends.get(i, 0) for i in places),
                )
            )
    return found

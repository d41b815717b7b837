"""How fast is the trainer's loader on one core, against pyarrow merely reading the same columns?"""

import functools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from benchmarks import measure
from corpus import parquet
from corpus.datasets import Completion, DatasetWriter, read_manifest
from corpus.tokens import ROW_GROUP_TOKENS, tokens_schema
from trainer.data import DataOptions, TokenDataset

_VOCABULARY = 32_000
_SLOTS = 9
_DOCUMENT = 600
_TARGETS_SCHEMA = pa.schema(
    [
        pa.field(name, pa.list_(pa.field("element", pa.uint16(), nullable=False)), nullable=False)
        for name in ("target_tokens", "target_weights")
    ]
)
_COLUMNS = (["tokens", "byte_length"], ["target_tokens", "target_weights"])


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("loader", __doc__, 5_000_000)
    parser.add_argument("--batch-size", type=int, default=8, help="sequences in a batch")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a sequence")
    arguments = parser.parse_args(argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    torch.set_num_threads(1)
    options = DataOptions(arguments.batch_size, arguments.length)
    with tempfile.TemporaryDirectory() as folder:
        folders = make_datasets(folder, arguments.tokens)
        rows = [
            (name, *rates(folders[:datasets], options, arguments.tokens, arguments.repeat))
            for name, datasets in (("tokens", 1), (f"tokens and {_SLOTS}-slot targets", 2))
        ]
    measure.print_table(
        f"{arguments.tokens:,} positions, one core, millions a second",
        ("columns", "pyarrow reads", "loader", "ratio"),
        rows,
    )
    for name, _, loader, ratio in rows:
        measure.print_goal(f"loader, {name}, million positions/s", loader, at_least=2)
        measure.print_goal(f"loader, {name}, over pyarrow reading", ratio, at_least=0.7)


def rates(
    folders: Sequence[str], options: DataOptions, tokens: int, repeat: int
) -> tuple[float, float, float]:
    """Million positions a second of pyarrow and of the loader, and their ratio."""
    dataset = TokenDataset(folders[0], options, *folders[1:], epochs=1)
    clock = measure.Clock()
    # In turn, so that whatever else the machine does strikes both.
    for _ in range(repeat):
        measure.touch_memory()
        clock.time("pyarrow", functools.partial(read, folders))
        measure.touch_memory()
        clock.time("loader", lambda: [None for _ in dataset])
    pyarrow, loader = (tokens / clock.best[step] / 1e6 for step in ("pyarrow", "loader"))
    return pyarrow, loader, loader / pyarrow


def read(folders: Sequence[str]) -> None:
    """Reads the columns that the loader needs into Arrow tables, a row group at a time."""
    for folder, columns in zip(folders, _COLUMNS, strict=False):
        for record in read_manifest(folder).data_files:
            with parquet.open_reader(f"{folder}/{record.name}") as file:
                for group in range(file.num_row_groups):
                    file.read_row_group(group, columns=columns, use_threads=False)


def make_datasets(folder: str, tokens: int) -> tuple[str, str]:
    """Tokens that are distributed as words are, and targets of which two in five are one-hot."""
    generator = np.random.default_rng(0)
    groups = -(-tokens // ROW_GROUP_TOKENS)
    sizes = [min(ROW_GROUP_TOKENS, tokens - i * ROW_GROUP_TOKENS) for i in range(groups)]
    tokenizer = {"content_hash": "", "vocabulary_size": _VOCABULARY, "end_of_document": 0}
    made = write_dataset(
        DatasetWriter(f"{folder}/tokens", "tokens", {}),
        (token_batch(generator, size) for size in sizes),
        tokenizer,
        {"tokens": tokens},
    )
    properties = {"slots": _SLOTS, "tokens_hash": read_manifest(made).content_hash}
    targets = write_dataset(
        DatasetWriter(f"{folder}/targets", "targets", {}),
        (target_batch(generator, size) for size in sizes),
        tokenizer,
        properties,
    )
    return made, targets


def write_dataset(
    writer: DatasetWriter,
    batches: Iterator[pa.RecordBatch],
    tokenizer: dict[str, object],
    properties: dict[str, object],
) -> str:
    """Writes each batch as a row group in a file of its own."""
    writer.begin()
    parts = []
    for number, batch in enumerate(batches):
        parts.append(f"part-{number}.parquet")
        with writer.new_file(parts[-1]) as file:
            with parquet.RowGroupWriter(file.path, batch.schema, ROW_GROUP_TOKENS) as output:
                output.write(batch)
            file.tokens = (
                len(batch.column("tokens").values) if "tokens" in batch.schema.names else 0
            )
        writer.complete(parts[-1], Completion((file.written,), {}))
    writer.finish(parts, inputs={}, tokenizer=tokenizer, properties=properties)
    return writer.folder


def token_batch(generator: np.random.Generator, count: int) -> pa.RecordBatch:
    tokens = words(generator, count)
    lists = as_lists(tokens, row_ends(count), tokens_schema(np.uint16).field("tokens").type)
    rows = len(lists)
    byte_lengths = pa.array(np.full(rows, 4 * _DOCUMENT, np.uint32))
    ids = pa.array([str(row) for row in range(rows)])
    return pa.record_batch([ids, lists, byte_lengths], schema=tokens_schema(np.uint16))


def target_batch(generator: np.random.Generator, count: int) -> pa.RecordBatch:
    shares = -np.sort(-(generator.exponential(size=(count, _SLOTS)) ** 3), axis=1)
    weights = (shares * (65535 / shares.sum(axis=1, keepdims=True))).astype(np.uint16)
    weights[generator.random(count) < 0.4, 1:] = 0
    weights[:, 0] = 65535 - weights[:, 1:].sum(axis=1)
    tokens = words(generator, count * _SLOTS)
    tokens[weights.ravel() == 0] = 0
    ends = row_ends(count) * _SLOTS
    columns = (tokens, weights.ravel())
    lists = [as_lists(column, ends, _TARGETS_SCHEMA.field(0).type) for column in columns]
    return pa.record_batch(lists, schema=_TARGETS_SCHEMA)


def words(generator: np.random.Generator, count: int) -> npt.NDArray[np.uint16]:
    return (generator.zipf(1.3, count) % _VOCABULARY).astype(np.uint16)


def row_ends(count: int) -> npt.NDArray[np.int32]:
    return np.minimum(np.arange(0, count + _DOCUMENT, _DOCUMENT), count).astype(np.int32)


def as_lists(
    values: npt.NDArray[np.uint16], ends: npt.NDArray[np.int32], kind: pa.DataType
) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values), type=kind)


if __name__ == "__main__":
    main(sys.argv[1:])

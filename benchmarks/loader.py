"""How fast is the trainer's loader on one core, against pyarrow merely reading the same columns?"""

import functools
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from benchmarks import measure
from benchmarks.enrich import prepare
from corpusmill.commands import enrich
from corpusmill.corpus import parquet
from corpusmill.corpus.datasets import read_manifest
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.trainer.data import TokenDataset
from corpusmill.trainer.order import DataOptions

_COLUMNS = {"tokens": ["tokens", "byte_length"]}


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("loader", __doc__, 0)
    parser.add_argument("--batch-size", type=int, default=8, help="sequences in a batch")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a sequence")
    arguments = parser.parse_args(argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    torch.set_num_threads(1)
    options = DataOptions(arguments.batch_size, arguments.length)
    with tempfile.TemporaryDirectory() as name:
        tempfile.tempdir = name
        folder = pathlib.Path(name)
        prepare(folder, arguments.corpus)
        tokens, counts, targets = (f"{folder}/{kind}" for kind in ("tokens", "counts", "targets"))
        with measure.silence():
            enrich.main(["--tokens", tokens, "--counts", counts, "--output", targets])
        positions = read_manifest(tokens).properties["tokens"]
        slots = TargetOptions().slots
        cases: list[tuple[str, Sequence[str], dict[str, Any]]] = [
            ("tokens", [tokens], {}),
            (f"tokens and {slots}-slot targets", [tokens, targets], {"targets": targets}),
            (
                f"tokens and {slots}-slot targets, computed",
                [tokens],
                {"counts": counts, "compact": TargetOptions()},
            ),
        ]
        rows = [
            (case, *rates(folders, tokens, options, more, positions, arguments.repeat))
            for case, folders, more in cases
        ]
    measure.print_table(
        f"{positions:,} positions, one core, millions a second of processor time",
        ("", "pyarrow reads", "loader", "ratio"),
        rows,
    )
    for case, _, loader, _ in rows:
        measure.print_goal(f"loader, {case}, million positions/s", loader, at_least=2)


def rates(
    folders: Sequence[str],
    tokens: str,
    options: DataOptions,
    more: dict[str, Any],
    positions: int,
    repeat: int,
) -> tuple[float, float, float]:
    """Million positions a second of pyarrow and of the loader, and their ratio."""
    dataset = TokenDataset(tokens, options, epochs=1, **more)
    use_up(dataset)  # compiles, and makes the table
    best = [float("inf")] * 2
    # In turn, so that whatever else the machine does strikes both.
    for _ in range(repeat):
        for step, work in enumerate(
            (functools.partial(read, folders), functools.partial(use_up, dataset))
        ):
            measure.touch_memory()
            best[step] = min(best[step], processor_seconds(work))
    pyarrow, loader = (positions / seconds / 1e6 for seconds in best)
    return pyarrow, loader, loader / pyarrow


def processor_seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def use_up(batches: Iterable[Any]) -> None:
    for _ in batches:
        pass


def read(folders: Sequence[str]) -> None:
    """Reads the columns that the loader needs into Arrow tables, a row group at a time."""
    for folder in folders:
        manifest = read_manifest(folder)
        columns = _COLUMNS.get(manifest.kind)
        for record in manifest.data_files:
            with parquet.open_reader(f"{folder}/{record.name}") as file:
                for group in range(file.num_row_groups):
                    file.read_row_group(group, columns=columns, use_threads=False)


if __name__ == "__main__":
    main(sys.argv[1:])

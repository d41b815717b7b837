"""How fast are targets made: the kernel, against joins and a dictionary, and the whole job?"""

import functools
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from benchmarks import data, measure
from corpus import storage
from corpus.datasets import DatasetWriter, read_manifest
from ngram_agg import targets_files
from ngram_agg.counts_files import counts_packing, read_counts
from ngram_agg.full_tables import FullTable, backward_run, build_table
from ngram_agg.packing import Packing, Tokens, unpack_columns
from ngram_agg.runs import CountsRun, count_ngrams, joined_runs, merge_runs
from ngram_agg.targets import (
    Positions,
    TargetOptions,
    Targets,
    TargetTable,
    find_positions,
    make_target_table,
    make_targets,
    save_target_table,
)
from pipelines import count, enrich
from pipelines.target_joins import Rows, TokenFiles, read_rows
from pipelines.target_tables import TargetTables

_MAX_ORDER = 4
# The speeds that are aimed at are of targets of this size.
_HEAD, _DRAWS = 8, 1
_CHUNK = 1 << 20
_TINY = 20_000


def target_table(tokens: Tokens, packing: Packing, options: TargetOptions) -> TargetTable:
    """Of the corpus that gets the targets."""
    run = count_ngrams(
        tokens,
        max_order=packing.max_order,
        vocabulary_size=packing.vocabulary_size,
        end_of_document=packing.end_of_document,
    )
    backward = backward_run(run, options.orders, options.min_count)
    return make_target_table(build_table(packing, [backward], options.min_count), options)


def positions_of(tokens: Tokens, packing: Packing) -> Positions:
    ends = np.flatnonzero(tokens == packing.end_of_document) + 1
    hashes = np.arange(len(ends), dtype=np.uint64)
    return find_positions(packing, tokens, ends, hashes, 0, tokens[:0], 0)


def kernel(tokens: Tokens, packing: Packing, table: TargetTable) -> None:
    """Targets chunk by chunk, as the job makes them."""
    for first in range(0, len(tokens), _CHUNK):
        make_targets(table, positions_of(tokens[first : first + _CHUNK], packing))


def steps(dataset: str, counts: str, options: TargetOptions, repeat: int) -> dict[str, float]:
    """Seconds of what the broadcast job does, step by step, without Beam."""
    manifest = read_manifest(counts, "counts")
    packing = counts_packing(manifest)
    names = [file.name for file in manifest.data_files]
    tokens = tuple(file.name for file in read_manifest(dataset, "tokens").data_files)
    clock = measure.Clock()

    def read_parts() -> list[CountsRun]:
        return [joined_runs(list(read_counts(f"{counts}/{name}", packing))) for name in names]

    def turned(parts: list[CountsRun]) -> list[CountsRun]:
        return [backward_run(part, options.orders, options.min_count) for part in parts]

    def table_of(runs: list[CountsRun]) -> FullTable:
        return build_table(packing, [merge_runs(runs)], options.min_count)

    def write(path: str, rows: list[Rows], made: list[Targets]) -> None:
        with targets_files.open_writer(path, packing) as output:
            for each, targets in zip(rows, made, strict=True):
                output.write(targets_files.targets_to_batch(packing, targets, each.ends))
                output.end_row_group()

    for _ in range(repeat):
        measure.touch_memory()
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/targets.parquet"
            parts = clock.time("read counts", read_parts)
            runs = clock.time("turn contexts", functools.partial(turned, parts))
            full = clock.time("build table", functools.partial(table_of, runs))
            table = clock.time("choose heads", functools.partial(make_target_table, full, options))
            save = functools.partial(save_target_table, f"{folder}/table", table)
            clock.time("save table", save)
            tables = TargetTables(DatasetWriter(folder, "targets", {}), packing, options, (), None)
            read = functools.partial(_read_all, TokenFiles(dataset, tokens, tables))
            rows = clock.time("read positions", read)
            make = functools.partial(_make_all, table, rows)
            made = clock.time("make targets", make)
            clock.time("write targets", functools.partial(write, path, rows, made))
            clock.time("sha256", functools.partial(storage.sha256, path))
    return clock.best


def _read_all(files: TokenFiles) -> list[Rows]:
    return [rows for number in range(len(files.names)) for rows in read_rows(files, number)]


def _make_all(table: TargetTable, rows: list[Rows]) -> list[Targets]:
    return [make_targets(table, each.positions) for each in rows]


def arrow_join(positions: Positions, table: FullTable, orders: range) -> None:
    """A left join an order, of contexts with 36 bytes of ids and weights, then the longest."""
    found = pa.table({"position": np.arange(len(positions), dtype=np.uint32)})
    for order in reversed(orders):
        keys = _keys_of_order(positions.high, positions.low, table.packing, order)
        contexts = _keys_of_order(table.columns["high"], table.columns["low"], table.packing, order)
        mine = _order_of_rows(table) == order
        record = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(36), int(mine.sum()), [None, pa.py_buffer(bytes(36 * int(mine.sum())))]
        )
        right = pa.table({**_columns(contexts, mine), f"targets_{order}": record})
        left = pa.table({"position": found["position"], **_columns(keys, slice(None))})
        left.join(right, ["high", "low"], use_threads=False)


def _columns(keys: tuple[np.ndarray, np.ndarray], rows: object) -> dict[str, np.ndarray]:
    return {"high": keys[0][rows], "low": keys[1][rows]}


def _keys_of_order(
    high: np.ndarray, low: np.ndarray, packing: Packing, order: int
) -> tuple[np.ndarray, np.ndarray]:
    mask = ((1 << order * packing.token_bits) - 1) << (packing.length - order) * packing.token_bits
    return (
        high.astype(np.uint64) & np.uint64(mask >> 64),
        low & np.uint64(mask & (1 << 64) - 1),
    )


def _order_of_rows(table: FullTable) -> np.ndarray:
    *context, _ = unpack_columns(table.packing, table.columns["high"], table.columns["low"])
    return np.sum([column != table.packing.end_of_document for column in context], axis=0)


def dictionary(tokens: Tokens, packing: Packing, table: TargetTable, positions: int) -> float:
    """Seconds of a look-up in a dictionary for each position, the longest context first."""
    *context, _ = unpack_columns(packing, table.full.columns["high"], table.full.columns["low"])
    end = packing.end_of_document
    keys = zip(*(column.tolist() for column in context), strict=True)
    rows = {tuple(t for t in key if t != end): row for row, key in enumerate(keys)}
    chosen = tokens[:positions].tolist()
    records = [bytes(36)]

    def look_up() -> None:
        before: list[int] = []
        for token in chosen:
            for order in range(len(before), 0, -1):
                row = rows.get(tuple(before[:order]))
                if row is not None:
                    records[0]
                    break
            before = [] if token == end else [token, *before[: packing.max_order - 1]]

    return measure.timed(look_up)


def job_seconds(tokens: str, counts: str, *options: str) -> float:
    """Seconds of a whole enrich job."""
    with tempfile.TemporaryDirectory() as folder, measure.silence():
        inputs = ["--tokens", tokens, "--counts", counts, "--output", f"{folder}/targets"]
        return measure.timed(lambda: enrich.main([*inputs, *options]))


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("enrich", __doc__, 10_000_000)
    parser.add_argument("--few", type=int, default=4_000_000, help="positions of joins")
    arguments = parser.parse_args(argv)
    dataset = data.tokens_dataset(arguments.tokens, arguments.corpus)
    tiny = data.tokens_dataset(_TINY, arguments.corpus)
    tokens, _ = data.load_tokens(arguments.tokens, arguments.corpus)
    vocabulary = data.load(dataset)[1].tokenizer
    packing = Packing.of(vocabulary, _MAX_ORDER + 1)
    table = target_table(
        tokens, packing, TargetOptions(max_order=_MAX_ORDER, head=_HEAD, tail_draws=_DRAWS)
    )
    few = positions_of(tokens[: arguments.few], packing)
    kernel(tokens[:_CHUNK], packing, table)  # compiles
    alone = measure.seconds(lambda: kernel(tokens, packing, table), arguments.repeat)
    join = measure.timed(lambda: arrow_join(few, table.full, table.options.orders))
    looked_up = dictionary(tokens, packing, table, arguments.few)
    size = len(tokens)
    rows = [
        (f"kernel, {_HEAD + _DRAWS} slots", alone / size),
        ("Arrow left joins, 36 bytes attached", join / len(few)),
        ("a Python dictionary's look-up", looked_up / len(few)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for source, name in ((dataset, "counts"), (tiny, "tiny")):
            with measure.silence():
                options = ["--output", f"{folder}/{name}", "--max-order", str(_MAX_ORDER)]
                count.main(["--input", source, *options])
        alone_steps = steps(dataset, f"{folder}/counts", table.options, arguments.repeat)
        for job in ("broadcast", "shuffle", "broadcast --workers 2"):
            options = ["--join", *job.split(), "--head", str(_HEAD), "--tail-draws", str(_DRAWS)]
            started = job_seconds(tiny, f"{folder}/tiny", *options)
            whole = job_seconds(dataset, f"{folder}/counts", *options)
            rows.append((f"job, {job}, less start-up", (whole - started) / size))
    measure.print_table(
        f"targets of {size:,} positions, contexts of 1 to {_MAX_ORDER} tokens,"
        f" {len(table.full):,} contexts",
        ("", "ns/position", "million/s", "kernel = 1"),
        [(name, each * 1e9, 1e-6 / each, each * size / alone) for name, each in rows],
    )
    measure.print_table(
        "the same steps called one after the other, without Beam",
        ("", "ns/position", "kernel = 1"),
        [(name, each / size * 1e9, each / alone) for name, each in alone_steps.items()],
    )
    kernel_, joined, _, broadcast, shuffle, two = (each for _, each in rows)
    measure.print_goal("kernel, million positions/s", 1e-6 / kernel_, at_least=5)
    measure.print_goal("kernel, times as fast as Arrow joins", joined / kernel_, at_least=3)
    measure.print_goal("broadcast's share of the kernel's speed", kernel_ / broadcast, at_least=0.6)
    measure.print_goal("shuffle's share of broadcast's", broadcast / shuffle, at_least=1 / 3)
    measure.print_goal("two workers against one", broadcast / two, at_least=1.7)


if __name__ == "__main__":
    main(sys.argv[1:])

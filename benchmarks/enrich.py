"""How fast are targets made, how large are they, and what does it cost to hold no table whole?

The kernel in memory, beside Arrow's joins and a Python dictionary; then the command, each time as a
process of its own, with one table, with many, and with two workers.
"""

import pathlib
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from benchmarks import data, measure
from benchmarks.chain import Step, best
from corpusmill.commands import count, tokenize
from corpusmill.corpus.datasets import read_manifest
from corpusmill.ngram_agg.counts_files import counts_packing
from corpusmill.ngram_agg.full_tables import context_lengths, read_contexts
from corpusmill.ngram_agg.packing import Packing, Tokens, unpack_columns
from corpusmill.ngram_agg.positions import Positions, read_positions
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.ngram_agg.targets import TargetTable, make_target_table, make_targets

_TINY = "a tiny text\n"
# Of the estimated size of one table: about thirty tables.
_MANY = 0.13
_FEW = 1_000_000


def prepare(folder: pathlib.Path, corpus: str | None) -> None:
    """Tokens, in one file, and counts of the corpus and of next to nothing."""
    inputs, tokenizer = data.documents(corpus, only_wiki=True)
    neox = data.SHARED / "tokenizers" / "gptneox_tokenizer.json"
    if neox.exists() and corpus != "embedded":
        tokenizer = neox
    (folder / "tiny.txt").write_text(_TINY)
    with measure.silence():
        for name, path in (("", inputs[0]), ("tiny-", folder / "tiny.txt")):
            tokens = f"{folder}/{name}tokens"
            read = ["--input", str(path), "--tokenizer", str(tokenizer)]
            tokenize.main([*read, "--shard-mib", "4096", "--output", tokens])
            count.main(["--tokens", tokens, "--output", f"{folder}/{name}counts"])


def kernel_rows(folder: pathlib.Path, repeat: int) -> list[tuple[str, float]]:
    """Seconds a position of looking up and drawing, and of what else might be done."""
    manifest = read_manifest(f"{folder}/counts", "counts")
    packing, options = counts_packing(manifest), TargetOptions()
    files = manifest.data_urls(f"{folder}/counts")
    contexts = read_contexts(files, packing, options.orders, options.min_count)
    table = make_target_table(packing, options, contexts)
    name = read_manifest(f"{folder}/tokens").data_files[0].name
    groups = [rows.positions for rows in read_positions(f"{folder}/tokens/{name}", packing, 0)]
    make_targets(table, groups[0])  # compiles
    seconds = measure.seconds(lambda: [make_targets(table, each) for each in groups], repeat)
    few = Positions(*(getattr(groups[0], each)[:_FEW] for each in Positions.__annotations__))
    return [
        ("kernel", seconds / sum(map(len, groups))),
        ("Arrow left joins", measure.timed(lambda: arrow_join(few, table)) / len(few)),
        ("a Python dictionary's look-up", dictionary(few.tokens, packing, table) / len(few)),
    ]


def arrow_join(positions: Positions, table: TargetTable) -> None:
    """A left join an order, of contexts with 36 bytes of ids and weights."""
    packing = table.packing
    orders = context_lengths(packing, table.index.high, table.index.low)
    found = pa.table({"position": np.arange(len(positions), dtype=np.uint32)})
    for order in reversed(table.options.orders):
        keys = _keys_of_order(positions.high, positions.low, packing, order)
        rows = orders == order
        contexts = _keys_of_order(table.index.high[rows], table.index.low[rows], packing, order)
        size = 36 * int(rows.sum())
        record = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(36), int(rows.sum()), [None, pa.py_buffer(bytes(size))]
        )
        right = pa.table({**contexts, f"targets_{order}": record})
        left = pa.table({"position": found["position"], **keys})
        left.join(right, ["high", "low"], use_threads=False)


def _keys_of_order(
    high: np.ndarray, low: np.ndarray, packing: Packing, order: int
) -> dict[str, np.ndarray]:
    mask = ((1 << order * packing.token_bits) - 1) << (packing.length - order) * packing.token_bits
    return {
        "high": high.astype(np.uint64) & np.uint64(mask >> 64),
        "low": low & np.uint64(mask & (1 << 64) - 1),
    }


def dictionary(tokens: Tokens, packing: Packing, table: TargetTable) -> float:
    """Seconds of a look-up in a dictionary for each token, the longest context first."""
    *context, _ = unpack_columns(packing, table.index.high, table.index.low)
    end = packing.end_of_document
    keys = zip(*(column.tolist() for column in context), strict=True)
    rows = {tuple(t for t in key if t != end): row for row, key in enumerate(keys)}
    chosen = tokens.tolist()

    def look_up() -> None:
        before: list[int] = []
        for token in chosen:
            for order in range(len(before), 0, -1):
                if rows.get(tuple(before[:order])) is not None:
                    break
            before = [] if token == end else [token, *before[: packing.max_order - 1]]

    return measure.timed(look_up)


def job(folder: pathlib.Path, repeat: int, name: str, *options: str, source: str = "") -> Step:
    inputs = ["enrich", "--tokens", f"{folder}/{source}tokens", "--counts"]
    return best([*inputs, f"{folder}/{source}counts", *options], folder / name, repeat)


def bytes_a_token(folder: pathlib.Path) -> tuple[float, float]:
    """Of positions and of heads."""
    manifest = read_manifest(str(folder), "targets")
    tokens = manifest.properties["tokens"]
    heads = sum(file.bytes for file in manifest.data_files if file.name.startswith("heads/"))
    return (sum(file.bytes for file in manifest.data_files) - heads) / tokens, heads / tokens


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("enrich", __doc__, 0)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(folder, arguments.corpus)
        kernel = kernel_rows(folder, arguments.repeat)
        ngrams = read_manifest(f"{folder}/counts").rows
        many = ["--table-mib", str(_MANY * ngrams * 24 / 2**20)]
        steps = {
            "one table, 16 + 4": job(folder, arguments.repeat, "one"),
            "one table, 8 + 1": job(
                folder, arguments.repeat, "small", "--head", "8", "--tail-draws", "1"
            ),
            "many tables, 16 + 4": job(folder, arguments.repeat, "many", *many),
            "two workers, 16 + 4": job(folder, arguments.repeat, "two", "--workers", "2"),
            "next to nothing": job(folder, arguments.repeat, "tiny", source="tiny-"),
            "next to nothing, many tables": job(
                folder, arguments.repeat, "tiny-many", "--table-mib", "1e-6", source="tiny-"
            ),
        }
        sizes = {slots: bytes_a_token(folder / slots) for slots in ("one", "small")}
        made = read_manifest(f"{folder}/many")
    positions = made.properties["tokens"]
    measure.print_table(
        f"targets of {positions:,} positions, one core",
        ("", "ns/position", "million/s", "kernel = 1"),
        [(name, each * 1e9, 1e-6 / each, each / kernel[0][1]) for name, each in kernel],
    )
    measure.print_table(
        f"the command, {made.counters['contexts_of_tables']:,} contexts",
        ("", "seconds", "processor", "peak MiB"),
        [(name, step.wall, step.processor, step.peak / 2**20) for name, step in steps.items()],
    )
    measure.print_table(
        "bytes a token",
        ("", "positions", "heads", "both"),
        [(name, *found, sum(found)) for name, found in sizes.items()],
    )
    spilled = made.counters["spilled_bytes"] / positions
    one, several = steps["one table, 16 + 4"], steps["many tables, 16 + 4"]
    start = steps["next to nothing"].processor, steps["next to nothing, many tables"].processor
    share = (one.processor - start[0]) / (several.processor - start[1])
    measure.print_goal("bytes a token, 16 + 4", sum(sizes["one"]), at_most=8.0)
    measure.print_goal("bytes a token, 8 + 1", sum(sizes["small"]), at_most=5.0)
    measure.print_goal("bytes a position through files, many tables", spilled, at_most=12)
    measure.print_goal(
        "many tables' share of one's speed", one.processor / several.processor, at_least=0.6
    )
    measure.print_goal("the same without start-up", share, at_least=0.6)
    measure.print_goal(
        "kernel, times as fast as Arrow's joins", kernel[1][1] / kernel[0][1], at_least=3
    )


if __name__ == "__main__":
    main(sys.argv[1:])

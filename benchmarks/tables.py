"""Distribution tables: how large they are, and how fast contexts are found in them."""

import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from benchmarks import data, measure
from corpusmill.commands import count, distributions
from corpusmill.corpus.datasets import read_manifest
from corpusmill.ngram_agg import open_distributions


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("tables", __doc__, 0, repeat=5)
    parser.set_defaults(tokens=None)
    parser.add_argument("--lookups", type=int, default=1_000_000, help="contexts looked up")
    arguments = parser.parse_args(argv)
    if arguments.tokens:
        source = data.tokens_dataset(arguments.tokens, arguments.corpus)
    else:
        source = data.real_text(arguments.corpus, only_wiki=True)
    with tempfile.TemporaryDirectory() as folder:
        counts, output = f"{folder}/counts", f"{folder}/tables"
        with measure.silence():
            count.main(["--tokens", source, "--output", counts, "--max-order", "4"])
            distributions.main(["--counts", counts, "--output", output])
        _print_sizes(source, output)
        _print_lookups(source, output, f"{folder}/cache", arguments.lookups, arguments.repeat)


def _print_sizes(source: str, folder: str) -> None:
    manifest = read_manifest(folder)
    tokens = read_manifest(source).properties["tokens"]
    rows = []
    for order in range(1, manifest.properties["max_order"] + 1):
        files = [file for file in manifest.files if file.name.startswith(f"order={order}/")]
        contexts, size = (sum(getattr(f, name) for f in files) for name in ("rows", "bytes"))
        rows.append((str(order), contexts, size / contexts, size / tokens))
    total = sum(row[-1] for row in rows)
    measure.print_table(
        f"tables of {tokens:,} tokens, contexts seen twice or more, top-8",
        ("order", "contexts", "bytes/context", "MB/million tokens"),
        [*rows, ("1-4", sum(row[1] for row in rows), "", total)],
    )
    measure.print_goal("tables of orders 1-4, MB per million tokens", total, at_most=2.5)


def _print_lookups(source: str, folder: str, cache: str, lookups: int, repeat: int) -> None:
    dataset = open_distributions(folder)
    tokens, manifest = data.load(source)
    generator = np.random.default_rng(0)
    rows, slowest = [], float("inf")
    for order in (2, 3, 4):
        starts = generator.integers(0, len(tokens) - order, lookups)
        occurring = tokens[starts[:, None] + np.arange(order)]
        vocabulary = manifest.tokenizer["vocabulary_size"]
        random = generator.integers(0, vocabulary, (lookups, order)).astype(tokens.dtype)
        for place in (None, cache):
            table = dataset.load(order, place)
            for name, contexts in (("from the text", occurring), ("random", random)):
                found = (table.find(contexts) >= 0).mean()
                spent = measure.seconds(lambda t=table, c=contexts: t.find(c), repeat)
                rate = lookups / spent / 1e6
                where = "memory-mapped" if place else "in memory"
                rows.append((f"{order}, {where}, {name}", len(table), f"{found:.0%}", rate))
                if place is None:
                    slowest = min(slowest, rate)
    measure.print_table(
        f"{lookups:,} contexts looked up at once",
        ("order", "contexts in table", "found", "million a second"),
        rows,
    )
    measure.print_goal("look-ups in memory, the slowest, million/s", slowest, at_least=5)


if __name__ == "__main__":
    main(sys.argv[1:])

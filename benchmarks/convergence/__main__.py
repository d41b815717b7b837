"""Do models learn faster from compact targets? `python -m benchmarks.convergence`

Trains the same model on a corpus with the same tokens in the same order, from the observed next
tokens and from targets of several kinds, and validates on documents that are in neither the tokens
nor the counts. Runs that are there already are not repeated, so more rows, seeds, sizes, lengths of
runs and learning rates can be added.

Counts of all text tell a run of text that it hasn't seen yet. The control is `-learnt`, with counts
of nothing but what the run trains on: `--megabytes 4 --vocabulary 4096 --batch-size 8 --epochs 1
--rows next-token retain-16-and-4 retain-16-and-4-learnt` says how much of the gain is left,
`--epochs 2` whether it lasts.
"""

import argparse
import json
import math
import pathlib
import random
import sys
from collections.abc import Sequence

from benchmarks import data, measure
from benchmarks.bpe import train_bpe
from benchmarks.convergence import gradients, loading, summary
from benchmarks.convergence.rows import ROWS, Row
from benchmarks.data import run
from corpusmill.corpus.datasets import read_manifest

_CORPUS = str(data.SHARED / "corpora" / "simplewiki.jsonl.gz")
_HELD_OUT = 0.004
_ORDERS = 4


def prepare(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Text with a part held out, a tokenizer of the rest, tokens and counts of that and its part.

    Args:
      options: of the benchmark.
      rows: whose targets are needed.
    """
    folder = options.folder
    texts = folder / "train.jsonl", folder / "held-out.jsonl", folder / "learnt.jsonl"
    tokenizer = folder / "tokenizer.json"
    source = {name: getattr(options, name) for name in ("corpus", "megabytes", "vocabulary")}

    def make() -> None:
        _split(options.corpus, *texts[:2])
        _cut(texts[0], options.megabytes * 1e6, texts[2])
        made = train_bpe(
            data.texts(texts[0]),
            pre_tokenized=True,
            vocabulary=options.vocabulary,
            special_tokens=["<|endoftext|>"],
        )
        made.save(str(tokenizer))

    data.make_once(folder, source, make)
    for source, name in zip(texts, ("all-tokens", "held-out", "tokens"), strict=True):
        run("tokenize", "--input", source, "--tokenizer", tokenizer, "--output", folder / name)
    for source, name in (("all-tokens", "counts"), ("tokens", "counts-learnt")):
        places = ("--tokens", folder / source, "--output", folder / name)
        run("count", *places, "--max-order", _ORDERS)
    for row in rows:
        if row.enrich:
            inputs = ("--tokens", folder / "tokens", "--counts", folder / row.counts)
            run("enrich", *inputs, "--output", folder / row.targets, *row.enrich)


def _split(corpus: str, train: pathlib.Path, held_out: pathlib.Path) -> None:
    generator = random.Random(0)
    with train.open("w", encoding="utf-8") as most, held_out.open("w", encoding="utf-8") as few:
        for text in data.texts(corpus):
            file = few if generator.random() < _HELD_OUT else most
            file.write(json.dumps({"text": text}) + "\n")


def _cut(source: pathlib.Path, most: float, part: pathlib.Path) -> None:
    """The first documents of a text, until there are so many bytes of them."""
    size = 0
    with part.open("w", encoding="utf-8") as file:
        for text in data.texts(source):
            if size >= most:
                break
            size += len(text.encode())
            file.write(json.dumps({"text": text}) + "\n")


def train(folder: pathlib.Path, row: Row, seed: int, options: argparse.Namespace) -> pathlib.Path:
    """Trains one model, or what is missing of it; returns its folder."""
    count = _steps(folder, options)
    what = f"{row.name}-{options.size}-{count}-steps-{options.learning_rate:g}"
    output = folder / f"run-{what}-seed-{seed}"
    inputs = ["--tokens", folder / "tokens", "--validate", folder / "held-out", "--seed", seed]
    targets, counts = row.sources(folder)
    if targets:
        inputs += ["--objective", "compact", "--targets", targets]
    if counts:
        inputs += ["--objective", "all-ngrams", "--counts", counts]
    shape = ["--batch-size", options.batch_size, "--length", options.length]
    shape += ["--precision", options.precision]
    steps = ["--steps", count, "--warmup", count // 10]
    rate = ["--schedule", "cosine", "--learning-rate", options.learning_rate]
    every = ["--validate-every", options.every, "--checkpoint-every", options.every, "--keep", 1]
    chosen = [*inputs, "--size", options.size, *shape, *steps, *rate, *every, *row.train]
    run("train", "--output", output, *chosen)
    return output


def _steps(folder: pathlib.Path, options: argparse.Namespace) -> int:
    if options.epochs is None:
        return int(options.steps)
    tokens = read_manifest(str(folder / "tokens")).properties["tokens"]
    return math.ceil(options.epochs * tokens / (options.batch_size * options.length))


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.convergence",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--folder", type=pathlib.Path, default=pathlib.Path("benchmarks/.data/convergence"))
    add("--corpus", default=_CORPUS, help="JSONL, plain or compressed; a folder has text of one")
    add("--rows", nargs="+", default=[row.name for row in ROWS], help="which rows to train")
    add("--seeds", type=int, default=3, help="runs of each row marked as main; others have one")
    add("--first-seed", type=int, default=0, help="the others follow it")
    add("--size", default="3m", help="size of the model")
    add("--steps", type=int, default=2000, help="optimizer steps")
    add("--epochs", type=float, help="over the text that is trained on, instead of --steps")
    add("--megabytes", type=float, default=math.inf, help="of text to train on; one size a folder")
    add("--vocabulary", type=int, default=16_384, help="of the tokenizer; one a folder")
    add("--batch-size", type=int, default=16, help="sequences in a step")
    add("--length", type=int, default=256, help="tokens of a sequence")
    add("--learning-rate", type=float, default=2e-3, help="the highest one")
    add("--precision", default="auto", help="of matrices; bfloat16 is faster on many CPUs, too")
    add("--every", type=int, default=100, help="steps between two validations")
    add("--report", type=pathlib.Path, help="folder for the table and the plots")
    options = parser.parse_args(argv)
    unknown = set(options.rows) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"there is no row {sorted(unknown)[0]}; there are {[r.name for r in ROWS]}")
    chosen = [row for row in ROWS if row.name in options.rows]
    prepare(options, chosen)
    first = options.first_seed
    runs = {
        row: [
            train(options.folder, row, seed, options)
            for seed in range(first, first + (options.seeds if row.is_main else 1))
        ]
        for row in chosen
    }
    lines = ["\n".join(measure.machine()), "", *summary.table(options.folder, runs)]
    lines += ["", *gradients.table(options.folder, runs)]
    lines += ["", *loading.table(options.folder, chosen)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.report:
        options.report.mkdir(parents=True, exist_ok=True)
        (options.report / "convergence.md").write_text(text, encoding="utf-8")
        summary.plot(runs, options.report)


if __name__ == "__main__":
    main(sys.argv[1:])

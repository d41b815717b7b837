"""Can models learn from compressed text? `python -m benchmarks.learnability`

Trains the same model on the ids of several codecs, all made from the same text, and evaluates each
in bits per byte on articles that neither the byte model nor the tokenizer nor the model has seen
(arXiv 2404.03626 asks this of larger models). Every row sees the whole text; those that took less
computing for it than `--teraflops` go on with further epochs until then. Runs that are there
already are not repeated, so more rows, seeds, sizes and learning rates can be added.
"""

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Sequence

from benchmarks import data as shared
from benchmarks import measure
from benchmarks.learnability import summary
from benchmarks.learnability.prepare import HELD_OUT, TRAIN, Source, data, prepare
from benchmarks.learnability.rows import STUDIES, Row
from corpusmill.corpus.datasets import read_manifest
from corpusmill.trainer import checkpoints
from corpusmill.trainer.batches import model_vocabulary
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import Transformer

_CORPUS = str(shared.SHARED / "corpora" / "simplewiki.jsonl.gz")
_VALIDATIONS = 8


def steps_of(folder: pathlib.Path, row: Row, options: argparse.Namespace) -> int:
    """One epoch, or as many steps as take so many FLOPs, if that is more."""
    manifest = read_manifest(str(data(folder, row, TRAIN)))
    model = Transformer(ModelConfig.of(options.size, model_vocabulary(manifest.tokenizer)))
    wanted = options.teraflops * 1e12 / summary.training_flops(model.flops_per_token)
    ids = max(manifest.properties["tokens"], wanted)
    return math.ceil(ids / (options.batch_size * options.length))


def stride_of(folder: pathlib.Path, row: Row, options: argparse.Namespace) -> int:
    """With it every id is predicted after at least so many bytes, whatever an id stands for."""
    manifest = read_manifest(str(data(folder, row, HELD_OUT)))
    ids = manifest.properties["tokens"] / manifest.counters["text_bytes"]
    return max(1, options.length - math.ceil(options.context_bytes * ids))


def train(folder: pathlib.Path, row: Row, seed: int, options: argparse.Namespace) -> pathlib.Path:
    """Trains and evaluates one model, or what is missing of it; returns its folder."""
    what = f"{row.folder}-{options.size}-{options.learning_rate:g}"
    output = folder / f"run-{what}-seed-{seed}"
    steps = steps_of(folder, row, options)
    every = max(1, steps // _VALIDATIONS)
    inputs = ["--tokens", data(folder, row, TRAIN), "--validate", data(folder, row, HELD_OUT)]
    shape = ["--batch-size", options.batch_size, "--length", options.length]
    shape += ["--size", options.size, "--precision", options.precision, "--seed", seed]
    rate = ["--learning-rate", options.learning_rate, "--schedule", "rsqrt"]
    chosen = [*inputs, *shape, *rate, "--warmup", options.warmup, "--steps", steps]
    saving = ["--validate-every", every, "--checkpoint-every", every, "--keep", 1]
    shared.run("train", "--output", output, *chosen, *saving)
    evaluation = output / summary.EVALUATION
    newest = checkpoints.complete(str(output))[-1]
    if not evaluation.exists() or json.loads(evaluation.read_bytes())["checkpoint"] != newest:
        where = ("--run", output, "--tokens", data(folder, row, HELD_OUT))
        where += ("--precision", options.precision, "--stride", stride_of(folder, row, options))
        shared.run("evaluate", *where, "--output", evaluation)
    return output


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learnability",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--folder", type=pathlib.Path, default=pathlib.Path("benchmarks/.data/learnability"))
    add("--corpus", default=_CORPUS, help="JSONL, plain or compressed; a folder has text of one")
    add("--megabytes", type=float, default=2.5, help="text that models learn; one size a folder")
    add("--held-out", type=float, default=0.003, help="share of articles that are held out")
    add("--teraflops", type=float, default=12.0, help="least computing of a run, forward and back")
    add("--m1", metavar="DIR", help="a saved transformer byte model, for the rows of M1")
    add("--study", choices=STUDIES, default="4096", help="of 4,096 ids, or the paper's rows")
    add("--rows", nargs="+", default=[], help="which rows; default: all, those of M1 with --m1")
    add("--seeds", type=int, default=3, help="runs of each row marked as main; others have one")
    add("--size", default="500k", help="size of the model")
    add("--batch-size", type=int, default=4, help="sequences in a step")
    add("--length", type=int, default=256, help="ids of a sequence")
    add("--context-bytes", type=int, default=128, help="that stand before what is evaluated")
    add("--learning-rate", type=float, default=2e-3, help="the highest one")
    add("--warmup", type=int, default=100, help="steps in which it rises")
    add("--precision", default="auto", help="of matrices; bfloat16 is faster on many CPUs, too")
    add("--report", type=pathlib.Path, help="folder for the table and the plots")
    options = parser.parse_args(argv)
    study = STUDIES[options.study]
    unknown = set(options.rows) - {row.name for row in study}
    if unknown:
        parser.error(f"there is no row {sorted(unknown)[0]}; there are {[r.name for r in study]}")
    rows = [row for row in study if row.name in options.rows] or [
        row for row in study if options.m1 or not row.needs_m1
    ]
    if options.m1 is None and any(row.needs_m1 for row in rows):
        parser.error("the rows of M1 need a byte model: give --m1 DIR")
    source = Source(options.corpus, options.megabytes, options.held_out)
    prepare(options.folder, source, rows, options.m1)
    runs = {
        row: [
            summary.Run.read(train(options.folder, row, seed, options))
            for seed in range(options.seeds if row.is_main else 1)
        ]
        for row in rows
    }
    found = [summary.Result.of(options.folder, row, each) for row, each in runs.items()]
    lines = ["\n".join(measure.machine()), "", *summary.table(found, options.teraflops * 1e12)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.report:
        options.report.mkdir(parents=True, exist_ok=True)
        (options.report / "learnability.md").write_text(text, encoding="utf-8")
        summary.plot(found, options.report)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Makes the golden datasets again: `python -m tests.golden.make`, when a format has changed."""

import shutil
from pathlib import Path

from corpusmill.commands import cli
from corpusmill.compress import FreezeOptions, freeze, ngram_model, static_model
from corpusmill.compress.byte_models import save_model
from tests.codebooks import small_used_book
from tests.compress.samples import tiny_transformer

HERE = Path(__file__).parent
CODEC_FOLDER = "codecs"
KINDS = ("tokens", "counts", "distributions", "targets", "compressed", "examples")
CODEBOOKS = {
    "coder.codebook": (static_model, FreezeOptions("coder", 9)),
    "optimal.codebook": (ngram_model, FreezeOptions("optimal", 9)),
}
USED_CODEBOOK = "used.codebook"
# Folder of a compressed dataset -> the codec's options.
CODECS = {
    "equal-info": ["--codec", "equal-info", "--window-bits", "64", "--reset", "2"],
    "equal-info-24": ["--codec", "equal-info", "--window-bits", "24"],
    "ac": ["--codec", "ac"],
    "static-ac": ["--codec", "static-ac", "--token-bits", "8"],
    "delay": ["--codec", "equal-info", "--padding", "delay"],
    "zeros": ["--codec", "equal-info", "--padding", "zeros"],
    "m1-ac": ["--codec", "ac", "--byte-model", str(HERE / "m1")],
    "m1-equal-info": [
        "--codec",
        "equal-info",
        "--byte-model",
        str(HERE / "m1"),
        "--window-bits",
        "32",
    ],
}
# With frequencies so coarse, windows of 9 bits have codes for all bytes.
_PRECISION = 9


def make(folder: Path) -> None:
    """Runs all jobs on the golden corpus, a byte a token, into `folder`, and freezes codebooks."""
    tokens, counts, tables, targets, compressed, examples = (str(folder / kind) for kind in KINDS)
    source = str(HERE / "corpus.jsonl")
    _run(
        ["tokenize", "--input", source, "--tokenizer", "bytes", "--output", tokens],
        ["count", "--tokens", tokens, "--output", counts, "--max-order", "2"],
        ["distributions", "--counts", counts, "--output", tables, "--top-k", "2"],
        [
            *("enrich", "--tokens", tokens, "--counts", counts, "--output", targets),
            *("--head", "2", "--tail-draws", "1", "--draw-seed", "1"),
        ],
    )
    for name, (model, options) in CODEBOOKS.items():
        book = freeze(model(counts, _PRECISION), options, {"corpus": "golden"})
        book.write(str(folder / "codebooks" / name))
    small_used_book().write(str(folder / "codebooks" / USED_CODEBOOK))
    # Its tables are what this machine's functions give; elsewhere they may differ in the last bit.
    save_model(tiny_transformer(8), str(folder / "m1"))
    codebook = str(folder / "codebooks" / "optimal.codebook")
    cutting = ("--group", "2", "--piece-bytes", "16", "--max-ids", "4", "--seed", "1")
    _run(
        ["compress", "--input", source, "--codebook", codebook, "--output", compressed],
        ["examples", "--input", source, "--codebook", codebook, "--output", examples, *cutting],
    )
    for name, options in CODECS.items():
        output = str(folder / CODEC_FOLDER / name)
        model = [] if "--byte-model" in options else ["--byte-counts", counts]
        _run(["compress", "--input", source, *options, *model, "--output", output])


def _run(*commands: list[str]) -> None:
    for command in commands:
        if cli.main(command):
            raise SystemExit(f"{command[0]} failed")


if __name__ == "__main__":
    for kind in (*KINDS, "codebooks", "m1", CODEC_FOLDER):
        shutil.rmtree(HERE / kind, ignore_errors=True)
    make(HERE)

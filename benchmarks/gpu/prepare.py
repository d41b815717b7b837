"""What the steps work on; it needs no GPU, so it can be made elsewhere and brought along."""

import json
import pathlib
import shutil
from collections.abc import Iterable, Iterator

from benchmarks import data, measure
from corpusmill.commands import quickstart

_DATASETS = ("tokens", "held-out", "targets", "byte-tokens")
# Of so many documents one is held out, and of so many one is what the byte model codes.
_HELD_OUT, _CODED = 250, 10
_QUICK_DOCUMENTS = 40


def prepare(folder: pathlib.Path, quick: bool) -> None:
    """Makes in `folder`, unless it is there, what the steps read.

    `coded.jsonl` for the byte model to code; tokens datasets of text to learn from and of text
    that is held out; targets of the first, and `byte-tokens`, the same text as bytes. Quick: little
    text, in bytes.
    """
    if all((folder / name / "manifest.json").exists() for name in _DATASETS):
        return
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = "bytes"
    if quick:
        texts = (text for _, text in zip(range(_QUICK_DOCUMENTS), _embedded(), strict=False))
    else:
        [corpus], path = data.documents(only_wiki=True)
        neox = data.SHARED / "tokenizers" / "gptneox_tokenizer.json"
        tokenizer = str(neox if neox.exists() else path)
        texts = data.texts(corpus)
    _split(texts, folder)
    with measure.silence():
        for name, text, its in (
            ("tokens", "train", tokenizer),
            ("held-out", "held-out", tokenizer),
            ("byte-tokens", "train", "bytes"),
        ):
            read = ("--input", folder / f"{text}.jsonl", "--tokenizer", its)
            data.run("tokenize", *read, "--output", folder / name)
        data.run("count", "--tokens", folder / "tokens", "--output", folder / "counts")
        counts = ("--tokens", folder / "tokens", "--counts", folder / "counts")
        data.run("enrich", *counts, "--output", folder / "targets")
    # Nothing that has to be brought along.
    shutil.rmtree(folder / "counts")
    (folder / "train.jsonl").unlink()


def _embedded() -> Iterator[str]:
    return (text for _, text in quickstart.embedded_corpus())


def _split(texts: Iterable[str], folder: pathlib.Path) -> None:
    with (
        (folder / "train.jsonl").open("w", encoding="utf-8") as train,
        (folder / "held-out.jsonl").open("w", encoding="utf-8") as held_out,
        (folder / "coded.jsonl").open("w", encoding="utf-8") as coded,
    ):
        for number, text in enumerate(texts):
            rest = coded if number % _CODED == 1 else train
            file = held_out if number % _HELD_OUT == 0 else rest
            file.write(json.dumps({"text": text}) + "\n")

"""Text with a part held out, byte models, codebooks, a tokenizer, and the ids of each row."""

import dataclasses
import json
import pathlib
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.bpe import train_bpe
from benchmarks.data import make_once, run, texts
from benchmarks.learnability.rows import CODEBOOKS, Row, Subword
from corpusmill.compress import ngram_model, save_model

_ORDER = 5
# Windows of 12 bits have codes for all bytes only of a model as coarse.
_COARSE_PRECISION = 12
TRAIN, HELD_OUT = "train", "held-out"


@dataclass(frozen=True)
class Source:
    """What text is taken from a corpus.

    Attributes:
      corpus: JSONL with `text`, plain or compressed.
      megabytes: of text to learn.
      held_out: share of the articles to evaluate on.
    """

    corpus: str
    megabytes: float
    held_out: float


def prepare(folder: pathlib.Path, source: Source, rows: Iterable[Row], m1: str | None) -> None:
    """Makes what is missing of all that the rows are trained and evaluated on."""
    parts = [folder / f"{name}.jsonl" for name in ("all", TRAIN, HELD_OUT)]
    make_once(folder, dataclasses.asdict(source), lambda: _split(source, *parts))
    tokens, counts = folder / "byte-tokens", folder / "byte-counts"
    run("tokenize", "--input", parts[0], "--tokenizer", "bytes", "--output", tokens)
    run("count", "--tokens", tokens, "--output", counts, "--max-order", _ORDER)
    coarse = folder / "model-12"
    if not coarse.exists():
        save_model(ngram_model(str(counts), _COARSE_PRECISION), str(coarse))
    places = {"counts": counts, "tokens": tokens, "m1": m1, "coarse": coarse}
    places |= {name: folder / f"{name}.codebook" for name in CODEBOOKS}
    for row in rows:
        if row.subword:
            _make_subwords(folder, row, row.subword, parts[0])
        else:
            _make_examples(folder, row, places)


def data(folder: pathlib.Path, row: Row, part: str) -> pathlib.Path:
    """The dataset of a row: of `TRAIN` or `HELD_OUT`."""
    return folder / f"{part}-{row.folder}"


def _split(source: Source, all_: pathlib.Path, train: pathlib.Path, held_out: pathlib.Path) -> None:
    """Holds articles out; of the others `all_` gets all, `train` as many as are to be learnt."""
    articles = [json.dumps({"text": text}) + "\n" for text in texts(source.corpus)]
    random.Random(0).shuffle(articles)
    kept = int(len(articles) * source.held_out)
    held_out.write_text("".join(articles[:kept]), encoding="utf-8")
    size, end = 0, kept
    while end < len(articles) and size < source.megabytes * 1e6:
        size += len(json.loads(articles[end])["text"].encode())
        end += 1
    train.write_text("".join(articles[kept:end]), encoding="utf-8")
    all_.write_text("".join(articles[kept:]), encoding="utf-8")


def _make_examples(folder: pathlib.Path, row: Row, places: Mapping[str, object]) -> None:
    for name, options in CODEBOOKS.items():
        if f"{{{name}}}" in row.codec:
            _freeze(places, name, options)
    for part in (TRAIN, HELD_OUT):
        where = ("--input", folder / f"{part}.jsonl", "--output", data(folder, row, part))
        run("examples", *where, *row.options(places))


def _freeze(places: Mapping[str, object], name: str, options: Iterable[str]) -> None:
    chosen: list[object] = []
    for option in options:
        chosen += ["--tokens", places["tokens"]] if option == "fit" else [option.format(**places)]
    if "--byte-model" not in chosen and "used" not in chosen:
        chosen += ["--byte-counts", places["counts"]]
    run("freeze", *chosen, "--output", places[name])


def _make_subwords(folder: pathlib.Path, row: Row, subword: Subword, source: pathlib.Path) -> None:
    path = folder / f"tokenizer-{row.folder}.json"
    if not path.exists():
        pre_tokenized, size = subword.pre_tokenized, subword.vocabulary
        train_bpe(texts(source), pre_tokenized=pre_tokenized, vocabulary=size).save(str(path))
    for part in (TRAIN, HELD_OUT):
        where = ("--input", folder / f"{part}.jsonl", "--output", data(folder, row, part))
        run("tokenize", *where, "--tokenizer", path)

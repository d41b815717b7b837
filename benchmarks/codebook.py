"""How short do codebooks make text, and how fast, against subword tokenizers?"""

import argparse
import itertools
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import sentencepiece
import tiktoken
import tokenizers

from benchmarks import data, measure
from benchmarks.bpe import train_bpe
from corpusmill.commands import compress, count, quickstart, tokenize
from corpusmill.compress import ByteStrings, Codebook, FreezeOptions, freeze, ngram_model
from corpusmill.compress.codebooks.codebook import BOUNDARIES, PARSES
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.tokenizers.tokenizer_json import _BYTE_OF

_MAX_ORDER = 5
# GPT-2's, which the pre-tokenizer ByteLevel has too.
_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_HELD_OUT = 20
# Of the held-out text, for tokenizers that are slow.
_SLOW_BYTES = 2_000_000


@dataclass(frozen=True)
class Text:
    """Documents to fit on, and others."""

    train: list[str]
    held_out: list[str]

    @classmethod
    def load(cls, megabytes: int, corpus: str | None) -> "Text":
        texts = list(_limited(_documents(corpus), megabytes * 1_000_000))
        held_out = texts[_HELD_OUT - 1 :: _HELD_OUT]
        train = [text for i, text in enumerate(texts) if i % _HELD_OUT != _HELD_OUT - 1]
        return cls(train, held_out)


def _documents(corpus: str | None) -> Iterator[str]:
    if corpus == "embedded" or not data.SHARED.exists():
        yield from (text for _, text in quickstart.embedded_corpus())
        return
    yield from data.texts(data.SHARED / "corpora" / "simplewiki.jsonl.gz")


def _limited(texts: Iterator[str], most: int) -> Iterator[str]:
    size = 0
    for text in texts:
        if size >= most:
            return
        size += len(text.encode())
        yield text


def byte_counts(text: Text) -> str:
    """The folder of a counts dataset of the bytes of the training text."""
    size = sum(map(len, text.train))
    folder = data.FOLDER / f"codebook-{size}"
    if not (folder / "counts" / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / "train.jsonl"
        with open(source, "w") as file:
            file.writelines(json.dumps({"text": each}) + "\n" for each in text.train)
        tokens = str(folder / "tokens")
        with measure.silence():
            tokenize.main(["--input", str(source), "--tokenizer", "bytes", "--output", tokens])
            options = ["--output", str(folder / "counts"), "--max-order", str(_MAX_ORDER)]
            count.main(["--tokens", tokens, *options])
        source.unlink()
    return str(folder / "counts")


def as_tiktoken(tokenizer: tokenizers.Tokenizer) -> tiktoken.Encoding:
    """The same BPE for tiktoken."""
    ranks = {
        b"".join(_BYTE_OF[letter] for letter in entry): token
        for entry, token in tokenizer.get_vocab().items()
    }
    return tiktoken.Encoding("bpe", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})


def bpe_ids(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> int:
    return sum(len(each.ids) for each in tokenizer.encode_batch_fast(list(texts)))


def _limited_list(texts: Sequence[str], most: int) -> list[str]:
    return list(_limited(iter(texts), most))


def speed(size: int, work: Callable[[], Any], repeat: int) -> float:
    """MB/s."""
    work()
    return size / min(measure.timed(work) for _ in range(repeat)) / 1e6


def two_threads(work: Callable[[], Any], repeat: int) -> float:
    """How much more two threads do than one, all of which have touched their memory before."""
    best = []
    for threads in (1, 2):
        with ThreadPoolExecutor(threads) as pool:
            run = partial(_run_eight_times, pool, work)
            run()
            best.append(min(measure.timed(run) for _ in range(repeat)))
    return best[0] / best[1]


def _run_eight_times(pool: ThreadPoolExecutor, work: Callable[[], Any]) -> None:
    for each in [pool.submit(work) for _ in range(8)]:
        each.result()


def frozen(counts: str, fit_on: ByteStrings) -> dict[str, Codebook]:
    """Codebooks of 16 bits; prints how long they and larger ones took."""
    model = ngram_model(counts)
    books = {}
    used_rows = []
    for boundaries in BOUNDARIES:
        name = f"used, boundaries {boundaries}"
        started = time.perf_counter()
        books[name] = freeze(None, FreezeOptions("used", 16, boundaries=boundaries), {}, fit_on)
        used_rows.append((f"{name}, 16 bits", time.perf_counter() - started))
    rows: list[tuple[str, float]] = []
    for name, window_bits, parse, text in (
        ("coder", 16, "greedy", None),
        ("optimal", 16, "greedy", None),
        ("optimal, greedy starts", 16, "greedy", fit_on),
        ("optimal, flexible starts", 16, "flexible", fit_on),
        ("coder", 20, "greedy", None),
        ("optimal", 20, "greedy", None),
    ):
        options = FreezeOptions(name.split(",")[0], window_bits, parse)
        # The first time compiles.
        freeze(model, FreezeOptions(options.allocation, 16), {})
        started = time.perf_counter()
        book = freeze(model, options, {}, text)
        rows.append((f"{name}, {window_bits} bits", time.perf_counter() - started))
        if window_bits == 16:
            books[name] = book
    measure.print_table(
        f"freezing an n-gram model of order {_MAX_ORDER}, {len(model.table):,} contexts",
        ("", "s"),
        [*used_rows, *rows],
    )
    measure.print_goal("s to fit `used`", max(each for _, each in used_rows), at_most=300)
    measure.print_goal("s to freeze 20 bits", max(each for _, each in rows[4:]), at_most=120)
    return books


def compare_lengths(books: dict[str, Codebook], text: Text) -> tokenizers.Tokenizer:
    """Prints bytes per token on held-out text; returns the BPE that others are compared with."""
    held_out = ByteStrings.of(each.encode() for each in text.held_out)
    size = len(held_out.data)
    rows = []
    for (name, book), parse in itertools.product(books.items(), PARSES):
        ids, _ = book.encode_batch(held_out, parse)
        rows.append((f"{name}, {parse} parse", size / len(ids)))
    bpe = train_bpe(text.train, pre_tokenized=True)
    free = train_bpe(text.train, pre_tokenized=False)
    rows.append(("BPE", size / bpe_ids(bpe, text.held_out)))
    rows.append(("BPE without pre-tokenization", size / bpe_ids(free, text.held_out)))
    (_, greedy), _, _, (_, flexible), (_, usual), _ = rows[-6:]
    trained = sum(len(each.encode()) for each in text.train)
    measure.print_table(
        f"{size:,} held-out bytes, {trained:,} to fit on, 65,536 entries each",
        ("", "bytes/token", "BPE = 1"),
        [(name, each, each / usual) for name, each in rows],
    )
    measure.print_goal("own starts, greedy, against BPE", greedy / usual, at_least=1.2)
    measure.print_goal("own starts, flexible, against BPE", flexible / usual, at_least=1.22)
    return bpe


def compare_speed(
    book: Codebook, words: Codebook, bpe: tokenizers.Tokenizer, text: Text, repeat: int
) -> None:
    """Prints MB/s on one core."""
    # Each document once: of copies several would be walked side by side, all in the same caches.
    batch = ByteStrings.of(each.encode() for each in text.held_out)
    size = len(batch.data)
    ids, offsets = book.encode_batch(batch)
    word_ids, word_offsets = words.encode_batch(batch)
    few = _limited_list(text.held_out, _SLOW_BYTES)
    few_size = sum(len(each.encode()) for each in few)
    tik = as_tiktoken(bpe)
    tik_ids = [tik.encode_ordinary(each) for each in few]
    works: list[tuple[str, int, Callable[[], Any], Callable[[], Any]]] = [
        (
            "codebook, greedy",
            size,
            lambda: book.encode_batch(batch),
            lambda: book.decode_batch(ids, offsets),
        ),
        (
            "codebook, flexible",
            size,
            lambda: book.encode_batch(batch, "flexible"),
            lambda: book.decode_batch(ids, offsets),
        ),
        (
            "tiktoken",
            few_size,
            lambda: [tik.encode_ordinary(each) for each in few],
            lambda: [tik.decode_bytes(each) for each in tik_ids],
        ),
        (
            "tokenizers",
            few_size,
            lambda: bpe.encode_batch_fast(few),
            lambda: bpe.decode_batch(tik_ids),
        ),
    ]
    works.append(
        (
            "codebook, word by word",
            size,
            lambda: words.encode_batch(batch),
            lambda: words.decode_batch(word_ids, word_offsets),
        )
    )
    model = data.SHARED / "tokenizers" / "mistral_v1.model"
    if model.exists():
        pieces = sentencepiece.SentencePieceProcessor(str(model))
        piece_ids = pieces.encode(few)
        encode, decode = partial(pieces.encode, few), partial(pieces.decode, piece_ids)
        works.append(("SentencePiece, 32,000 pieces", few_size, encode, decode))
    rows = [
        (name, speed(amount, encode, repeat), speed(amount, decode, repeat))
        for name, amount, encode, decode in works
    ]
    measure.print_table("one core", ("", "encode MB/s", "decode MB/s"), rows)
    (_, greedy, decoding), (_, flexible, _), (_, tik_encode, tik_decode), *_ = rows
    measure.print_goal("greedy MB/s", greedy, at_least=100)
    measure.print_goal("greedy against tiktoken", greedy / tik_encode, at_least=10)
    measure.print_goal("flexible against tiktoken", flexible / tik_encode, at_least=2)
    measure.print_goal("decoding MB/s", decoding, at_least=350)
    measure.print_goal("decoding against tiktoken", decoding / tik_decode, at_least=5)
    for name, work in (("encoding", works[0][2]), ("decoding", works[0][3])):
        measure.print_goal(f"{name}, two threads", two_threads(work, repeat), at_least=1.8)


def compare_pipeline(book: Codebook, text: Text, repeat: int) -> None:
    """Prints how fast the command `compress` is on local files, in one process."""
    texts = text.train
    batch = ByteStrings.of(each.encode() for each in texts)
    size = len(batch.data)
    kernel = speed(size, lambda: book.encode_batch(batch), repeat)
    rows = [("kernel", kernel, 1.0)]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        book.write(str(path / "codebook"))
        (path / "in.jsonl").write_bytes(
            b"".join(orjson.dumps({"text": each}) + b"\n" for each in texts)
        )
        pq.write_table(pa.table({"text": texts}), path / "in.parquet")
        for name in ("in.jsonl", "in.parquet"):
            rates = []
            for number in range(repeat):
                output = path / f"{name}-{number}"
                arguments = ["--input", path / name, "--codebook", path / "codebook"]
                with measure.silence():
                    compress.main([*map(str, arguments), "--output", str(output)])
                seconds = read_manifest(str(output)).counters["seconds"]
                rates.append(size / seconds / 1e6)
            rows.append((f"compress {name}", max(rates), max(rates) / kernel))
    measure.print_table("the pipeline, less its start", ("", "MB/s", "kernel = 1"), rows)
    measure.print_goal("compress JSONL, share of the kernel's speed", rows[1][2], at_least=0.6)
    measure.print_goal("compress Parquet, share of the kernel's speed", rows[2][2], at_least=0.6)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codebook", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=40, help="of text")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the best one counts")
    parser.add_argument("--corpus", choices=("shared", "embedded"), help="default: shared")
    arguments = parser.parse_args(argv)
    # Tokenizers that would take all cores are held to one.
    os.environ["RAYON_NUM_THREADS"] = "1"
    text = Text.load(arguments.megabytes, arguments.corpus)
    books = frozen(byte_counts(text), ByteStrings.of(each.encode() for each in text.train))
    bpe = compare_lengths(books, text)
    words = books["used, boundaries words"]
    compare_speed(books["optimal, greedy starts"], words, bpe, text, arguments.repeat)
    compare_pipeline(books["optimal, greedy starts"], text, arguments.repeat)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Tokenizers side by side: how `tokenize` encodes, and the libraries whose ids it gives.

The ids of every document are compared before anything is timed. Then each round has a tokenizer
that was just loaded, whose caches are empty: megabytes of UTF-8 a second of processor time.
"""

import functools
import json
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tiktoken

from benchmarks import data, measure
from corpusmill.corpus.tokenizers import load_tokenizer, use_fastest
from corpusmill.corpus.tokenizers.tokenizer_json import byte_characters

_BATCH = 500
_GPT2_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def specs() -> dict[str, str]:
    """The tokenizers, by a short name."""
    if not data.SHARED.exists():
        return {"embedded": str(data.documents("embedded")[1]), "bytes": "bytes"}
    folder = data.SHARED / "tokenizers"
    return {
        "GPT-NeoX": f"{folder}/gptneox_tokenizer.json",
        "GPT-2": f"{folder}/gpt2_vocab.json,{folder}/gpt2_merges.txt",
        "Mistral": f"{folder}/mistral_v1.model",
        "bytes": "bytes",
    }


def corpora() -> list[pathlib.Path]:
    if data.SHARED.exists():
        return sorted((data.SHARED / "corpora").glob("*.jsonl.gz"))
    return data.documents("embedded")[0]


def batches(texts: list[str]) -> list[pa.Array]:
    """As documents reach a tokenizer."""
    starts = range(0, len(texts), _BATCH)
    return [pa.array(texts[start : start + _BATCH], pa.large_string()) for start in starts]


def gpt2_of_tiktoken(spec: str) -> tiktoken.Encoding:
    """GPT-2 as tiktoken runs it, from the same files."""
    vocabulary, _ = spec.split(",")
    letters = byte_characters()
    ranks = {
        b"".join(letters[c] for c in entry): number
        for entry, number in json.loads(pathlib.Path(vocabulary).read_text()).items()
        if entry != "<|endoftext|>"
    }
    return tiktoken.Encoding(
        "gpt2-rebuilt", pat_str=_GPT2_SPLIT, mergeable_ranks=ranks, special_tokens={}
    )


def speed(load: Callable[[], Any], work: Callable[[Any], Any], size: int, repeat: int) -> float:
    """Megabytes a second of processor time that `work` takes with what `load` gives; the best."""
    best = float("inf")
    for _ in range(repeat):
        loaded = load()
        started = time.process_time()
        work(loaded)
        best = min(best, time.process_time() - started)
    return size / best / 1e6


def encode_all(tokenizer: Any, groups: Sequence[pa.Array]) -> list[tuple[Any, Any]]:
    return [tokenizer.encode_batch(group) for group in groups]


def differing(tokenizer: Any, reference: Any, groups: Sequence[pa.Array]) -> int:
    """Documents with other ids."""
    found = 0
    pairs = zip(encode_all(tokenizer, groups), encode_all(reference, groups), strict=True)
    for (ids, lengths), (right, right_lengths) in pairs:
        if not (np.array_equal(ids, right) and np.array_equal(lengths, right_lengths)):
            parts = np.split(ids, np.cumsum(lengths)[:-1])
            right_parts = np.split(right, np.cumsum(right_lengths)[:-1])
            found += sum(not np.array_equal(*pair) for pair in zip(parts, right_parts, strict=True))
    return found


def compare_tiktoken(spec: str, texts: list[str], size: int, repeat: int) -> tuple[int, float]:
    """Documents whose ids are others than the reference's, and megabytes a second."""
    encoding, reference = gpt2_of_tiktoken(spec), load_tokenizer(spec)
    differ = sum(
        encoding.encode_ordinary(text) != reference.encode(text).tolist() for text in texts
    )
    load = functools.partial(gpt2_of_tiktoken, spec)
    return differ, speed(
        load, lambda made: [made.encode_ordinary(text) for text in texts], size, repeat
    )


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("tokenizers", __doc__, 0, repeat=2)
    arguments = parser.parse_args(argv)
    rows = []
    ratios = []
    wrong = 0
    for path in corpora():
        texts = list(data.texts(path))
        size = sum(len(text.encode()) for text in texts)
        groups = batches(texts)
        for name, spec in specs().items():
            fast, slow = load_tokenizer(spec), load_tokenizer(spec)
            reason = use_fastest(fast, texts[:32])
            if reason is not None:
                print(f"{name}: {reason}")
            differ = differing(fast, slow, groups)
            wrong += differ
            ours, theirs = (
                speed(
                    functools.partial(load_tokenizer, spec, backend=each.backend),
                    functools.partial(encode_all, groups=groups),
                    size,
                    arguments.repeat,
                )
                for each in (fast, slow)
            )
            corpus = path.name.split(".")[0]
            rows.append((f"{name}, {corpus}", fast.backend or "numpy", differ, ours))
            if fast.backend is not None:
                rows.append((f"{name}, {corpus}", slow.backend, 0, theirs))
                ratios.append(ours / theirs)
            if name == "GPT-2":
                differ, theirs = compare_tiktoken(spec, texts, size, arguments.repeat)
                rows.append(
                    (f"{name}, {corpus}", f"tiktoken {tiktoken.__version__}", differ, theirs)
                )
    measure.print_table(
        "texts to ids",
        ("tokenizer, corpus", "library", "documents with other ids", "MB/s a core"),
        rows,
    )
    measure.print_goal("documents with other ids than the reference", wrong, at_most=0)
    measure.print_goal("least speed-up", min(ratios, default=0.0), at_least=2)


if __name__ == "__main__":
    main(sys.argv[1:])

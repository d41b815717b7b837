"""The corpus of the benchmarks: real text as 32,000-entry tokens, grown to any size.

The first copy is the development data in ../shared/data with its SentencePiece tokenizer, or where
that is absent the embedded corpus of `corpusmill quickstart`. Further copies have the same tokens
with pieces of 16 shuffled, so that new n-grams appear as they do in new text.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from corpus.datasets import Completion, DatasetWriter, read_manifest
from corpus.parquet import column_values, open_reader
from corpus.tokens import TokensWriter, tokens_schema
from pipelines import quickstart, tokenize

DATA = Path(__file__).parent / ".data"
SHARED = Path(__file__).parents[2] / "shared" / "data"
_PIECE = 16
_DOCUMENTS_AT_ONCE = 1000


def real_tokens() -> str:
    """A tokens dataset of real text, made once."""
    folder = DATA / "tokens"
    if not (folder / "manifest.json").exists():
        if SHARED.is_dir():
            source, tokenizer = SHARED / "corpora", SHARED / "tokenizers" / "mistral_v1.model"
        else:
            quickstart.main(["--output", str(DATA / "quickstart")])
            source = DATA / "quickstart" / "docs.jsonl"
            tokenizer = DATA / "quickstart" / "tokenizer.json"
        arguments = ["--input", source, "--tokenizer", tokenizer, "--output", folder]
        tokenize.main([str(argument) for argument in arguments])
    return str(folder)


def token_array(size: int) -> tuple[np.ndarray, int, int]:
    """About `size` token ids in whole documents, the vocabulary's size, the end-of-document id."""
    folder = real_tokens()
    manifest = read_manifest(folder, "tokens")
    vocabulary = manifest.tokenizer["vocabulary_size"]
    end = manifest.tokenizer["end_of_document"]
    parts = []
    for record in manifest.data_files:
        with open_reader(f"{folder}/{record.name}") as file:
            parts.append(column_values(file.read(["tokens"]), "tokens"))
    real = np.concatenate(parts)
    copies = [real]
    generator = np.random.default_rng(0)
    while sum(map(len, copies)) < size:
        text = real[real != end]
        pieces = text[: len(text) // _PIECE * _PIECE].reshape(-1, _PIECE)
        shuffled = pieces[generator.permutation(len(pieces))].reshape(-1)
        ends = np.arange(400, len(shuffled), 400)
        copies.append(np.append(np.insert(shuffled, ends, end), end).astype(real.dtype))
    tokens = np.concatenate(copies)[:size]
    tokens[-1] = end
    return tokens, vocabulary, end


def tokens_dataset(size: int) -> str:
    """A tokens dataset of about `size` tokens in one file, made once."""
    folder = str(DATA / f"tokens-{size}")
    tokens, vocabulary, end = token_array(size)
    writer = DatasetWriter(folder, "tokens", {"size": size})
    if writer.begin():
        ends = np.flatnonzero(tokens == end) + 1
        with (
            writer.new_file("part-00000-of-00001.parquet") as file,
            TokensWriter(file.path, tokens.dtype) as output,
        ):
            for first in range(0, len(ends), _DOCUMENTS_AT_ONCE):
                output.write(_batch(tokens, ends, first))
            output.close()
            file.rows, file.tokens = output.rows, output.tokens
        writer.complete("part", Completion((file.written,), {}))
        tokenizer = {"vocabulary_size": vocabulary, "end_of_document": end}
        properties = {"documents": len(ends), "tokens": len(tokens)}
        writer.finish(["part"], inputs={}, tokenizer=tokenizer, properties=properties)
    return folder


def _batch(tokens: np.ndarray, ends: np.ndarray, first: int) -> pa.RecordBatch:
    chosen = ends[first : first + _DOCUMENTS_AT_ONCE]
    start = int(ends[first - 1]) if first else 0
    offsets = np.concatenate([[0], chosen - start]).astype(np.int32)
    schema = tokens_schema(tokens.dtype)
    lists = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(tokens[start : chosen[-1]]), type=schema.field("tokens").type
    )
    ids = [str(number) for number in range(first, first + len(chosen))]
    return pa.record_batch([ids, lists, pa.array(np.diff(offsets), pa.uint32())], schema=schema)

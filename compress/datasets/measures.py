"""What `measure` says of a dataset of ids, gathered from its files."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codecs import expect_codec
from corpusmill.compress.datasets.id_statistics import (
    Counts,
    Recovery,
    SegmentCounts,
    Stability,
    TextsOfIds,
    entropy,
    frequent_texts,
    length_shares,
    rounded,
    stability,
    text_lengths,
)
from corpusmill.compress.datasets.samples import sample_ids
from corpusmill.corpus import parquet, storage
from corpusmill.corpus.datasets import TOKENIZER_FOLDER, Manifest
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.ragged import offsets_of
from corpusmill.corpus.tokenizers import load_tokenizer
from corpusmill.corpus.tokens import check_vocabulary

Progress = Callable[[str, int], None]


@dataclasses.dataclass(frozen=True)
class Totals:
    """What a dataset has in all, without the ids that end documents.

    Attributes:
      text_bytes: of its documents.
      counts: int64 [vocabulary]; how often each id occurs.
      divergences: see `SegmentCounts.divergences`.
    """

    text_bytes: int
    counts: Counts
    divergences: list[float | None]


@dataclasses.dataclass(frozen=True)
class Sampled:
    """What is measured on some documents; of a tokens dataset, lengths only, on all of them.

    Attributes:
      documents: how many.
      text_bytes: of their text.
      lengths: see `length_shares`.
      texts: what the most frequent ids stand for; None where the documents' ends were cut off.
      window_ids: after how many ids a window ends where an id ends; None where that is unknown or
        there are no windows.
      window_texts: as `texts`, of so many ids in a row; None where that is one, or too many for
        them to occur twice.
      stability: None where no document will do, or their ends were cut off.
    """

    documents: int
    text_bytes: int
    lengths: list[float]
    texts: list[TextsOfIds] | None = None
    window_ids: int | None = None
    window_texts: list[TextsOfIds] | None = None
    stability: Stability | None = None


@dataclasses.dataclass(frozen=True)
class Measures:
    """What the ids of a dataset are like. Those that end documents are left out of everything.

    Attributes:
      dataset: where it is.
      content_hash: of it.
      kind: of dataset.
      codec: what made the ids.
      documents: how many.
      ids: how many.
      text_bytes: of the text that they stand for.
      vocabulary_size: how many ids there are.
      bytes_per_id: the token compression ratio.
      bit_compression: bits of text for each bit of ids.
      uniform_bits_per_byte: of text, for a model to which all ids are equally probable.
      unigram_bits_per_byte: for one that knows how frequent each is.
      divergences: see `SegmentCounts.divergences`.
      sample: what is measured on some documents only.
    """

    dataset: str
    content_hash: str
    kind: str
    codec: str
    documents: int
    ids: int
    text_bytes: int
    vocabulary_size: int
    bytes_per_id: float
    bit_compression: float
    uniform_bits_per_byte: float
    unigram_bits_per_byte: float
    divergences: list[float | None]
    sample: Sampled

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Measures":
        """What `dataclasses.asdict` and JSON have made of measures, as they were.

        Raises:
          TypeError, KeyError: it is something else.
        """
        sample = dict(fields["sample"])
        for name in ("texts", "window_texts"):
            if sample[name] is not None:
                sample[name] = [TextsOfIds(**each) for each in sample[name]]
        if sample["stability"] is not None:
            edits = {name: Recovery(**each) for name, each in sample["stability"]["edits"].items()}
            sample["stability"] = Stability(**sample["stability"] | {"edits": edits})
        return cls(**{**fields, "sample": Sampled(**sample)})


def measure(folder: str, manifest: Manifest, sample_bytes: int, progress: Progress) -> Measures:
    """Measures a dataset: all of its ids, and some of its documents.

    Args:
      folder: path or URL of the dataset.
      manifest: of it, of one of the `ID_KINDS`.
      sample_bytes: about how much text the documents have.
      progress: called with a stage and the bytes of text that have been read.

    Raises:
      DataError: a file is damaged, or the dataset has no text.
    """
    totals = read_totals(folder, manifest, lambda size: progress(folder, size))
    ids, bits = int(totals.counts.sum()), math.log2(_vocabulary_size(manifest))
    if not totals.text_bytes:
        raise DataError(f"{folder} has no text to measure")
    documents = int(manifest.properties["documents"])
    if manifest.kind == "tokens":
        lengths = _token_lengths(folder, totals.counts)
        sample = Sampled(documents, totals.text_bytes, lengths)
    else:
        progress(f"{folder}, a sample", 0)
        sample = _measure_sample(folder, manifest, sample_bytes)
    return Measures(
        dataset=folder,
        content_hash=manifest.content_hash,
        kind=manifest.kind,
        codec=manifest.tokenizer["kind"],
        documents=documents,
        ids=ids,
        text_bytes=totals.text_bytes,
        vocabulary_size=_vocabulary_size(manifest),
        bytes_per_id=rounded(totals.text_bytes / ids),
        bit_compression=rounded(8 * totals.text_bytes / (ids * bits)),
        uniform_bits_per_byte=rounded(ids * bits / totals.text_bytes),
        unigram_bits_per_byte=rounded(ids * entropy(totals.counts) / totals.text_bytes),
        divergences=totals.divergences,
        sample=sample,
    )


def _vocabulary_size(manifest: Manifest) -> int:
    """How many ids there are, without the one that ends documents."""
    tokenizer = manifest.tokenizer
    return int(tokenizer["vocabulary_size"]) - (tokenizer["end_of_document"] is not None)


def read_totals(folder: str, manifest: Manifest, progress: Callable[[int], None]) -> Totals:
    """Reads all ids of a dataset, a row group at a time.

    Raises:
      DataError: a file is damaged or has ids outside the vocabulary.
    """
    size, end = manifest.tokenizer["vocabulary_size"], manifest.tokenizer["end_of_document"]
    highest = size - 2 if end == size - 1 else size - 1
    segments = SegmentCounts(highest.bit_length())
    counts, text_bytes = np.zeros(size, np.int64), 0
    for record in manifest.data_files:
        url = storage.join(folder, record.name)
        for table in parquet.read_tables(url, ["tokens", "byte_length"]):
            ids = parquet.column_values(table, "tokens")
            try:
                check_vocabulary(ids, size)
            except DataError as error:
                raise DataError(f"{url}: {error}") from error
            if end is not None:
                ids = ids[ids != end]
            counts += np.bincount(ids, minlength=size)
            segments.add(ids)
            read = int(parquet.column_values(table, "byte_length").sum(dtype=np.int64))
            text_bytes += read
            progress(read)
    return Totals(text_bytes, counts, segments.divergences())


def _token_lengths(folder: str, counts: Counts) -> list[float]:
    tokenizer = load_tokenizer(storage.join(folder, TOKENIZER_FOLDER))
    used = np.flatnonzero(counts)
    lengths = np.array([len(tokenizer.token_bytes(token)) for token in used.tolist()], np.int64)
    return length_shares(lengths, counts[used])


def _measure_sample(folder: str, manifest: Manifest, sample_bytes: int) -> Sampled:
    codec = expect_codec(storage.join(folder, TOKENIZER_FOLDER), manifest.tokenizer["content_hash"])
    ids, offsets = sample_ids(folder, manifest, sample_bytes)
    ends = codec.text_ends(ids, offsets)
    lengths = text_lengths(ends, offsets)
    window_ids: int | None = manifest.tokenizer.get("window_ids")
    texts, window_texts, steady = None, None, None
    # Where the last ids of a document are missing, its text can't be decoded.
    if manifest.properties.get("length") is None:
        documents = codec.decode_batch(ids, offsets)
        steady = stability(codec, documents)
        bounds = offsets_of(lengths)
        added = ByteStrings(documents.data, bounds)
        texts = frequent_texts(ids, offsets, added, codec.vocab_size)
        if window_ids is not None and window_ids > 1 and codec.vocab_size**window_ids <= 1 << 64:
            window_texts = frequent_texts(ids, offsets, added, codec.vocab_size, window_ids)
    return Sampled(
        documents=len(offsets) - 1,
        text_bytes=int(lengths.sum()),
        lengths=length_shares(lengths),
        texts=texts,
        window_ids=window_ids,
        window_texts=window_texts,
        stability=steady,
    )

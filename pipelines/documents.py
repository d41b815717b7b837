"""documents -> a dataset of ids: what `tokenize`, `compress` and `examples` share.

One part of the output comes from one shard of the input, in the input's order, so neither workers
nor bundles can change the data.
"""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import (
    TOKENIZER_FOLDER,
    Completion,
    DatasetWriter,
    Manifest,
    NewFile,
    add_up,
    hash_listing,
    part_name,
)
from corpusmill.corpus.documents import BadRecord
from corpusmill.corpus.errors import DataError, UsageError
from corpusmill.corpus.inputs import (
    InputFile,
    ReadOptions,
    Segment,
    check_columns,
    find_inputs,
    plan_shards,
)
from corpusmill.corpus.options import option, share
from corpusmill.corpus.progress import Progress, Stage
from corpusmill.corpus.readers import read_segment
from corpusmill.corpus.sampling import first_texts
from corpusmill.corpus.tokenizers import Tokenizer, use_fastest
from corpusmill.corpus.tokens import TextEncoder, TokensWriter, tokenize_batch
from corpusmill.pipelines.launching.local_workers import Workers

if TYPE_CHECKING:
    import apache_beam as beam

# Below so many bad records a shard goes on, so that the limit is judged on the whole corpus.
_BAD_RECORDS_BEFORE_EARLY_STOP = 1000
_MIB = 1 << 20
_LARGE_BATCH_BYTES = 32 * _MIB
# Of so many documents of a shard one is checked, the first one among them.
_DOCUMENTS_PER_CHECK = 1000
_BYTES_PER_CHECK = 1 << 18
_REASONS_LOOKED_AT = 1000


@dataclasses.dataclass(frozen=True)
class DocumentOptions:
    """Which documents a job reads.

    Attributes:
      read: how to read documents.
    """

    input: tuple[str, ...] = option(
        "files, a glob, a folder, a URL or hf:NAME; may be repeated", metavar="GLOB"
    )
    read: ReadOptions = dataclasses.field(default_factory=ReadOptions)
    max_bad_records: float = option(
        "share of the records that may be bad, and of the files that may be damaged, before the job"
        " stops (default: 0.1%)",
        0.001,
        metavar="SHARE",
        read=share,
    )
    shard_mib: int = option("input in one part of the output", 64, metavar="MIB", least=1)


@dataclasses.dataclass(frozen=True)
class FoundDocuments:
    """Documents that have been found: the same for every run with the same input and options."""

    options: DocumentOptions
    files: tuple[InputFile, ...]
    shards: tuple[tuple[Segment, ...], ...]

    @property
    def config(self) -> dict[str, Any]:
        """What a dataset's configuration says of them."""
        return {
            "input_files": len(self.files),
            "input_bytes": self.size,
            "input_listing": hash_listing([[file.name, file.size] for file in self.files]),
            "shard_mib": self.options.shard_mib,
            **dataclasses.asdict(self.options.read),
        }

    @property
    def size(self) -> int:
        """Bytes as stored."""
        return sum(file.size for file in self.files)

    def describe(self) -> str:
        """Says what is read, and what a document is in each kind of file."""
        kinds = Counter((file.format, file.compression or "plain") for file in self.files)
        what = {"jsonl": "a line of JSON", "text": f"a {self.options.read.text_unit} of text"}
        if self.options.read.text_unit == "file":
            what["text"] = "the whole file"
        lines = [
            f"  {count:,} {name} {compression}: a document is {what.get(name, 'a row')}"
            for (name, compression), count in sorted(kinds.items())
        ]
        total = f"{len(self.files):,} files, {self.size / _MIB:,.1f} MiB"
        return "\n".join([f"input: {total}, {len(self.shards):,} shards", *lines])


def find_documents(options: DocumentOptions) -> FoundDocuments:
    """Looks at the input; raises UsageError where it can't be read."""
    files = find_inputs(options.input, options.read)
    check_columns(files, options.read)
    shards = plan_shards(files, options.read, options.shard_mib * _MIB)
    if not shards:
        raise UsageError(
            f"the input {', '.join(options.input)} is empty: {len(files)} files of 0 bytes"
        )
    return FoundDocuments(options, tuple(files), tuple(shards))


MakeRows = Callable[[Any, int, Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""Turns an encoder, the number of a part and its document batches into token batches."""


def in_large_batches(
    encoder: TextEncoder, part: int, documents: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """As `one_row_each`, with so many documents at a time that a network's lanes stay full."""
    held: list[pa.RecordBatch] = []
    for batch in documents:
        held.append(batch)
        if sum(each.nbytes for each in held) >= _LARGE_BATCH_BYTES:
            yield from one_row_each(encoder, part, [pa.concat_batches(held)])
            held = []
    if held:
        yield from one_row_each(encoder, part, [pa.concat_batches(held)])


def one_row_each(
    encoder: TextEncoder, _part: int, documents: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Every document becomes a row, a very long one several."""
    return (tokenize_batch(encoder, batch) for batch in documents)


@dataclasses.dataclass(frozen=True)
class EncodeJob:
    """Makes a dataset of ids of documents.

    Attributes:
      stage: what the job does with a document, in one word.
      documents: the input.
      writer: of the dataset.
      encoder_files: file name -> what writes that file; together they define the encoder. The
        dataset gets them, and workers and later jobs load it from there.
      load_encoder: gives the encoder from the folder that has these files.
      encoder: what the manifest says of it.
      notes: lines for the user.
      make_rows: what becomes of the documents.
      properties: what the manifest says besides.
      device: what computes the encoder's network, if it has one.
      backend: what encodes, for the manifest.
      loaded: the encoder, for this process; by default it is loaded as workers do.
    """

    stage: str
    documents: FoundDocuments
    writer: DatasetWriter
    encoder_files: Mapping[str, Callable[[str], None]]
    load_encoder: Callable[[str], TextEncoder]
    encoder: Mapping[str, Any]
    notes: Sequence[str] = ()
    make_rows: MakeRows = one_row_each
    properties: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    device: str | None = None
    backend: str | None = None
    loaded: TextEncoder | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage(self.stage, "B", self.documents.size),)

    @cached_property
    def number_of_parts(self) -> int:
        """Files of the dataset, one for each shard."""
        return len(self.documents.shards)

    @cached_property
    def number_of_pieces(self) -> int:
        """Files, or parts of them, that are read one by one."""
        return sum(map(len, self.documents.shards))

    def __getstate__(self) -> dict[str, Any]:
        # What `finish` needs on a worker, since a job's description has room for little.
        documents = dataclasses.replace(self.documents, files=(), shards=())
        return {
            **self.__dict__,
            "number_of_parts": self.number_of_parts,
            "number_of_pieces": self.number_of_pieces,
            "documents": documents,
            "encoder_files": {},
            "loaded": None,
        }

    def describe(self) -> list[str]:
        return [self.documents.describe(), *self.notes]

    def prepare(self) -> None:
        records = []
        for name, write in sorted(self.encoder_files.items()):
            with self.writer.new_file(f"{TOKENIZER_FOLDER}/{name}") as file:
                write(file.path)
            records.append(file.written)
        self.writer.complete(TOKENIZER_FOLDER, Completion(tuple(records), {}))

    def work_here(self, workers: Workers) -> None:
        workers.run(self._work(), enumerate(self.documents.shards), self.loaded)

    def expand(self, pipeline: "beam.Pipeline") -> "beam.PCollection":
        import apache_beam as beam

        from corpusmill.pipelines.transforms import RunWork, SpreadOut

        return (
            pipeline
            | "Shards" >> SpreadOut(enumerate(self.documents.shards))
            | "Encode" >> RunWork(self._work(), self.device)
            | "AllComplete" >> beam.combiners.Count.Globally()
        )

    def finish(self, _: object) -> Manifest:
        options = self.documents.options
        parts = [part_name(shard, self.number_of_parts) for shard in range(self.number_of_parts)]
        completions = self.writer.completed([TOKENIZER_FOLDER, *parts])
        counters = add_up(completion.counters for completion in completions)
        tally = _Tally(
            options.max_bad_records, int(counters["documents"]), int(counters["bad_records"])
        )
        damaged = int(counters["damaged_pieces"])
        if damaged > options.max_bad_records * self.number_of_pieces:
            raise DataError(
                f"{damaged} of {self.number_of_pieces} files, or pieces of large ones, are damaged,"
                f" more than --max-bad-records {options.max_bad_records:.4%} allows, and nobody"
                f" knows what is lost; the places are listed in {self.writer.url('dead-letter')},"
                " with rest_is_lost"
            )
        if tally.too_many:
            raise DataError(tally.complaint(self.writer, parts))
        if not tally.documents:
            raise DataError(f"the input {', '.join(options.input)} has no documents")
        return self.writer.finish(
            completions,
            inputs={},
            tokenizer=self.encoder,
            properties={
                "documents": tally.documents,
                "tokens": counters["tokens"],
                **self.properties,
            },
            backend=self.backend,
        )

    def _work(self) -> "EncodeShards":
        return EncodeShards(
            self.writer,
            self.stage,
            self.documents.options,
            self.number_of_parts,
            self.load_encoder,
            self.make_rows,
        )


@dataclasses.dataclass(frozen=True)
class EncodeShards:
    """Work: (number, segments) of a shard -> number, with the shard's files in place."""

    writer: DatasetWriter
    stage: str
    options: DocumentOptions
    parts: int
    load_encoder: Callable[[str], TextEncoder]
    make_rows: MakeRows

    def load(self) -> TextEncoder:
        return self.load_encoder(self.writer.url(TOKENIZER_FOLDER))

    def run(self, encoder: TextEncoder, shard: tuple[int, tuple[Segment, ...]]) -> int:
        number, segments = shard
        name = part_name(number, self.parts)
        if self.writer.completion(name) is None:
            progress = Progress(self.writer, self.stage, name)
            completion = encode_shard(
                self.writer,
                name,
                segments,
                encoder,
                partial(self.make_rows, encoder, number),
                self.options,
                progress,
            )
            self.writer.complete(name, completion)
        return number


def encode_shard(
    writer: DatasetWriter,
    name: str,
    segments: Sequence[Segment],
    encoder: TextEncoder,
    make_rows: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]],
    options: DocumentOptions,
    progress: Progress,
) -> Completion:
    """Writes one part of a dataset, and the dead letters of its input.

    Raises:
      DataError: too many records were bad, and the dead-letter file has been written; or a fast
        encoder has other ids for a document than a slow one.
    """
    started = time.perf_counter()
    tally = _Tally(options.max_bad_records)
    checks = _Checks(encoder)
    with (
        writer.new_file(dead_letter_name(name)) as dead_letters,
        writer.new_file(name) as file,
        TokensWriter(file.path, encoder.dtype) as tokens,
    ):

        def documents() -> Iterator[pa.RecordBatch]:
            for segment in segments:
                for batch, bad_records in read_segment(segment, options.read, progress.add):
                    write_dead_letters(dead_letters, bad_records)
                    checks.add(batch, tally.documents)
                    tally.add(batch, bad_records)
                    yield batch
                    if tally.hopeless:
                        return

        for rows in make_rows(documents()):
            tokens.write(rows)
        checks.finish()
        tokens.close()
        file.rows, file.tokens = tokens.rows, tokens.tokens
    progress.finish()
    if tally.hopeless:
        raise DataError(tally.complaint(writer, [name]))
    counters = {
        "documents": tally.documents,
        "bad_records": tally.bad_records,
        "damaged_pieces": tally.damaged_pieces,
        "text_bytes": tally.text_bytes,
        "tokens": file.tokens,
        "seconds": time.perf_counter() - started,
    }
    records = [record for record in (file.record, dead_letters.record) if record is not None]
    return Completion(tuple(records), counters)


class _Checks:
    """Checks some documents of a shard, by their place in it.

    Several at a time, because each time the slow encoder finds its tables out of the caches.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._held: list[pa.RecordBatch] = []

    def add(self, documents: pa.RecordBatch, before: int) -> None:
        """Takes a batch that so many documents of the shard were before."""
        rows = range(-before % _DOCUMENTS_PER_CHECK, documents.num_rows, _DOCUMENTS_PER_CHECK)
        if rows:
            # A copy: a slice would hold the whole batch.
            self._held.append(documents.take(pa.array(rows)))
        if sum(batch.nbytes for batch in self._held) >= _BYTES_PER_CHECK:
            self.finish()

    def finish(self) -> None:
        """Checks what is held."""
        if self._held:
            documents = pa.concat_batches(self._held)
            self._encoder.check(*(column.to_pylist() for column in documents.columns))
            self._held = []


@dataclasses.dataclass
class _Tally:
    """What has been read so far, and whether too much of it was bad."""

    limit: float
    documents: int = 0
    bad_records: int = 0
    text_bytes: int = 0
    damaged_pieces: int = 0

    def add(self, documents: pa.RecordBatch, bad_records: Sequence[BadRecord]) -> None:
        self.documents += documents.num_rows
        self.bad_records += len(bad_records)
        # A piece has one such record at most, its last one.
        self.damaged_pieces += sum(each.rest_is_lost for each in bad_records)
        self.text_bytes += pc.sum(pc.binary_length(documents.column("text"))).as_py() or 0

    @property
    def too_many(self) -> bool:
        return self.bad_records > self.limit * (self.documents + self.bad_records)

    @property
    def hopeless(self) -> bool:
        return self.bad_records >= _BAD_RECORDS_BEFORE_EARLY_STOP and self.too_many

    def complaint(self, writer: DatasetWriter, parts: Sequence[str]) -> str:
        """What is wrong, once the dead letters of these parts are in place."""
        return (
            f"{self.bad_records} of {self.documents + self.bad_records} records are bad, more than"
            f" --max-bad-records {self.limit:.4%} allows; most often a record"
            f" {_common_reason(writer, parts)}; all are listed in {writer.url('dead-letter')}"
        )


def _common_reason(writer: DatasetWriter, parts: Sequence[str]) -> str:
    """What is wrong with most of the first bad records."""
    reasons: Counter[str] = Counter()
    for part in parts:
        url = writer.url(dead_letter_name(part))
        if storage.exists(url):
            lines = storage.read_bytes(url).splitlines()
            reasons.update(json.loads(line)["reason"] for line in lines[:_REASONS_LOOKED_AT])
        if reasons.total() >= _REASONS_LOOKED_AT:
            break
    return reasons.most_common(1)[0][0]


def dead_letter_name(part: str) -> str:
    return f"dead-letter/{part.removesuffix('.parquet')}.jsonl"


def write_dead_letters(file: NewFile, bad_records: Sequence[BadRecord]) -> None:
    """Adds one JSON line a record; without bad records no file comes into being."""
    if bad_records:
        with open(file.path, "a", encoding="utf-8") as out:
            for record in bad_records:
                out.write(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n")
        file.rows += len(bad_records)


def prepare_tokenizer(tokenizer: Tokenizer, documents: FoundDocuments) -> list[str]:
    """Has a tokenizer encode as fast as may be, tried on the first documents.

    Returns:
      Lines for the user: why it isn't fast, and what it loses.
    """
    texts = first_texts(documents.files, documents.options.read)
    lines = []
    reason = use_fastest(tokenizer, texts)
    if reason is not None:
        lines.append(f"texts are encoded by {tokenizer.backend}, which is slow: {reason}")
    lost = sum(tokenizer.decode(tokenizer.encode(text)) != text for text in texts)
    if lost:
        lines.append(
            f"this tokenizer loses text: {lost} of the first {len(texts)} documents don't come"
            " back from their ids (unknown tokens, dropped spaces or a normalizer)"
        )
    return lines

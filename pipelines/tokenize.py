"""documents -> tokens dataset

One part of the output comes from one shard of the input, in the input's order, so neither workers
nor bundles can change the data.
"""

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc

from corpus import storage
from corpus.arguments import make_parser, positive, share
from corpus.datasets import (
    TOKENIZER_FOLDER,
    Completion,
    DatasetWriter,
    Manifest,
    NewFile,
    add_up,
    hash_listing,
    part_name,
)
from corpus.documents import BadRecord
from corpus.errors import DataError, UsageError
from corpus.inputs import (
    INPUT_FORMATS,
    TEXT_UNITS,
    InputFile,
    ReadOptions,
    Segment,
    check_columns,
    find_inputs,
    plan_shards,
)
from corpus.readers import read_segment
from corpus.tokenizers import Tokenizer, describe_tokenizer, load_tokenizer
from corpus.tokens import TokensWriter, tokenize_batch
from pipelines.launch import run_job
from pipelines.options import RunOptions, parse_job
from pipelines.progress import Progress, Stage
from pipelines.transforms import SpreadOut, WriteManifest

# Below so many bad records a shard goes on, so that the limit is judged on the whole corpus.
_BAD_RECORDS_BEFORE_EARLY_STOP = 1000
_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class TokenizeOptions:
    """Options of the `tokenize` job.

    Attributes:
      input: paths, globs, folders or URLs.
      tokenizer: see `corpus.tokenizers.load_tokenizer`.
      output: folder of the tokens dataset.
      end_of_document: text of the token that ends documents; the tokenizer's own by default.
      read: how to read documents.
      max_bad_records: share of records that may be bad before the job stops.
      shard_mib: input MiB that one part of the output comes from.
    """

    input: tuple[str, ...]
    tokenizer: str
    output: str
    end_of_document: str | None = None
    read: ReadOptions = dataclasses.field(default_factory=ReadOptions)
    max_bad_records: float = 0.001
    shard_mib: int = 64


@dataclasses.dataclass(frozen=True)
class TokenizePlan:
    """What there is to do: the same for every run with the same input and options."""

    options: TokenizeOptions
    inputs: tuple[InputFile, ...]
    shards: tuple[tuple[Segment, ...], ...]
    tokenizer: Tokenizer

    @property
    def writer(self) -> DatasetWriter:
        listing = [[file.name, file.size] for file in self.inputs]
        config = {
            "input_files": len(self.inputs),
            "input_bytes": sum(file.size for file in self.inputs),
            "input_listing": hash_listing(listing),
            "tokenizer": self.tokenizer.content_hash,
            "shard_mib": self.options.shard_mib,
            **dataclasses.asdict(self.options.read),
        }
        return DatasetWriter(storage.absolute(self.options.output), "tokens", config)

    def describe(self) -> list[str]:
        kinds = sorted({f"{file.format} {file.compression or 'plain'}" for file in self.inputs})
        size = sum(file.size for file in self.inputs)
        return [
            (
                f"input: {len(self.inputs)} files, {size / _MIB:,.1f} MiB ({', '.join(kinds)}),"
                f" {len(self.shards)} shards"
            ),
            (
                f"tokenizer: {self.tokenizer.kind}, {self.tokenizer.vocab_size:,} ids; documents"
                f" end with {self.tokenizer.token_text(self.tokenizer.end_of_document)}"
            ),
        ]


def make_plan(options: TokenizeOptions) -> TokenizePlan:
    """Looks at the input and the tokenizer; raises UsageError where they can't be used."""
    tokenizer = load_tokenizer(options.tokenizer, options.end_of_document)
    inputs = find_inputs(options.input, options.read)
    check_columns(inputs, options.read)
    shards = plan_shards(inputs, options.read, options.shard_mib * _MIB)
    if not shards:
        raise UsageError(
            f"the input {', '.join(options.input)} is empty: {len(inputs)} files of 0 bytes"
        )
    return TokenizePlan(options, tuple(inputs), tuple(shards), tokenizer)


def build_pipeline(
    options: TokenizeOptions, run: RunOptions = RunOptions(), plan: TokenizePlan | None = None
) -> beam.Pipeline:
    """The pipeline that writes the tokens dataset into a folder that has been claimed."""
    plan = plan or make_plan(options)
    save_tokenizer(plan.writer, plan.tokenizer)
    pipeline = run.new_pipeline()
    (
        pipeline
        | "Shards" >> SpreadOut(enumerate(plan.shards))
        | "Tokenize" >> beam.ParDo(TokenizeShard(plan.writer, options, len(plan.shards)))
        | "AllComplete" >> beam.combiners.Count.Globally()
        | "WriteManifest"
        >> WriteManifest(plan.writer, _finish, plan.writer, options, len(plan.shards))
    )
    return pipeline


def save_tokenizer(writer: DatasetWriter, tokenizer: Tokenizer) -> None:
    """Puts a copy of the tokenizer into the dataset: workers and later jobs load it from there."""
    records = []
    for name, data in sorted(tokenizer.files.items()):
        with writer.new_file(f"{TOKENIZER_FOLDER}/{name}") as file, open(file.path, "wb") as out:
            out.write(data)
        records.append(file.written)
    writer.complete(TOKENIZER_FOLDER, Completion(tuple(records), {}))


class TokenizeShard(beam.DoFn):
    """(number, segments) of a shard -> number, with the shard's files in place."""

    def __init__(self, writer: DatasetWriter, options: TokenizeOptions, shards: int) -> None:
        self._writer = writer
        self._options = options
        self._shards = shards

    def setup(self) -> None:
        self._tokenizer = load_tokenizer(self._writer.url(TOKENIZER_FOLDER))

    def process(self, shard: tuple[int, tuple[Segment, ...]]) -> Iterator[int]:
        number, segments = shard
        name = part_name(number, self._shards)
        if self._writer.completion(name) is None:
            completion = tokenize_shard(
                self._writer, name, segments, self._tokenizer, self._options
            )
            self._writer.complete(name, completion)
        yield number


def tokenize_shard(
    writer: DatasetWriter,
    name: str,
    segments: Sequence[Segment],
    tokenizer: Tokenizer,
    options: TokenizeOptions,
) -> Completion:
    """Writes one part of a tokens dataset, and the dead letters of its input.

    Raises:
      DataError: too many records were bad; the dead-letter file has been written.
    """
    started = time.perf_counter()
    progress = Progress(writer, "tokenize", name)
    tally = _Tally(options.max_bad_records)
    with (
        writer.new_file(dead_letter_name(name)) as dead_letters,
        writer.new_file(name) as file,
        TokensWriter(file.path, tokenizer.dtype) as tokens,
    ):
        for segment in segments:
            for documents, bad_records in read_segment(segment, options.read):
                tokens.write(tokenize_batch(tokenizer, documents))
                write_dead_letters(dead_letters, bad_records)
                tally.add(documents, bad_records)
                progress.add(documents.nbytes)
                if tally.hopeless:
                    break
            if tally.hopeless:
                break
        tokens.close()
        file.rows, file.tokens = tokens.rows, tokens.tokens
    progress.note()
    if tally.hopeless:
        raise DataError(tally.complaint(writer.url(dead_letters.name)))
    counters = {
        "documents": tally.documents,
        "bad_records": tally.bad_records,
        "text_bytes": tally.text_bytes,
        "tokens": file.tokens,
        "seconds": time.perf_counter() - started,
    }
    records = [record for record in (file.record, dead_letters.record) if record is not None]
    return Completion(tuple(records), counters)


@dataclasses.dataclass
class _Tally:
    """What has been read so far, and whether too much of it was bad."""

    limit: float
    documents: int = 0
    bad_records: int = 0
    text_bytes: int = 0

    def add(self, documents: pa.RecordBatch, bad_records: Sequence[BadRecord]) -> None:
        self.documents += documents.num_rows
        self.bad_records += len(bad_records)
        self.text_bytes += pc.sum(pc.binary_length(documents.column("text"))).as_py() or 0

    @property
    def too_many(self) -> bool:
        return self.bad_records > self.limit * (self.documents + self.bad_records)

    @property
    def hopeless(self) -> bool:
        return self.bad_records >= _BAD_RECORDS_BEFORE_EARLY_STOP and self.too_many

    def complaint(self, place: str) -> str:
        return (
            f"{self.bad_records} of {self.documents + self.bad_records} records are bad, more than"
            f" --max-bad-records {self.limit:.4%} allows; they are listed in {place}"
        )


def dead_letter_name(part: str) -> str:
    return f"dead-letter/{part.removesuffix('.parquet')}.jsonl"


def write_dead_letters(file: NewFile, bad_records: Sequence[BadRecord]) -> None:
    """Adds one JSON line a record; without bad records no file comes into being."""
    if bad_records:
        with open(file.path, "a", encoding="utf-8") as out:
            for record in bad_records:
                out.write(json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n")
        file.rows += len(bad_records)


def _finish(_: int, writer: DatasetWriter, options: TokenizeOptions, shards: int) -> Manifest:
    parts = [part_name(number, shards) for number in range(shards)]
    counters = add_up(writer.completed(part).counters for part in parts)
    tally = _Tally(
        options.max_bad_records, int(counters["documents"]), int(counters["bad_records"])
    )
    if tally.too_many:
        raise DataError(tally.complaint(writer.url("dead-letter")))
    if not tally.documents:
        raise DataError(f"the input {', '.join(options.input)} has no documents")
    tokenizer = load_tokenizer(writer.url(TOKENIZER_FOLDER))
    return writer.finish(
        [TOKENIZER_FOLDER, *parts],
        inputs={},
        tokenizer=describe_tokenizer(tokenizer),
        properties={"documents": tally.documents, "tokens": counters["tokens"]},
    )


def main(argv: Sequence[str]) -> None:
    """`corpusmill tokenize`"""
    parser = make_parser(
        "tokenize",
        "Reads documents (JSONL, Parquet, text; plain, gzip, zstd) and writes a tokens dataset.",
        "corpusmill tokenize --input 'wiki/*.jsonl.gz' --tokenizer tokenizer.json --output tokens",
    )
    add = parser.add_argument
    add(
        "--input",
        action="append",
        required=True,
        metavar="GLOB",
        help="files, a glob, a folder, a URL or hf:NAME; may be repeated",
    )
    add(
        "--tokenizer",
        required=True,
        help="tokenizer.json, SentencePiece .model, VOCAB.json,MERGES.txt, a folder with one of"
        " these, or bytes",
    )
    add("--output", required=True, metavar="DIR", help="folder or URL of the tokens dataset")
    add("--text-field", default="text", help="field or column with the text")
    add("--id-field", help="field or column with the document id (default: file and offset)")
    add("--input-format", default="auto", choices=INPUT_FORMATS, help="what the input files are")
    add("--text-unit", default="line", choices=TEXT_UNITS, help="what is a document in text files")
    add(
        "--end-of-document",
        metavar="TOKEN",
        help="token that ends documents (default: the tokenizer's own)",
    )
    add(
        "--max-bad-records",
        type=share,
        default=0.001,
        metavar="SHARE",
        help="stop when more records than this are bad (default: 0.1%%)",
    )
    add(
        "--max-document-mib",
        type=positive,
        default=512,
        metavar="MIB",
        help="longer documents are bad records",
    )
    add(
        "--shard-mib",
        type=positive,
        default=64,
        metavar="MIB",
        help="input in one part of the output",
    )
    arguments, run = parse_job(parser, argv)
    read = ReadOptions(
        text_field=arguments.text_field,
        id_field=arguments.id_field,
        input_format=arguments.input_format,
        text_unit=arguments.text_unit,
        max_document_bytes=arguments.max_document_mib * _MIB,
    )
    options = TokenizeOptions(
        input=tuple(arguments.input),
        tokenizer=arguments.tokenizer,
        output=arguments.output,
        end_of_document=arguments.end_of_document,
        read=read,
        max_bad_records=arguments.max_bad_records,
        shard_mib=arguments.shard_mib,
    )
    plan = make_plan(options)
    run_job(
        plan.writer,
        run,
        plan.describe(),
        lambda: build_pipeline(options, run, plan),
        (Stage("tokenize", "B"),),
    )

"""compressed dataset -> documents as JSONL"""

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import orjson

from compress.byte_strings import ByteStrings
from compress.codebook import Codebook
from compress.codecs import Codec, codec_on_device, expect_codec
from compress.compressed import read_documents
from compress.streams import decode_stream
from corpus import storage
from corpus.arguments import add_folder, location, make_parser
from corpus.datasets import (
    TOKENIZER_FOLDER,
    Completion,
    DatasetWriter,
    FileRecord,
    Manifest,
    add_up,
    damage,
    read_manifest,
)
from corpus.errors import DataError
from pipelines.codec_options import add_device_argument, check_device, device_of
from pipelines.here import LocalJob, expect_workers
from pipelines.launch import run_job
from pipelines.options import RunOptions, parse_job
from pipelines.progress import Progress, Stage
from pipelines.streams import pipe

if TYPE_CHECKING:
    import apache_beam as beam


@dataclasses.dataclass(frozen=True)
class DecompressPlan:
    """What there is to do.

    Attributes:
      input: folder or URL of the compressed dataset.
      manifest: of it.
      output: folder or URL of the documents.
      device: what computes the codec's network, if it has one.
    """

    input: str
    manifest: Manifest
    output: str
    device: str = "cpu"

    @property
    def writer(self) -> DatasetWriter:
        config = {"compressed": self.manifest.content_hash}
        return DatasetWriter(self.output, "documents", config)

    @property
    def codec(self) -> tuple[str, str]:
        """Where the codec is, and its hash."""
        return storage.join(self.input, TOKENIZER_FOLDER), self.manifest.tokenizer["content_hash"]

    def describe(self) -> list[str]:
        counts = self.manifest.properties
        input_line = f"input: {counts['documents']:,} documents, {counts['tokens']:,} ids"
        return [f"{input_line}, {len(self.manifest.data_files)} files"]


def make_plan(input_folder: str, output: str, device: str = "cpu") -> DecompressPlan:
    """Looks at the input.

    Raises:
      DatasetError: it is no compressed dataset.
      DataError: its codec isn't there, or isn't the one that it was made with.
    """
    manifest = read_manifest(input_folder, "compressed")
    plan = DecompressPlan(input_folder, manifest, output, device)
    expect_codec(*plan.codec)
    return plan


def build_job(plan: DecompressPlan, run: RunOptions) -> "LocalJob | beam.Pipeline":
    """What writes the documents into a folder that has been claimed: here, or on a runner."""
    if not run.is_local or device_of(expect_codec(*plan.codec), plan.device) is not None:
        return build_pipeline(plan, run)
    files = plan.manifest.data_files
    return LocalJob(DecompressFiles(plan), files, run.workers, partial(_finish, 0, plan))


def build_pipeline(plan: DecompressPlan, run: RunOptions = RunOptions()) -> "beam.Pipeline":
    """The pipeline that writes the documents into a folder that has been claimed."""
    import apache_beam as beam

    from pipelines.model_work import Run
    from pipelines.transforms import SpreadOut, WriteManifest

    pipeline = run.new_pipeline()
    device = device_of(expect_codec(*plan.codec), plan.device)
    (
        pipeline
        | "Files" >> SpreadOut(plan.manifest.data_files)
        | "Decompress" >> Run(DecompressFiles(plan), device)
        | "AllComplete" >> beam.combiners.Count.Globally()
        | "WriteManifest" >> WriteManifest(plan.writer, _finish, plan)
    )
    return pipeline


@dataclasses.dataclass(frozen=True)
class DecompressFiles:
    """Work: record of a compressed file -> name of its documents, which are in place."""

    plan: DecompressPlan

    def load(self) -> Codec:
        return codec_on_device(expect_codec(*self.plan.codec), self.plan.device)

    def run(self, codec: Codec, record: FileRecord) -> str:
        writer, part = self.plan.writer, documents_name(record)
        if writer.completion(part) is None:
            writer.complete(part, decompress_file(self.plan, codec, record))
        return part


def decompress_file(plan: DecompressPlan, codec: Codec, record: FileRecord) -> Completion:
    """Writes the documents of one compressed file.

    Raises:
      DataError: the file is damaged, or a document in it, which is named, isn't UTF-8.
    """
    started = time.perf_counter()
    wrong = damage(plan.input, record)
    if wrong is not None:
        raise DataError(f"{storage.join(plan.input, record.name)} {wrong}")
    part = documents_name(record)
    progress = Progress(plan.writer, "decompress", part)
    text_bytes = 0
    with plan.writer.new_file(part) as file, open(file.path, "wb") as out:
        for names, documents in read_documents(storage.join(plan.input, record.name), codec):
            if not codec.is_lossless:
                # What comes out instead of a text needn't be one.
                documents = ByteStrings.of(
                    document.decode(errors="replace").encode() for document in documents
                )
            out.writelines(map(json_line, names, documents))
            file.rows += len(names)
            text_bytes += int(documents.lengths().sum())
            progress.add(len(documents.data))
    progress.note()
    counters = {
        "documents": file.rows,
        "text_bytes": text_bytes,
        "seconds": time.perf_counter() - started,
    }
    return Completion((file.written,), counters)


def documents_name(compressed: FileRecord) -> str:
    return compressed.name.removesuffix(".parquet") + ".jsonl"


def json_line(doc_id: str, document: bytes) -> bytes:
    """A document as a line of JSON, with `id` and `text`.

    Raises:
      DataError: it isn't UTF-8, which JSON has to be.
    """
    try:
        text = document.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"document {doc_id!r} is not UTF-8: {error.reason} (byte {error.start})"
        ) from error
    return orjson.dumps({"id": doc_id, "text": text}, option=orjson.OPT_APPEND_NEWLINE)


def _finish(_: int, plan: DecompressPlan) -> Manifest:
    parts = [documents_name(record) for record in plan.manifest.data_files]
    found = int(add_up(plan.writer.completed(part).counters for part in parts)["documents"])
    expected = plan.manifest.properties["documents"]
    if found != expected:
        raise DataError(f"{plan.input} has {found} documents, its manifest says {expected}")
    return plan.writer.finish(
        parts,
        inputs={plan.input: plan.manifest.content_hash},
        tokenizer={},
        properties={"documents": found},
    )


def main(argv: Sequence[str]) -> None:
    """`corpusmill decompress`"""
    parser = make_parser(
        "decompress",
        "Turns a compressed dataset back into its documents, as JSONL files with id and text; or a"
        " stream of raw little-endian ids into bytes.",
        "corpusmill decompress --input small --output documents\n"
        "  corpusmill decompress --codebook english.codebook --stdin < ids > text",
    )
    add = parser.add_argument
    add_folder(parser, "--input", "a compressed dataset", required=False)
    add_folder(parser, "--output", "the documents", required=False)
    add(
        "--codebook",
        type=location,
        metavar="FILE",
        help="with --stdin: path or URL of the codebook",
    )
    add("--stdin", action="store_true", help="read standard input, write to standard output")
    add_device_argument(parser)
    arguments, run = parse_job(parser, argv)
    expect_workers(run.workers, __name__)
    if arguments.stdin:
        if arguments.input or arguments.output or arguments.codebook is None:
            parser.error("--stdin goes with --codebook, without --input and --output")
        pipe(partial(decode_stream, Codebook.open(arguments.codebook)))
        return
    if arguments.codebook is not None:
        parser.error("--codebook is for --stdin only: a compressed dataset has its own")
    if not (arguments.input and arguments.output):
        parser.error("the following arguments are required: --input and --output, or --stdin")
    plan = make_plan(arguments.input, arguments.output, arguments.device)
    check_device(expect_codec(*plan.codec), arguments.device, run)
    run_job(
        plan.writer,
        run,
        plan.describe(),
        lambda: build_job(plan, run),
        (Stage("decompress", "B"),),
    )

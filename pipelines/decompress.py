"""compressed dataset -> documents as JSONL"""

import dataclasses
import time
from functools import partial
from typing import TYPE_CHECKING

import orjson

from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codecs import Codec, codec_on_device, device_of, expect_codec
from corpusmill.compress.datasets.compressed import read_documents
from corpusmill.corpus import storage
from corpusmill.corpus.datasets import (
    TOKENIZER_FOLDER,
    Completion,
    DatasetWriter,
    FileRecord,
    Manifest,
    add_up,
    damage,
    read_manifest,
)
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.progress import Progress
from corpusmill.pipelines.launching.here import LocalJob
from corpusmill.pipelines.launching.options import RunOptions

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

    from corpusmill.pipelines.launching.model_work import Run
    from corpusmill.pipelines.transforms import SpreadOut, WriteManifest

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

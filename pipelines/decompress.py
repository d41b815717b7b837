"""compressed dataset -> documents as JSONL"""

import dataclasses
import time
from functools import cached_property
from typing import TYPE_CHECKING

import orjson

from corpusmill.compress.byte_models import DEVICES
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
from corpusmill.corpus.options import FOLDER, option
from corpusmill.corpus.progress import Progress, Stage
from corpusmill.pipelines.launching.local_workers import Workers

if TYPE_CHECKING:
    import apache_beam as beam


@dataclasses.dataclass(frozen=True)
class DecompressJob:
    """Turns a compressed dataset back into its documents.

    Raises:
      DatasetError: there is no compressed dataset.
      DataError: its codec isn't there, or isn't the one that it was made with.
    """

    compressed: str = option("folder or URL of a compressed dataset", metavar=FOLDER)
    output: str = option("folder or URL of the documents", metavar=FOLDER)
    device: str = option(
        "equal-info, ac: what computes a transformer byte model; the data is the same",
        "cpu",
        choices=DEVICES,
    )

    def __post_init__(self) -> None:
        self.load_codec()

    @cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self.compressed, "compressed")

    @property
    def writer(self) -> DatasetWriter:
        config = {"compressed": self.manifest.content_hash}
        return DatasetWriter(self.output, "documents", config)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return (Stage("decompress", "B"),)

    def load_codec(self) -> Codec:
        """The codec that the dataset was made with."""
        folder = storage.join(self.compressed, TOKENIZER_FOLDER)
        return expect_codec(folder, self.manifest.tokenizer["content_hash"])

    def describe(self) -> list[str]:
        counts = self.manifest.properties
        input_line = f"input: {counts['documents']:,} documents, {counts['tokens']:,} ids"
        return [f"{input_line}, {len(self.manifest.data_files)} files"]

    def prepare(self) -> None:
        """Nothing: all that is needed is in the compressed dataset."""

    def work_here(self, workers: Workers) -> None:
        workers.run(DecompressFiles(self), self.manifest.data_files)

    def expand(self, pipeline: "beam.Pipeline") -> "beam.PCollection":
        import apache_beam as beam

        from corpusmill.pipelines.transforms import RunWork, SpreadOut

        return (
            pipeline
            | "Files" >> SpreadOut(self.manifest.data_files)
            | "Decompress"
            >> RunWork(DecompressFiles(self), device_of(self.load_codec(), self.device))
            | "AllComplete" >> beam.combiners.Count.Globally()
        )

    def finish(self, _: object) -> Manifest:
        parts = [documents_name(record) for record in self.manifest.data_files]
        completions = self.writer.completed(parts)
        found = int(add_up(completion.counters for completion in completions)["documents"])
        expected = self.manifest.properties["documents"]
        if found != expected:
            raise DataError(
                f"{self.compressed} has {found} documents, its manifest says {expected}"
            )
        return self.writer.finish(
            completions,
            inputs={self.compressed: self.manifest.content_hash},
            tokenizer={},
            properties={"documents": found},
        )


@dataclasses.dataclass(frozen=True)
class DecompressFiles:
    """Work: record of a compressed file -> name of its documents, which are in place."""

    job: DecompressJob

    def load(self) -> Codec:
        return codec_on_device(self.job.load_codec(), self.job.device)

    def run(self, codec: Codec, record: FileRecord) -> str:
        writer, part = self.job.writer, documents_name(record)
        if writer.completion(part) is None:
            writer.complete(part, decompress_file(self.job, codec, record))
        return part


def decompress_file(job: DecompressJob, codec: Codec, record: FileRecord) -> Completion:
    """Writes the documents of one compressed file.

    Raises:
      DataError: the file is damaged, or a document in it, which is named, isn't UTF-8.
    """
    started = time.perf_counter()
    wrong = damage(job.compressed, record)
    if wrong is not None:
        raise DataError(f"{storage.join(job.compressed, record.name)} {wrong}")
    part = documents_name(record)
    progress = Progress(job.writer, "decompress", part)
    text_bytes = 0
    with job.writer.new_file(part) as file, open(file.path, "wb") as out:
        for names, documents in read_documents(storage.join(job.compressed, record.name), codec):
            if not codec.is_lossless:
                # What comes out instead of a text needn't be one.
                documents = ByteStrings.of(
                    document.decode(errors="replace").encode() for document in documents
                )
            out.writelines(map(json_line, names, documents))
            file.rows += len(names)
            text_bytes += int(documents.lengths().sum())
            progress.add(len(documents.data))
    progress.finish()
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

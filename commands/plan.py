"""What a corpus will take: the jobs run on a sample of it at several sizes, and extrapolated."""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from corpusmill.commands.arguments import add_options, make_parser, parse_known, reading
from corpusmill.commands.document_options import add_document_options, document_options
from corpusmill.corpus.datasets import Manifest
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.options import positive_integer, positive_number
from corpusmill.corpus.sampling import Sample, sample_documents
from corpusmill.corpus.tokenizers import describe_tokenizer, load_tokenizer
from corpusmill.corpus.tokens import id_dtype
from corpusmill.ngram_agg.counts_files import counts_packing, read_counts, spilled_schema
from corpusmill.ngram_agg.growth import Growth, Range
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.partitions import MOST_PARTITIONS
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.pipelines.count import CountJob
from corpusmill.pipelines.counts_merging import FAN_IN, partition_rows
from corpusmill.pipelines.distributions import DistributionsJob
from corpusmill.pipelines.documents import DocumentOptions, FoundDocuments, find_documents
from corpusmill.pipelines.enrich import (
    MANY_TABLES_TIME,
    SPILLED_BYTES_PER_POSITION,
    WORKER_BYTES,
    EnrichJob,
    bytes_per_ngram,
)
from corpusmill.pipelines.launching.job import Job
from corpusmill.pipelines.launching.launch import make_here
from corpusmill.pipelines.tokenize import make_job

# The sample is measured whole, halved, and so on: 5 sizes, each twice the one before.
_HALVINGS = 4
_LEAST_DOCUMENTS = 64
# What a worker of `count` takes besides its tokens: python -m benchmarks.memory.
_WORKER_BYTES = 400 << 20
_BYTES_PER_TOKEN = 40
# A slice of a run as it travels to its partition: a name and two cuts.
_SLICE_BYTES = 150
# Beyond so many range reads their latency and price are what a job is about.
_MANY_READS = 10_000_000


@dataclass(frozen=True)
class PlanOptions:
    """What to plan for, as `tokenize` and `count` take it."""

    tokenizer: str
    max_order: int = CountJob.max_order
    run_tokens: int = CountJob.run_tokens
    partition_mib: int = CountJob.partition_mib


@dataclass(frozen=True)
class Measurement:
    """What the jobs made of a part of the sample.

    Attributes:
      manifests: of the datasets, by kind.
      distinct: distinct n-grams of 1 to max_order + 1 tokens.
    """

    manifests: dict[str, Manifest]
    distinct: tuple[int, ...]

    @property
    def tokens(self) -> int:
        return int(self.manifests["tokens"].properties["tokens"])

    def bytes_of(self, kind: str) -> int:
        return sum(file.bytes for file in self.manifests[kind].data_files)

    def counter(self, kind: str, name: str) -> float:
        return float(self.manifests[kind].counters[name])


@dataclass(frozen=True)
class Estimates:
    """What the whole corpus will take, from measurements of parts of it.

    Attributes:
      measured: parts, each twice the one before.
      tokens: of the whole corpus.
      options: what is planned for.
    """

    measured: Sequence[Measurement]
    tokens: float
    options: PlanOptions

    @property
    def most(self) -> Measurement:
        return self.measured[-1]

    def grown(self, values: Sequence[float], tokens: float | None = None) -> Range:
        sizes = [part.tokens for part in self.measured]
        return Growth(sizes, values).at(max(tokens or self.tokens, sizes[-1]))

    def distinct(self) -> list[Range]:
        """Distinct n-grams of 1, 2, ... tokens."""
        return [
            self.grown(values)
            for values in zip(*(part.distinct for part in self.measured), strict=True)
        ]

    def dataset_bytes(self, kind: str) -> Range:
        sizes = [part.bytes_of(kind) for part in self.measured]
        linear = self.most.bytes_of(kind) * self.tokens / self.most.tokens
        if kind == "tokens":
            return _both(linear)
        if kind == "targets":
            # The more text, the more positions have a known context, and tokens drawn for them.
            return Range(linear, min(self._targets(sizes), self._largest_targets()))
        return self.grown(sizes)

    def _targets(self, sizes: Sequence[float]) -> float:
        tokens = [part.tokens for part in self.measured]
        return Growth(tokens, sizes).at(max(self.tokens, tokens[-1]), steepest=2).high

    def _largest_targets(self) -> float:
        """Every position a number and all draws, every head all its tokens, uncompressed."""
        manifest = self.most.manifests["targets"]
        properties = manifest.properties
        id_bytes = id_dtype(manifest.tokenizer["vocabulary_size"]).itemsize
        heads = self.most.counter("targets", "heads") / self.most.tokens
        head_bytes = properties["head"] * (id_bytes + 2) + 3
        return self.tokens * (4 + properties["tail_draws"] * id_bytes + heads * head_bytes)

    def contexts(self) -> Range:
        """Contexts in the distribution tables."""
        return self.grown([part.counter("distributions", "contexts") for part in self.measured])

    @property
    def runs(self) -> int:
        """Spilled runs of the count job."""
        return max(1, round(self.tokens / self.options.run_tokens))

    @property
    def spilled_row_bytes(self) -> int:
        """Of an uncompressed row of a spilled run."""
        schema = spilled_schema(counts_packing(self.most.manifests["counts"]))
        return sum(field.type.bit_width for field in schema) // 8

    def spilled_rows(self) -> Range:
        """N-grams in all spilled runs."""
        per_run = min(self.tokens, self.options.run_tokens)
        longest = [part.distinct[-1] for part in self.measured]
        if per_run <= self.most.tokens:
            sizes = [part.tokens for part in self.measured]
            rows = float(np.exp(np.interp(np.log(per_run), np.log(sizes), np.log(longest))))
            return Range(rows, rows).times(self.tokens / per_run)
        return self.grown(longest, per_run).times(self.tokens / per_run)

    def partitions(self) -> Range:
        rows = partition_rows(self.options.partition_mib)
        low, high = self.distinct()[-1].times(1 / rows)
        return Range(*(min(MOST_PARTITIONS, max(1, round(each))) for each in (low, high)))

    def merges(self) -> int:
        """How often each n-gram is merged: runs meet `FAN_IN` at a time."""
        return max(1, int(np.ceil(np.log(self.runs) / np.log(FAN_IN))))

    def target_tables(self) -> Range:
        """Bytes of one table of all contexts for `enrich`."""
        return self.grown([part.counter("targets", "table_bytes") for part in self.measured])

    @property
    def is_one_table(self) -> bool:
        """Whether a worker of `enrich` is expected to hold all contexts."""
        ngrams = self.distinct()[-1].high
        return ngrams * bytes_per_ngram(TargetOptions.min_count) <= EnrichJob.table_mib * 2**20

    def enrich_memory(self) -> float:
        """Bytes of a worker of `enrich`."""
        return WORKER_BYTES + min(self.target_tables().high, EnrichJob.table_mib * 2**20)

    def enrich_scratch(self) -> Range:
        """Bytes of what `enrich` keeps while it works."""
        tables = self.target_tables()
        if self.is_one_table:
            return tables
        # Contexts are turned round: all n-grams but those of a single token.
        low, high = np.sum(self.distinct()[1:], axis=0) * self.spilled_row_bytes
        asked = self.tokens * SPILLED_BYTES_PER_POSITION
        return Range(tables.low + low + asked, tables.high + high + asked)

    def core_hours(self) -> dict[str, Range]:
        """Processor time of each job on cores like this one, storage as fast as here."""
        by_token = self.tokens / self.most.tokens / 3600
        merged = self.most.counter("counts", "merge_seconds")
        merged /= self.most.counter("counts", "ngrams_merged") * 3600
        tables = self.most.counter("distributions", "seconds")
        tables /= self.most.distinct[-1] * 3600
        targets = sum(
            self.most.counter("targets", f"{name}_seconds") for name in ("table", "target")
        )
        return {
            "tokenize": _both(self.most.counter("tokens", "seconds") * by_token),
            "count": _both(self.most.counter("counts", "count_seconds") * by_token),
            "merge the counts": self.spilled_rows().times(merged * self.merges()),
            "distributions": self.distinct()[-1].times(tables),
            "enrich": _both(targets * by_token * (1 if self.is_one_table else MANY_TABLES_TIME)),
        }


def _both(value: float) -> Range:
    return Range(value, value)


def measure(sample: Sample, options: PlanOptions) -> Iterator[Measurement]:
    """Runs the jobs on parts of a sample, in a folder for temporary files, the smallest first."""
    order = np.random.default_rng(0).permutation(len(sample.texts))
    for halvings in range(_HALVINGS, -1, -1):
        texts = [sample.texts[i] for i in order[: len(order) >> halvings]]
        size = sum(map(len, texts)) / 2**20
        print(f"measuring {size:,.1f} MiB of text", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            yield _measure_part(texts, options, folder)


def _measure_part(texts: Sequence[str], options: PlanOptions, folder: str) -> Measurement:
    source = os.path.join(folder, "documents.jsonl")
    with open(source, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    tokens, counts, tables, targets = (
        os.path.join(folder, kind) for kind in ("tokens", "counts", "distributions", "targets")
    )
    documents = find_documents(DocumentOptions((source,)))
    longest = TargetOptions(
        min_order=min(TargetOptions.min_order, options.max_order), max_order=options.max_order
    )
    manifests = (
        _make(make_job(documents, load_tokenizer(options.tokenizer), tokens)),
        _make(CountJob(tokens, counts, options.max_order)),
        _make(DistributionsJob(counts, tables)),
        _make(EnrichJob(tokens, counts, targets, longest)),
    )
    by_kind = {manifest.kind: manifest for manifest in manifests}
    return Measurement(by_kind, _distinct_by_length(counts, by_kind["counts"]))


def _make(job: Job) -> Manifest:
    job.writer.begin()
    return make_here(job)


def _distinct_by_length(counts: str, manifest: Manifest) -> tuple[int, ...]:
    """Distinct n-grams of 1, 2, ... tokens in a counts dataset."""
    packing = counts_packing(manifest)
    distinct = np.zeros(packing.length, np.int64)
    previous: list[Any] = [None] * packing.length
    for url in manifest.data_urls(counts):
        for run in read_counts(url, packing):
            for length in range(1, packing.length + 1):
                shorter = run.shortened(length)
                goes_on = shorter.key(0) == previous[length - 1]
                distinct[length - 1] += len(shorter) - goes_on
                previous[length - 1] = shorter.key(len(shorter) - 1)
    return tuple(distinct.tolist())


def report(estimates: Estimates, found: FoundDocuments, sample: Sample, text: float) -> list[str]:
    """The lines that `corpusmill plan` prints."""
    most, options = estimates.most, estimates.options
    rows: list[tuple[str, float | None, Range]] = [
        ("GiB of text", sample.text_bytes / 2**30, _both(text / 2**30)),
        ("million tokens", most.tokens / 1e6, _both(estimates.tokens / 1e6)),
    ]
    rows += [
        (f"million distinct {length}-grams", part / 1e6, whole.times(1e-6))
        for length, (part, whole) in enumerate(
            zip(most.distinct, estimates.distinct(), strict=True), 1
        )
    ]
    contexts = most.counter("distributions", "contexts") / 1e6
    rows.append(("million contexts in tables", contexts, estimates.contexts().times(1e-6)))
    rows += [
        (
            f"{kind} dataset, GiB",
            most.bytes_of(kind) / 2**30,
            estimates.dataset_bytes(kind).times(2**-30),
        )
        for kind in most.manifests
    ]
    partitions = estimates.partitions()
    reads = partitions.times(estimates.runs)
    spilled_bytes = estimates.spilled_row_bytes * estimates.merges()
    memory = _WORKER_BYTES + _BYTES_PER_TOKEN * min(options.run_tokens, estimates.tokens)
    rows += [
        ("scratch of count, GiB", None, estimates.spilled_rows().times(spilled_bytes / 2**30)),
        ("spilled runs", None, _both(estimates.runs)),
        ("partitions", None, partitions),
        ("range reads of spilled runs", None, reads),
        ("shuffled by the runner, GiB", None, reads.times(_SLICE_BYTES / 2**30)),
        ("memory of a worker of count, GiB", None, _both(memory / 2**30)),
        ("tables of enrich, GiB", None, estimates.target_tables().times(2**-30)),
        ("scratch of enrich, GiB", None, estimates.enrich_scratch().times(2**-30)),
        ("memory of a worker of enrich, GiB", None, _both(estimates.enrich_memory() / 2**30)),
    ]
    rows += [(f"core hours: {name}", None, hours) for name, hours in estimates.core_hours().items()]
    lines = [found.describe(), f"{'':<34}{'sample':>12}{'all of it':>24}"]
    lines += [f"{name:<34}{_number(part):>12}{_range(whole):>24}" for name, part, whole in rows]
    if reads.high > _MANY_READS:
        factor = int(np.ceil(reads.high / _MANY_READS))
        lines.append(
            f"{reads.high:,.0f} range reads are many: count with --run-tokens"
            f" {options.run_tokens * min(factor, 8)} and more memory a worker, or with a"
            " larger --partition-mib"
        )
    return lines


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def _range(values: Range) -> str:
    low, high = map(_number, values)
    return low if low == high else f"{low} to {high}"


def main(argv: Sequence[str]) -> None:
    """`corpusmill plan`"""
    parser = make_parser(
        "plan",
        "Says what tokenize, count, distributions and enrich will make of a corpus and take for it:"
        " they are run here on a sample at five sizes, and what they made is extrapolated.",
        "corpusmill plan --input 'gs://bucket/crawl/*.jsonl.gz' --tokenizer tokenizer.json",
    )
    add = parser.add_argument
    add_options(parser, DocumentOptions, "input")
    add("--tokenizer", required=True, metavar="T", help="tokenizer as tokenize takes it")
    add_options(parser, CountJob, "max_order", "run_tokens", "partition_mib")
    add(
        "--sample-mib",
        type=reading(positive_integer),
        default=16,
        metavar="MIB",
        help="size of the part of the input that is measured, as stored",
    )
    add(
        "--text-gib",
        type=reading(positive_number),
        metavar="GIB",
        help="text of the whole corpus, where the input is only a part of it",
    )
    add_document_options(parser)
    arguments, _ = parse_known(parser, argv)
    # An order that doesn't fit the vocabulary fails here.
    Packing.of(describe_tokenizer(load_tokenizer(arguments.tokenizer)), arguments.max_order + 1)
    options = PlanOptions(
        arguments.tokenizer, arguments.max_order, arguments.run_tokens, arguments.partition_mib
    )
    found = find_documents(document_options(arguments))
    sample = sample_documents(found.files, found.options.read, arguments.sample_mib << 20)
    if len(sample.texts) < _LEAST_DOCUMENTS:
        raise DataError(
            f"the sample has {len(sample.texts)} documents, {_LEAST_DOCUMENTS} are needed: give a"
            " larger --sample-mib"
        )
    if not sample.text_bytes:
        raise DataError(f"the {len(sample.texts)} documents of the sample are all empty")
    text = found.size * sample.text_bytes / sample.stored_bytes
    if arguments.text_gib is not None:
        text = arguments.text_gib * 2**30
    measured = list(measure(sample, options))
    tokens = measured[-1].tokens * text / sample.text_bytes
    print("\n".join(report(Estimates(measured, tokens, options), found, sample, text)))

"""Sorted sources and what becomes of them: the parts of a counts dataset.

A source is a spilled run or a whole counts dataset. The corpus' n-grams are cut into partitions of
equal size by a sample of all sources; each partition is the merge of its stretch of every source,
so memory is bounded by a block of each, whatever the size of a partition. The same as transforms is
in `corpusmill.pipelines.counts_parts`.
"""

import dataclasses
import hashlib
import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from corpusmill.corpus import storage
from corpusmill.corpus.datasets import (
    TOKENIZER_FOLDER,
    Completion,
    DatasetWriter,
    Manifest,
    part_name,
    read_manifest,
)
from corpusmill.corpus.errors import DataError
from corpusmill.corpus.progress import Progress
from corpusmill.ngram_agg.counts_files import (
    read_counts,
    read_spilled,
    spill_runs,
    write_counts,
)
from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.merging import merge_runs, merge_streams
from corpusmill.ngram_agg.packing import Key, Packing, pack_one
from corpusmill.ngram_agg.partitions import (
    Cut,
    KeySample,
    add_sample,
    empty_sample,
    merge_samples,
    partition_cuts,
    sample_stream,
)
from corpusmill.pipelines.launching.local_workers import Workers, grouped

SPILLED = ".arrow"
# One n-gram in memory: its key and its count.
_BYTES_PER_NGRAM = 16
# Sources merged at once; a block of each is in memory.
FAN_IN = 32
# Samples of some of the files, a megabyte each, that a process holds of however many there are.
_SAMPLES = 64
# A sum of runs is merged once it has grown to so many times the last merge.
_GROWTH = 4

Slice = tuple[int, str, Cut, Cut]
"""A stretch of a source: how often its n-grams were merged before, the source, the cut where a
partition begins and the one where it ends; () at the corpus' ends."""


@dataclasses.dataclass(frozen=True)
class CountsParts:
    """What the parts are written by.

    Attributes:
      writer: the counts dataset.
      packing: of its n-grams.
      partition_rows: n-grams in one part.
    """

    writer: DatasetWriter
    packing: Packing
    partition_rows: int


def add_run(runs: list[CountsRun], run: CountsRun) -> list[CountsRun]:
    """Runs that count the same as `runs` and `run` together, merged when they have grown.

    The first one is the largest, so the memory held is a small multiple of the sum's.
    """
    runs = [*runs, run]
    if len(runs) > 2 and sum(map(len, runs)) > _GROWTH * len(runs[0]):
        return [merge_runs(runs)]
    return runs


def partition_rows(mebibytes: int) -> int:
    """How many n-grams, with their counts, take so much memory."""
    return (mebibytes << 20) // _BYTES_PER_NGRAM


def source_files(source: str) -> list[str]:
    """The files of a source, its n-grams rising from file to file."""
    if source.endswith(SPILLED):
        return [source]
    return read_manifest(source).data_urls(source)


def read_file(
    url: str, packing: Packing, lower: Key | None = None, upper: Key | None = None
) -> Iterator[CountsRun]:
    """The n-grams of one file of a source from key `lower` on to (not including) `upper`."""
    read = read_spilled if url.endswith(SPILLED) else read_counts
    return read(url, packing, lower, upper)


def sample_file(url: str, packing: Packing) -> KeySample:
    return sample_stream(read_file(url, packing))


def cut_partitions(sample: KeySample, parts: CountsParts) -> list[Cut]:
    return partition_cuts(parts.packing, sample, parts.partition_rows)


def slices(source: str, cuts: list[Cut]) -> Iterator[tuple[int, Slice]]:
    """A source's stretch of every partition, by the partition's number."""
    for number, (lower, upper) in enumerate(zip([(), *cuts], [*cuts, ()], strict=True)):
        yield number, (0, source, lower, upper)


def merge_slices(
    parts: Iterable[Slice], packing: Packing, on_read: Callable[[int], None] | None = None
) -> Iterator[CountsRun]:
    """Merges stretches of sources to one sorted stream; `on_read` is told of the rows read."""

    def read_slice(_merges: int, source: str, lower: Cut, upper: Cut) -> Iterator[CountsRun]:
        first = pack_one(packing, lower) if lower else None
        beyond = pack_one(packing, upper) if upper else None
        for url in source_files(source):
            for run in read_file(url, packing, first, beyond):
                if on_read is not None:
                    on_read(len(run))
                yield run

    return merge_streams([read_slice(*part) for part in parts])


def merged_alike(sources: Iterable[Slice], parts: CountsParts) -> list[Slice]:
    """Slices that count the same, fewer than `FAN_IN` of them merged equally often.

    Slices are merged with others like them only, so that an n-gram is merged once more each time
    that there are `FAN_IN` times as many sources.
    """
    alike: dict[int, list[Slice]] = {}
    waiting = list(sources)
    while waiting:
        each = waiting.pop()
        merges = each[0]
        others = alike.setdefault(merges, [])
        others.append(each)
        if len(others) == FAN_IN:
            waiting.append(_merged(alike.pop(merges), parts))
    return list(itertools.chain.from_iterable(alike.values()))


def merged_to_few(sources: Iterable[Slice], parts: CountsParts) -> list[Slice]:
    """At most `FAN_IN` slices that count the same; no more are merged than have to be."""
    few = list(sources)
    heapq.heapify(few)
    while len(few) > FAN_IN:
        number = min(FAN_IN, len(few) - FAN_IN + 1)
        heapq.heappush(few, _merged([heapq.heappop(few) for _ in range(number)], parts))
    return sorted(few)


def _merged(sources: list[Slice], parts: CountsParts) -> Slice:
    """One spilled run of slices that have the same cuts."""
    sources = sorted(sources)
    name = hashlib.sha256(repr(sources).encode()).hexdigest()[:32]
    url = parts.writer.scratch("merged", name + SPILLED)
    if not storage.exists(url):
        with storage.publish(url) as path:
            spill_runs(path, parts.packing, merge_slices(sources, parts.packing))
    merges, _, lower, upper = sources[-1]
    return merges + 1, url, lower, upper


def _sample_files(urls: Sequence[str], packing: Packing) -> KeySample:
    held = [empty_sample()]
    for url in urls:
        held = add_sample(held, sample_file(url, packing))
    return merge_samples(held)


def find_cuts(sources: Sequence[str], parts: CountsParts, workers: Workers) -> list[Cut]:
    """The cuts between partitions of equal size."""
    files = [file for source in sources for file in source_files(source)]
    some = [files[first::_SAMPLES] for first in range(min(_SAMPLES, len(files)))]
    samples = workers.map(_sample_files, some, parts.packing)
    return cut_partitions(merge_samples([empty_sample(), *samples]), parts)


def write_parts(sources: Sequence[str], parts: CountsParts, workers: Workers) -> list[Cut]:
    """Writes all parts; returns the cuts between them."""
    cuts = find_cuts(sources, parts, workers)
    partitions = grouped(each for source in sources for each in slices(source, cuts))
    workers.map(write_part, partitions.items(), parts, cuts)
    return cuts


def write_part(partition: tuple[int, list[Slice]], parts: CountsParts, cuts: list[Cut]) -> int:
    """Writes one partition's file, unless an earlier run has done it; returns its number."""
    number, sources = partition
    name = part_name(number, len(cuts) + 1)
    if parts.writer.completion(name) is None:
        parts.writer.complete(name, _write_file(name, merged_to_few(sources, parts), parts))
    return number


def _write_file(name: str, sources: list[Slice], parts: CountsParts) -> Completion:
    started = time.perf_counter()
    progress = Progress(parts.writer, "merge", name)
    runs = merge_slices(sources, parts.packing, progress.add)
    with parts.writer.new_file(name) as file:
        file.rows, file.tokens = write_counts(file.path, parts.packing, runs)
    progress.finish()
    counters = {
        "ngrams_merged": progress.done,
        "ngrams": file.rows,
        "merge_seconds": time.perf_counter() - started,
    }
    return Completion((file.written,), counters)


def finish_counts(
    cuts: list[Cut],
    counts_parts: CountsParts,
    inputs: Mapping[str, Manifest],
    other_parts: Sequence[str] = (),
) -> Manifest:
    """Writes the manifest of a counts dataset.

    Raises:
      DataError: a part is not complete, or the parts count more or fewer positions than the inputs
        have.
    """
    writer = counts_parts.writer
    parts = [part_name(number, len(cuts) + 1) for number in range(len(cuts) + 1)]
    expected = sum(manifest.properties["tokens"] for manifest in inputs.values())
    completions = writer.completed([TOKENIZER_FOLDER, *parts, *other_parts])
    found = sum(file.tokens for completion in completions for file in completion.files)
    if found != expected:
        raise DataError(f"{writer.folder}: {found} positions counted, {expected} are in the input")
    first = next(iter(inputs.values()))
    return writer.finish(
        completions,
        inputs={folder: manifest.content_hash for folder, manifest in inputs.items()},
        tokenizer=first.tokenizer,
        properties={
            "max_order": counts_parts.packing.max_order,
            "tokens": expected,
            "cuts": cuts,
        },
    )

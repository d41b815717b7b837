"""Transforms that several pipelines share."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam

from corpusmill.corpus.datasets import Manifest
from corpusmill.pipelines.launching.job import Job


class SpreadOut(beam.PTransform):
    """Hands a few small elements that each stand for much work to all workers."""

    def __init__(self, elements: Iterable[Any] | None = None) -> None:
        """With `elements` it starts a pipeline; else it follows a transform."""
        super().__init__()
        self._elements = None if elements is None else list(elements)

    def expand(self, begin: Any) -> beam.PCollection:
        source = begin
        if self._elements is not None:
            source = begin | "Create" >> beam.Create(self._elements, reshuffle=False)
        # Breaks the fusion of the listing, which is one element's output, with the work on each.
        return source | "Spread" >> beam.Reshuffle()


class WriteManifest(beam.PTransform):
    """The last step of a job: finishes the dataset, once, also where a runner tries again."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def expand(self, found: beam.PCollection) -> beam.PCollection:
        return found | beam.Map(_finish_once, self._job)


# Beam looks at annotations, and can't tell whether something is a protocol with properties.
def _finish_once(found: Any, job: Any) -> str:
    manifest: Manifest = job.writer.finished() or job.finish(found)
    return manifest.content_hash

"""Transforms that several pipelines share."""

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.resources import AcceleratorHint, resource_hints_from_options

from corpusmill.corpus.datasets import Manifest
from corpusmill.pipelines.launching.job import Job
from corpusmill.pipelines.launching.work import Work


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


class RunWork(beam.PTransform):
    """Does some work with each element, having loaded once what it needs."""

    def __init__(self, work: Work, device: str | None) -> None:
        """Takes the work.

        Args:
          work: what to do.
          device: what computes the network that is loaded for it, `cpu` or `cuda`; None where
            there is none.
        """
        super().__init__()
        self._work = work
        self._device = device

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        if self._device is None:
            return elements | beam.ParDo(_RunHere(self._work))
        # RunInference imports PyTorch where it is installed, which no other job has a use for.
        from apache_beam.ml.inference.base import RunInference

        from corpusmill.pipelines.launching.inference import GPU, NetworkHandler

        # A hint of the user's is for all transforms; ours would go before it.
        asks = AcceleratorHint.urn in resource_hints_from_options(elements.pipeline.options)
        accelerator = None if asks or self._device == "cpu" else GPU
        return elements | RunInference(NetworkHandler(self._work, self._device, accelerator))


class _RunHere(beam.DoFn):
    def __init__(self, work: Work) -> None:
        self._work = work

    def setup(self) -> None:
        self._loaded = self._work.load()

    def process(self, element: Any) -> Iterator[Any]:
        yield self._work.run(self._loaded, element)


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

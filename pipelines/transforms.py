"""Transforms that several pipelines share."""

from collections.abc import Callable, Iterable
from typing import Any

import apache_beam as beam

from corpusmill.corpus.datasets import DatasetWriter, Manifest


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

    def __init__(
        self, writer: DatasetWriter, finish: Callable[..., Manifest], *arguments: Any
    ) -> None:
        """`finish` is called with the one element that comes in and the arguments."""
        super().__init__()
        self._writer = writer
        self._finish = finish
        self._arguments = arguments

    def expand(self, element: beam.PCollection) -> beam.PCollection:
        return element | beam.Map(_finish_once, self._writer, self._finish, *self._arguments)


def _finish_once(
    element: Any, writer: DatasetWriter, finish: Callable[..., Manifest], *arguments: Any
) -> str:
    manifest = writer.finished() or finish(element, *arguments)
    return manifest.content_hash

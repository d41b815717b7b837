"""Transforms that several pipelines share."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam


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

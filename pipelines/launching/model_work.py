"""Work that needs something loaded once: an encoder, a codec, the network of a byte model."""

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.resources import AcceleratorHint, resource_hints_from_options

from corpusmill.pipelines.launching.work import Work


class Run(beam.PTransform):
    """Does some work with each element."""

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

        from corpusmill.pipelines.launching.networks import GPU, NetworkHandler

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

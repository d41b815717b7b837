"""What a job is, to what launches it."""

from typing import TYPE_CHECKING, Any, Protocol

from corpusmill.corpus.datasets import DatasetWriter, Manifest
from corpusmill.corpus.progress import Stage
from corpusmill.pipelines.launching.local_workers import Workers

if TYPE_CHECKING:
    import apache_beam as beam


class Job(Protocol):
    """Makes one dataset of others.

    What follows what is said twice, by `work_here` and by `expand`, of the same functions. Each
    looks first whether an earlier run has left what it would make.
    """

    @property
    def writer(self) -> DatasetWriter:
        """Of the dataset that it makes."""
        ...

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What to show while it runs."""
        ...

    def describe(self) -> list[str]:
        """Lines that say what will be done."""
        ...

    def prepare(self) -> None:
        """Writes what all workers need into the folder, which has been claimed."""
        ...

    def work_here(self, workers: Workers) -> Any:
        """Writes all parts, without Beam; returns what `finish` takes."""
        ...

    def expand(self, pipeline: "beam.Pipeline") -> "beam.PCollection":
        """Adds what writes all parts to a pipeline; gives the one element that `finish` takes."""
        ...

    def finish(self, found: Any) -> Manifest:
        """Looks the parts over and writes the manifest."""
        ...

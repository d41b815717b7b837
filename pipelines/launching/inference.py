"""Work with the network of a byte model, as Beam's RunInference wants it.

An element is a batch already: a shard, a file. So a process has one model for all its threads. On a
GPU all processes of a machine share one that lives in one of them; a call takes a few milliseconds
more, and there is one an element.
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler

from corpusmill.compress.tally import tally
from corpusmill.pipelines.launching.work import Work

# The smallest of Dataflow's that has memory for thousands of lanes.
GPU = "type:nvidia-l4;count:1;install-nvidia-driver"
NAMESPACE = "corpusmill"


class NetworkHandler(ModelHandler[Any, Any, "LoadedWork"]):
    """Runs the work, with metrics.

    Counters: those of `compress.tally`. Distributions, an element a value: `bytes_per_second` and
    `model_starts_per_second` (with windows that the model starts afresh with, these are windows),
    and `lane_occupancy_percent`, how many of the lanes were in use.
    """

    def __init__(self, work: Work, device: str, accelerator: str | None = None) -> None:
        """Takes the work.

        Args:
          work: what to do with each element.
          device: what computes the network, `cpu` or `cuda`.
          accelerator: which one a machine has to have, a resource hint of Beam's.
        """
        super().__init__(min_batch_size=1, max_batch_size=1, large_model=device != "cpu")
        self._work = work
        self._accelerator = accelerator

    def load_model(self) -> "LoadedWork":
        return LoadedWork(self._work)

    def run_inference(
        self,
        batch: Sequence[Any],
        model: "LoadedWork",
        inference_args: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> Iterator[Any]:
        for element in batch:
            result, counts, seconds = model(element)
            _report(counts, seconds)
            yield result

    def get_num_bytes(self, batch: Sequence[Any]) -> int:  # noqa: ARG002
        """None: an element says where its bytes are, and `bytes_read` counts them."""
        return 0

    def get_metrics_namespace(self) -> str:
        return NAMESPACE

    def get_resource_hints(self) -> dict[str, str]:
        """A machine with the accelerator, for this transform only."""
        return {"accelerator": self._accelerator} if self._accelerator else {}


class LoadedWork:
    """Work with what it needs, as a function that processes may share."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._loaded = work.load()
        # The lanes of one element fill a device, and its memory.
        self._turn = threading.Lock()

    def __call__(self, element: Any) -> tuple[Any, dict[str, int], float]:
        """The result, what was counted, and the seconds."""
        with self._turn, tally() as counts:
            started = time.perf_counter()
            result = self._work.run(self._loaded, element)
            return result, dict(counts), time.perf_counter() - started


def _report(counts: Mapping[str, int], seconds: float) -> None:
    for name, amount in counts.items():
        Metrics.counter(NAMESPACE, name).inc(amount)
    if not counts:
        # The element was complete already.
        return
    shares = {
        "bytes_per_second": counts["bytes_read"] / seconds,
        "model_starts_per_second": counts["model_starts"] / seconds,
        "lane_occupancy_percent": 100 * counts["bytes_read"] / counts["lane_steps"],
    }
    for name, share in shares.items():
        Metrics.distribution(NAMESPACE, name).update(int(share))

"""Runs pipelines on Apache Spark with nothing but PySpark: no job server, no second worker process.

Each transform becomes an operation on an RDD, and Spark's own Python workers run it. What crosses a
shuffle or is kept is encoded by Beam's coders; Spark sees bytes. Combining begins before the
shuffle. There is what bounded pipelines in the global window need, and the rest (state, splittable
functions, several outputs, windows) is refused before anything runs.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import pyspark
from apache_beam import typehints
from apache_beam.coders import Coder
from apache_beam.internal import pickler
from apache_beam.internal.util import insert_values_in_args
from apache_beam.options.pipeline_options import PipelineOptions, SparkRunnerOptions
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.portability.common_urns import side_inputs
from apache_beam.pvalue import AsSideInput, PCollection
from apache_beam.runners.common import DoFnSignature
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState
from apache_beam.transforms.combiners import curry_combine_fn
from apache_beam.transforms.core import _DoFnParam
from apache_beam.transforms.ptransform import PTransform
from apache_beam.typehints.typehints import coerce_to_kv_type
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkRuntimeError

from corpus.errors import UsageError, one_line

_MASTERS = re.compile(r"local(\[.+\])?|yarn|k8s://.+|spark://(?P<addresses>[^/]+)")
_PORT = 7077
_DAEMON = "pipelines.spark_daemon"
_SECONDS_TO_CONNECT = 10
_LACKING = "PySparkRunner has none; another runner may"
# Of a shuffle, for each core: so that cores that are done early find more to do.
_TASKS_PER_CORE = 2
# Keys whose accumulators a task holds before it hands them on, as in Beam's own worker.
_COMBINED_KEYS = 100_000
# PySpark holds up to 1,000 pairs, whatever their size, before it hands them to a shuffle.
_PIECE_BYTES = 64 << 10
# Of a group, in memory; the rest waits on disk.
_GROUP_BYTES = 64 << 20
_LENGTH_BYTES = 8

_Piece = tuple[tuple[bytes, int, int, int], bytes]
"""((key, partition, number of the value in it, number of the piece), piece of the value)"""


class PySparkRunner(PipelineRunner):
    """`--runner pipelines.spark.PySparkRunner --spark_master_url spark://HOST:7077`

    Everything else is Spark's own configuration: `SPARK_CONF_DIR`, `PYSPARK_SUBMIT_ARGS`, or what
    `spark-submit` gives. Workers run the interpreter that `PYSPARK_PYTHON` names, by default this
    one, and must have corpusmill installed.
    """

    def is_fnapi_compatible(self) -> bool:
        return False

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult:
        """Runs a pipeline to its end.

        Raises:
          UsageError: the master can't be reached, or there is no Java.
          NotImplementedError: the pipeline has a transform that this runner lacks.
        """
        steps = _Steps()
        pipeline.visit(steps)
        for step in steps.found:
            _expect_supported(step)
        with _connected(options.view_as(SparkRunnerOptions).spark_master_url) as context:
            _Translation(context, steps.found).run()
        return _Finished(PipelineState.DONE)


class _Finished(PipelineResult):
    def wait_until_finish(self, duration: int | None = None) -> str:  # noqa: ARG002
        return self.state


class _Steps(PipelineVisitor):
    """Finds what there is to do: primitive transforms, and composites that Spark has too."""

    def __init__(self) -> None:
        self.found: list[AppliedPTransform] = []
        self._inside: AppliedPTransform | None = None

    def enter_composite_transform(self, node: AppliedPTransform) -> None:
        if self._inside is None and isinstance(node.transform, beam.CombinePerKey | beam.Reshuffle):
            self._inside = node
            self.found.append(node)

    def leave_composite_transform(self, node: AppliedPTransform) -> None:
        if node is self._inside:
            self._inside = None

    def visit_transform(self, node: AppliedPTransform) -> None:
        if self._inside is None:
            self.found.append(node)


def _expect_supported(step: AppliedPTransform) -> None:
    if type(step.transform) not in _OPERATIONS:
        raise NotImplementedError(
            f"{step.full_label} is a {type(step.transform).__name__}: {_LACKING}"
        )
    views = [side._side_input_data().access_pattern for side in step.side_inputs]
    lacking = [
        ("several outputs", len(step.outputs) > 1),
        ("a keyed side input", any(view != side_inputs.ITERABLE.urn for view in views)),
    ]
    if isinstance(step.transform, beam.ParDo):
        signature = DoFnSignature(step.transform.fn)
        defaults = signature.process_method.defaults
        lacking += [
            ("state or timers", signature.is_stateful_dofn()),
            ("a splittable function", signature.is_splittable_dofn()),
            ("a special parameter", any(isinstance(value, _DoFnParam) for value in defaults)),
        ]
    for what, found in lacking:
        if found:
            raise NotImplementedError(f"{step.full_label} has {what}: {_LACKING}")


@contextlib.contextmanager
def _connected(master: str) -> Iterator[pyspark.SparkContext]:
    """The context that is there already, as in a notebook, or one that ends with the pipeline."""
    active = pyspark.SparkContext._active_spark_context
    if active is not None and active.master == master:
        yield active
        return
    on_interrupt = signal.getsignal(signal.SIGINT)
    context = _connect(master)
    if threading.current_thread() is threading.main_thread():
        # PySpark's own handler fails: it asks Java to cancel on the connection that is in use.
        signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield context
    finally:
        # A thread has a connection of its own; an interrupted one waits for an answer on its.
        stopping = threading.Thread(target=context.stop)
        stopping.start()
        stopping.join()


def _connect(master: str) -> pyspark.SparkContext:
    if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        raise UsageError("Spark needs Java 17 or newer: apt-get install default-jre-headless")
    _expect_master(master)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    configuration = pyspark.SparkConf().setMaster(master).setAppName("corpusmill")
    configuration.setIfMissing("spark.python.daemon.module", _DAEMON)
    try:
        context = pyspark.SparkContext(conf=configuration)
    except (Py4JJavaError, PySparkRuntimeError) as error:
        java = getattr(error, "java_exception", None)
        reason = java.toString() if java else one_line(error)
        raise UsageError(f"no Spark at --spark_master_url {master}: {reason}") from error
    if not logging.getLogger().isEnabledFor(logging.WARNING):
        # A task that fails shows a page of Java each time, and an executor that leaves while the
        # context is stopped another one; the last task's error comes out anyway.
        levels = context._jvm.org.apache.logging.log4j
        for name in ("scheduler.TaskSetManager", "rpc.netty.Inbox"):
            logger = f"org.apache.spark.{name}"
            levels.core.config.Configurator.setLevel(logger, levels.Level.OFF)
    return context


def _expect_master(master: str) -> None:
    """Refuses an address that is none, or where nobody listens.

    Spark itself would try for a minute, then fail with a page of Java.
    """
    found = _MASTERS.fullmatch(master)
    if found is None:
        raise UsageError(
            f"--spark_master_url {master} is none of local[N], spark://HOST:PORT, yarn, k8s://URL"
        )
    if found["addresses"] is None:
        return
    errors = []
    for address in found["addresses"].split(","):  # One of several masters is in charge.
        host, _, port = address.rpartition(":") if ":" in address else (address, "", str(_PORT))
        try:
            socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()
            return
        except (OSError, ValueError, OverflowError) as error:
            errors.append(str(error))
    raise UsageError(f"no Spark at --spark_master_url {master}: {'; '.join(errors)}")


class _Translation:
    """Transforms to RDDs; lazy, but for side inputs, which the driver collects."""

    def __init__(self, context: pyspark.SparkContext, steps: list[AppliedPTransform]) -> None:
        self._context = context
        self._steps = steps
        self._tasks = _TASKS_PER_CORE * context.defaultParallelism
        self._rdds: dict[PCollection, pyspark.RDD] = {}
        self._uses = Counter(
            [
                *(pcollection for step in steps for pcollection in step.inputs),
                *(side.pvalue for step in steps for side in step.side_inputs),
            ]
        )

    def run(self) -> None:
        outputs = []
        for step in self._steps:
            [output] = step.outputs.values()
            rdd = _OPERATIONS[type(step.transform)](self, step)
            if self._uses[output] > 1:
                rdd = self._kept(rdd, _coder(output))
            self._rdds[output] = rdd
            outputs.append(output)
        for output in outputs:
            if not self._uses[output]:
                self._rdds[output].foreachPartition(_exhaust)

    def _kept(self, rdd: pyspark.RDD, coder: Coder) -> pyspark.RDD:
        """The same, made once for all that use it."""
        encoded = rdd.map(coder.encode)
        return encoded.persist(pyspark.StorageLevel.MEMORY_AND_DISK).map(coder.decode)

    def _input(self, step: AppliedPTransform) -> pyspark.RDD:
        [pcollection] = step.inputs
        return self._rdds[pcollection]

    def impulse(self, _: AppliedPTransform) -> pyspark.RDD:
        return self._context.parallelize([b""], 1)

    def flatten(self, step: AppliedPTransform) -> pyspark.RDD:
        return self._context.union([self._rdds[pcollection] for pcollection in step.inputs])

    def par_do(self, step: AppliedPTransform) -> pyspark.RDD:
        transform = step.transform
        code = pickler.dumps((transform.fn, transform.args, transform.kwargs))
        sides = tuple(self._side_input(side) for side in step.side_inputs)
        return self._input(step).mapPartitions(_ParDo(code, sides))

    def _side_input(self, side: AsSideInput) -> "_SideInput":
        coder = _coder(side.pvalue)
        values = self._rdds[side.pvalue].map(coder.encode).collect()
        view = pickler.dumps(side._side_input_data().view_fn)
        return _SideInput(self._context.broadcast(values), coder, view)

    def reshuffle(self, step: AppliedPTransform) -> pyspark.RDD:
        coder = _coder(step.inputs[0])
        dealt = self._input(step).mapPartitionsWithIndex(_Dealt(coder.encode))
        return dealt.partitionBy(self._tasks, int).values().map(coder.decode)

    def group_by_key(self, step: AppliedPTransform) -> pyspark.RDD:
        keys, values = _key_and_value_coders(step.inputs[0])
        encoded = self._input(step).map(lambda pair: (keys.encode(pair[0]), values.encode(pair[1])))
        return self._grouped(encoded, keys, values)

    def combine_per_key(self, step: AppliedPTransform) -> pyspark.RDD:
        transform = step.transform
        keys, _ = _key_and_value_coders(step.inputs[0])
        fn = curry_combine_fn(transform.fn, transform.args, transform.kwargs)
        code, accumulators = pickler.dumps(fn), fn.get_accumulator_coder()
        combined = self._input(step).mapPartitions(_Combine(code, keys, accumulators))
        return self._grouped(combined, keys, accumulators).mapPartitions(_Merge(code))

    def _grouped(self, encoded: pyspark.RDD, keys: Coder, values: Coder) -> pyspark.RDD:
        # Sorted, as Spark's own groups have to fit in memory.
        pieces = encoded.mapPartitionsWithIndex(_cut)
        ordered = pieces.repartitionAndSortWithinPartitions(self._tasks, _hash_of_key)
        return ordered.mapPartitions(_Grouped(keys, values))


_OPERATIONS: dict[type[PTransform], Callable[[_Translation, AppliedPTransform], pyspark.RDD]] = {
    beam.Impulse: _Translation.impulse,
    beam.Flatten: _Translation.flatten,
    beam.ParDo: _Translation.par_do,
    beam.Reshuffle: _Translation.reshuffle,
    beam.GroupByKey: _Translation.group_by_key,
    beam.CombinePerKey: _Translation.combine_per_key,
}


def _coder(pcollection: PCollection) -> Coder:
    return beam.coders.registry.get_coder(pcollection.element_type or typehints.Any)


def _key_and_value_coders(pcollection: PCollection) -> tuple[Coder, Coder]:
    pair = beam.coders.registry.get_coder(coerce_to_kv_type(pcollection.element_type))
    return pair.key_coder().as_deterministic_coder(str(pcollection)), pair.value_coder()


@dataclasses.dataclass(frozen=True)
class _SideInput:
    """A side input: its encoded elements, and what makes the argument of them."""

    values: pyspark.Broadcast
    coder: Coder
    view: bytes

    def argument(self) -> Any:
        return pickler.loads(self.view)(map(self.coder.decode, self.values.value))


@dataclasses.dataclass(frozen=True)
class _ParDo:
    """Runs a DoFn over a partition. `code` is the DoFn with its arguments, pickled by Beam."""

    code: bytes
    sides: tuple[_SideInput, ...]

    def __call__(self, elements: Iterable[Any]) -> Iterator[Any]:
        fn: beam.DoFn | None = None
        for element in elements:
            if fn is None:  # Not before: many partitions are empty, and a setup can be dear.
                fn, args, kwargs = pickler.loads(self.code)
                arguments = [side.argument() for side in self.sides]
                args, kwargs = insert_values_in_args(args, kwargs, arguments)
                fn.setup()
                fn.start_bundle()
            yield from fn.process(element, *args, **kwargs) or ()
        if fn is not None:
            yield from (output.value for output in fn.finish_bundle() or ())
            fn.teardown()


@dataclasses.dataclass(frozen=True)
class _Dealt:
    """Deals the elements of a partition out to the tasks that come next, one after the other.

    In their own order, as a shuffle brings them in any: otherwise a partition that is made again,
    after a machine was lost, would deal some elements twice and others never.
    """

    encode: Callable[[Any], bytes]

    def __call__(self, partition: int, elements: Iterable[Any]) -> Iterator[tuple[int, bytes]]:
        return enumerate(sorted(map(self.encode, elements)), partition)


@dataclasses.dataclass(frozen=True)
class _Combine:
    """Combines the values of a partition by key: (key, value) -> (key, accumulator), encoded."""

    code: bytes
    keys: Coder
    accumulators: Coder

    def __call__(self, pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[bytes, bytes]]:
        fn: beam.CombineFn = pickler.loads(self.code)
        held: dict[bytes, Any] = {}
        fn.setup()
        for key, value in pairs:
            encoded = self.keys.encode(key)
            if encoded not in held and len(held) == _COMBINED_KEYS:
                yield from self._encoded(fn, held)
                held = {}
            accumulator = held[encoded] if encoded in held else fn.create_accumulator()
            held[encoded] = fn.add_input(accumulator, value)
        yield from self._encoded(fn, held)
        fn.teardown()

    def _encoded(self, fn: beam.CombineFn, held: dict[bytes, Any]) -> Iterator[tuple[bytes, bytes]]:
        for key, accumulator in held.items():
            yield key, self.accumulators.encode(fn.compact(accumulator))


@dataclasses.dataclass(frozen=True)
class _Merge:
    """(key, accumulators) -> (key, what comes of them)"""

    code: bytes

    def __call__(self, groups: Iterable[tuple[Any, "_Group"]]) -> Iterator[tuple[Any, Any]]:
        fn: beam.CombineFn = pickler.loads(self.code)
        fn.setup()
        for key, accumulators in groups:
            yield key, fn.extract_output(fn.merge_accumulators(accumulators))
        fn.teardown()


def _cut(partition: int, pairs: Iterable[tuple[bytes, bytes]]) -> Iterator[_Piece]:
    """Cuts encoded values to pieces that go through a shuffle one by one."""
    for number, (key, value) in enumerate(pairs):
        for piece, first in enumerate(range(0, len(value) or 1, _PIECE_BYTES)):
            yield (key, partition, number, piece), value[first : first + _PIECE_BYTES]


def _hash_of_key(place: tuple[bytes, int, int, int]) -> int:
    # Python's own hash of bytes is another one in each process.
    return zlib.crc32(place[0])


@dataclasses.dataclass(frozen=True)
class _Grouped:
    """Pieces in their order -> (key, values)"""

    keys: Coder
    values: Coder

    def __call__(self, pieces: Iterable[_Piece]) -> Iterator[tuple[Any, "_Group"]]:
        for key, group in itertools.groupby(pieces, lambda piece: piece[0][0]):
            by_value = itertools.groupby(group, lambda piece: piece[0][:3])
            whole = (b"".join(piece for _, piece in value) for _, value in by_value)
            yield self.keys.decode(key), _Group(whole, self.values)


class _Group:
    """The values of a group, to be gone through again and again, in bounded memory."""

    def __init__(self, encoded: Iterable[bytes], coder: Coder) -> None:
        self._coder = coder
        # Where Spark has its own files; it names several folders, or none.
        folder = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")[0] or None
        self._file = tempfile.SpooledTemporaryFile(_GROUP_BYTES, dir=folder)  # noqa: SIM115
        for value in encoded:
            self._file.write(len(value).to_bytes(_LENGTH_BYTES))
            self._file.write(value)

    def __iter__(self) -> Iterator[Any]:
        place = 0  # Of this iteration; there may be others.
        while True:
            self._file.seek(place)
            length = self._file.read(_LENGTH_BYTES)
            if not length:
                return
            value = self._file.read(int.from_bytes(length))
            place = self._file.tell()
            yield self._coder.decode(value)


def _exhaust(elements: Iterable[Any]) -> None:
    for _ in elements:
        pass

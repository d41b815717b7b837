"""Runs a job: claims the output, runs the pipeline, shows progress, prints the totals."""

import contextlib
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from corpusmill.corpus import errors
from corpusmill.corpus.datasets import DatasetWriter, Manifest, read_manifest
from corpusmill.corpus.progress import Stage, shown
from corpusmill.pipelines.launching import dataflow, engines
from corpusmill.pipelines.launching.options import RunOptions

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.runners.runner import PipelineResult

    from corpusmill.pipelines.launching.here import LocalJob

# How our own errors look in the traceback that a runner hands back.
_OUR_ERROR = re.compile(r"^(?:corpusmill\.corpus\.errors\.)(\w+): (.*)$", re.MULTILINE)
_BEAM_ADDITION = re.compile(r" \[while running .*\]$")


def run_job(
    writer: DatasetWriter,
    options: RunOptions,
    description: list[str],
    build: "Callable[[], beam.Pipeline | LocalJob]",
    stages: tuple[Stage, ...],
) -> None:
    """Makes the dataset that `writer` stands for, or what is missing of it.

    Args:
      writer: the dataset.
      options: how to run.
      description: lines that say what will be done.
      build: makes the pipeline, or what does its work here without Beam.
      stages: what to show while it runs.

    Raises:
      CorpusmillError: the output can't be used, or the job failed.
    """
    on_dataflow = options.runner == dataflow.RUNNER
    if on_dataflow:
        dataflow.check_output(writer)
    if options.is_on_engine:
        engines.check(options.beam_options)
    if options.dry_run:
        print("\n".join([*description, f"would write the {writer.kind} dataset {writer.folder}"]))
        return
    if not writer.begin():
        print(f"{writer.folder} is complete already; nothing to do")
        return
    print("\n".join(description), file=sys.stderr)
    started = time.monotonic()
    with shown(writer, stages):
        pipeline = build()
        try:
            result = dataflow.submit(pipeline, writer) if on_dataflow else pipeline.run()
            if result is None:
                return
            state = _wait(result, options)
        except Exception as error:
            raise _cause(error, options) from error
    if options.is_on_engine and (jar := engines.executable(options.beam_options)):
        print(f"wrote the job as {jar}; the engine's own program submits it")
        return
    if state not in ("DONE", None):
        raise errors.CorpusmillError(f"the job ended in the state {state}; see the runner's log")
    print(summary(read_manifest(writer.folder), writer.folder, time.monotonic() - started))


def summary(manifest: Manifest, folder: str, seconds: float) -> str:
    """The lines that a finished job prints."""
    lines = [
        f"{manifest.kind} dataset {folder}: {len(manifest.files)} files, done in {seconds:.1f} s"
    ]
    for name, value in sorted(manifest.counters.items()):
        text = f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"
        lines.append(f"  {name.replace('_', ' '):<28}{text:>16}")
    return "\n".join(lines)


def _wait(result: "PipelineResult", options: RunOptions) -> str | None:
    try:
        return result.wait_until_finish()
    except KeyboardInterrupt:
        if options.is_on_engine:
            # Its job server may have been interrupted as well.
            with contextlib.suppress(Exception):
                result.cancel()
        raise


def _cause(error: Exception, options: RunOptions) -> Exception:
    """The error of ours that made a worker fail, from what the runner says; else `error`."""
    if isinstance(error, errors.CorpusmillError):
        return type(error)(_BEAM_ADDITION.sub("", str(error)))
    found = _OUR_ERROR.findall(str(error))
    if not found:
        return engines.failure(error) if options.is_on_engine else dataflow.failure(error) or error
    name, message = found[-1]
    kind = getattr(errors, name, errors.CorpusmillError)
    return kind(_BEAM_ADDITION.sub("", message))

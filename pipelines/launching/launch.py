"""Runs a job: claims the output, runs the pipeline, shows progress, prints the totals."""

import contextlib
import re
import sys
import time
from typing import TYPE_CHECKING

from corpusmill.corpus import errors
from corpusmill.corpus.datasets import Manifest, read_manifest
from corpusmill.corpus.progress import shown
from corpusmill.pipelines.launching import dataflow, engines
from corpusmill.pipelines.launching.job import Job
from corpusmill.pipelines.launching.local_workers import Workers
from corpusmill.pipelines.launching.options import RunOptions

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.runners.runner import PipelineResult

# How our own errors look in the traceback that a runner hands back.
_OUR_ERROR = re.compile(r"^(?:corpusmill\.corpus\.errors\.)(\w+): (.*)$", re.MULTILINE)
_BEAM_ADDITION = re.compile(r" \[while running .*\]$")


def run_job(job: Job, options: RunOptions) -> None:
    """Makes the dataset of a job, or what is missing of it.

    Raises:
      CorpusmillError: the output can't be used, or the job failed.
    """
    writer = job.writer
    if options.runner == dataflow.RUNNER:
        dataflow.check_output(writer)
    if options.is_on_engine:
        engines.check(options.beam_options)
    if options.dry_run:
        print(
            "\n".join([*job.describe(), f"would write the {writer.kind} dataset {writer.folder}"])
        )
        return
    if not writer.begin():
        print(f"{writer.folder} is complete already; nothing to do")
        return
    print("\n".join(job.describe()), file=sys.stderr)
    started = time.monotonic()
    try:
        with shown(writer, job.stages):
            if options.is_here:
                make_here(job, options.workers)
            elif not _make_with_beam(job, options):
                return
    except (errors.CorpusmillError, OSError):
        # Another launch with the same options has removed what this one was going by, if it has
        # finished the dataset.
        if writer.finished() is None:
            raise
    print(summary(read_manifest(writer.folder), writer.folder, time.monotonic() - started))


def make_here(job: Job, workers: int = 1) -> Manifest:
    """Makes the dataset of a job in so many processes, in a folder that has been claimed."""
    job.prepare()
    with Workers(workers) as processes:
        found = job.work_here(processes)
    return job.writer.finished() or job.finish(found)


def build_pipeline(job: Job, options: RunOptions) -> "beam.Pipeline":
    """The pipeline that makes the dataset of a job in a folder that has been claimed."""
    from corpusmill.pipelines.transforms import WriteManifest

    job.prepare()
    pipeline = options.new_pipeline()
    _ = job.expand(pipeline) | "WriteManifest" >> WriteManifest(job)
    return pipeline


def _make_with_beam(job: Job, options: RunOptions) -> bool:
    """Runs the job's pipeline; False where it was only handed over."""
    pipeline = build_pipeline(job, options)
    try:
        if options.runner == dataflow.RUNNER:
            result = dataflow.submit(pipeline, job.writer)
        else:
            result = pipeline.run()
        if result is None:
            return False
        state = _wait(result, options)
    except Exception as error:
        raise _cause(error, options) from error
    if options.is_on_engine and (jar := engines.executable(options.beam_options)):
        print(f"wrote the job as {jar}; the engine's own program submits it")
        return False
    if state not in ("DONE", None):
        raise errors.CorpusmillError(f"the job ended in the state {state}; see the runner's log")
    return True


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

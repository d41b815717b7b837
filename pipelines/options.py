"""The command line, turned into options in one place.

A command's own options come first; what is left belongs to Beam and is checked against Beam's
option classes, because Beam itself ignores a misspelt option in silence.
"""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from corpus.arguments import Parser, integer, parse_known
from corpus.errors import UsageError
from pipelines import dataflow, engines

# Beam takes most of a second to import: functions do it when it is needed.
if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

LOCAL_RUNNER = "FnApiRunner"


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a job runs; none of it changes the data that it writes.

    Attributes:
      workers: local processes; ignored on other runners than the local one.
      dry_run: say what would be done, and do nothing.
      beam_arguments: options that Beam understands.
    """

    workers: int = 1
    dry_run: bool = False
    beam_arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"--workers {self.workers} is not at least 1")
        if self.workers > 1 and not self.is_local:
            raise UsageError(
                f"--workers is for the local runner only; give {self.runner} its own options"
            )
        if self.runner == dataflow.RUNNER:
            dataflow.check_options(self.beam_options)

    @property
    def runner(self) -> str:
        if not self.beam_arguments:
            return LOCAL_RUNNER
        from apache_beam.options.pipeline_options import StandardOptions

        return StandardOptions(list(self.beam_arguments)).runner or LOCAL_RUNNER

    @property
    def is_local(self) -> bool:
        return self.runner == LOCAL_RUNNER

    @property
    def is_on_engine(self) -> bool:
        return self.runner in engines.RUNNERS

    @property
    def beam_options(self) -> "PipelineOptions":
        from apache_beam.options.pipeline_options import PipelineOptions

        return PipelineOptions(list(self.beam_arguments))

    def new_pipeline(self) -> "beam.Pipeline":
        """An empty pipeline; without a runner among the options it runs in this process.

        Raises:
          UsageError: Beam refuses the options.
        """
        import apache_beam as beam
        from apache_beam.options.pipeline_options import DirectOptions
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        from apache_beam.transforms.environments import SubprocessSDKEnvironment

        options = self.beam_options
        if self.is_on_engine:
            engines.set_defaults(options)
        if not self.is_local:
            try:
                return beam.Pipeline(options=options)
            except ValueError as error:
                raise UsageError(" ".join(str(error).split())) from error
        options.view_as(DirectOptions).direct_num_workers = self.workers
        environment = None
        if self.workers > 1:
            # Beam hands it to a shell, which must not stand between us and the worker. Ctrl-C at a
            # terminal reaches all processes; workers end when this one does.
            command = f"trap '' INT; exec {shlex.quote(sys.executable)} -m pipelines.worker"
            environment = SubprocessSDKEnvironment.from_command_string(command)
        return beam.Pipeline(runner=FnApiRunner(environment), options=options)


def _add_run_arguments(parser: Parser) -> None:
    group = parser.add_argument_group(
        "running",
        f"any option of Beam works too; without --runner the job runs here ({LOCAL_RUNNER})",
    )
    group.add_argument("--workers", type=integer, default=1, help="local processes")
    group.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )


def parse_job(parser: Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, RunOptions]:
    """Parses a job's command line.

    Raises:
      UsageError: an option is missing, bad or unknown to both the command and Beam.
    """
    _add_run_arguments(parser)
    arguments, rest = parse_known(parser, argv, _beam_option_names)
    return arguments, RunOptions(arguments.workers, arguments.dry_run, tuple(rest))


def _beam_option_names() -> set[str]:
    from apache_beam.options.pipeline_options import (
        AzureOptions,
        HadoopFileSystemOptions,
        PipelineOptions,
        S3Options,
    )

    # Of Beam's own filesystems. Ours are fsspec's, which find credentials in the environment; an
    # option would hand them to the runner, where a job's description shows them.
    not_ours = (AzureOptions, HadoopFileSystemOptions, S3Options)
    names: set[str] = set()
    for options in PipelineOptions.__subclasses__():
        if options in not_ours:
            continue
        add: Callable[[argparse.ArgumentParser], None] | None = getattr(
            options, "_add_argparse_args", None
        )
        parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
        if add is not None:
            add(parser)
        names.update(name for action in parser._actions for name in action.option_strings)
    return names

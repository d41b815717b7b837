"""The command line, turned into options in one place.

A command's own options come first; what is left belongs to Beam and is checked against Beam's
option classes, because Beam itself ignores a misspelt option in silence.
"""

import argparse
import dataclasses
import difflib
from collections.abc import Callable, Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from corpus.errors import UsageError
from pipelines.arguments import Parser

LOCAL_RUNNER = "FnApiRunner"
_LOCAL_RUNNER_CLASS = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a job runs; none of it changes the data that it writes.

    Attributes:
      workers: local processes; ignored on other runners than the local one.
      dry_run: say what would be done, and do nothing.
      beam: Beam's own arguments.
    """

    workers: int = 1
    dry_run: bool = False
    beam: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"--workers {self.workers} is not at least 1")
        if self.workers > 1 and not self.is_local:
            raise UsageError(
                f"--workers is for the local runner only; give {self.runner} its own options"
            )

    @property
    def runner(self) -> str:
        return StandardOptions(list(self.beam)).runner or LOCAL_RUNNER

    @property
    def is_local(self) -> bool:
        return self.runner in (LOCAL_RUNNER, _LOCAL_RUNNER_CLASS)

    def pipeline_options(self) -> PipelineOptions:
        """Beam's options; the in-process runner by its name where none is given."""
        options = PipelineOptions(list(self.beam))
        if self.is_local:
            options.view_as(StandardOptions).runner = _LOCAL_RUNNER_CLASS
        if self.workers > 1:
            options.view_as(DirectOptions).direct_running_mode = "multi_processing"
            options.view_as(DirectOptions).direct_num_workers = self.workers
        return options


def _add_run_arguments(parser: Parser) -> None:
    group = parser.add_argument_group(
        "running", f"any option of Beam works too; without --runner the job runs here ({LOCAL_RUNNER})"
    )
    group.add_argument("--workers", type=int, default=1, help="local processes")
    group.add_argument(
        "--dry-run", action="store_true", help="print what would be done, and do nothing"
    )


def parse_job(parser: Parser, argv: Sequence[str]) -> tuple[argparse.Namespace, RunOptions]:
    """Parses a job's command line.

    Raises:
      UsageError: an option is missing, bad or unknown to both the command and Beam.
    """
    _add_run_arguments(parser)
    arguments, rest = parser.parse_known_args(argv)
    own = [name for action in parser._actions for name in action.option_strings]
    _refuse_unknown(rest, own)
    return arguments, RunOptions(arguments.workers, arguments.dry_run, tuple(rest))


def _refuse_unknown(rest: Sequence[str], own: Sequence[str]) -> None:
    beams = _beam_option_names()
    for argument in rest:
        name = argument.partition("=")[0]
        if not name.startswith("-"):
            continue
        if name not in beams:
            nearest = difflib.get_close_matches(name, [*own, *sorted(beams)], 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise UsageError(f"unknown option {name}{hint}")
    stray = rest[0] if rest and not rest[0].startswith("-") else None
    if stray is not None:
        raise UsageError(f"unexpected argument {stray!r}")


def _beam_option_names() -> set[str]:
    names: set[str] = set()
    for options in PipelineOptions.__subclasses__():
        add: Callable[[argparse.ArgumentParser], None] | None = getattr(
            options, "_add_argparse_args", None
        )
        parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
        if add is not None:
            add(parser)
        names.update(name for action in parser._actions for name in action.option_strings)
    return names

"""How a job runs, on its command line.

A command's own options come first; what is left belongs to Beam and is checked against Beam's
option classes, because Beam itself ignores a misspelt option in silence.
"""

import argparse
from collections.abc import Callable, Sequence

from corpusmill.commands.arguments import Parser, add_options, parse_known, parsed
from corpusmill.pipelines.launching.job import Job
from corpusmill.pipelines.launching.local_workers import expect_workers
from corpusmill.pipelines.launching.options import RunOptions


def _add_run_arguments(parser: Parser) -> None:
    group = parser.add_argument_group(
        "running",
        "here, or with --runner and any option of Beam wherever Beam runs",
    )
    add_options(group, RunOptions)


def parse_job(
    parser: Parser, argv: Sequence[str], maker: Callable[..., Job]
) -> tuple[argparse.Namespace, RunOptions]:
    """Parses a job's command line.

    Args:
      parser: of the command.
      argv: the command line.
      maker: makes the job; its module is what worker processes import.

    Raises:
      UsageError: an option is missing, bad or unknown to both the command and Beam.
    """
    _add_run_arguments(parser)
    arguments, rest = parse_known(parser, argv, _beam_option_names)
    run = parsed(RunOptions, arguments, beam_arguments=tuple(rest))
    expect_workers(run.workers, maker.__module__)
    return arguments, run


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

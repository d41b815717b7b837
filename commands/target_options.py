"""What compact targets are made of, on the command line."""

import argparse

from corpusmill.commands.arguments import add_options, destination, parsed
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.options import declared, flag
from corpusmill.ngram_agg.target_options import TargetOptions

# What these are by default depends on the scheme, and on the counts.
_OPEN = {"tail_draws": None, "max_order": None}


def add_target_options(group: argparse._ActionsContainer) -> None:
    """The options of a target; `target_options` reads them."""
    add_options(group, TargetOptions, **_OPEN)


def given_target_options(arguments: argparse.Namespace) -> list[str]:
    """Those that have another value than by default, as they are typed."""
    usual = {name: field.default for name, (field, _) in declared(TargetOptions).items()} | _OPEN
    return [
        flag(TargetOptions, name)
        for name, value in usual.items()
        if getattr(arguments, destination(TargetOptions, name)) != value
    ]


def target_options(arguments: argparse.Namespace, counts: str) -> TargetOptions:
    """The options that `add_target_options` added.

    Args:
      arguments: parsed.
      counts: folder of the counts that targets are made of.

    Raises:
      DatasetError: there are no such counts.
      UsageError: an option is outside its range.
    """
    longest = read_manifest(counts, "counts").properties["max_order"]
    draws = TargetOptions.tail_draws if arguments.scheme == "retain" else 0
    return parsed(
        TargetOptions,
        arguments,
        tail_draws=draws if arguments.tail_draws is None else arguments.tail_draws,
        max_order=longest if arguments.max_order is None else arguments.max_order,
    )

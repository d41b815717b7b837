"""What compact targets are made of, on the command line."""

import argparse

from corpusmill.commands.arguments import add_options, parsed
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.options import declared
from corpusmill.ngram_agg.target_options import TargetOptions


def add_target_options(group: argparse._ActionsContainer) -> None:
    """The options of a target; `target_options` reads them."""
    # What they are by default depends on the scheme, and on the counts.
    add_options(group, TargetOptions, tail_draws=None, max_order=None)


def given_target_options(arguments: argparse.Namespace) -> list[str]:
    """Names of those that have another value than by default."""
    usual = {name: field.default for name, (field, _) in declared(TargetOptions).items()}
    usual |= {"tail_draws": None, "max_order": None}
    usual["draw_seed"] = usual.pop("seed")
    return [name for name, value in usual.items() if getattr(arguments, name) != value]


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
    options = parsed(
        TargetOptions,
        arguments,
        tail_draws=draws if arguments.tail_draws is None else arguments.tail_draws,
        max_order=longest if arguments.max_order is None else arguments.max_order,
    )
    if options.max_order > longest:
        raise UsageError(
            f"max-order {options.max_order} is more than the {longest} tokens of context that the"
            " counts have"
        )
    return options

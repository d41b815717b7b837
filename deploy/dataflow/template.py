"""What Dataflow runs to launch the Flex Template: any job of corpusmill, as its command line.

The launcher gives a template's parameters as options, and options of its own, which are Beam's.
"""

import argparse
import shlex
import sys

from corpusmill.commands import cli


def command_line(arguments: list[str]) -> list[str]:
    """The command line that parameters stand for."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--command", required=True)
    parser.add_argument("--arguments", required=True)
    given, others = parser.parse_known_args(arguments)
    runner = (
        [] if any(each.startswith("--runner") for each in others) else ["--runner=DataflowRunner"]
    )
    return [given.command, *shlex.split(given.arguments), *others, *runner]


if __name__ == "__main__":
    sys.exit(cli.main(command_line(sys.argv[1:])))

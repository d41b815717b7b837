"""The command line, where only the first process of torchrun may read tensors of checkpoints."""

import os
import sys

from corpusmill.commands import cli
from corpusmill.trainer import checkpoints


def refuse(url):
    raise AssertionError(f"the process {os.environ['RANK']} reads {url}")


if __name__ == "__main__":
    if os.environ["RANK"] != "0":
        checkpoints.load_tensors = refuse
    sys.exit(cli.main(sys.argv[1:]))

"""Does the memory of `count` and `distributions` grow with the corpus?"""

import contextlib
import io
import shutil
import sys
import tempfile
from collections.abc import Sequence

from benchmarks import data
from benchmarks.measure import in_own_process, parse_tokens, peak_bytes, show
from pipelines import count, distributions

_MAX_ORDER = 3


def run_and_measure(tokens: str, folder: str) -> None:
    """Prints the peak resident bytes of this process after `count` and after `distributions`."""
    with contextlib.redirect_stdout(io.StringIO()):
        order = ("--max-order", str(_MAX_ORDER))
        count.main(["--input", tokens, "--output", f"{folder}/counts", *order])
        after_count = peak_bytes()
        distributions.main(["--input", f"{folder}/counts", "--output", f"{folder}/tables"])
    print(after_count, peak_bytes())


def main(argv: Sequence[str] | None = None) -> None:
    smallest = parse_tokens(argv, __doc__, default=10_000_000)
    rows = [("million tokens", "count, MB", "then distributions, MB")]
    for times in (1, 2, 4):
        tokens = data.tokens_dataset(times * smallest)
        folder = tempfile.mkdtemp(dir=data.DATA)
        code = f"from benchmarks import memory; memory.run_and_measure({tokens!r}, {folder!r})"
        peaks = [int(word) / 1e6 for word in in_own_process(code).split()]
        rows.append((f"{times * smallest / 1e6:.0f}", *(f"{peak:,.0f}" for peak in peaks)))
        shutil.rmtree(folder)
    print(f"peak resident memory, orders 0 to {_MAX_ORDER}, one process\n")
    show(rows)
    print("goal: below 1,500 MB, and no growth\n")


if __name__ == "__main__":
    main(sys.argv[1:])

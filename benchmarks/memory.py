"""Peak memory of `count` at three sizes of corpus, each run in a process of its own."""

import sys
import tempfile
from collections.abc import Sequence

from benchmarks import data, measure


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("memory", __doc__, 60_000_000)
    parser.add_argument("--run-tokens", type=int, help="option of count; its default by default")
    arguments = parser.parse_args(argv)
    options = ["--run-tokens", str(arguments.run_tokens)] if arguments.run_tokens else []
    rows = []
    peaks = {}
    for workers in (1, 2):
        for times in (1, 2, 4):
            size = arguments.tokens * times
            source = data.tokens_dataset(size, arguments.corpus)
            with tempfile.TemporaryDirectory() as folder:
                command = [
                    sys.executable,
                    "-m",
                    "corpusmill.commands.cli",
                    "count",
                    "--max-order",
                    "3",
                ]
                command += ["--tokens", source, "--output", f"{folder}/counts", *options]
                spent, resident, own = measure.run_watched([*command, "--workers", str(workers)])
            peaks[workers, times] = resident, own
            mib = (resident / 2**20, own / 2**20, resident / workers / 2**20)
            rows.append((f"{workers} x {size / 1e6:g} M", spent, *mib))
    measure.print_table(
        "count, orders 0 to 3: peak of all processes together, MiB",
        ("workers x tokens", "seconds", "resident", "without mapped files", "resident/worker"),
        rows,
    )
    for workers in (1, 2):
        (small, _), (middle, middle_own), (large, large_own) = (
            peaks[workers, times] for times in (1, 2, 4)
        )
        who = f"{workers} worker(s)"
        most = max(small, middle, large) / workers / 2**30
        measure.print_goal(f"{who}: resident GiB a worker", most, at_most=1.5 * 1e9 / 2**30)
        measure.print_goal(f"{who}: resident, 4x over 2x", large / middle, at_most=1.1)
        own = large_own / middle_own
        measure.print_goal(f"{who}: without mapped files, 4x over 2x", own, at_most=1.1)


if __name__ == "__main__":
    main(sys.argv[1:])

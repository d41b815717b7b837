"""The whole chain, each step a command of its own: wall and processor time, bytes, peak memory.

`tokenize` also runs as it was without its fast library, and with two processes on four copies of
the corpus, each a file; what a command takes for as many files of next to no text is its start-up.
"""

import itertools
import json
import os
import pathlib
import resource
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import data, measure

_COPIES = 4
# So large is each file of next to no text, and so large a shard, that each is a shard of its own.
_SHARD_MIB = 1
_REFERENCE = {"CORPUSMILL_TOKENIZER_BACKEND": "reference"}


@dataclass(frozen=True)
class Step:
    """What a command took: seconds, seconds of processor time, bytes at its peak and in its output.

    The peak is of all its processes together.
    """

    wall: float
    processor: float
    peak: int
    output: int


def run(arguments: Sequence[str | pathlib.Path], output: pathlib.Path) -> Step:
    """Runs `corpusmill`."""
    command = [
        sys.executable,
        "-m",
        "corpusmill.commands.cli",
        *map(str, arguments),
        "--output",
        str(output),
    ]
    before = _processor_seconds()
    wall, peak, _ = measure.run_watched(command)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return Step(wall, _processor_seconds() - before, peak, size)


def _processor_seconds() -> float:
    """Of child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def best(arguments: Sequence[str | pathlib.Path], output: pathlib.Path, repeat: int) -> Step:
    """The round that took the least processor time; the output is that of the last one."""
    rounds = []
    for _ in range(repeat):
        shutil.rmtree(output, ignore_errors=True)
        rounds.append(run(arguments, output))
    return min(rounds, key=lambda step: step.processor)


def chain(
    inputs: Sequence[pathlib.Path], tokenizer: pathlib.Path, folder: pathlib.Path, repeat: int
) -> dict[str, Step]:
    """The four jobs, one process each."""
    read = [text for path in inputs for text in ("--input", str(path))]
    tokens, counts, tables = (folder / name for name in ("tokens", "counts", "distributions"))
    tokenize = ["tokenize", *read, "--tokenizer", tokenizer]
    enrich = ["enrich", "--tokens", tokens, "--counts", counts]
    return {
        "tokenize": best(tokenize, tokens, repeat),
        "count": best(["count", "--tokens", tokens], counts, repeat),
        "distributions": best(["distributions", "--counts", counts], tables, repeat),
        "enrich": best(enrich, folder / "targets", repeat),
    }


def slow_tokenize(
    inputs: Sequence[pathlib.Path], tokenizer: pathlib.Path, folder: pathlib.Path, repeat: int
) -> Step:
    """`tokenize` by the library that the tokenizer is made for."""
    read = [text for path in inputs for text in ("--input", str(path))]
    os.environ.update(_REFERENCE)
    try:
        return best(["tokenize", *read, "--tokenizer", tokenizer], folder / "slow", repeat)
    finally:
        for name in _REFERENCE:
            del os.environ[name]


def spread(
    inputs: Sequence[pathlib.Path], tokenizer: pathlib.Path, folder: pathlib.Path, repeat: int
) -> float:
    """How many times as fast two processes are as one, beyond their start-up."""
    (folder / "copies").mkdir()
    (folder / "tiny").mkdir()
    for number in range(_COPIES):
        for path in inputs:
            (folder / "copies" / f"{number}-{path.name}").symlink_to(path)
        tiny = {"text": "tiny", "not read": "x" * (_SHARD_MIB << 20)}
        (folder / "tiny" / f"{number}.jsonl").write_text(json.dumps(tiny) + "\n")
    ways = list(itertools.product(("copies", "tiny"), (1, 2)))
    walls: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
    # In turns, since a machine is not as fast all the time.
    for _, (name, workers) in itertools.product(range(repeat), ways):
        shutil.rmtree(folder / "spread", ignore_errors=True)
        arguments = ["tokenize", "--input", folder / name, "--tokenizer", tokenizer]
        arguments += ["--shard-mib", str(_SHARD_MIB), "--workers", str(workers)]
        walls[name, workers].append(run(arguments, folder / "spread").wall)
    one, two = (
        statistics.median(walls["copies", workers]) - statistics.median(walls["tiny", workers])
        for workers in (1, 2)
    )
    return one / two


def main(argv: Sequence[str]) -> None:
    parser = measure.make_parser("chain", __doc__, 0, repeat=2)
    parser.add_argument("--tokenizer", type=pathlib.Path, help="default: GPT-NeoX's")
    arguments = parser.parse_args(argv)
    inputs, tokenizer = data.documents(arguments.corpus, only_wiki=True)
    neox = data.SHARED / "tokenizers" / "gptneox_tokenizer.json"
    if data.SHARED.exists() and arguments.corpus != "embedded":
        tokenizer = neox
    tokenizer = arguments.tokenizer or tokenizer
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        steps = chain(inputs, tokenizer, folder, arguments.repeat)
        slow = slow_tokenize(inputs, tokenizer, folder, arguments.repeat)
        speedup = spread(inputs, tokenizer, folder, arguments.repeat)
    total = Step(
        sum(step.wall for step in steps.values()),
        sum(step.processor for step in steps.values()),
        max(step.peak for step in steps.values()),
        sum(step.output for step in steps.values()),
    )
    rows = [*steps.items(), ("all of it", total), ("tokenize by the reference", slow)]
    measure.print_table(
        f"{', '.join(path.name for path in inputs)} with {tokenizer.name}, one process",
        ("step", "wall s", "processor s", "peak MiB", "output MiB"),
        [(n, s.wall, s.processor, s.peak / 2**20, s.output / 2**20) for n, s in rows],
    )
    ratio = slow.processor / steps["tokenize"].processor
    measure.print_goal("the whole chain, s", total.wall, at_most=12)
    measure.print_goal("tokenize, processor time less than by the reference", ratio, at_least=6)
    measure.print_goal("tokenize, GiB at its peak", steps["tokenize"].peak / 2**30, at_most=0.5)
    measure.print_goal(
        "tokenize, two processes against one, beyond start-up", speedup, at_least=1.7
    )


if __name__ == "__main__":
    main(sys.argv[1:])

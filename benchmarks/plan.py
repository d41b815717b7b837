"""How far off are the estimates of `plan`, for 1 to 16 times the text that was measured?"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks import data, measure
from corpusmill.commands.plan import Estimates, Measurement, PlanOptions
from corpusmill.commands.plan import measure as run_jobs
from corpusmill.corpus.inputs import ReadOptions, find_inputs
from corpusmill.corpus.sampling import Sample, sample_documents

# The last size of the real run is 16 times that of the sample, each half the next one.
_SHARE = 16


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan", description=__doc__)
    parser.add_argument("--corpus", choices=("shared", "embedded"))
    arguments = parser.parse_args(argv)
    paths, tokenizer = data.documents(arguments.corpus, only_wiki=True)
    files = find_inputs(list(map(str, paths)), ReadOptions())
    texts = sample_documents(files, ReadOptions(), sum(file.size for file in files)).texts
    options = PlanOptions(str(tokenizer))
    with measure.silence():
        # The jobs on all of the text halved and halved again; `run_jobs` shuffles.
        actual = list(run_jobs(Sample(texts, 1), options))
        measured = list(run_jobs(Sample(texts[::_SHARE], 1), options))
    rows = [row for each in actual for row in _compare(measured, each, options)]
    measure.print_table(
        f"planned from {measured[-1].tokens:,} tokens",
        ("quantity, times the sample", "low", "high", "measured", "off"),
        rows,
    )


def _compare(
    measured: Sequence[Measurement], actual: Measurement, options: PlanOptions
) -> list[tuple[str, float, float, float, str]]:
    estimates = Estimates(measured, actual.tokens, options)
    times = f"{actual.tokens / measured[-1].tokens:.1f} x"
    merged = actual.counter("counts", "ngrams_merged")
    found = [
        ("million distinct 2-grams", estimates.distinct()[1].times(1e-6), actual.distinct[1] / 1e6),
        ("million distinct 4-grams", estimates.distinct()[3].times(1e-6), actual.distinct[3] / 1e6),
        ("million n-grams merged", estimates.spilled_rows().times(1e-6), merged / 1e6),
    ]
    for kind in actual.manifests:
        size = estimates.dataset_bytes(kind).times(2**-20)
        found.append((f"MiB of {kind}", size, actual.bytes_of(kind) / 2**20))
    for job, kind, names in (
        ("tokenize", "tokens", ["seconds"]),
        ("count", "counts", ["count_seconds"]),
        ("merge the counts", "counts", ["merge_seconds"]),
        ("distributions", "distributions", ["seconds"]),
        ("enrich", "targets", ["table_seconds", "target_seconds"]),
    ):
        spent = sum(actual.counter(kind, name) for name in names)
        found.append((f"seconds: {job}", estimates.core_hours()[job].times(3600), spent))
    return [
        (f"{name}, {times}", low, high, truth, _off(low, high, truth))
        for name, (low, high), truth in found
    ]


def _off(low: float, high: float, truth: float) -> str:
    """How far the truth lies outside the range."""
    return f"{max(0.0, low / truth - 1, 1 - high / truth):.1%}"


if __name__ == "__main__":
    main(sys.argv[1:])

"""Every pipeline on every engine: the data files are the same bytes. docs/engines.md says so."""

import os
import re
from pathlib import Path

import pytest

from corpusmill.corpus.datasets import read_manifest
from tests.cluster.conftest import commands
from tests.cluster.engines import ROOT
from tests.integration.samples import assert_same_data

DOCUMENT = ROOT / "docs" / "engines.md"
ENGINES = {
    "processes": "two processes",
    "spark": "Spark 3.5, standalone, two workers",
    "flink": "Flink 1.19, session, two task managers",
    "prism": "Prism",
}
# Clusters, with what runs one job after the other on each.
CLUSTERS = {"spark": "many_jobs_on_spark", "flink": "many_jobs_on_flink"}
# What a user calls it -> the dataset of the job that it makes.
PIPELINES = {
    "tokenize": "tokens",
    "count": "counts",
    "distributions": "distributions",
    "enrich": "targets",
    "enrich, many tables": "targets-of-many-tables",
    "merge": "merged",
    "compress": "compressed",
    "compress --codec ac": "compressed-by-model",
    "compress --codec equal-info, a network": "compressed-by-network",
    "decompress": "documents",
    "decompress, a network": "documents-by-network",
    "examples": "examples",
}
results: dict[tuple[str, str], str] = {}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_same_bytes(pipeline, engine, job, tmp_path, request, monkeypatch):
    results[pipeline, engine] = "fails"
    dataset = PIPELINES[pipeline]
    output = tmp_path / dataset
    runner = request.getfixturevalue(CLUSTERS.get(engine, engine))
    if engine in CLUSTERS:
        runner = runner.with_options(*request.getfixturevalue("pool"))
    # Workers of an engine are in another folder, where relative paths mean nothing.
    monkeypatch.chdir(job)
    runner.run(*commands(Path())[dataset], "--output", os.path.relpath(output))
    results[pipeline, engine] = "other bytes"
    assert_same_data(output, job / dataset)
    assert totals(output) == totals(job / dataset)
    results[pipeline, engine] = "same bytes"


def totals(dataset):
    """What was counted on the way, but for the times."""
    counters = read_manifest(str(dataset)).counters
    return {name: value for name, value in counters.items() if "seconds" not in name}


def table():
    rows = [["pipeline", *ENGINES.values()], ["---"] * (1 + len(ENGINES))]
    for pipeline in PIPELINES:
        rows.append([f"`{pipeline}`", *(results[pipeline, engine] for engine in ENGINES)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_the_table_in_the_documentation_is_what_was_found():
    if len(results) < len(PIPELINES) * len(ENGINES):
        pytest.skip("only some of the pipelines and engines ran")
    text = DOCUMENT.read_text()
    found = re.search(r"(?<=<!-- results -->\n).*?(?=<!-- end -->)", text, re.DOTALL)
    if os.environ.get("CORPUSMILL_UPDATE_DOCS") == "1":
        DOCUMENT.write_text(text[: found.start()] + table() + text[found.end() :])
    else:
        assert found[0] == table(), "CORPUSMILL_UPDATE_DOCS=1 make cluster-test writes it"

"""What a portable runner (Dataflow, Flink, Spark with Beam's job server) gets to run."""

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.common_urns import (
    combine_components,
    composites,
    deprecated_primitives,
)
from apache_beam.runners.portability.portable_runner import PortableRunner

from corpusmill.corpus import storage
from corpusmill.ngram_agg.target_options import TargetOptions
from corpusmill.pipelines.count import CountJob
from corpusmill.pipelines.distributions import DistributionsJob
from corpusmill.pipelines.enrich import EnrichJob
from corpusmill.pipelines.launching.launch import build_pipeline
from corpusmill.pipelines.launching.options import RunOptions
from corpusmill.pipelines.merge import MergeJob
from tests.pipelines.samples import command, tokenize, write_jsonl

SPLITTABLE = deprecated_primitives.READ.urn, "beam:transform:sdf_"

# What every worker is handed whole, and a driver may collect: a few bytes for each partition or
# table, a sample of bounded size, or one number. Nothing with a part for each document, n-gram or
# run may stand here.
SMALL = {
    "Parts/FindCuts/Cut",
    "Parts/FindCuts/MergeSamples/UnKey",
    "Table/Build",
    "Tables/FindCuts/Cut",
    "Tables/FindCuts/MergeSamples/UnKey",
    *(f"{path}AllComplete/CombineGlobally(CountCombineFn)/UnKey" for path in ("", "Parts/")),
}


@pytest.fixture(scope="module")
def pipelines(job, tmp_path_factory):
    """Name -> pipeline, with outputs that are claimed and never written."""
    folder = tmp_path_factory.mktemp("never")
    tokens, counts, more = (str(job / "tokens"), str(job / "counts"), str(folder / "more"))
    assert tokenize(write_jsonl(folder / "more.jsonl", ["more"]), folder / "more-tokens") == 0
    assert command("count", "--tokens", folder / "more-tokens", "--output", more) == 0

    def enriched(name, table_mib):
        targets = TargetOptions(max_order=3)
        return EnrichJob(tokens, counts, str(folder / name), targets, table_mib)

    jobs = {
        "count": CountJob(tokens, str(folder / "counts")),
        "distributions": DistributionsJob(counts, str(folder / "distributions")),
        "merge": MergeJob((counts, more), str(folder / "merged")),
        "enrich": enriched("enrich", 512),
        "enrich-many": enriched("enrich-many", 1e-6),
    }
    yield {name: build_pipeline(made, RunOptions()) for name, made in jobs.items()}
    storage.remove_tree(str(folder))


def optimized(pipeline):
    """The pipeline as the portable runner submits it, with no option of its own."""
    proto = pipeline.to_runner_api(
        default_environment=beam.transforms.environments.EmbeddedPythonEnvironment()
    )
    return PortableRunner._optimize_pipeline(proto, PipelineOptions([])).components.transforms


@pytest.mark.parametrize("name", ["count", "distributions", "merge", "enrich", "enrich-many"])
def test_combining_begins_before_the_shuffle(name, pipelines):
    """Each combine is cut in three, so that accumulators cross the shuffle and not elements."""
    urns = [transform.spec.urn for transform in optimized(pipelines[name]).values()]
    combines = urns.count(composites.COMBINE_PER_KEY.urn)
    assert combines >= 1
    for part in (
        combine_components.COMBINE_PER_KEY_PRECOMBINE,
        combine_components.COMBINE_PER_KEY_MERGE_ACCUMULATORS,
        combine_components.COMBINE_PER_KEY_EXTRACT_OUTPUTS,
    ):
        assert urns.count(part.urn) == combines


@pytest.mark.parametrize("name", ["count", "distributions", "merge", "enrich", "enrich-many"])
def test_reads_need_no_help_to_spread(name, pipelines):
    """No splittable read, which Spark would run as one task: a list is dealt out by a reshuffle."""
    urns = [transform.spec.urn for transform in optimized(pipelines[name]).values()]
    assert not [urn for urn in urns if urn.startswith(SPLITTABLE)]
    assert composites.RESHUFFLE.urn in urns


class SideInputs(beam.pipeline.PipelineVisitor):
    def __init__(self):
        self.found = set()

    def visit_transform(self, node):
        self.found.update(side.pvalue.producer.full_label for side in node.side_inputs)


def test_nothing_that_grows_with_the_corpus_is_handed_to_every_worker(pipelines):
    found = SideInputs()
    for pipeline in pipelines.values():
        pipeline.visit(found)
    assert found.found == SMALL

"""Networks inside Beam: the same data however they are run, and metrics that are true."""

import dataclasses

import pytest
import torch

from corpusmill.compress import ArithmeticCodec, EqualInfoCodec, open_model
from corpusmill.corpus.datasets import TOKENIZER_FOLDER, read_manifest
from corpusmill.corpus.errors import DataError
from corpusmill.pipelines.compress import make_job
from corpusmill.pipelines.decompress import DecompressFiles, DecompressJob
from corpusmill.pipelines.documents import DocumentOptions, find_documents
from corpusmill.pipelines.launching.inference import GPU, NAMESPACE, NetworkHandler
from corpusmill.pipelines.launching.launch import build_pipeline, make_here
from corpusmill.pipelines.launching.options import RunOptions
from tests.compress.samples import TEXT
from tests.golden.make import HERE
from tests.integration.samples import assert_same_data
from tests.pipelines.samples import command, write_jsonl
from tests.pipelines.test_bad_input import error_of

DOCUMENTS = [text.decode()[: i % 40] for text in TEXT for i in range(60)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    for i in range(3):
        write_jsonl(folder / f"{i}.jsonl", DOCUMENTS[i::3])
    return folder


def make(job, workers=1):
    job.writer.begin()
    make_here(job, workers)


def job_of(source, output, **changes):
    """A job of several shards whose codec has a network."""
    codec = EqualInfoCodec(open_model(str(HERE / "m1")), 16, 32)
    documents = find_documents(DocumentOptions((str(source),)))
    shards = tuple((segment,) for shard in documents.shards for segment in shard)
    documents = dataclasses.replace(documents, shards=shards)
    return dataclasses.replace(make_job(documents, codec, str(output)), **changes)


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    """The dataset as work without RunInference makes it."""
    folder = tmp_path_factory.mktemp("expected") / "small"
    make(job_of(source, folder, device=None))
    return folder


def test_metrics_say_what_was_done(source, expected, tmp_path):
    job = job_of(source, tmp_path / "small")
    job.writer.begin()
    result = build_pipeline(job, RunOptions()).run()
    result.wait_until_finish()
    assert_same_data(tmp_path / "small", expected)
    found = result.metrics().query()
    ours = {"counters": {}, "distributions": {}}
    for kind, values in ours.items():
        for metric in found[kind]:
            if metric.key.metric.namespace == NAMESPACE:
                values[metric.key.metric.name] = metric.committed
    size = sum(len(document.encode()) for document in DOCUMENTS)
    assert ours["counters"]["bytes_read"] == size
    assert 0 < ours["counters"]["positions_computed"] <= size
    assert ours["counters"]["lane_steps"] >= size
    assert ours["counters"]["num_inferences"] == 3
    assert ours["distributions"]["lane_occupancy_percent"].count == 3
    assert 0 < ours["distributions"]["lane_occupancy_percent"].max <= 100
    assert ours["distributions"]["bytes_per_second"].min > 0


# The work of a GPU, with a network that is on the processor all the same.
@pytest.mark.slow
def test_processes_share_a_network(source, expected, tmp_path):
    make(job_of(source, tmp_path / "small", device="cuda"), workers=2)
    assert_same_data(tmp_path / "small", expected)


def test_a_shard_of_bad_records_alone_has_no_documents(tmp_path):
    """The whole batches of such a shard are empty."""
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", DOCUMENTS)
    (tmp_path / "in" / "b.jsonl").write_text("no JSON\n")
    job = job_of(tmp_path / "in", tmp_path / "small")
    options = dataclasses.replace(job.documents.options, max_bad_records=0.9)
    documents = dataclasses.replace(job.documents, options=options)
    make(dataclasses.replace(job, documents=documents))
    counters = read_manifest(str(tmp_path / "small")).counters
    assert (counters["documents"], counters["bad_records"]) == (len(DOCUMENTS), 1)


def test_damage_is_named(expected, tmp_path):
    job = DecompressJob(str(expected), str(tmp_path / "back"))
    [*_, record] = job.manifest.data_files
    (expected / record.name).rename(tmp_path / "kept")
    try:
        with pytest.raises(DataError, match=record.name):
            NetworkHandler(DecompressFiles(job), "cuda").load_model()(record)
    finally:
        (tmp_path / "kept").rename(expected / record.name)


def test_a_gpu_is_asked_for_where_there_is_a_network_only(source, tmp_path):
    handler = NetworkHandler(None, "cuda")
    assert handler.share_model_across_processes()
    assert not NetworkHandler(None, "cpu").share_model_across_processes()
    assert handler.get_num_bytes([object()]) == 0
    hinted = hints_of(job_of(source, tmp_path / "small", device="cuda"))
    assert hinted
    assert all("RunInference" in name and GPU in hint for name, hint in hinted.items())
    assert not hints_of(job_of(source, tmp_path / "small", device="cpu"))


def test_a_gpu_that_the_user_asks_for_is_that_of_all_transforms(source, tmp_path):
    other = "type:nvidia-tesla-t4;count:1;install-nvidia-driver"
    run = RunOptions(beam_arguments=(f"--resource_hint=accelerator={other}",))
    hinted = hints_of(job_of(source, tmp_path / "small", device="cuda"), run)
    assert any("RunInference" in name for name in hinted)
    assert set().union(*hinted.values()) == {other}


def hints_of(job, run=RunOptions()):
    """The hints of each transform that has some."""
    job.writer.begin()
    proto = build_pipeline(job, run).to_runner_api()
    environments = proto.components.environments
    return {
        name: {hint.decode() for hint in hints}
        for name, transform in proto.components.transforms.items()
        if (hints := environments[transform.environment_id].resource_hints.values())
    }


def test_devices_are_checked_before_any_work(source, tmp_path, capsys):
    output = ("--output", tmp_path / "small", "--device", "cuda")
    model = ("--codec", "ac", "--byte-model", HERE / "m1")
    if not torch.cuda.is_available():
        assert command("compress", "--input", source, *model, *output) == 2
        assert "finds no GPU; use --device cpu" in error_of(capsys)
    assert command("compress", "--input", source, "--codec", "gzip", *output) == 2
    assert "for codecs with a transformer byte model only, not gzip" in error_of(capsys)
    assert not (tmp_path / "small").exists()


def test_the_golden_ids_come_back_through_run_inference(tmp_path):
    folder = HERE / "codecs" / "m1-ac"
    job = DecompressJob(str(folder), str(tmp_path / "back"))
    assert isinstance(job.load_codec(), ArithmeticCodec)
    assert (folder / TOKENIZER_FOLDER).is_dir()
    job.writer.begin()
    build_pipeline(job, RunOptions()).run().wait_until_finish()
    [part] = (tmp_path / "back").glob("part-*.jsonl")
    golden = (HERE / "corpus.jsonl").read_text().splitlines()
    assert len(part.read_text().splitlines()) == len(golden)

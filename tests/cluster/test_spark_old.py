"""Spark as an engine: its cluster, what its tasks did, and what it says when something is wrong."""

import collections
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import psutil
import pytest
from apache_beam.internal import pickler
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from corpus.errors import UsageError
from tests.cluster.conftest import commands
from tests.cluster.engines import (
    CLUSTER,
    SECONDS,
    alive,
    cluster,
    cluster_processes,
    cluster_state,
    executors,
    finish,
)
from tests.cluster.waiting import completed, wait_for
from tests.integration.samples import assert_same_data

NO_MASTER = "spark://127.0.0.1:9"


def test_work_is_spread_over_the_executors(job, spark, spark_cluster, tmp_path):
    finish(spark.start(*commands(job)["counts"], "--output", tmp_path / "counts"))
    assert_same_data(tmp_path / "counts", job / "counts")
    log = max((spark_cluster / "events").iterdir(), key=os.path.getmtime)
    events = map(json.loads, log.read_text().splitlines())
    done = [event for event in events if event["Event"] == "SparkListenerTaskEnd"]
    by_stage = collections.defaultdict(set)
    for task in done:
        by_stage[task["Stage ID"]].add(task["Task Info"]["Executor ID"])
    # All but those that are one task: the beginnings and the end.
    stages = collections.Counter(task["Stage ID"] for task in done)
    wide = [by_stage[stage] for stage, tasks in stages.items() if tasks > 1]
    assert len(wide) > 3
    assert all(executors == {"0", "1"} for executors in wide)


class Sum(beam.CombineFn):
    def create_accumulator(self):
        return 0

    def add_input(self, accumulator, value):
        return accumulator + value

    def merge_accumulators(self, accumulators):
        return sum(accumulators)

    def extract_output(self, accumulator):
        return accumulator


class Buffered(beam.DoFn):
    """Hands its elements on at the end of a bundle, which must not be lost."""

    def start_bundle(self):
        self.held = []

    def process(self, element):
        self.held.append(element)

    def finish_bundle(self):
        for element in self.held:
            yield beam.transforms.window.GlobalWindows.windowed_value(element)


def test_combining_begins_before_the_shuffle(runner):
    text, number = beam.coders.StrUtf8Coder(), beam.coders.VarIntCoder()
    combine = runner._Combine(pickler.dumps(Sum()), text, number)
    pairs = ((str(n % 3), n) for n in range(1000))
    assert {text.decode(key): number.decode(total) for key, total in combine(pairs)} == {
        str(key): sum(range(key, 1000, 3)) for key in range(3)
    }


def test_dealing_does_not_depend_on_the_order_in_which_a_shuffle_brings_the_elements(runner):
    deal = runner._Dealt(beam.coders.VarIntCoder().encode)
    assert list(deal(3, range(100))) == list(deal(3, reversed(range(100))))
    assert {task for task, _ in deal(3, range(100))} == set(range(3, 103))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_values_are_cut_to_pieces_and_come_together_again(size, monkeypatch, runner):
    monkeypatch.setattr(runner, "_PIECE_BYTES", size)
    text = beam.coders.BytesCoder()
    values = {b"a": [b"", b"12", b"123", b"1234" * 9], b"": [b"123456"], b"b": [b""]}
    pairs = [(key, value) for key, group in values.items() for value in group]
    pieces = [*runner._cut(1, pairs), *runner._cut(0, pairs)]
    assert all(len(piece) <= size for _, piece in pieces)
    groups = runner._Grouped(text, text)(sorted(pieces))
    assert {key: list(group) for key, group in groups} == {
        key: 2 * group for key, group in values.items()
    }


@pytest.mark.parametrize("limit", [0, 100, 1 << 20])
def test_a_group_can_be_gone_through_again_whether_in_memory_or_on_disk(limit, monkeypatch, runner):
    monkeypatch.setattr(runner, "_GROUP_BYTES", limit)
    text = beam.coders.StrUtf8Coder()
    words = ["", *(str(n) * 7 for n in range(100))]
    group = runner._Group(map(text.encode, words), text)
    assert list(group) == words
    assert list(zip(group, group, strict=True)) == list(zip(words, words, strict=True))


def note(element, folder):
    """Leaves a result where the test finds it; the same one twice is one."""
    name = hashlib.sha256(repr(element).encode()).hexdigest()
    Path(folder, name).write_text(repr(element))


def test_each_operation_does_what_beam_says(spark_cluster, tmp_path):
    options = ["--runner=pipelines.spark.PySparkRunner", "--spark_master_url=local[1]"]
    with beam.Pipeline(argv=options) as pipeline:
        numbers = pipeline | beam.Create(range(100)) | beam.ParDo(Buffered())
        pairs = numbers | beam.Map(lambda n: (str(n % 3), n)).with_output_types(tuple[str, int])
        groups = pairs | beam.GroupByKey()
        # Twice, as Beam's groups can be gone through again and again.
        twice = groups | beam.Map(lambda group: (group[0], sum(group[1]) + sum(group[1])))
        sums = pairs | beam.CombinePerKey(Sum())
        none = numbers | beam.Filter(lambda n: n < 0) | beam.combiners.Count.Globally()
        joined = {"sums": sums, "twice": twice} | beam.CoGroupByKey()
        everything = (sums, twice) | beam.Flatten()
        _ = (
            joined
            | "ForEach"
            >> beam.Map(
                lambda each, both, count: (each, sorted(both), count),
                beam.pvalue.AsList(everything),
                beam.pvalue.AsSingleton(none),
            )
            | beam.Map(note, str(tmp_path))
        )
    sums = {str(key): sum(range(key, 100, 3)) for key in range(3)}
    everything = sorted([*sums.items(), *((key, 2 * n) for key, n in sums.items())])
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == [
        repr(((key, {"sums": [n], "twice": [2 * n]}), everything, 0)) for key, n in sums.items()
    ]


STATE = beam.DoFn.StateParam(ReadModifyWriteStateSpec("state", beam.coders.VarIntCoder()))


class Stateful(beam.DoFn):
    def process(self, element, state=STATE):
        yield element


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (beam.ParDo(Stateful()), "state or timers"),
        (beam.Map(lambda pair, time=beam.DoFn.TimestampParam: time), "a special parameter"),
        (beam.WindowInto(beam.window.FixedWindows(10)), "WindowInto"),
    ],
)
def test_what_it_lacks_is_refused_before_it_connects(transform, reason):
    options = ["--runner=pipelines.spark.PySparkRunner", f"--spark_master_url={NO_MASTER}"]
    pipeline = beam.Pipeline(argv=options)
    _ = pipeline | beam.Create([("a", 1)]).with_output_types(tuple[str, int]) | transform
    with pytest.raises(NotImplementedError, match=reason):
        pipeline.run()


@pytest.mark.parametrize("master", [NO_MASTER, "yarn"])
def test_a_master_that_is_not_there(master, job, tmp_path):
    arguments = [*commands(job)["counts"], "--output", tmp_path / "counts"]
    options = ["--runner=pipelines.spark.PySparkRunner", f"--spark_master_url={master}"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, arguments), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"error: no Spark at --spark_master_url {master}: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("master", ["", "127.0.0.1:7077", "spark://", "local[", "http://a:1"])
def test_an_address_that_is_none(master, runner):
    with pytest.raises(UsageError, match="is none of local"):
        runner._expect_master(master)


@pytest.mark.parametrize("master", ["local", "local[2]", "local[*]", "yarn", "k8s://https://a:1"])
def test_other_masters_are_left_to_spark(master, runner):
    runner._expect_master(master)


def test_one_of_several_masters_is_enough(runner):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        runner._expect_master(f"spark://127.0.0.1:9,127.0.0.1:{port}")
    with pytest.raises(UsageError, match="no Spark at"):
        runner._expect_master(f"spark://127.0.0.1:9,127.0.0.1:{port}")


def test_an_error_in_a_task_is_one_line(spark, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "good"}\n{"no text": 1}\n')
    arguments = ("tokenize", "--input", tmp_path / "in.jsonl", "--tokenizer", "bytes")
    process = spark.start(*arguments, "--output", tmp_path / "tokens")
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "corpusmill: error: 1 of 2 records are bad, more than --max-bad-records" in printed
    assert "Traceback" not in printed
    assert "org.apache.spark" not in printed
    assert list((tmp_path / "tokens" / "dead-letter").iterdir())
    assert not (tmp_path / "tokens" / "manifest.json").exists()


def test_an_interrupted_job_frees_the_cluster(job, spark, spark_cluster, tmp_path):
    # Children of a process in the background ignore interrupts, unless it handles them itself.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = tmp_path / "counts"
    process = spark.start(*commands(job)["counts"], "--output", output)
    wait_for(lambda: completed(output, "run-"), process)
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
    printed, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, printed
    assert "interrupted; run the same command again to go on" in printed
    assert "Traceback" not in printed
    assert not (output / "manifest.json").exists()
    wait_for(lambda: not executors(spark_cluster))


def test_a_cluster_goes_up_once_and_down_without_a_trace(tmp_path, request):
    request.addfinalizer(lambda: cluster("down", tmp_path))  # twice does no harm
    first = cluster("up", tmp_path)
    state = cluster_state(tmp_path)
    assert cluster("up", tmp_path) == first
    assert cluster_state(tmp_path) == state
    leaders = [leader for leader, _ in state["sessions"]]
    assert len(leaders) == 3
    psutil.Process(leaders[-1]).kill()
    cluster("up", tmp_path)
    running = cluster_processes(tmp_path)
    assert {leader for leader, _ in cluster_state(tmp_path)["sessions"]} <= {
        each.pid for each in running
    }
    assert not {*leaders} & {each.pid for each in running}
    cluster("down", tmp_path)
    assert not any(map(alive, running))


def test_a_cluster_without_java_says_what_to_install(tmp_path):
    done = subprocess.run(
        [sys.executable, CLUSTER, "up", "--folder", tmp_path / "cluster"],
        env={"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "cluster: error: Spark needs Java 17 or newer: apt-get install default-jre-headless\n"
    )

"""Metrics of a run: numbers of steps, lines that survive, events, progress."""

import json
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from corpusmill.corpus import storage
from corpusmill.corpus.errors import CorpusmillError
from corpusmill.corpus.training_runs import read_metrics
from corpusmill.trainer.metrics import Meter, MetricsLog, Outcome, TrainingProgress
from corpusmill.trainer.runs import take_over


def outcome(loss=2.0, norm=1.0, predictions=10):
    return Outcome(*map(torch.tensor, (loss, loss + 1, norm, predictions)))


def log_steps(run, first, last):
    log = MetricsLog(take_over(run), first - 1)
    for step in range(first, last + 1):
        log.write({"step": step, "loss": step / 2})
    log.close()


def test_lines_of_later_steps_are_dropped(run):
    log_steps(run, 1, 5)
    log_steps(run, 4, 6)
    assert list(read_metrics(run)) == [{"step": step, "loss": step / 2} for step in range(1, 7)]


def test_half_a_line_is_no_line(run):
    log_steps(run, 1, 2)
    url = storage.join(run, "metrics.jsonl")
    storage.write_bytes(url, storage.read_bytes(url) + b'{"step": 3, "lo')
    assert [line["step"] for line in read_metrics(run)] == [1, 2]
    log_steps(run, 3, 3)
    assert [line["step"] for line in read_metrics(run)] == [1, 2, 3]


def test_published_lines_are_there(run):
    log = MetricsLog(take_over(run), 0)
    log.write({"step": 1, "loss": 0.5})
    log.publish()
    assert storage.read_bytes(storage.join(run, "metrics.jsonl")) == b'{"step": 1, "loss": 0.5}\n'
    log.close()


def test_metrics_of_a_launch_do_not_get_into_those_of_the_next(run):
    first = take_over(run)
    log = MetricsLog(first, 0)
    log.write({"step": 1, "loss": 0.5})
    log.publish()
    log_steps(run, 2, 3)
    log.write({"step": 2, "loss": 9.0})
    for publish in (log.publish, log.close, lambda: MetricsLog(first, 0)):
        with pytest.raises(CorpusmillError, match=f"another launch has taken over {run}"):
            publish()
    assert [line["loss"] for line in read_metrics(run)] == [0.5, 1.0, 1.5]


def test_events_say_the_same(tmp_path):
    log_steps(str(tmp_path), 1, 5)
    log_steps(str(tmp_path), 4, 6)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(step, step / 2) for step in range(1, 7)]


def test_a_meter_reads_several_steps_at_once():
    meter = Meter(tokens=100, seconds=50.0)
    meter.add(7, 0.1, outcome(loss=2.0, norm=0.5, predictions=10))
    meter.add(8, 0.2, outcome(loss=3.0, norm=0.25, predictions=20))
    first, second = meter.read()
    assert meter.read() == []
    assert meter.tokens == second["tokens"] == 130
    assert (first["step"], first["tokens"], first["learning_rate"]) == (7, 110, 0.1)
    assert (first["loss"], first["next_token_loss"], first["gradient_norm"]) == (2.0, 3.0, 0.5)
    assert 50 <= first["seconds"] <= second["seconds"] <= meter.seconds
    assert json.loads(json.dumps(first)) == first


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["loss", "norm"])
def test_what_is_no_number_is_found_with_its_step(name, number):
    meter = Meter()
    meter.add(1, 0.1, outcome())
    meter.add(2, 0.1, outcome(**{name: number}))
    meter.add(3, 0.1, outcome(loss=float("nan")))
    with pytest.raises(CorpusmillError, match=r"^step 2: ") as caught:
        meter.read()
    assert "\n" not in str(caught.value)


def test_a_log_gets_a_line_now_and_then(capsys):
    progress = TrainingProgress(step=10, steps=500, tokens=1000)
    for step in range(11, 501):
        progress.show(step, {"loss": 1.5, "tokens": 100 * step})
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 11/500", "step 500/500"]
    pattern = r"step 500/500  loss 1\.5000  [\d,]+ tokens/s  0:00:00 left"
    assert re.fullmatch(pattern, lines[-1])

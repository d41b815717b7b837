"""Evaluation beside a model run token by token, and what the command accepts."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from corpusmill.commands import cli
from corpusmill.corpus.training_runs import read_metrics
from corpusmill.trainer import checkpoints
from corpusmill.trainer.distributed import Processes
from corpusmill.trainer.evaluate import Evaluation, evaluate, evaluation_loader, results, summary
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import Transformer
from corpusmill.trainer.objective import Objective
from corpusmill.trainer.order import DataOptions
from tests.trainer import samples

CPU = Processes(torch.device("cpu"))
LENGTH = 16
HELD = samples.random_files(2, [(101, 5), (37,)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    samples.write_tokens(folder / "tokens", samples.random_files(1, [(300,)]))
    samples.write_tokens(folder / "held", HELD)
    return folder


@pytest.fixture(scope="module")
def run(data):
    """A run of two steps."""
    output = data / "run"
    arguments = ["--size", "3m", "--steps", 2, "--warmup", 0, "--batch-size", 2]
    arguments += ["--length", LENGTH]
    arguments += ["--tokens", data / "tokens", "--validate", data / "held", "--output", output]
    arguments += ["--checkpoint-every", 1, "--keep", 2, "--device", "cpu"]
    assert cli.main(["train", *map(str, arguments)]) == 0
    return output


@torch.no_grad()
def by_definition(model, length):
    """Nats, tokens and bytes of the held-out sample, a sequence at a time, in float64."""
    nats, tokens, text_bytes = 0.0, 0, 0
    for reads, predicts, ends in samples.sequences_of(HELD, length):
        logits = (model(torch.tensor([reads])) @ model.output_weight.T)[0]
        logs = logits.double().log_softmax(-1)
        for position, token in enumerate(predicts):
            if token is not None:
                nats -= logs[position, token].item()
                tokens += 1
        text_bytes += ends
    return nats, tokens, text_bytes


def test_evaluation_by_definition(data):
    torch.manual_seed(1)
    model = Transformer(ModelConfig.of("3m", samples.VOCABULARY))
    options = DataOptions(batch_size=3, length=LENGTH, shuffle=False)
    loader = evaluation_loader(str(data / "held"), samples.TOKENIZER, options, CPU, workers=0)
    result = evaluate(Objective(model, torch.float32), loader, CPU)
    nats, tokens, text_bytes = by_definition(model, LENGTH)
    assert (result.tokens, result.bytes) == (tokens, text_bytes)
    assert result.loss == pytest.approx(nats / tokens, rel=1e-5)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    # A second epoch is the same, and the model learns on afterwards.
    assert evaluate(Objective(model, torch.float32), loader, CPU) == result
    assert model.training


def overlapping(length, stride):
    """What the windows of each row group read, and predict anew: token by token."""
    for group in (group for file in HELD for group in file):
        stream = [token for row in group for token in row["tokens"]]
        first = 0
        while True:
            new = 0 if first == 0 else first + length - stride
            reads = [
                stream[i - 1] if i else samples.END
                for i in range(first, first + length)
                if i < len(stream) + 1
            ][: len(stream) - first]
            yield reads, stream[first : first + length], new - first
            if first + length >= len(stream):
                break
            first += stride


@pytest.mark.parametrize(("length", "stride"), [(16, 16), (16, 5), (16, 1), (3, 2), (500, 7)])
@torch.no_grad()
def test_overlapping_sequences_predict_each_token_once(data, length, stride):
    torch.manual_seed(1)
    model = Transformer(ModelConfig.of("3m", samples.VOCABULARY, width=16, layers=1))
    options = DataOptions(batch_size=3, length=length, shuffle=False, stride=stride)
    loader = evaluation_loader(str(data / "held"), samples.TOKENIZER, options, CPU, workers=0)
    result = evaluate(Objective(model, torch.float32), loader, CPU)
    nats, tokens = 0.0, 0
    for reads, predicts, new in overlapping(length, stride):
        logits = (model(torch.tensor([reads])) @ model.output_weight.T)[0].double()
        logs = logits.log_softmax(-1)
        for position in range(max(0, new), len(predicts)):
            nats -= logs[position, predicts[position]].item()
            tokens += 1
    rows = [row for file in HELD for group in file for row in group]
    assert tokens == result.tokens == sum(len(row["tokens"]) for row in rows)
    assert result.bytes == sum(row["byte_length"] for row in rows)
    assert result.loss == pytest.approx(nats / tokens, rel=1e-5)


@pytest.mark.parametrize(("length", "stride"), [(16, 5), (3, 2)])
def test_bytes_are_counted_where_the_last_token_of_a_document_is_predicted(data, length, stride):
    options = DataOptions(batch_size=1, length=length, shuffle=False, stride=stride)
    loader = evaluation_loader(str(data / "held"), samples.TOKENIZER, options, CPU, workers=0)
    rows = iter([row for file in HELD for group in file for row in group])
    for batch in loader:
        ends = int((batch.next_tokens == samples.END).sum())
        assert int(batch.bytes) == sum(next(rows)["byte_length"] for _ in range(ends))


def test_uniform_predictions_take_the_bits_of_the_vocabulary():
    result = Evaluation(loss=math.log(256), tokens=100, bytes=100)
    assert result.bits_per_byte == pytest.approx(8)
    assert result.perplexity == pytest.approx(256)
    assert Evaluation(loss=1000.0, tokens=1, bytes=1).perplexity == math.inf


def shown(text):
    """The numbers that the command printed, by name."""
    found = re.findall(r"^  (\S.*?)  +([\d.,]+)$", text, re.MULTILINE)
    return {name: float(value.replace(",", "")) for name, value in found}


def test_the_command_says_what_the_run_saw(data, run, capsys):
    assert cli.main(["evaluate", "--run", str(run), "--tokens", str(data / "held")]) == 0
    numbers = shown(capsys.readouterr().out)
    [*_, last] = read_metrics(str(run))
    assert numbers["loss (nats per token)"] == pytest.approx(last["validation_loss"], abs=1e-4)
    assert numbers["bits per byte"] == pytest.approx(last["validation_bits_per_byte"], abs=1e-4)
    assert numbers["tokens"] == sum(samples._token_count(file) for file in HELD)
    assert numbers["bytes"] == sum(row["byte_length"] for file in HELD for g in file for row in g)


def test_lines_say_something_in_the_digits_that_are_known():
    found = results(Evaluation(9.0696, 400, 700, accuracy=0.25), 923_234, 64)
    assert summary(found, "run", "held").splitlines() == [
        "run on held:",
        "  loss (nats per token)                 9.0696",
        "  perplexity                           8,687.1",
        "  bits per byte                         7.4770",
        "  accuracy                              0.2500",
        "  tokens                                   400",
        "  bytes                                    700",
        "  bytes per token                       1.7500",
        "  bytes per sequence                    112.00",
        "  FLOPs per byte, forward              527,562",
    ]


def test_a_checkpoint_is_a_model_too(data, run, capsys):
    losses = []
    for folder in checkpoints.complete(str(run)):
        assert cli.main(["evaluate", "--run", folder, "--tokens", str(data / "held")]) == 0
        losses.append(shown(capsys.readouterr().out)["loss (nats per token)"])
    assert losses[0] != losses[1]


def test_other_sizes_of_batches_give_the_same(data, run, capsys):
    """But of sequences they don't: the contexts are longer."""
    losses = []
    for options in (["--batch-size", "1"], ["--batch-size", "9"], ["--length", "3"]):
        arguments = ["evaluate", "--run", str(run), "--tokens", str(data / "held"), *options]
        assert cli.main(arguments) == 0
        losses.append(shown(capsys.readouterr().out)["loss (nats per token)"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0] != pytest.approx(losses[2], abs=1e-4)


def refusal(capsys, *arguments):
    assert cli.main(["evaluate", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_what_is_refused(data, run, tmp_path, capsys):
    held = ["--tokens", data / "held"]
    assert "is no training run" in refusal(capsys, "--run", data / "held", *held)
    assert "is no training run" in refusal(capsys, "--run", tmp_path / "nothing", *held)
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    assert "has no checkpoint yet" in refusal(capsys, "--run", tmp_path, *held)
    assert "did you mean --run?" in refusal(capsys, "--runn", run, *held)
    stride = ["--length", 8, "--stride", 9]
    assert "stride is 9; 8, the length, is the most" in refusal(
        capsys, "--run", run, *held, *stride
    )
    assert "has no manifest.json" in refusal(capsys, "--run", run, "--tokens", tmp_path)


def test_tokens_of_another_tokenizer_are_refused(run, tmp_path, capsys, monkeypatch):
    other = samples.TOKENIZER | {"content_hash": "1" * 64, "kind": "other"}
    monkeypatch.setattr(samples, "TOKENIZER", other)
    tokens = samples.write_tokens(tmp_path / "tokens", HELD)
    message = refusal(capsys, "--run", run, "--tokens", tokens)
    assert "tokens of another tokenizer (other, 111111111111) than the model's (test, 0)" in message


def test_tokens_without_text_are_refused(run, tmp_path, capsys):
    tokens = samples.write_tokens(tmp_path / "tokens", [[[samples.row([samples.END])]]])
    assert cli.main(["evaluate", "--run", str(run), "--tokens", tokens]) == 1
    assert "has no bytes of text" in capsys.readouterr().err


def test_a_damaged_run_is_named(data, run, tmp_path, capsys):
    config = json.loads((run / "config.json").read_text())
    arguments = ["evaluate", "--run", str(tmp_path), "--tokens", str(data / "held")]
    for file in run.rglob("*"):
        copy = tmp_path / file.relative_to(run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            copy.write_bytes(file.read_bytes())
    damaged = Path(checkpoints.model_url(checkpoints.complete(str(tmp_path))[-1]))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert cli.main(arguments) == 1
    assert "model.safetensors is damaged" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{")
    assert cli.main(arguments) == 1
    assert "config.json is damaged" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps(config | {"format_version": 2}))
    assert cli.main(arguments) == 2
    assert "has format version 2" in capsys.readouterr().err


def test_a_folder_as_output_is_refused_before_any_work(data, tmp_path, capsys):
    """An empty one, too."""
    inputs = ["--run", "nowhere", "--tokens", str(data / "held")]
    assert cli.main(["evaluate", *inputs, "--output", str(tmp_path)]) == 2
    assert f"--output {tmp_path} is a folder; name a file in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loader-workers", "-1"], "--loader-workers -1 is not a number of at least 0"),
        (["--batch-size", "0"], "--batch-size: '0' is not a whole number above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message, data, run, capsys):
    arguments = ["evaluate", "--run", str(run), "--tokens", str(data / "held"), *options]
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err

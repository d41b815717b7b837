"""Options of `corpusmill train` that make another model, or go on from one."""

import math

import pytest
import safetensors.torch
import torch

from corpusmill.commands import cli
from corpusmill.corpus.training_runs import read_metrics
from corpusmill.trainer import checkpoints
from corpusmill.trainer.opening import open_model
from tests.trainer.samples import END, TOKENIZER, random_files, write_targets, write_tokens

SMALL = ["--width", 32, "--heads", 2, "--layers", 1, "--mlp-width", 48]
USUAL = ["--batch-size", 2, "--length", 16, "--device", "cpu", "--steps", 2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    files = random_files(1, [(130, 200)])
    tokens = write_tokens(folder / "tokens", files)
    write_targets(folder / "targets", files, tokens)
    write_tokens(folder / "held", random_files(2, [(101,)]))
    assert train(folder, folder / "run", *SMALL) == 0
    return folder


def train(data, output, *options):
    arguments = ["train", "--tokens", data / "tokens", "--output", output, *USUAL, *options]
    return cli.main(list(map(str, arguments)))


def test_a_shape_in_numbers(data):
    config = open_model(str(data / "run")).config.model
    names = ("width", "heads", "layers", "head_size", "mlp_width")
    assert [config[name] for name in names] == [32, 2, 1, 16, 48]


def test_a_run_begins_with_the_parameters_of_another(data, tmp_path):
    """With a learning rate of 0 they stay what they were, whatever is learnt and how."""
    other = ["--objective", "compact", "--targets", data / "targets", "--seed", 5]
    frozen = ["--learning-rate", 0, "--from", data / "run", "--mask-documents"]
    assert train(data, tmp_path / "run", *other, *frozen) == 0
    files = [
        checkpoints.model_url(checkpoints.complete(str(run))[-1])
        for run in (data / "run", tmp_path / "run")
    ]
    first, second = map(safetensors.torch.load_file, files)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert open_model(str(tmp_path / "run")).model.config.document_start == END
    # Another start is another run.
    assert train(data, tmp_path / "other", *SMALL, "--seed", 9) == 0
    assert train(data, tmp_path / "run", *other, *frozen[:3], tmp_path / "other", frozen[-1]) == 2


def test_what_has_other_tokens_is_no_start(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TOKENIZER, "content_hash", "1")
    write_tokens(tmp_path / "tokens", random_files(1, [(130,)]))
    assert train(tmp_path, tmp_path / "run", "--from", data / "run") == 2
    assert "tokens of another tokenizer" in capsys.readouterr().err
    assert train(data, tmp_path / "run", "--from", data / "held") == 2
    assert "is no training run" in capsys.readouterr().err


def test_validation_can_be_of_the_first_tokens(data, tmp_path, capsys):
    losses = {}
    for count in (None, 1, 32, 33, 101):
        options = [] if count is None else ["--validate-tokens", count]
        output = tmp_path / str(count)
        assert train(data, output, *SMALL, "--validate", data / "held", *options) == 0
        losses[count] = list(read_metrics(str(output)))[-1]["validation_loss"]
    # A batch has 32 tokens; the set 101.
    assert losses[1] == losses[32] != losses[33] != losses[None] == losses[101]
    assert "validation on the first 33 tokens or so" in capsys.readouterr().out


def test_bits_per_byte_of_the_first_tokens_are_of_all_they_stand_for(data, tmp_path):
    """Whatever part of a document they end in, and if none ends."""
    document = {"doc_id": "a", "tokens": [*range(1, 200), END], "byte_length": 600}
    write_tokens(tmp_path / "held", [[[document, document | {"doc_id": "b"}]]])
    for count in (32, 224):
        options = ["--validate", tmp_path / "held", "--validate-tokens", count]
        assert train(data, tmp_path / str(count), *SMALL, *options) == 0
        line = list(read_metrics(str(tmp_path / str(count))))[-1]
        bits = line["validation_loss"] / math.log(2)
        assert line["validation_bits_per_byte"] == pytest.approx(bits / 3)


def test_a_run_within_its_warmup_is_warned_of(data, tmp_path, capsys):
    assert train(data, tmp_path / "short", *SMALL, "--warmup", 2) == 0
    assert "warning: all 2 steps are warm-up (--warmup 2)" in capsys.readouterr().out
    assert train(data, tmp_path / "usual", *SMALL) == 0
    assert "warm-up" not in capsys.readouterr().out


def test_nothing_to_compile_with_is_said_before_the_output_is_claimed(
    data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert train(data, tmp_path / "run", *SMALL, "--compile") == 2
    assert "--compile needs a C++ compiler (g++ or clang++)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_compiled_model_learns_the_same(data, tmp_path):
    assert train(data, tmp_path / "compiled", *SMALL, "--compile") == 0
    plain, compiled = (
        [line["loss"] for line in read_metrics(str(run))]
        for run in (data / "run", tmp_path / "compiled")
    )
    assert compiled == pytest.approx(plain, rel=1e-5)
    assert open_model(str(tmp_path / "compiled")).model.config.width == 32

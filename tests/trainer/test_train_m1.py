import json

import numpy as np
import pytest
import torch

from corpusmill.commands import cli
from corpusmill.compress.byte_models import open_model
from corpusmill.compress.byte_models.transformer import TransformerModel
from corpusmill.compress.byte_models.transformer_state import START
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.trainer import checkpoints
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import Transformer
from tests.compress.samples import wiki

SMALL = ["--batch-size", "4", "--length", "16", "--warmup", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory, shared_data):
    """Documents and their tokens, and some that are held out."""
    folder = tmp_path_factory.mktemp("data")
    for name, texts in (("train", wiki(shared_data, 30)), ("held", wiki(shared_data, 3, 30))):
        lines = [json.dumps({"text": text.decode()}) + "\n" for text in texts]
        (folder / f"{name}.jsonl").write_text("".join(lines))
        tokenize = ["tokenize", "--input", f"{folder}/{name}.jsonl", "--tokenizer", "bytes"]
        assert cli.main([*tokenize, "--output", str(folder / name)]) == 0
    return folder


def train(output, *options):
    return cli.main(["train-m1", *SMALL, "--output", str(output), *map(str, options)])


def test_a_trained_model_predicts_as_its_network_does(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("corpusmill.trainer.train_m1._VALIDATION_BYTES", 1 << 12)
    options = ["--tokens", data / "train", "--validate", data / "held", "--steps", 8]
    assert train(tmp_path, *options, "--learning-rate", 1e-2) == 0
    lines = capsys.readouterr().out.splitlines()
    floating, exact = (float(line.split()[-1]) for line in lines[-2:])
    assert exact == pytest.approx(floating, rel=0.01)
    model = open_model(str(tmp_path))
    assert isinstance(model, TransformerModel)
    assert model.content_hash in lines[-3]
    assert model.length == 16
    text = wiki_bytes(data)[:15]
    prefixes = ByteStrings.of(text[:size] for size in range(16))
    found = model.frequencies(prefixes) / 2**model.precision
    assert np.abs(found - probabilities(tmp_path, text)).max() < 0.01


def wiki_bytes(data):
    return json.loads((data / "held.jsonl").read_text().splitlines()[0])["text"].encode()


def probabilities(run, text):
    """What the float network says after each beginning of a text."""
    network = Transformer(ModelConfig.of("3m", START + 1))
    network.load_state_dict(checkpoints.load_model(checkpoints.find(str(run))[1]))
    with torch.no_grad():
        hidden = network(torch.tensor([[START, *text]]))[0]
        return torch.softmax(hidden @ network.output_weight[:256].T, dim=-1).numpy()


def test_a_run_goes_on_and_documents_are_as_good_as_tokens(data, tmp_path, capsys):
    tokens = ["--tokens", data / "train"]
    assert train(tmp_path / "whole", *tokens, "--steps", 4) == 0
    assert train(tmp_path / "begun", *tokens, "--steps", 2) == 0
    assert train(tmp_path / "begun", *tokens, "--steps", 4) == 0
    assert train(tmp_path / "documents", "--input", data / "train.jsonl", "--steps", 4) == 0
    hashes = {open_model(str(run)).content_hash for run in tmp_path.iterdir()}
    assert len(hashes) == 1
    capsys.readouterr()
    assert train(tmp_path / "whole", *tokens, "--steps", 4) == 0
    out = capsys.readouterr().out
    assert "is complete already: 4 steps" in out
    assert hashes.pop() in out
    assert train(tmp_path / "whole", *tokens, "--steps", 4, "--starts", "documents") == 2
    assert 'starts: "anywhere" there, "documents" now' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --tokens DIR or --input GLOB"),
        (["--tokens", "a", "--input", "b"], "give either --tokens DIR or --input GLOB"),
        (["--tokens", "nowhere"], "nowhere has no manifest.json"),
        (["--input", "nowhere"], "'nowhere' matches no file"),
        (["--tokens", "a", "--length", "15"], "--length 15 is not an even number"),
        (
            ["--tokens", "a", "--length", "4098"],
            "--length 4098 is not an even number from 2 to 4,096",
        ),
        (["--tokens", "a", "--width", "8208"], "--width 8208 is more than 8,192"),
        (["--tokens", "a", "--objective", "compact"], "unknown option --objective"),
        (["--tokens", "a", "--size", "4m"], "invalid choice: '4m'"),
    ],
)
def test_bad_options_are_refused_before_any_work(options, message, tmp_path, capsys):
    output = tmp_path / "run"
    assert train(output, "--steps", 2, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_a_bad_record_is_refused(tmp_path, capsys):
    (tmp_path / "bad.jsonl").write_text('{"text": "good"}\n{"text": 1}\n')
    assert train(tmp_path / "run", "--input", tmp_path / "bad.jsonl", "--steps", 2) == 1
    error = capsys.readouterr().err
    assert "bad.jsonl, offset 17: field 'text' is a number" in error
    assert "--tokenizer bytes" in error

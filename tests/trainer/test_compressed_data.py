"""Training and evaluation on a codec's ids: sequences beside the definition, and the commands."""

import collections
import json
import math
import random

import pytest
import torch

from corpusmill.commands import cli
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.errors import DataError, DatasetError, UsageError
from corpusmill.trainer import checkpoints
from corpusmill.trainer.batches import IGNORED
from corpusmill.trainer.data import Loader, TokenDataset
from corpusmill.trainer.model_config import ModelConfig
from corpusmill.trainer.models import Transformer
from corpusmill.trainer.order import DataOptions
from tests.trainer import samples
from tests.trainer.test_data import all_sequences

CODEC = {
    "kind": "codec",
    "content_hash": "2" * 64,
    "vocabulary_size": 1 << 16,
    "end_of_document": None,
    "window_ids": 2,
}
START = 1 << 16
LENGTH = 8


def rows_of(seed, sizes, lengths):
    """Files of row groups of so many rows each, some with ids up to the end of the vocabulary."""
    generator = random.Random(seed)
    return [
        [
            [
                samples.row(
                    [generator.randrange(START - 90, START) for _ in range(size)],
                    generator.randrange(1, 50) if size else 0,
                )
                for size in generator.choices(lengths, k=rows)
            ]
            for rows in file
        ]
        for file in sizes
    ]


RUNNING = rows_of(1, [(5, 3, 9), (1,), (4, 6)], (0, 1, 2, 7, 8, 30))
TRIMMED = rows_of(2, [(5, 3, 9), (1,)], (1, 3, LENGTH, LENGTH, LENGTH))


def write(folder, files, kind="compressed", **more):
    return samples.write_tokens(folder, files, kind=kind, tokenizer=CODEC, **more)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    return write(tmp_path_factory.mktemp("running") / "data", RUNNING)


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trimmed") / "data"
    return write(folder, TRIMMED, "examples", length=LENGTH)


def running_sequences(files, length):
    """By the definition: what is read and predicted, and the bytes that end in it."""
    found = []
    for group in (group for file in files for group in file):
        stream, ends = [], collections.Counter()
        for row in group:
            for place, token in enumerate(row["tokens"]):
                stream.append((stream[-1][1] if place else START, token))
            ends[max(0, len(stream) - 1)] += row["byte_length"]
        for first in range(0, len(stream), length):
            pairs = stream[first : first + length]
            size = sum(ends[place] for place in range(first, first + length))
            found.append((*zip(*pairs, strict=True), size))
    return found


def without_filling(sequences):
    """The same without the places at the end where nothing is predicted."""
    found = []
    for read, predicted, size in sequences:
        count = sum(token is not None for token in predicted)
        assert all(token is None for token in predicted[count:])
        assert max(read) <= START
        found.append((read[:count], predicted[:count], size))
    return found


@pytest.mark.parametrize("length", [1, 5, 8, 100])
def test_sequences_run_across_rows_which_begin_with_the_start(running, length):
    options = DataOptions(3, length, shuffle=False)
    found = without_filling(all_sequences(TokenDataset(running, options, epochs=1)))
    assert found == running_sequences(RUNNING, length)
    shuffled = TokenDataset(running, DataOptions(3, length, lanes=3), epochs=1)
    again = without_filling(all_sequences(shuffled))
    assert collections.Counter(again) == collections.Counter(found)


def test_trimmed_examples_are_a_sequence_each(trimmed):
    options = DataOptions(3, LENGTH, shuffle=False)
    found = without_filling(all_sequences(TokenDataset(trimmed, options, epochs=1)))
    rows = [row for file in TRIMMED for group in file for row in group]
    assert found == [
        ((START, *row["tokens"][:-1]), tuple(row["tokens"]), row["byte_length"]) for row in rows
    ]


def test_places_are_those_in_the_row(running, trimmed):
    for folder, files in ((running, RUNNING), (trimmed, TRIMMED)):
        expected = [
            place
            for file in files
            for group in file
            for row in group
            for place in range(len(row["tokens"]))
        ]
        options = DataOptions(3, LENGTH, shuffle=False)
        found = []
        for batch in Loader(TokenDataset(folder, options, epochs=1)):
            found += batch.places[batch.next_tokens != IGNORED].tolist()
        assert found == expected


def test_what_does_not_go_together_is_refused(running, trimmed, tmp_path):
    options = DataOptions(2, LENGTH)
    with pytest.raises(UsageError, match="are 8 ids long, sequences 9 tokens: give --length 8"):
        TokenDataset(trimmed, DataOptions(2, 9))
    for sidecar in ({"targets": "some"}, {"counts": "some"}):
        with pytest.raises(UsageError, match="some goes with a tokens dataset"):
            TokenDataset(running, options, **sidecar)
    counts = samples.write_tokens(tmp_path / "counts", RUNNING, kind="counts")
    with pytest.raises(DatasetError, match="counts dataset; compressed, examples, tokens are"):
        TokenDataset(counts, options)
    empty = write(tmp_path / "empty", [[[samples.row([]), samples.row([])]]])
    with pytest.raises(DatasetError, match="has no tokens"):
        TokenDataset(empty, options)


def test_ids_that_are_missing_are_noticed(running, tmp_path):
    files = RUNNING[:1]
    folder = write(tmp_path / "data", files)
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["files"][0]["tokens"] > 1
    short = [[[samples.row([START - 1], 5)]]]
    other = write(tmp_path / "other", short)
    name = read_manifest(folder).data_files[0].name
    (tmp_path / "data" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    assert other
    with pytest.raises(DataError, match="has 1 tokens, its manifest says"):
        TokenDataset(folder, DataOptions(2, LENGTH))


@pytest.fixture(scope="module")
def run(trimmed, running, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "run"
    assert train(trimmed, output, "--validate", trimmed) == 0
    return output


def train(tokens, output, *more):
    shape = ("--size", "500k", "--batch-size", 4, "--length", LENGTH, "--device", "cpu")
    steps = ("--steps", 3, "--warmup", 0)
    arguments = ("--tokens", tokens, "--output", output, *shape, *steps, *more)
    return cli.main(["train", *map(str, arguments)])


@torch.no_grad()
def by_definition(model, files):
    """Nats, ids, bytes, and whether each place in a window was predicted right."""
    nats, hits, text_bytes = 0.0, {0: [], 1: []}, 0
    for row in (row for file in files for group in file for row in group):
        read = torch.tensor([[START, *row["tokens"][:-1]]])
        logs = (model(read) @ model.output_weight.T)[0].double().log_softmax(-1)
        for place, token in enumerate(row["tokens"]):
            nats -= logs[place, token].item()
            hits[place % 2].append(logs[place].argmax().item() == token)
        text_bytes += row["byte_length"]
    return nats, hits, text_bytes


def test_evaluation_by_definition(run, trimmed, tmp_path, capsys):
    output = tmp_path / "evaluation.json"
    arguments = ["--run", run, "--tokens", trimmed, "--output", output]
    assert cli.main(["evaluate", *map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(output.read_text())
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["vocabulary_size"] == START + 1
    model = Transformer(ModelConfig(**config["model"]))
    checkpoint = checkpoints.complete(str(run))[-1]
    model.load_state_dict(checkpoints.load_model(checkpoint))
    nats, hits, text_bytes = by_definition(model, TRIMMED)
    ids = sum(map(len, hits.values()))
    assert (found["tokens"], found["bytes"]) == (ids, text_bytes)
    assert found["loss"] == pytest.approx(nats / ids, rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / text_bytes, rel=1e-4)
    expected = [sum(each) / len(each) for each in hits.values()]
    assert found["accuracy_by_position"] == pytest.approx(expected)
    assert found["accuracy"] == pytest.approx(sum(map(sum, hits.values())) / ids)
    assert found["bytes_per_token"] == pytest.approx(text_bytes / ids)
    assert found["bytes_per_sequence"] == pytest.approx(LENGTH * text_bytes / ids)
    flops = 2 * sum(each.numel() for each in model.parameters())
    assert found["flops_per_byte"] == pytest.approx(flops * ids / text_bytes)
    assert (found["dataset"], found["checkpoint"]) == (trimmed, checkpoint)
    assert found["tokenizer"] == CODEC
    assert f"{found['bits_per_byte']:.4f}" in printed


def test_a_model_learns_from_text_that_runs_on(running, tmp_path, capsys):
    assert train(running, tmp_path / "run", "--validate", running) == 0
    arguments = ["--run", tmp_path / "run", "--tokens", running, "--output", tmp_path]
    assert cli.main(["evaluate", *map(str, arguments)]) == 2
    assert f"--output {tmp_path} is a folder" in capsys.readouterr().err


def test_train_refuses_targets_of_ids(running, trimmed, tmp_path, capsys):
    targets = ("--objective", "compact", "--targets", "some")
    assert train(running, tmp_path / "run", *targets) == 2
    assert "some goes with a tokens dataset" in capsys.readouterr().err
    assert train(trimmed, tmp_path / "run", "--length", 4) == 2
    assert "give --length 8" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()

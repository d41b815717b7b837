"""Training runs as users start them: killed and started again, alone and in two processes."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from corpusmill.commands import cli
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.training_runs import read_metrics
from corpusmill.trainer import checkpoints, tensor_files
from corpusmill.trainer.opening import open_model
from tests.trainer.samples import random_files, write_targets, write_tokens

SECONDS_TO_WAIT = 120
TIMES = ("seconds", "tokens_per_second")
SMALL = ["--size", "3m", "--batch-size", 2, "--length", 16, "--warmup", 4, "--device", "cpu"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
# One thread does each sum in the same order, whatever the load.
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    files = random_files(1, [(130, 200), (170,)])
    tokens = write_tokens(folder / "tokens", files)
    write_targets(folder / "targets", files, tokens)
    # An odd number of batches, so that two processes have one more than they need.
    write_tokens(folder / "held", random_files(2, [(90,)]))
    return folder


def train(data, output, *options):
    arguments = ["train", "--tokens", data / "tokens", "--validate", data / "held", *SMALL]
    return [str(each) for each in (*arguments, "--output", output, *options)]


def compact(data):
    return ["--objective", "compact", "--targets", data / "targets", "--mix", 0.7]


def start(arguments, launcher=(), module="corpusmill.commands.cli"):
    command = [sys.executable, *map(str, launcher), "-m", module, *arguments]
    return subprocess.Popen(
        command,
        start_new_session=True,
        env=ONE_THREAD,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run(arguments):
    """A run in this process, where all is imported already."""
    printed = io.StringIO()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            status = cli.main(arguments)
    finally:
        torch.set_num_threads(threads)
    assert status == 0, printed.getvalue()
    return printed.getvalue()


def run_in_two(arguments, *module):
    process = start(arguments, TORCHRUN, *module)
    output, _ = process.communicate(timeout=SECONDS_TO_WAIT)
    assert process.returncode == 0, output


def kill_after_checkpoint(process, output):
    until = time.monotonic() + SECONDS_TO_WAIT
    while not checkpoints.complete(str(output)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, f"no checkpoint after {SECONDS_TO_WAIT} s"
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return len(list(read_metrics(str(output))))


def without_times(run):
    return [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in read_metrics(str(run))
    ]


def curves(run):
    """Losses and gradients' norms: Adam forgives a gradient that is too long everywhere."""
    lines = [line for line in read_metrics(str(run)) if "loss" in line]
    return [line[name] for name in ("loss", "gradient_norm") for line in lines]


def last_tensors(run):
    folder = Path(checkpoints.complete(str(run))[-1])
    return {path.name: path.read_bytes() for path in folder.rglob("*.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_killed_run_ends_as_if_nothing_had_happened(optimizer, data, tmp_path):
    """Two epochs and more, compact targets that fade out, read by a worker process."""
    options = [*compact(data), "--optimizer", optimizer, "--mix-schedule", "linear-to-zero"]
    options += ["--steps", 48, "--validate-every", 7, "--checkpoint-every", 8]
    options += ["--loader-workers", 1]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(train(data, whole, *options))
    lines = kill_after_checkpoint(start(train(data, killed, *options)), killed)
    assert lines < len(without_times(whole)), "the run ended before it was killed"
    assert "going on after step " in run(train(data, killed, *options))
    assert without_times(killed) == without_times(whole)
    assert last_tensors(killed) == last_tensors(whole)
    assert "is complete already: 48 steps" in run(train(data, killed, *options))
    assert without_times(killed) == without_times(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "optimizer"), [("ddp", "adamw"), ("ddp", "adafactor"), ("fsdp", "adamw")]
)
def test_two_processes_learn_what_one_learns(parallel, optimizer, data, tmp_path):
    """One process goes on with what two began, which had to be the same for that."""
    one, two = tmp_path / "one", tmp_path / "two"
    options = [*compact(data), "--optimizer", optimizer, "--z-loss", 1e-3, "--validate-every", 6]
    alone = [*options, "--accumulate", 4]
    together = [*options, "--accumulate", 2, "--parallel", parallel]
    run(train(data, one, *alone, "--steps", 8))
    run_in_two(train(data, two, *together, "--steps", 5))
    only_first_reads = "tests.integration.only_first_reads"
    run_in_two(train(data, two, *together, "--steps", 7), only_first_reads)
    run(train(data, two, *alone, "--steps", 8))
    assert curves(two) == pytest.approx(curves(one), rel=1e-4)
    ours, theirs = ([*without_times(each)][-1] for each in (one, two))
    assert theirs == pytest.approx(ours, rel=1e-4)


def test_a_run_whose_newest_checkpoint_was_lost_goes_on_from_the_one_before(data, tmp_path, capsys):
    """A power cut left a file of length 0, and the end of the metrics in zeros."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = ["--steps", 6, "--checkpoint-every", 2, "--keep", 3]
    assert cli.main(train(data, whole, *options)) == 0
    assert cli.main(train(data, cut, *options)) == 0
    (cut / "checkpoints" / "step-00000006" / "checkpoint.json").write_bytes(b"")
    with (cut / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 7, "lo' + bytes(20) + b"\n")
    capsys.readouterr()
    assert cli.main(train(data, cut, *options)) == 0
    output, errors = capsys.readouterr()
    assert "step-00000006/checkpoint.json is damaged" in errors
    assert "going on from an older checkpoint" in errors
    assert "going on after step 4" in output
    assert without_times(cut) == without_times(whole)
    assert last_tensors(cut) == last_tensors(whole)
    # A tensor of another name is no way to go on.
    folder = checkpoints.folder_of(str(cut), 6)
    model, record = Path(checkpoints.model_url(folder)), Path(folder, "checkpoint.json")
    tensors = safetensors.torch.load_file(model)
    name = next(iter(tensors))
    tensors[name.replace("e", "x")] = tensors.pop(name)
    safetensors.torch.save_file(tensors, model)
    written = json.loads(record.read_text())
    written["sizes"]["model"] = model.stat().st_size
    record.write_text(json.dumps(written))
    assert cli.main(train(data, cut, *options)) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "step-00000006 is no checkpoint of this model" in line


def test_a_run_that_goes_on_reads_its_checkpoint_once(data, tmp_path, monkeypatch):
    output = tmp_path / "run"
    run(train(data, output, "--steps", 1))
    urls = []

    def load_tensors(url):
        urls.append(url)
        return tensor_files.load_tensors(url)

    monkeypatch.setattr(checkpoints, "load_tensors", load_tensors)
    assert "going on after step 1" in run(train(data, output, "--steps", 2))
    assert len(urls) == len(set(urls)) == 3


def test_the_later_of_two_launches_wins(data, tmp_path, monkeypatch, capsys):
    """The second one begins while the first one learns, and goes on from its checkpoint."""
    output = tmp_path / "run"
    options = ["--steps", 4, "--checkpoint-every", 1]
    save, saved = checkpoints.save, []

    def save_and_launch_again(launch, checkpoint):
        saved.append(save(launch, checkpoint))
        if len(saved) == 2:
            assert cli.main(train(data, output, *options)) == 0
        return saved[-1]

    monkeypatch.setattr(checkpoints, "save", save_and_launch_again)
    assert cli.main(train(data, output, *options)) == 1
    printed, errors = capsys.readouterr()
    assert "going on after step 2" in printed
    last = errors.splitlines()[-1]
    assert last == f"corpusmill: error: another launch has taken over {output}, so this one ends"
    assert [line["step"] for line in read_metrics(str(output)) if "loss" in line] == [1, 2, 3, 4]
    assert open_model(str(output)).checkpoint == checkpoints.folder_of(str(output), 4)


def test_other_options_are_refused_with_the_difference(data, tmp_path, capsys):
    output = tmp_path / "run"
    assert cli.main(train(data, output, "--steps", 2)) == 0
    before = (output / "config.json").read_bytes()
    for options, difference in {
        ("--learning-rate", "0.5"): "learning_rate: 0.001 there, 0.5 now",
        ("--batch-size", "3"): "batch_size: 2 there, 3 now",
        ("--lanes", "4"): "lanes: 8 there, 4 now",
        ("--accumulate", "2"): "micro_batches_per_step: 1 there, 2 now",
        ("--tokens", data / "held"): "tokens dataset: ",
        ("--precision", "bfloat16"): 'precision: "float32" there, "bfloat16" now',
    }.items():
        assert cli.main(train(data, output, "--steps", 3, *options)) == 2
        assert difference in capsys.readouterr().err
    assert (output / "config.json").read_bytes() == before
    # How often something is written decides nothing, and a constant rate knows no end.
    more = ["--steps", 3, "--checkpoint-every", 1, "--keep", 1]
    assert cli.main(train(data, output, *more)) == 0
    assert [line["step"] for line in read_metrics(str(output))] == [1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learning-rat", "1"], "unknown option --learning-rat; did you mean --learning-rate?"),
        (["--steps", "0"], "--steps: '0' is not a whole number above 0"),
        (["--loader-workers", "-1"], "--loader-workers -1 is not a number of at least 0"),
        (["--length", "16777217"], "--length 16777217 is more than 16,777,216, the most"),
        (["--mix", "nan"], "--mix nan is not a number of at least 0"),
        (["--mix", "1.5"], "--mix 1.5 is not a share from 0 to 1"),
        (["--objective", "compact"], "--objective compact needs --targets"),
        (["--optimizer", "adafactor", "--parallel", "fsdp"], "use --parallel ddp"),
        (["--size", "4m"], "invalid choice: '4m'"),
        (["--validate", "nowhere"], "nowhere has no manifest.json"),
        (["--device", "cuda"], "no usable GPU"),
    ],
)
def test_bad_options_are_refused_before_any_work(options, message, data, tmp_path, capsys):
    if options == ["--device", "cuda"]:
        no_gpu_or_skip()
    output = tmp_path / "run"
    assert cli.main(train(data, output, "--steps", 2, *options)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_targets_of_other_tokens_are_refused(data, tmp_path, capsys):
    arguments = train(data, tmp_path / "run", "--steps", 2, *compact(data))
    arguments[arguments.index("--tokens") + 1] = str(data / "held")
    assert cli.main(arguments) == 2
    assert "were made from other tokens" in capsys.readouterr().err


def test_a_folder_with_something_else_is_refused(data, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep this")
    assert cli.main(train(data, tmp_path, "--steps", 2)) == 2
    assert "holds something else (mine.txt, ...)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_loss_that_is_no_number_stops_the_run(data, tmp_path, capsys):
    output = tmp_path / "run"
    options = ["--steps", 9, "--warmup", 0, "--learning-rate", 1e20, "--checkpoint-every", 1]
    assert cli.main(train(data, output, *options)) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    steps = [line["step"] for line in read_metrics(str(output))]
    assert f"error: step {max(steps, default=0) + 1}: the loss is " in error
    # What was learnt after the loss was lost is kept nowhere.
    names = [Path(folder).name for folder in checkpoints.complete(str(output))]
    assert names == [f"step-{step:08d}" for step in dict.fromkeys(steps)][-2:]


def test_a_run_at_a_url(data):
    url = "memory://train-run"
    options = ["--steps", 4, "--checkpoint-every", 2, "--keep", 1]
    assert cli.main(train(data, url, *options)) == 0
    assert cli.main(train(data, url, *options, "--steps", 6)) == 0
    assert [line["step"] for line in read_metrics(url)] == [1, 2, 3, 4, 4, 5, 6, 6]
    assert [folder.rsplit("/", 1)[1] for folder in checkpoints.complete(url)] == ["step-00000006"]


def test_row_groups_that_are_read_several_times_are_warned_of(data, tmp_path):
    """There are three of them, so that eight lanes become three."""
    warning = (
        "2 readers (processes x loader workers) share 3 lanes, so that each row group is read 2"
    )
    options = ["--steps", 1, "--loader-workers", 2]
    assert warning in run(train(data, tmp_path / "three", *options))
    assert "lanes" not in run(train(data, tmp_path / "two", *options, "--lanes", 2))


def test_config_says_what_was_trained(data, tmp_path):
    output = tmp_path / "run"
    assert cli.main(train(data, output, "--steps", 1, *compact(data))) == 0
    config = json.loads((output / "config.json").read_text())
    for name in ("tokens", "targets"):
        assert config["data"][name] == read_manifest(str(data / name)).content_hash
        assert config["places"][name] == str(data / name)
    assert config["options"]["mix"] == 0.7
    assert config["tokenizer"] == read_manifest(str(data / "tokens")).tokenizer


def no_gpu_or_skip():
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")

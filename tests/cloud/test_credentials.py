"""Credentials stay where the user keeps them; test_dataflow.py searches what is uploaded there."""

import os
import subprocess
import sys
import zipfile
from functools import partial

import pytest
from apache_beam.internal import pickler

from corpusmill.commands import cli
from tests.cloud.conftest import steps
from tests.cloud.secrets import holds, plant


def test_the_search_finds_what_is_there(secret, tmp_path):
    function = partial(print, secret)
    for use_zlib in (False, True):
        assert holds(b"before" + pickler.dumps(function, use_zlib=use_zlib) + b"\n", secret)
    with zipfile.ZipFile(tmp_path / "wheel", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("module.py", f"KEY = {secret!r}")
    assert holds((tmp_path / "wheel").read_bytes(), secret)
    assert not holds(pickler.dumps(partial(print, "nothing")), secret)


@pytest.mark.parametrize("protocol", ["gs", "s3"])
def test_neither_logs_nor_data_hold_them(protocol, gcs, s3, job, secret, monkeypatch, tmp_path):
    plant(secret, monkeypatch, tmp_path)
    store = {"gs": gcs, "s3": s3}[protocol]
    place = store.place / "credentials"
    store.upload(job / "input", place / "input")
    for dataset in ("tokens", "counts"):
        command = [*map(str, steps(place)[dataset]), "--output", str(place / dataset)]
        done = subprocess.run(
            [sys.executable, "-m", "corpusmill.commands.cli", *command],
            env={**os.environ, "CORPUSMILL_LOG": "DEBUG"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert b"DEBUG" in done.stdout
        assert not holds(done.stdout, secret)
    store.download(place, tmp_path / "all")
    files = [path for path in (tmp_path / "all").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"manifest.json"}
    assert not [path for path in files if holds(path.read_bytes(), secret)]


@pytest.mark.parametrize(
    "command",
    [
        "tokenize --input {} --tokenizer bytes --output out",
        "tokenize --input {job}/input/corpus --tokenizer {} --output out",
        "tokenize --input {job}/input/corpus --tokenizer bytes --output {}",
        "count --tokens {} --output out",
        "freeze --byte-counts {} --output out",
        "freeze --byte-counts {job}/byte-counts --output {}",
        "query {} a",
        "verify {}",
        "train --tokens {} --output out --size 3m --steps 1",
        "report {} --output out",
    ],
)
def test_a_url_with_one_is_refused_and_not_repeated(command, job, secret, capfd, tmp_path):
    url = f"s3://a-user:{secret}@mill/place"
    words = command.format(url, job=job).replace(" out", f" {tmp_path}/out").split()
    assert cli.main(words) == 2
    captured = capfd.readouterr()
    assert "has a credential in it" in captured.err
    assert secret not in captured.out + captured.err
    assert not list(tmp_path.iterdir())

"""Object stores that run here, as real processes, and what tests look at in them."""

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import fsspec

ROOT = Path(__file__).parents[2]
SECONDS_TO_START = 60


class Place(str):
    """A path or URL that has things below it."""

    __slots__ = ()

    def __truediv__(self, name: str) -> "Place":
        return Place(f"{self}/{name}")


@dataclasses.dataclass(frozen=True)
class Store:
    """A bucket, and the variables by which every driver finds it.

    Attributes:
      place: the bucket's URL.
      address: `HOST:PORT` of the server.
      environment: variables; with another address they lead there.
    """

    place: Place
    address: str
    environment: Mapping[str, str]

    def at(self, address: str) -> Mapping[str, str]:
        """The variables that lead to another server, such as one that stands before this one."""
        return {
            name: value.replace(self.address, address) for name, value in self.environment.items()
        }

    def files(self, folder: str) -> dict[str, dict[str, object]]:
        """What is below a folder of the bucket, by path below it."""
        fs, path = fsspec.core.url_to_fs(folder)
        return {
            name.removeprefix(path).lstrip("/"): info
            for name, info in fs.find(path, detail=True).items()
        }

    def download(self, url: str, folder: Path) -> Path:
        fs, path = fsspec.core.url_to_fs(url)
        for name in fs.find(path):
            target = folder / name.removeprefix(path).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(fs.cat_file(name))
        return folder

    def upload(self, folder: Path, url: str) -> None:
        fs, path = fsspec.core.url_to_fs(url)
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                fs.put_file(str(file), f"{path}/{file.relative_to(folder)}")


@contextlib.contextmanager
def serving(
    command: Sequence[str], is_up: Callable[[], bool], log: Path, **options
) -> Iterator[None]:
    """A server that is up while the block runs; `options` are those of Popen."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, **options)
    try:
        until = time.monotonic() + SECONDS_TO_START
        while not is_up():
            assert process.poll() is None, f"{command[0]} ended: {log.read_text()}"
            assert time.monotonic() < until, f"{command[0]} isn't up: {log.read_text()}"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(SECONDS_TO_START)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def listens(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port), timeout=5).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def gcs(folder: Path) -> Iterator[Store]:
    """Google Cloud Storage as fake-gcs-server has it."""
    program = os.environ.get("CORPUSMILL_FAKE_GCS") or shutil.which(
        "fake-gcs-server", path=ROOT / ".cluster/bin"
    )
    assert program, "fake-gcs-server is missing: make cluster-test builds it"
    address = f"localhost:{free_port()}"
    command = [program, "-scheme", "http", "-host", "127.0.0.1", "-backend", "memory"]
    command += ["-port", address.partition(":")[2], "-external-url", f"http://{address}"]
    command += ["-public-host", address]
    url = f"http://{address}/storage/v1/b"
    with serving(command, lambda: answers(url), folder / "gcs.log"):
        create = urllib.request.Request(
            f"http://{address}/storage/v1/b?project=test",
            data=b'{"name": "mill"}',
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(create).close()
        yield Store(Place("gs://mill"), address, {"STORAGE_EMULATOR_HOST": f"http://{address}"})


@contextlib.contextmanager
def s3(folder: Path, secret: str) -> Iterator[Store]:
    """S3 as moto's server has it."""
    program = Path(sys.executable).with_name("moto_server")
    address = f"127.0.0.1:{free_port()}"
    command = [str(program), "-H", "127.0.0.1", "-p", address.partition(":")[2]]
    url = f"http://{address}/moto-api/"
    with serving(command, lambda: answers(url), folder / "s3.log"):
        create = urllib.request.Request(f"http://{address}/mill", method="PUT")
        urllib.request.urlopen(create).close()
        yield Store(
            Place("s3://mill"),
            address,
            {
                "AWS_ENDPOINT_URL": f"http://{address}",
                "AWS_ACCESS_KEY_ID": "a-user",
                "AWS_SECRET_ACCESS_KEY": secret,
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        )

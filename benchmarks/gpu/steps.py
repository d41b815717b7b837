"""The steps, each a process of its own: `python -m benchmarks.gpu.steps NAME ...`"""

import argparse
import functools
import gc
import itertools
import math
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks import data, exact_m1, step
from benchmarks.gpu import report
from benchmarks.gpu.report import Row
from corpusmill.compress import ByteStrings, open_model
from corpusmill.compress.byte_models import TransformerModel
from corpusmill.compress.byte_models.torch_transformer import TorchTransformer
from corpusmill.corpus.datasets import read_manifest
from corpusmill.corpus.training_runs import read_metrics
from corpusmill.trainer.data import TokenDataset
from corpusmill.trainer.objective import on_device
from corpusmill.trainer.order import DataOptions

ROOT = pathlib.Path(__file__).parents[2]
_TESTS = ("tests/compress/test_torch_transformer.py", "tests/trainer/test_kernels.py")
_BITS = 128
_GIB = 2**30


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    Attributes:
      m1: size of the byte model, trained for `m1_steps` on runs of `m1_length` bytes.
      lanes: pieces of text that it codes at a time.
      piece: bytes of each.
      checked: bytes that the processor codes as well.
      seconds: that the loader is watched.
      matrix: rows and columns of matrices that tell how fast products are.
      copied: bytes that tell how fast memory is.
      losses: models and vocabularies whose steps are measured, `loss_steps` of each objective.
      fed: the model that the loader feeds.
      converging: the model that learns for `convergence_steps`.
      batch_size: sequences in a step that is measured; four times as many where a model learns.
      length: tokens of a sequence.
      precision: of matrices.
    """

    m1: str
    m1_steps: int
    m1_length: int
    lanes: tuple[int, ...]
    piece: int
    checked: int
    seconds: float
    matrix: int
    copied: int
    losses: tuple[tuple[str, int], ...]
    loss_steps: int
    fed: str
    converging: str
    convergence_steps: int
    batch_size: int
    length: int
    precision: str


FULL = Sizes(
    m1="3m",
    m1_steps=600,
    m1_length=128,
    lanes=(4096, 1024, 16384),
    piece=250,
    checked=20_000,
    seconds=4,
    matrix=8192,
    copied=_GIB,
    losses=tuple(itertools.product(("25m", "113m"), (50_304, 128_256))),
    loss_steps=15,
    fed="113m",
    converging="3m",
    convergence_steps=1000,
    batch_size=8,
    length=1024,
    precision="bfloat16",
)
QUICK = Sizes(
    m1="500k",
    m1_steps=1,
    m1_length=16,
    lanes=(4,),
    piece=8,
    checked=40,
    seconds=0.01,
    matrix=64,
    copied=1 << 16,
    losses=(("500k", 512),),
    loss_steps=1,
    fed="500k",
    converging="500k",
    convergence_steps=2,
    batch_size=2,
    length=32,
    precision="float32",
)


@dataclass(frozen=True)
class Task:
    """Where a step runs, what it reads, and where it may write."""

    device: str
    sizes: Sizes
    data: pathlib.Path
    scratch: pathlib.Path

    def synchronize(self) -> None:
        """Waits until the device has done all that it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], rounds: int = 5) -> float:
        """The best time of several rounds, after one that warms up."""
        best = math.inf
        for number in range(rounds + 1):
            self.synchronize()
            started = time.perf_counter()
            work()
            self.synchronize()
            spent = time.perf_counter() - started
            best = min(best, spent) if number else best
        return best


def machine(task: Task) -> Iterator[Row]:
    """What it runs on.

    Raises:
      SystemExit: there is no GPU that PyTorch can use.
    """
    yield Row("processor", platform.processor() or platform.machine())
    yield Row("Python", platform.python_version())
    for name in ("torch", "triton", "numpy", "numba", "corpusmill"):
        yield Row(name, _version(name))
    if task.device != "cuda":
        yield Row("card", "none: this is a rehearsal")
        return
    yield Row("CUDA of torch", str(torch.version.cuda))
    yield Row("driver", _driver())
    if not torch.cuda.is_available():
        raise SystemExit(
            f"PyTorch {torch.__version__} finds no GPU: it takes an NVIDIA driver and a build for"
            " CUDA (make gpu-check installs one); --device cpu --quick is a rehearsal"
        )
    card = torch.cuda.get_device_properties(0)
    yield Row("card", card.name)
    yield Row("memory", card.total_memory / _GIB, "GiB")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def tests(task: Task) -> Iterator[Row]:
    """The tests that need a device.

    Raises:
      SystemExit: one failed, or was skipped although there is a device.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *_TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    found = {what: int(number) for number, what in re.findall(r"(\d+) (\w+)", _last(done.stdout))}
    for what in ("passed", "failed", "skipped"):
        yield Row(what, found.get(what, 0))
    if done.returncode or (task.device == "cuda" and found.get("skipped")):
        raise SystemExit("not all tests passed")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def exact(task: Task) -> Iterator[Row]:
    """Windows of 128 bits of a byte model that has learnt for a moment."""
    sizes, folder = task.sizes, task.scratch / "m1"
    _train(task, "train-m1", task.data / "byte-tokens", folder, sizes.m1, sizes.m1_steps,
           "--length", sizes.m1_length)  # fmt: skip
    model = open_model(str(folder))
    assert isinstance(model, TransformerModel)
    pieces = _pieces(task.data / "coded.jsonl", sizes.piece)
    few = exact_m1.some_of(pieces, sizes.checked / 1000)
    network = TorchTransformer(model, task.device)
    same = [
        exact_m1.windows(each, _BITS).encode_batch(ByteStrings.of(few))[0].tolist()
        for each in (model, network)
    ]
    yield Row("the same ids on device and processor", int(same[0] == same[1]), at_least=1)
    rows = {}
    for lanes in sizes.lanes:
        network = TorchTransformer(model, task.device, lanes)
        network.most_rows = lanes
        rows[lanes] = _coded(exact_m1.windows(network, _BITS), pieces, lanes)
        yield Row(f"{lanes:,} lanes, encode", rows[lanes].encode / 1e3, "MB/s")
        yield Row(f"{lanes:,} lanes, decode", rows[lanes].decode / 1e3, "MB/s")
        del network
        _free()
    best = max(rows.values(), key=lambda row: row.encode)
    yield Row("bits a byte", best.bits)
    yield Row("best, encode", best.encode / 1e3, "MB/s", at_least=5)
    products, copying = _peaks(task)
    yield Row("float64 products", products / 1e12, "TFLOP/s")
    yield Row("copying", copying / 1e12, "TB/s")
    # A byte looks back on half of its window, in the mean.
    limits = exact_m1.limits(model, products, copying, _BITS / best.bits / 2)
    for name, limit in zip(("products", "the cache"), limits, strict=True):
        yield Row(f"limit by {name}", limit / best.computed / 1e6, "MB/s")
    share = best.encode * 1e3 * best.computed / min(limits)
    yield Row("share of the lower limit", share, at_least=0.5)
    by_document = exact_m1.windows(exact_m1.FloatModel(model, task.device), _BITS)
    first = b"".join(few)[: max(1, sizes.checked // 20)]
    seconds = task.seconds(lambda: by_document.encode_batch(ByteStrings.of([first])), 1)
    slow = len(first) / 1e3 / seconds
    yield Row("times the float model, document by document", best.encode / slow)


def _pieces(path: pathlib.Path, size: int) -> list[bytes]:
    """Texts cut to so many bytes: each is coded in a lane of its own."""
    texts = [text.encode() for text in data.texts(path)]
    return [text[at : at + size] for text in texts for at in range(0, len(text), size)]


def _coded(codec: object, pieces: Sequence[bytes], lanes: int) -> exact_m1.Row:
    """What is measured of two pieces a lane, after the first bytes of as many, which warm up."""
    some = pieces[: 2 * lanes]
    exact_m1.measured(codec, [piece[:8] for piece in some], time.perf_counter)
    return exact_m1.measured(codec, some, time.perf_counter)


def _peaks(task: Task) -> tuple[float, float]:
    """Float64 operations a second of products of matrices, and bytes a second read and written."""
    size = task.sizes.matrix
    matrix = torch.randn(size, size, dtype=torch.float64, device=task.device)
    products = 2 * size**3 / task.seconds(lambda: matrix @ matrix)
    source = torch.zeros(task.sizes.copied, dtype=torch.uint8, device=task.device)
    target = torch.empty_like(source)
    copying = 2 * len(source) / task.seconds(lambda: target.copy_(source))
    return products, copying


def loss(task: Task) -> Iterator[Row]:
    """Time and memory of a step of next tokens, compact targets and dense ones."""
    for model, vocabulary in task.sizes.losses:
        arguments = _learning(task, model, vocabulary)
        what = f"{model}, {vocabulary:,} tokens"
        objectives: Sequence[str] = ("next-token", "compact", "dense")
        times = _unless_full(lambda: step.step_seconds(arguments, objectives))  # noqa: B023
        if times is None:
            yield Row(f"{what}, dense", "out of memory")
            objectives = objectives[:2]
            times = _unless_full(lambda: step.step_seconds(arguments, objectives))  # noqa: B023
        if times is None:
            yield Row(f"{what}, compact over next-token, time", "out of memory", at_most=1.03)
            continue
        peaks = {}
        for name in objectives:
            yield Row(f"{what}, {name}", statistics.median(times[name]) * 1e3, "ms a step")
            _free()
            peaks[name] = step.peak_memory(arguments, name)
            yield Row(f"{what}, {name}, memory", peaks[name] / _GIB, "GiB")
        for name, time_goal, memory_goal in (("compact", 1.03, 1.05), ("dense", None, None)):
            if name in objectives:
                slower = step.time_ratio(times, name)
                yield Row(f"{what}, {name} over next-token, time", slower, at_most=time_goal)
                larger = peaks[name] / max(1, peaks["next-token"])
                yield Row(f"{what}, {name} over next-token, memory", larger, at_most=memory_goal)
        _free()


def _learning(task: Task, model: str, vocabulary: int) -> argparse.Namespace:
    sizes = task.sizes
    return argparse.Namespace(
        size=model,
        vocabulary=vocabulary,
        batch_size=sizes.batch_size,
        length=sizes.length,
        steps=sizes.loss_steps,
        precision=sizes.precision,
        device=task.device,
        mask_documents=False,
        threads=torch.get_num_threads(),
    )


def _unless_full(work: Callable[[], dict[str, list[float]]]) -> dict[str, list[float]] | None:
    """What work gives; None where the device has too little memory for it."""
    try:
        return work()
    except torch.OutOfMemoryError:
        pass
    # Outside the handler, which holds the frames and so what they have allocated.
    _free()
    return None


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def loader(task: Task) -> Iterator[Row]:
    """Tokens a second that the loader gives, that a model takes, and both together."""
    sizes = task.sizes
    options = DataOptions(sizes.batch_size, sizes.length)
    folder = str(task.data / "tokens")
    dataset = TokenDataset(folder, options, str(task.data / "targets"))
    batches = iter(dataset)
    next(batches)  # compiles
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < sizes.seconds:
        count += next(batches).tokens.numel()
    given = count / (time.perf_counter() - started)
    yield Row("the loader gives", given, "tokens/s")
    vocabulary = int(read_manifest(folder).tokenizer["vocabulary_size"])
    learner = step.Learner(_learning(task, sizes.fed, vocabulary))
    device = torch.device(task.device)
    batch = on_device(next(batches), device)
    fixed = functools.partial(learner.loss, batch)
    times = [learner.timed_step(fixed) for _ in range(sizes.loss_steps + 2)][2:]
    taken = batch.tokens.numel() / statistics.median(times)
    yield Row(f"{sizes.fed} takes", taken, "tokens/s")
    started, count = time.perf_counter(), 0
    for batch in itertools.islice(batches, sizes.loss_steps):
        moved = on_device(batch, device)
        learner.timed_step(functools.partial(learner.loss, moved))
        count += moved.tokens.numel()
    yield Row("both in turn", count / (time.perf_counter() - started), "tokens/s")
    yield Row("the loader over the model", given / taken, at_least=1)


def convergence(task: Task) -> Iterator[Row]:
    """Validation loss of next-token and of compact against the seconds that they take."""
    sizes, curves = task.sizes, {}
    targets = ("--objective", "compact", "--targets", task.data / "targets")
    for name, more in (("next-token", ()), ("compact", targets)):
        folder = task.scratch / name
        every = max(1, sizes.convergence_steps // 20)
        _train(task, "train", task.data / "tokens", folder, sizes.converging,
               sizes.convergence_steps, "--length", min(512, sizes.length),
               "--validate", task.data / "held-out", "--validate-every", every, *more)  # fmt: skip
        curves[name] = _curve(folder)
        seconds, loss = curves[name][-1]
        yield Row(f"{name}, validation loss", loss, "nats a token")
        yield Row(f"{name}, in all", seconds, "s")
    goal = curves["next-token"][-1][1]
    there = [seconds for seconds, loss in curves["compact"] if loss <= goal]
    what = "compact is where next-token ends after"
    yield Row(what, there[0], "s") if there else Row(what, "never")


def _curve(run: pathlib.Path) -> list[tuple[float, float]]:
    """Seconds and loss of each validation of a run."""
    lines = (line for line in read_metrics(str(run)) if "validation_loss" in line)
    return [(line["seconds"], line["validation_loss"]) for line in lines]


def _train(
    task: Task,
    command: str,
    tokens: pathlib.Path,
    output: pathlib.Path,
    model: str,
    steps: int,
    *more: object,
) -> None:
    places = ("--tokens", tokens, "--output", output, "--device", task.device)
    rate = ("--learning-rate", 0.002, "--schedule", "cosine", "--warmup", max(1, steps // 10))
    size = ("--size", model, "--steps", steps, "--batch-size", 4 * task.sizes.batch_size)
    kept = ("--checkpoint-every", steps, "--keep", 1, "--precision", task.sizes.precision)
    data.run(command, *places, *size, *rate, *kept, *more)


STEPS = {
    "machine": machine,
    "tests": tests,
    "exact": exact,
    "loss": loss,
    "loader": loader,
    "convergence": convergence,
}


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.steps", description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--scratch", type=pathlib.Path, required=True, help="for files of its own")
    parser.add_argument("--rows", type=pathlib.Path, required=True, help="where rows are added")
    arguments = parser.parse_args(argv)
    sizes = QUICK if arguments.quick else FULL
    task = Task(arguments.device, sizes, arguments.data, arguments.scratch)
    for row in STEPS[arguments.step](task):
        report.append(arguments.rows, row)


if __name__ == "__main__":
    main(sys.argv[1:])

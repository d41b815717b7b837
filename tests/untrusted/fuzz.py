"""Damaged files and extreme options, a command each: `python -m tests.untrusted.fuzz --help`.

Each case is a number: it says which file of which dataset is changed how, and which command reads
it, or which options a command is given. A case is right if the command ends by itself with an exit
code and, where it fails, with one line. What isn't right is shown, once for each place in the code,
with the number, by which it can be run again.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

SECONDS_FOR_A_CASE = 120
KIB_FOR_A_CASE = 1 << 20
TEXTS = ["the cat sat on the mat", "the dog sat on the log", "", "the cat and the dög", "猫 a b"]
NUMBERS = [
    *(0, 1, -1, 2, 255, 256, 65_536, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 63, (1 << 63) - 1),
    *(1 << 64, (1 << 64) - 1, 10**12, 1 << 70, 10**30, 10**400),
    *("", "x", "nan", "inf", "-inf", "1e999", "1e-999", "0x10", "1_0", "1.5", "\u0661", "\u00b2"),
    *("50%", "101%", "-5%", " 3", "3 ", "--", "\udcff"),
]


def make_files(folder):
    """A small one of every file that commands read."""
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    from corpusmill.commands import cli
    from corpusmill.compress import save_model
    from tests.codebooks import small_book
    from tests.compress.samples import static, tiny_transformer

    def run(*arguments):
        assert cli.main([str(each) for each in arguments]) == 0, arguments

    lines = "".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(TEXTS * 4))
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    (corpus / "a.jsonl").write_text(lines)
    (corpus / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (corpus / "c.txt").write_text("\n".join(TEXTS))
    table = pa.table({"text": TEXTS, "id": range(len(TEXTS))})
    pq.write_table(table, corpus / "d.parquet")
    with pa.ipc.new_file(corpus / "e.arrow", table.schema) as writer:
        writer.write_table(table)
    run("tokenize", "--input", corpus, "--tokenizer", "bytes", "--output", folder / "tokens")
    run("count", "--tokens", folder / "tokens", "--output", folder / "counts", "--max-order", 2)
    tables = folder / "distributions"
    run("distributions", "--counts", folder / "counts", "--output", tables)
    inputs = ["--tokens", folder / "tokens", "--counts", folder / "counts"]
    run("enrich", *inputs, "--head", 2, "--tail-draws", 2, "--output", folder / "targets")
    small_book(9).write(str(folder / "codebook" / "a.codebook"))
    save_model(static(), str(folder / "static"))
    save_model(tiny_transformer(8), str(folder / "transformer"))
    codecs = {
        "codebook": ["--codebook", folder / "codebook" / "a.codebook"],
        "equal-info": ["--byte-model", "ngram", "--byte-counts", folder / "counts"],
        "ac": ["--byte-model", folder / "transformer"],
    }
    for name, options in codecs.items():
        wanted = ["--input", corpus, "--codec", name, *options]
        run("compress", *wanted, "--output", folder / f"small-{name}")
    examples = ["--input", corpus, "--codec", "bytes", "--piece-bytes", 64, "--max-ids", 16]
    run("examples", *examples, "--output", folder / "examples")
    run("train", "--tokens", folder / "tokens", *SMALL_RUN, "--output", folder / "run")
    unfinished = folder / "unfinished"
    run("tokenize", "--input", corpus, "--tokenizer", "bytes", "--output", unfinished)
    # As if it had been killed just before its end.
    manifest = json.loads((unfinished / "manifest.json").read_text())
    incomplete = unfinished / "_incomplete" / "done"
    incomplete.mkdir(parents=True)
    names = ("kind", "config", "format_version", "corpusmill_version")
    job = {name: manifest[name] for name in names}
    (unfinished / "_incomplete" / "job.json").write_text(json.dumps(job))
    for record in manifest["files"][:2]:
        part = {"files": [record], "counters": manifest["counters"]}
        name = record["name"].replace("/", "-")
        (incomplete / f"{name}.json").write_text(json.dumps(part))
    (unfinished / "manifest.json").unlink()


SMALL_RUN = [
    *("--size", "500k", "--batch-size", "2", "--length", "16", "--warmup", "1"),
    *("--steps", "2", "--checkpoint-every", "1", "--device", "cpu"),
]


def readers(folder, output):
    """What reads the files below a folder: (their folder, command, standard input)."""
    at = {path.name: str(path) for path in folder.iterdir()}
    book = str(folder / "codebook" / "a.codebook")
    small = {name: at[f"small-{name}"] for name in ("codebook", "equal-info", "ac")}
    pairs = ["--tokens", at["tokens"], "--counts", at["counts"]]
    train = ["train", *SMALL_RUN[:-6], "--steps", "3", "--device", "cpu"]
    yield "corpus", ["tokenize", "--input", at["corpus"], "--tokenizer", "bytes", *output], ""
    yield "tokens", ["verify", at["tokens"]], ""
    yield "tokens", ["count", "--tokens", at["tokens"], *output], ""
    yield "tokens", ["measure", at["tokens"]], ""
    yield "tokens", [*train, "--tokens", at["tokens"], *output], ""
    yield "tokens", ["enrich", *pairs, *output], ""
    yield "counts", ["verify", at["counts"]], ""
    yield "counts", ["distributions", "--counts", at["counts"], *output], ""
    yield "counts", ["merge", "--counts", at["counts"], "--counts", at["counts"], *output], ""
    yield "counts", ["enrich", *pairs, *output], ""
    yield "distributions", ["query", at["distributions"], "the "], ""
    yield "distributions", ["query", at["distributions"], "ca"], ""
    yield "distributions", ["verify", at["distributions"]], ""
    yield "targets", ["verify", at["targets"]], ""
    target = ["--targets", at["targets"], "--objective", "compact"]
    yield "targets", [*train, "--tokens", at["tokens"], *target, *output], ""
    yield "codebook", ["compress", "--stdin", "--codebook", book], "the cat \udcff"
    yield "codebook", ["decompress", "--stdin", "--codebook", book], "\0\1\0\2"
    # As the input of a command that takes it.
    yield (
        "static",
        ["compress", "--stdin", "--codec", "equal-info", "--byte-model", at["static"]],
        "a b",
    )
    network = ["compress", "--stdin", "--codec", "ac", "--byte-model", at["transformer"]]
    yield "transformer", network, "a cat"
    for name, place in small.items():
        yield f"small-{name}", ["decompress", "--compressed", place, *output], ""
        yield f"small-{name}", ["verify", place], ""
        yield f"small-{name}", ["measure", place], ""
    yield "examples", ["verify", at["examples"]], ""
    examples = ["--tokens", at["examples"], "--length", "16", *output]
    yield "examples", [*train, *examples], ""
    yield "run", ["evaluate", "--run", at["run"], "--tokens", at["tokens"], "--device", "cpu"], ""
    yield "run", ["report", at["run"], *output], ""
    yield "run", [*train, "--tokens", at["tokens"], "--output", at["run"]], ""
    every = [at[name] for name in ("tokens", "counts", "distributions", "targets", "run")]
    for place in every[:4]:
        yield Path(place).name, ["report", place, *output], ""
    again = ["tokenize", "--input", at["corpus"], "--tokenizer", "bytes"]
    yield "unfinished", [*again, "--output", at["unfinished"]], ""


def damage(path, source, others):
    """Changes a file; says how."""
    data = path.read_bytes()
    ways = ["flip", "flips", "cut", "empty", "zeros", "remove", "other", "insert"]
    if path.suffix in (".json", ".jsonl"):
        ways += ["structure"] * 12
    how = source.choice(ways)
    changed = bytearray(data)
    match how:
        case "flip" | "flips":
            for _ in range(1 if how == "flip" else 20):
                if data:
                    changed[source.randrange(len(data))] ^= 1 << source.randrange(8)
        case "cut":
            del changed[source.randrange(len(data) + 1) :]
        case "empty":
            changed.clear()
        case "zeros":
            at = source.randrange(len(data) + 1)
            changed[at:] = bytes(len(data) - at)
        case "insert":
            at = source.randrange(len(data) + 1)
            changed[at:at] = source.randbytes(source.choice([1, 8, 100]))
        case "other":
            changed[:] = source.choice(others).read_bytes()
        case "structure":
            changed[:] = _restructured(path, data, source)
    path.unlink()
    if how != "remove":
        path.write_bytes(changed)
    return how


def _restructured(path, data, source):
    """JSON in which a value is another one or gone; a manifest's own hash fits again."""
    lines = data.splitlines() if path.suffix == ".jsonl" else [data]
    number = source.randrange(len(lines))
    value = json.loads(lines[number])
    places = list(_places(value))
    holder, key = source.choice(places)
    new = source.choice(
        [None, "", "x", [], {}, True, -1, 1e300, 0.5, *NUMBERS[:18], [[]], {"a": 1}]
    )
    if source.randrange(3) == 0:
        del holder[key]
    else:
        holder[key] = new
    if path.name == "manifest.json":
        from corpusmill.corpus.datasets import FileRecord, Manifest

        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            fields = {name: each for name, each in value.items() if name != "content_hash"}
            files = tuple(FileRecord(**file) for file in fields["files"])
            value["content_hash"] = Manifest(**fields | {"files": files}).content_hash
    lines[number] = json.dumps(value).encode()
    return b"\n".join(lines)


def _places(value):
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(entries):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def with_odd_option(folder, output, source):
    """A command line one of whose options has an odd value."""
    at = {path.name: str(path) for path in folder.iterdir()}
    book = str(folder / "codebook" / "a.codebook")
    model = ["--byte-model", "ngram", "--byte-counts", at["counts"]]
    documents = ["--input", at["corpus"]]
    commands = [
        (["tokenize", *documents, "--tokenizer", "bytes", *output], ["--max-bad-records"]),
        (["tokenize", *documents, "--tokenizer", "bytes", *output], ["--shard-mib", "--workers"]),
        (["tokenize", *documents, "--tokenizer", "bytes", *output], ["--max-document-mib"]),
        (
            ["count", "--tokens", at["tokens"], *output, "--dry-run"],
            ["--max-order", "--run-tokens", "--partition-mib", "--workers"],
        ),
        (
            ["distributions", "--counts", at["counts"], *output],
            ["--top-k", "--min-count"],
        ),
        (
            ["enrich", "--tokens", at["tokens"], "--counts", at["counts"], *output, "--dry-run"],
            [
                *("--head", "--tail-draws", "--max-order"),
                *("--min-order", "--min-count", "--table-mib"),
            ],
        ),
        (
            ["enrich", "--tokens", at["tokens"], "--counts", at["counts"], *output],
            ["--min-count", "--seed", "--table-mib", "--max-order"],
        ),
        (
            ["freeze", "--byte-counts", at["counts"], *output, "--dry-run"],
            ["--window-bits", "--tokens", "--byte-counts", "--byte-model"],
        ),
        (["compress", *documents, "--codebook", book, *output], ["--parse", "--codebook"]),
        (
            ["compress", *documents, "--codec", "equal-info", *model, *output],
            ["--window-bits", "--reset", "--padding", "--token-bits", "--byte-model"],
        ),
        (["decompress", "--compressed", at["small-ac"], *output], ["--device", "--workers"]),
        (["measure", at["tokens"]], ["--sample-mib"]),
        (
            ["examples", *documents, "--codec", "bytes", *output],
            ["--group", "--piece-bytes", "--max-ids", "--seed"],
        ),
        (
            ["merge", "--counts", at["counts"], "--counts", at["counts"], *output, "--dry-run"],
            ["--partition-mib"],
        ),
        (["query", at["distributions"]], ["--ids", ""]),
        (
            ["train", "--tokens", at["tokens"], *SMALL_RUN, *output],
            [
                *("--length", "--mix", "--seed", "--learning-rate", "--clip", "--keep", "--z-loss"),
                *(
                    "--validate-every",
                    "--checkpoint-every",
                    "--warmup",
                    "--batch-size",
                    "--loader-workers",
                ),
            ],
        ),
        (
            ["train-m1", "--tokens", at["tokens"], *SMALL_RUN, *output],
            ["--length", "--seed", "--learning-rate", "--clip", "--batch-size", "--starts"],
        ),
        (
            ["evaluate", "--run", at["run"], "--tokens", at["tokens"], "--device", "cpu"],
            ["--batch-size", "--length", "--loader-workers"],
        ),
        (["plan", *documents, "--tokenizer", "bytes"], []),
        (["report", at["tokens"], *output], [""]),
        (["verify"], [""]),
    ]
    command, options = source.choice(commands)
    options = options or ["--workers", "--sample-mib", "--max-order"]
    option = source.choice(options)
    value = str(source.choice(NUMBERS)) if source.randrange(8) else source.choice(LARGE)
    # Work that would take for ever is no fault.
    if (
        option in ("--accumulate", "--batch-size", "--loader-workers", "--workers")
        and value.isdecimal()
    ):
        value = source.choice(["0", "3", str(10**30), str(1 << 64)])
    return [*command, *([f"{option}={value}"] if option else [value])]


LARGE = ["9" * 5000, "a" * 100_000, "\ud800", "\n", "é"]


def prepare(number, files, place):
    """The files of a case, changed, in a folder; its command, standard input, and what was done."""
    source = random.Random(number)
    folder = place / "files"
    output = ["--output", str(place / "output")]
    shutil.copytree(files, folder)
    if number % 7 == 0:
        command = with_odd_option(folder, output, source)
        return command, "", "options"
    kinds = collections.defaultdict(list)
    for kind, *reader in readers(folder, output):
        kinds[kind].append(reader)
    kind = source.choice(sorted(kinds))
    command, given = source.choice(kinds[kind])
    paths = sorted(path for path in (folder / kind).rglob("*") if path.is_file())
    path = source.choice(paths)
    others = sorted(path for path in folder.rglob("*") if path.is_file())
    how = damage(path, source, others)
    return command, given, f"{how} {path.relative_to(folder)}"


def run_case(number, files):
    """What is wrong with a case: (a short name, all there is to know); None where nothing is."""
    from corpusmill.commands import cli

    tempfile.tempdir = None
    with tempfile.TemporaryDirectory() as folder:
        # Tables for look-ups are kept there.
        os.environ["TMPDIR"] = folder
        tempfile.tempdir = None
        command, given, what = prepare(number, files, Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        out, err = (io.TextIOWrapper(io.BytesIO(), errors="surrogateescape") for _ in "oe")
        stdin = io.TextIOWrapper(io.BytesIO(given.encode(errors="surrogateescape")))
        frames = []

        def remember(error):
            frames.extend(traceback.extract_tb(error.__traceback__))
            return "".join(traceback.format_exception(error))

        seen = []
        original = traceback.print_exception
        traceback.print_exception = lambda error: seen.append(remember(error))
        argv = sys.argv
        sys.stdin = stdin
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    code = cli.main(command)
                except SystemExit as error:
                    code = error.code
        finally:
            traceback.print_exception, sys.argv, sys.stdin = original, argv, sys.__stdin__
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        err.flush()
        said = err.buffer.getvalue().decode(errors="replace")
    shown = " ".join(each[:300] for each in command).replace(folder, "")
    about = f"case {number}: {what}\n  {shown!r}\n"
    if seen:
        ours = [
            f for f in frames if "site-packages" not in f.filename and "/lib/" not in f.filename
        ]
        place = ours[-1] if ours else frames[-1]
        last = seen[0].strip().splitlines()[-1][:200]
        return f"{place.filename}:{place.lineno} {last[:60]}", about + seen[0][-3000:]
    if code not in (0, 1, 2) or (code and not said.strip()):
        return f"exit code {code}", about + said
    failures = [line for line in said.splitlines() if line.startswith("corpusmill: error:")]
    if code and (len(failures) != 1 or not said.rstrip().endswith(failures[0])):
        return f"more than a line: {said.splitlines()[-1][:50]}", about + said
    if more > KIB_FOR_A_CASE:
        return f"memory in {command[0]}", about + f"{more >> 10} MiB"
    return None


def work(files, first, step, last):
    """Runs cases, a line of JSON for each, on the standard output that there was."""
    tell = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    number = first
    while last is None or number < last:
        print(json.dumps([number, None]), file=tell, flush=True)
        print(json.dumps([number, run_case(number, files) or []]), file=tell, flush=True)
        number += step


def fuzz(first, seconds, cases=None, report=print):
    """Runs cases from `first` on, until the time is over; gives findings by their names.

    Args:
      first: the number of the first case.
      seconds: when to end; a case that has begun is ended.
      cases: how many at most.
      report: is told of each finding.
    """
    findings = {}
    counts = collections.Counter()
    last = None if cases is None else first + cases
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        files = Path(folder) / "files"
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make_files(files)
        until = time.monotonic() + seconds
        number = first
        while time.monotonic() < until and (last is None or number < last):
            command = [sys.executable, "-m", "tests.untrusted.fuzz", "--work", str(files)]
            command += ["--seed", str(number), "--last", str(-1 if last is None else last)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            for number, found in _lines(process, until):
                if found is None:
                    continue
                counts[number % 7 == 0] += 1
                if found and found[0] not in findings:
                    findings[found[0]] = found[1]
                    report(found[1], flush=True)
            process.kill()
            code = process.wait()
            ended = time.monotonic() >= until or (last is not None and number >= last - 1)
            if not ended or code not in (0, -9):
                name = f"case {number} ended the process: {code}"
                findings[name] = name
                report(name, flush=True)
            number += 1
    report(f"{counts[False]} damaged files and {counts[True]} command lines; {len(findings)} found")
    return findings


def _lines(process, until):
    """What a process tells, until it has said nothing for too long or the time is over."""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], SECONDS_FOR_A_CASE)
        line = process.stdout.readline() if ready else ""
        if not line:
            return
        number, found = json.loads(line)
        if found is None and time.monotonic() >= until:
            return
        yield number, found


def main():
    parser = argparse.ArgumentParser("python -m tests.untrusted.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first case's number")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, help="at most so many")
    parser.add_argument("--work", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--last", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        last = None if arguments.last < 0 else arguments.last
        work(Path(arguments.work), arguments.seed, 1, last)
    elif fuzz(arguments.seed, arguments.seconds, arguments.cases):
        sys.exit(1)


if __name__ == "__main__":
    main()

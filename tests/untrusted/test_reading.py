"""Files whose fields lie under a hash that fits: an error or the right answer, nothing worse."""

import hashlib
import json
import random
import shutil
import struct
import subprocess
import sys
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.compress import save_model
from corpusmill.compress.byte_models import NgramModel
from corpusmill.compress.codebooks.checks import check_columns
from corpusmill.compress.codebooks.codebook import _SLACK, Codebook, _sections
from corpusmill.corpus.datasets import Completion, DatasetWriter
from corpusmill.corpus.errors import DataError
from corpusmill.ngram_agg import (
    DistributionOptions,
    count_ngrams,
    open_distributions,
    scan_distributions,
)
from corpusmill.ngram_agg import tables as distribution_tables
from corpusmill.ngram_agg.counts_files import spill_runs, write_counts
from corpusmill.ngram_agg.counts_runs import CountsRun
from corpusmill.ngram_agg.distributions import distribution_row
from corpusmill.ngram_agg.full_tables import FullTable
from tests.codebooks import small_book, small_used_book
from tests.compress.samples import ngram
from tests.untrusted.reading import PACKING

# The largest and the smallest numbers, and those near what was there.
CHANGES = [
    lambda value, bits: value ^ 1,
    lambda value, bits: value ^ (1 << (bits - 1)),
    lambda value, bits: value + 1,
    lambda value, bits: value - 1,
    lambda value, bits: 0,
    lambda value, bits: (1 << bits) - 1,
    lambda value, bits: (1 << (bits - 1)) - 1,
    lambda value, bits: value << 8,
    lambda value, bits: random.getrandbits(bits),
]


def outcomes(kind, paths):
    """What each path after the first, which is whole, leads to."""
    command = [sys.executable, "-m", "tests.untrusted.reading", kind, *map(str, paths)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths) - 1
    return [line.partition(": ")[2] for line in lines]


def changed(array, source):
    """A copy of an array of whole numbers in which a few are others."""
    array = np.array(array)
    words = array.view(f"u{array.itemsize}")
    if not len(words):
        return array
    places = source.choice(["one", "some", "all"])
    bits = 8 * array.itemsize
    change = source.choice(CHANGES)
    count = {"one": 1, "some": min(5, len(words)), "all": len(words)}[places]
    for place in source.sample(range(len(words)), count):
        words[place] = change(int(words[place]), bits) % (1 << bits)
    return array


def with_right_hash(data):
    digest = hashlib.sha256(bytes(data[:40]) + bytes(data[72:])).digest()
    return bytes(data[:40]) + digest + bytes(data[72:])


@pytest.mark.parametrize("make", [partial(small_book, 9), partial(small_book, 12), small_used_book])
def test_codebooks(tmp_path, make):
    source = random.Random(9)
    good = tmp_path / "good.codebook"
    make().write(str(good))
    whole = good.read_bytes()
    sections = _sections(*struct.unpack_from("<IIIIQQ", whole, 8))
    paths = [good]
    for number in range(150):
        data = bytearray(whole)
        if number % 5 == 0:
            width, at = source.choice([("<I", 12), ("<I", 16), ("<I", 20), ("<Q", 24), ("<Q", 32)])
            [value] = struct.unpack_from(width, whole, at)
            bits = 8 * struct.calcsize(width)
            struct.pack_into(width, data, at, source.choice(CHANGES)(value, bits) % (1 << bits))
        else:
            dtype, begin, count = sections[source.choice(sorted(sections))]
            column = np.frombuffer(whole, dtype, count, begin)
            replaced = changed(column, source).tobytes()
            data[begin : begin + len(replaced)] = replaced
        paths.append(tmp_path / f"{number}.codebook")
        paths[-1].write_bytes(with_right_hash(data))
    found = outcomes("codebook", paths)
    assert sum(each.startswith("DataError") for each in found) > 80


def test_codebooks_that_lay_waste(tmp_path):
    """Those that decoded beyond their array, encoded beyond it, and took gigabytes to open."""
    good = tmp_path / "good.codebook"
    small_book().write(str(good))
    whole = good.read_bytes()
    sections = _sections(*struct.unpack_from("<IIIIQQ", whole, 8))
    _, slots, number = sections["slots"]
    every_slot = {slots + 4 * i + 1: b"\xff\xff\xff" for i in range(number)}
    faults = {
        "decode": {sections["blocks"][1] + 8: struct.pack("<Q", 400_000)},
        "encode": every_slot,
        "window-bits": {12: struct.pack("<I", 0xFFFFFFF0)},
    }
    paths = [good, *(_with(faults[name], whole, tmp_path / name) for name in faults)]
    assert all(each.startswith("DataError") for each in outcomes("codebook", paths))


def test_marks_of_strings_that_are_other_numbers(tmp_path):
    """Walks that left the trie never ended; one of 129 lost text."""
    good = tmp_path / "good.codebook"
    small_used_book().write(str(good))
    whole = good.read_bytes()
    dtype, begin, count = _sections(*struct.unpack_from("<IIIIQQ", whole, 8))["ends"]
    ends = np.frombuffer(whole, dtype, count, begin)
    marked = np.flatnonzero(ends)
    faults = {
        "2": {begin: (2 * ends).tobytes()},
        "4": {begin: (4 * ends).tobytes()},
        "129": {begin + int(marked[-1]): b"\x81"},
    }
    paths = [good, *(_with(faults[name], whole, tmp_path / name) for name in faults)]
    assert all(each.startswith("DataError") for each in outcomes("codebook", paths))


def test_a_trie_without_room_for_its_first_bytes():
    columns = dict(small_book().columns)
    for name in ("slots", "low_codes"):
        columns[name] = np.zeros(256, columns[name].dtype)
    with pytest.raises(DataError, match="a step leads out"):
        check_columns(columns, _SLACK)


def _with(fault, whole, path):
    """Writes a codebook with other bytes at some places, and a hash that fits."""
    data = bytearray(whole)
    for place, new in fault.items():
        data[place : place + len(new)] = new
    path.write_bytes(with_right_hash(data))
    return path


def _save_with_right_hash(folder, columns, fields, good):
    shutil.copytree(good, folder)
    model = NgramModel(FullTable(ngram().table.packing, columns), fields["precision"])
    for name, column in columns.items():
        np.save(folder / f"{name}.npy", column)
    (folder / "model.json").write_text(json.dumps(fields | {"content_hash": model.content_hash}))


def test_saved_models(tmp_path):
    source = random.Random(1)
    good = tmp_path / "good"
    model = ngram()
    save_model(model, str(good))
    fields = json.loads((good / "model.json").read_bytes())
    columns = {name: np.array(column) for name, column in model.table.columns.items()}
    slots = columns["slots"]
    used = slots != np.uint64(0xFFFFFFFFFFFFFFFF)
    faults = {
        "one row": np.where(used & (np.arange(len(slots)) % 2 == 0), slots[used][0], slots),
        "no empty slot": np.where(used, slots, slots[used][0]),
        "out of range": np.where(used, np.uint64(1 << 60), slots),
        "all empty": np.full_like(slots, 0xFFFFFFFFFFFFFFFF),
        "half as many": slots[: len(slots) // 2],
    }
    paths = [good]
    for name, fault in faults.items():
        paths.append(tmp_path / name)
        _save_with_right_hash(paths[-1], columns | {"slots": fault}, fields, good)
    for number in range(120):
        name = source.choice(sorted(columns))
        paths.append(tmp_path / str(number))
        other = columns | {name: changed(columns[name], source)}
        _save_with_right_hash(paths[-1], other, fields, good)
    found = outcomes("model", paths)
    assert all(each.startswith("DataError") for each in found[: len(faults)])


@pytest.fixture
def corpus():
    rng = np.random.default_rng(5)
    tokens = np.minimum(rng.zipf(1.5, 3000), 298).astype(np.uint16)
    tokens[-1] = 299
    return count_ngrams(tokens, max_order=2, vocabulary_size=300, end_of_document=299)


def test_tables_for_look_ups(tmp_path, corpus):
    source = random.Random(2)
    options = DistributionOptions(4, 1)
    writer = DatasetWriter(str(tmp_path / "distributions"), "distributions", {})
    writer.begin()
    records = []
    orders = [distribution_row(corpus.shortened(1), options)]
    for order, rows in enumerate(orders + next(scan_distributions([corpus], options))):
        with writer.new_file(f"order={order}/part-00000-of-00001.parquet") as file:
            with distribution_tables.open_writer(file.path, corpus.packing, order) as output:
                output.write(distribution_tables.rows_to_batch(corpus.packing, order, rows))
            file.rows, file.tokens = output.rows, int(rows.total.sum())
        records.append(file.written)
    writer.complete("all", Completion(tuple(records), {}))
    tokenizer = {"vocabulary_size": 300, "end_of_document": 299}
    properties = {"max_order": 2, "min_count": 1}
    completions = writer.completed(["all"])
    writer.finish(completions, inputs={}, tokenizer=tokenizer, properties=properties)
    good = tmp_path / "good"
    table = open_distributions(str(tmp_path / "distributions")).load(2, str(good))
    paths = [good]
    for number in range(100):
        paths.append(tmp_path / str(number))
        shutil.copytree(good, paths[-1])
        name = source.choice(sorted(table.columns))
        [path] = paths[-1].rglob(f"{name}.npy")
        if number % 4:
            np.save(path, changed(table.columns[name], source))
        else:
            data = bytearray(path.read_bytes())
            # The header, which says type and length.
            data[source.randrange(128)] = source.randrange(256)
            path.write_bytes(data)
    outcomes("table", paths)


def test_counts_runs(tmp_path, corpus):
    source = random.Random(3)
    paths = [tmp_path / "good"]
    write_counts(str(paths[0]), corpus.packing, [corpus])
    schema = pq.read_schema(paths[0])
    for number in range(120):
        columns = [*corpus.columns(), corpus.counts]
        place = source.randrange(len(columns))
        columns[place] = changed(columns[place], source)
        paths.append(tmp_path / str(number))
        table = pa.table(columns, schema=schema)
        pq.write_table(table, paths[-1], row_group_size=source.choice([300, 5000]))
        if number % 6 == 0:
            _flip(paths[-1], source)
    outcomes("counts", paths)


def test_spilled_runs(tmp_path, corpus):
    source = random.Random(4)
    paths = [tmp_path / "good.arrow"]
    spill_runs(str(paths[0]), PACKING, [corpus])
    for number in range(120):
        columns = [corpus.high, corpus.low, corpus.counts]
        place = source.randrange(len(columns))
        columns[place] = changed(columns[place], source)
        paths.append(tmp_path / f"{number}.arrow")
        spill_runs(str(paths[-1]), PACKING, [CountsRun(PACKING, *columns)])
        if number % 2 == 0:
            _flip(paths[-1], source)
    outcomes("spilled", paths)


def _flip(path, source):
    data = bytearray(path.read_bytes())
    for _ in range(source.choice([1, 3])):
        # Schemas and footers, as often as what they describe.
        place = source.randrange(source.choice([0, len(data) - 600]), len(data))
        data[place] = source.randrange(256)
    path.write_bytes(data)


def test_codebook_of_a_foreign_trie_decodes_and_does_not_encode(tmp_path):
    book = small_book()
    slots = np.array(book.columns["slots"])
    slots[256:512] = 0
    other = Codebook(book.window_bits, book.made_of, {**book.columns, "slots": slots})
    other.write(str(tmp_path / "a.codebook"))
    assert outcomes("codebook", [_good(tmp_path), tmp_path / "a.codebook"])[0].startswith(
        "DataError: the codebook is damaged: its trie"
    )


def _good(folder):
    small_book().write(str(folder / "good.codebook"))
    return folder / "good.codebook"

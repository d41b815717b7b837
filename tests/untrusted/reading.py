"""Reads files that lie, in a process of its own: `python -m tests.untrusted.reading KIND PATH ...`.

For each path one line: what was raised on purpose, or that all answers were right. Anything else
ends the process, by an exception or a signal. Answers are compared with slow readers of the same
bytes.
"""

import resource
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpusmill.compress.byte_models import open_model
from corpusmill.compress.byte_strings import ByteStrings
from corpusmill.compress.codebooks.codebook import PARSES, Codebook
from corpusmill.compress.codecs import ArithmeticCodec
from corpusmill.corpus.errors import CorpusmillError
from corpusmill.ngram_agg.counts_files import read_counts, read_spilled
from corpusmill.ngram_agg.merging import merge_streams
from corpusmill.ngram_agg.packing import Packing
from corpusmill.ngram_agg.tables import open_distributions
from tests.compress.test_byte_models import blended, quantized

DATA = [
    b"the cat sat on the mat, and the dog sat on the log",
    "thé à la crème, 猫は好きです。".encode(),
    bytes(range(256)),
    bytes(300),
    b"",
]
PACKING = Packing(3, 300, 299)
UNIT = 1 << 32


def read_codebook(path):
    book = Codebook.open(path)
    begins = book.columns["begins"].tolist()
    blocks = book.columns["blocks"].tolist()
    pool = book.columns["pool"].tobytes()

    def string(code):
        first, last = (blocks[i // 64] + begins[i] for i in (code, code + 1))
        return pool[first:last]

    ids = np.random.default_rng(0).integers(0, book.vocab_size, 200)
    assert book.decode(ids) == b"".join(map(string, ids.tolist()))
    for parse in PARSES:
        for data in DATA:
            assert book.decode(book.encode(data, parse)) == data


def read_model(path):
    model = open_model(path)
    columns = {name: column.tolist() for name, column in model.table.columns.items()}
    keys = [h << 64 | k for h, k in zip(columns["high"], columns["low"], strict=True)]
    rows = {key: row for row, key in enumerate(keys)}
    for prefix in (b"", b"t", b"the", b"cat sat on the", b"\xe7\x8c", b"zzz"):
        probabilities = [1 << 24] * 256
        for order in range(min(len(prefix), model.context_bytes) + 1):
            tokens = [*reversed(prefix[len(prefix) - order :])]
            tokens += [256] * (model.context_bytes - order) + [0]
            row = rows.get(int("".join(f"{token:09b}" for token in tokens), 2))
            if row is None:
                break
            first, last = columns["offsets"][row : row + 2]
            sums = [0, *columns["cumulative"][first:last]]
            counts = np.diff(np.array(sums, object)).tolist()
            found = zip(columns["tokens"][first:last], counts, strict=True)
            probabilities = _blended(
                probabilities, {token: count for token, count in found if token < 256}
            )
        found = model.frequencies(ByteStrings.of([prefix]))[0].tolist()
        assert found == quantized(probabilities, model.precision)
    codec = ArithmeticCodec(model)
    documents = ByteStrings.of(DATA)
    assert list(codec.decode_batch(*codec.encode_batch(documents))) == DATA


def _blended(probabilities, counts):
    shift = 0
    while sum(counts.values()) >> shift >= 1 << 31:
        shift += 1
    return blended(probabilities, {byte: count >> shift for byte, count in counts.items()})


def read_table(path):
    """`path` is a cache, beside `distributions`, of which it has order 2."""
    table = open_distributions(f"{path}/../distributions").load(2, path)
    columns = table.columns
    keys = zip(columns["high"].tolist(), columns["low"].tolist(), strict=True)
    rows = {high << 64 | low: row for row, (high, low) in enumerate(keys)}
    bits = table.packing.token_bits
    contexts = [(a, b) for a in range(40) for b in range(40)]
    found = table.find(contexts).tolist()
    assert found == [rows.get(a << bits | b, -1) for a, b in contexts]
    for row in range(len(table)):
        first, last = columns["offsets"][row : row + 2].tolist()
        assert len(table.distribution(row).next_tokens) == last - first


def read_counts_file(path):
    found = _merged(read_counts, path)
    with pq.ParquetFile(path) as file:
        *tokens, counts = (column.to_pylist() for column in file.read().columns)
    rows = zip(*tokens, strict=True)
    assert found == {row: 2 * n % (1 << 64) for row, n in zip(rows, counts, strict=True)}


def read_spilled_file(path):
    found = _merged(read_spilled, path)
    list(read_spilled(path, PACKING, (0, 1 << 20), (0, 1 << 24)))
    bits = PACKING.token_bits
    wanted = {}
    with pa.ipc.open_file(path) as file:
        for number in range(file.num_record_batches - 1):
            columns = (column.to_pylist() for column in file.get_batch(number).columns)
            for high, low, count in zip(*columns, strict=True):
                key = high << 64 | low
                tokens = (key >> (bits * (2 - i)) & (1 << bits) - 1 for i in range(3))
                wanted[tuple(tokens)] = 2 * count % (1 << 64)
    assert found == wanted


def _merged(read, path):
    """What is read merged with itself: n-gram -> count."""
    found = {}
    for run in merge_streams([read(path, PACKING), read(path, PACKING)]):
        rows = zip(*(column.tolist() for column in run.columns()), strict=True)
        found |= dict(zip(rows, run.counts.tolist(), strict=True))
    return found


KINDS = {
    "codebook": read_codebook,
    "model": read_model,
    "table": read_table,
    "counts": read_counts_file,
    "spilled": read_spilled_file,
}


def main(kind, paths):
    read = KINDS[kind]
    # What was good before: all that is compiled and imported is in memory.
    read(paths[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in paths[1:]:
        try:
            read(path)
            found = "right"
        except CorpusmillError as error:
            found = f"{type(error).__name__}: {error}"
        print(f"{path}: {found}")
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert more < 1 << 20, f"{path} took {more} KiB"
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

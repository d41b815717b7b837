"""Decoders of compressed datasets, written from docs/formats.md and the pages that it names alone.

They import nothing of the product, are slow, and say what the documentation means.
"""

import heapq
import json
import math
import zlib
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
import safetensors.numpy

UNIT = 1 << 32


def documents(folder):
    """The documents of a compressed dataset, as bytes."""
    decode = _decoder(folder / "tokenizer")
    found = []
    ids = []
    for path in sorted(folder.glob("part-*.parquet")):
        for row in pq.ParquetFile(path).read().to_pylist():
            ids += row["tokens"]
            if row["byte_length"] or not row["tokens"]:
                found.append(decode(ids))
                ids = []
    return found


def _decoder(folder):
    marker = json.loads((folder / "corpusmill.json").read_text())
    match marker["kind"]:
        case "codebook":
            strings = codebook(folder / "tokenizer.codebook")
            return lambda ids: b"".join(strings[i] for i in _codes_of_halves(ids, marker))
        case "equal-info":
            model = open_model(folder)
            window = _padded_window if "padding" in marker else None
            return lambda ids: _windows(model, marker, ids, window)
        case "ac" | "static-ac":
            model = open_model(folder)
            return lambda ids: _arithmetic(model, marker["token_bits"], ids)
        case "bytes":
            return bytes
        case "gzip":
            return lambda ids: zlib.decompress(bytes(ids), wbits=31) if ids else b""
        case "subword":
            tokenizer = json.loads((folder / "tokenizer.json").read_text())
            # A vocabulary of whole words: what an id is, is the tokenizer's own business.
            words = {number: word for word, number in tokenizer["model"]["vocab"].items()}
            return lambda ids: "".join(words[i] for i in ids).encode()
    raise ValueError(marker["kind"])


def _codes_of_halves(ids, marker):
    if marker["token_bits"] != 8:
        return ids
    return [256 * high + low for high, low in zip(ids[::2], ids[1::2], strict=True)]


def codebook(path):
    """The strings of a codebook, by their codes."""
    data = path.read_bytes()

    def number(place, size):
        return int.from_bytes(data[place : place + size], "little")

    assert data[:8] == b"\x89CMBOOK\n"
    assert number(8, 4) in (1, 2)
    n, width, description = 1 << number(12, 4), number(16, 4), number(20, 4)

    def next_multiple(place):
        return -(-place // 64) * 64

    blocks = next_multiple(72 + description)
    begins = next_multiple(blocks + 8 * (n // 64 + 1))
    pool = next_multiple(begins + width * (n + 1))

    def begin(i):
        return number(blocks + 8 * (i // 64), 8) + number(begins + width * i, width)

    return [data[pool + begin(i) : pool + begin(i + 1)] for i in range(n)]


def open_model(folder):
    """A function: the 256 frequencies after some bytes; and their precision."""
    about = json.loads((folder / "model.json").read_text())
    make = {"static": _static, "ngram": _ngram, "transformer": _transformer}[about["kind"]]
    probabilities = make(folder, about)
    remembered = {}

    def frequencies(text):
        if text not in remembered:
            remembered[text] = _quantize(probabilities(text), about["precision"])
        return remembered[text]

    return frequencies, about["precision"]


def _quantize(probabilities, precision):
    total = 1 << precision
    found = [1 + (p * (total - 256) >> 32) for p in probabilities]
    found[probabilities.index(max(probabilities))] += total - sum(found)
    return found


def _blend(probabilities, counts):
    """`counts` without the end of documents."""
    if not counts:
        return probabilities
    shift = 0
    while sum(counts.values()) >> shift >= 1 << 31:
        shift += 1
    n = {byte: count >> shift for byte, count in counts.items()}
    divisor = sum(n.values()) + len(n)
    kept = UNIT * len(n) // divisor
    return [(p * kept >> 32) + UNIT * n.get(b, 0) // divisor for b, p in enumerate(probabilities)]


def _static(folder, _):
    counts = np.load(folder / "counts.npy").tolist()
    found = _blend([1 << 24] * 256, {byte: n for byte, n in enumerate(counts) if n})
    return lambda _: found


def _ngram(folder, about):
    longest = about["context_bytes"]
    names = ("high", "low", "offsets", "tokens", "cumulative")
    columns = {name: np.load(folder / f"{name}.npy").tolist() for name in names}
    keys = zip(columns["high"], columns["low"], strict=True)
    rows = {high << 64 | low: i for i, (high, low) in enumerate(keys)}

    def probabilities(text):
        found = [1 << 24] * 256
        for order in range(min(len(text), longest) + 1):
            places = [*reversed(text[len(text) - order :]), *[256] * (longest - order), 0]
            key = 0
            for place in places:
                key = key << 9 | place
            if key not in rows:
                break
            first, last = columns["offsets"][rows[key] : rows[key] + 2]
            counts = {}
            before = 0
            for entry in range(first, last):
                if columns["tokens"][entry] < 256:
                    counts[columns["tokens"][entry]] = columns["cumulative"][entry] - before
                before = columns["cumulative"][entry]
            found = _blend(found, counts)
        return found

    return probabilities


def _transformer(folder, _):
    tensors = safetensors.numpy.load_file(folder / "weights.safetensors")
    tensors = {name: tensor.astype(np.int64) for name, tensor in tensors.items()}
    cosines, sines = tensors["cosines"], tensors["sines"]
    length, half_head = cosines.shape
    exponentials = tensors["exponentials"]
    limit = 1 << 20

    def rounded(x, bits):
        return np.clip((x + (1 << (bits - 1))) >> bits, -limit, limit)

    def norm(x):
        s = (x * x).sum(1)
        roots = [math.isqrt(256 * int(each) // x.shape[1]) for each in s]
        i = np.array([(1 << 40) // (root + 1) for root in roots])
        return (x * i[:, None] + (1 << 23)) >> 24

    def turned(x):
        """Positions in rows, and the numbers of heads next to each other."""
        pairs = x.reshape(len(x), -1, half_head, 2)
        cos, sin = (table[: len(x), None, :] for table in (cosines, sines))
        a, b = pairs[..., 0], pairs[..., 1]
        found = np.stack([a * cos - b * sin, a * sin + b * cos], -1)
        return rounded(found, 14).reshape(x.shape)

    def weights_of(scores):
        far = scores.max() - scores
        return np.where(
            far < len(exponentials), exponentials[np.minimum(far, len(exponentials) - 1)], 0
        )

    def attention(x, layer):
        q, k, v = np.split(rounded(x @ tensors["attention_input"][layer].T, 14), 3, axis=1)
        q, k = turned(q), turned(k)
        mixed = np.empty_like(q)
        size = 2 * half_head
        for head in range(0, q.shape[1], size):
            part = slice(head, head + size)
            for row in range(len(x)):
                w = weights_of(k[: row + 1, part] @ q[row, part] >> 14)
                mixed[row, part] = (w[:, None] * v[: row + 1, part]).sum(0) // w.sum()
        return rounded(mixed @ tensors["attention_output"][layer].T, 14)

    def mlp(x, layer):
        gates, inner = np.split(rounded(x @ tensors["mlp_input"][layer].T, 14), 2, axis=1)
        table = tensors["sigmoids"]
        sigmoids = table[np.clip((gates >> 2) + (1 << 14), 0, len(table) - 1)]
        gated = rounded((gates * sigmoids >> 16) * inner, 12)
        return rounded(gated @ tensors["mlp_output"][layer].T, 14)

    def probabilities(text):
        half = length // 2
        first = 0 if len(text) < length else (len(text) // half - 1) * half
        x = tensors["embedding"][[256, *text[first:]]]
        for layer in range(len(tensors["attention_input"])):
            x = np.clip(x + attention(norm(x), layer), -limit, limit)
            x = np.clip(x + mlp(norm(x), layer), -limit, limit)
        w = weights_of(norm(x[-1:])[0] @ tensors["output"].T >> 16)
        return [(int(each) << 32) // int(w.sum()) for each in w]

    return probabilities


def _digits(ids, token_bits):
    return "".join(f"{i:0{token_bits}b}" for i in ids)


def _windows(model, marker, ids, padded):
    bits = marker["window_bits"]
    digits = _digits(ids, marker["token_bits"])
    codes = [int(digits[at : at + bits], 2) for at in range(0, len(digits) - bits + 1, bits)]
    text = b""
    since = b""
    for number, code in enumerate(codes):
        if padded:
            text += padded(model, marker, code)
            continue
        if marker["reset"] is not None and number % marker["reset"] == 0:
            since = b""
        window = _window(model, bits, code, since)
        since += window
        text += window
    return text


def _sums(frequencies):
    found = [0]
    for each in frequencies:
        found.append(found[-1] + each)
    return found


def _window(model, bits, code, since):
    frequencies, precision = model
    first, count = 0, 1 << bits
    n = count
    window = b""
    while True:
        f = frequencies(since + window)
        is_large = n > UNIT
        bounds = [c * n >> precision for c in _sums(f)] if is_large else _sums(_webster(f, n))
        byte = max(b for b in range(256) if bounds[b] <= code - first < bounds[b + 1])
        window += bytes([byte])
        count = bounds[byte + 1] - bounds[byte]
        first += bounds[byte]
        if code == first:
            return window
        first += 1
        n = count - 1


def _webster(f, n):
    """Seats one by one, but for those that everybody has whatever the rest is."""
    total = sum(f)
    # Rounded quotas of 128 seats fewer: half a seat too many for each of 256, at most.
    share = [max(0, (2 * each * (n - 128) + total - 1) // (2 * total)) for each in f]
    waiting = [(Fraction(-each, 2 * share[b] + 1), b) for b, each in enumerate(f)]
    heapq.heapify(waiting)
    for _ in range(n - sum(share)):
        b = waiting[0][1]
        share[b] += 1
        heapq.heapreplace(waiting, (Fraction(-f[b], 2 * share[b] + 1), b))
    return share


def _padded_window(model, marker, code):
    frequencies, precision = model
    first, count = 0, 1 << (marker["window_bits"] + 32)
    window = b""
    found = []
    while True:
        bounds = [c * count >> precision for c in _sums(frequencies(window))]
        byte = max(b for b in range(256) if first + bounds[b] <= code << 32)
        window += bytes([byte])
        first, count = first + bounds[byte], bounds[byte + 1] - bounds[byte]
        own = _padded_code(first, count)
        if own is None:
            return found[-1] if marker["padding"] == "zeros" else found[0]
        if own == code:
            found.append(window)


def _padded_code(first, count):
    for k in range(count.bit_length(), 31, -1):
        start = -(-first >> k) << k
        if start + (1 << k) <= first + count:
            return start >> 32
    return None


def _arithmetic(model, token_bits, ids):
    if not ids:
        return b""
    frequencies, precision = model
    digits = _digits(ids, token_bits)
    low, range_, bits = 0, 1 << 56, 56
    text = b""
    while True:
        while range_ < 1 << 48:
            low, range_, bits = 256 * low, 256 * range_, bits + 8
        number = int(digits.ljust(bits, "0")[:bits], 2)
        step = range_ // ((1 << precision) + 1)
        f = [*frequencies(text), 1]
        sums = _sums(f)
        place = (number - low) // step
        byte = max(b for b in range(257) if sums[b] <= place)
        if byte == 256:
            return text
        low, range_ = low + step * sums[byte], step * f[byte]
        text += bytes([byte])

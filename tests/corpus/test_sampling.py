import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.corpus.inputs import ReadOptions, find_inputs
from corpusmill.corpus.sampling import sample_documents

TEXTS = [f"document {number} " + "é" * (number % 50) for number in range(20_000)]
LINES = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS)


def write(folder, kind):
    if kind == "jsonl":
        (folder / "a.jsonl").write_bytes(LINES)
    elif kind == "gzip":
        half = len(LINES) // 2
        cut = LINES.index(b"\n", half) + 1
        (folder / "a.jsonl.gz").write_bytes(gzip.compress(LINES[:cut]))
        (folder / "b.jsonl.gz").write_bytes(gzip.compress(LINES[cut:]))
    elif kind == "text":
        (folder / "a.txt").write_text("\n".join(TEXTS))
    elif kind == "whole":
        for number in range(0, len(TEXTS), 100):
            (folder / f"{number}.txt").write_text(TEXTS[number])
    else:
        pq.write_table(pa.table({"text": TEXTS}), folder / "a.parquet", row_group_size=500)


@pytest.mark.parametrize("kind", ["jsonl", "gzip", "text", "parquet", "whole"])
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_sample_is_of_whole_documents_and_says_how_large_the_input_is(tmp_path, kind, share):
    write(tmp_path, kind)
    options = ReadOptions(text_unit="file" if kind == "whole" else "line")
    files = find_inputs([str(tmp_path)], options)
    size = sum(file.size for file in files)
    sample = sample_documents(files, options, int(share * size))
    assert set(sample.texts) <= set(TEXTS)
    everything = TEXTS if kind != "whole" else TEXTS[::100]
    if share == 1:
        assert sorted(sample.texts) == sorted(everything)
    truth = sum(len(text.encode()) for text in everything)
    assert sample.text_bytes * size / sample.stored_bytes == pytest.approx(truth, rel=0.1)


def test_a_sample_is_from_everywhere(tmp_path):
    write(tmp_path, "jsonl")
    files = find_inputs([str(tmp_path)], ReadOptions())
    sample = sample_documents(files, ReadOptions(), len(LINES) // 3)
    numbers = [int(text.split()[1]) for text in sample.texts]
    assert numbers == sorted(set(numbers))
    for part in range(4):
        assert any(part * 5000 <= number < (part + 1) * 5000 for number in numbers)


def test_bad_records_are_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"no JSON\n" + LINES[:1000])
    files = find_inputs([str(tmp_path)], ReadOptions(input_format="jsonl"))
    assert sample_documents(files, ReadOptions(), 1 << 20).texts[0] == TEXTS[0]

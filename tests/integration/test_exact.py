"""The whole job on real text equals counts of a plain dictionary, with every tokenizer."""

import gzip
import json
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tokenizers

from corpusmill.corpus.datasets import TOKENIZER_FOLDER, read_manifest
from corpusmill.corpus.tokenizers import load_tokenizer
from tests.integration.samples import documents_of, random_texts, run, write_jsonl
from tests.oracle import count_contexts, count_ngrams, distributions, distributions_of, flat

MAX_ORDER = 5
WIKI_BYTES = 768 << 10
# An odd number of next tokens that is less than many contexts have.
TOP_K = 3
MANY_WORDS = 200_000


@pytest.fixture(scope="module")
def wiki(shared_data, tmp_path_factory):
    """The first 768 KiB of text of simplewiki, as JSONL, and its texts."""
    texts, size = [], 0
    with gzip.open(shared_data / "corpora" / "simplewiki.jsonl.gz", "rt", encoding="utf-8") as file:
        while size < WIKI_BYTES:
            texts.append(json.loads(next(file))["text"])
            size += len(texts[-1].encode())
    return write_jsonl(tmp_path_factory.mktemp("wiki") / "wiki.jsonl", texts), texts


def tokenizer_of_many_words(path, texts):
    """A tokenizer.json with a word an id, the words of `texts` spread over 200,000 ids."""
    split = tokenizers.pre_tokenizers.Whitespace()
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    step = (MANY_WORDS - 2) / len(words)
    assert step > 1
    ids = {word: 2 + int(number * step) for number, word in enumerate(words)}
    taken = {*ids.values(), 0, 1}
    unused = (number for number in range(MANY_WORDS) if number not in taken)
    ids |= {f"<unused {number}>": number for number in unused}
    ids |= {"<unk>": 0, "<|endoftext|>": 1}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(path))
    return path


def tokenizer_named(name, folder, tmp_path, texts):
    if name == "many words":
        return tokenizer_of_many_words(tmp_path / "tokenizer.json", texts)
    return {
        "bytes": "bytes",
        "gpt2": f"{folder}/gpt2_vocab.json,{folder}/gpt2_merges.txt",
        "gptneox": folder / "gptneox_tokenizer.json",
        "mistral": folder / "mistral_v1.model",
    }[name]


def is_sorted_by(table, columns):
    return table.equals(table.sort_by([(column, "ascending") for column in columns]))


def duckdb_counts(counts, order, end):
    """Counts of an order with the query of the documentation."""
    columns = [f"token_{position}" for position in range(1, order + 2)]
    real = " AND ".join(["true", *(f"{column} <> {end}" for column in columns[:-1])])
    return duckdb.sql(
        f"SELECT {', '.join(columns)}, sum(count)::UBIGINT AS count FROM '{counts}/*.parquet'"
        f" WHERE {real} GROUP BY ALL ORDER BY ALL"
    ).to_arrow_table()


def pyarrow_counts(table, order, end):
    columns = [f"token_{position}" for position in range(1, order + 2)]
    for column in columns[:-1]:
        table = table.filter(pc.field(column) != end)
    sums = table.group_by(columns).aggregate([("count", "sum")])
    sums = sums.rename_columns([*columns, "count"])
    return sums.sort_by([(column, "ascending") for column in columns])


def ngrams_of(table):
    *tokens, counts = (column.to_pylist() for column in table.columns)
    return dict(zip(zip(*tokens, strict=True), counts, strict=True))


def check_counts(counts, expected):
    """`expected`: the oracle's n-grams of each order."""
    end = read_manifest(str(counts)).tokenizer["end_of_document"]
    files = [pq.ParquetFile(path).read() for path in sorted(Path(counts).glob("*.parquet"))]
    whole = pa.concat_tables(files)
    # Sorted from the first file to the last, and no n-gram twice.
    assert is_sorted_by(whole, whole.column_names[:-1])
    assert whole.group_by(whole.column_names[:-1]).aggregate([]).num_rows == whole.num_rows
    for order, ngrams in enumerate(expected):
        found = duckdb_counts(counts, order, end)
        assert found.num_rows == len(ngrams)
        assert ngrams_of(found) == ngrams
        assert pyarrow_counts(whole, order, end).cast(found.schema).equals(found)


def check_tables(tables, expected, min_count):
    """`expected`: the oracle's distributions of each order, the rare contexts too."""
    for order, distributions_of_order in enumerate(expected):
        entries = {}
        for path in sorted(Path(tables, f"order={order}").glob("*.parquet")):
            table = pq.ParquetFile(path).read()
            names = [f"context_{position}" for position in range(1, order + 1)]
            if order:
                assert is_sorted_by(table, names)
            columns = {name: table[name].to_pylist() for name in table.column_names}
            contexts = list(zip(*(columns[name] for name in names), strict=True)) or [()]
            assert not entries.keys() & set(contexts)
            heads = [
                list(zip(tokens, counts, strict=True))
                for tokens, counts in zip(
                    columns["next_tokens"], columns["next_counts"], strict=True
                )
            ]
            values = (columns["total"], heads, columns["tail_count"], columns["tail_distinct"])
            entries |= dict(zip(contexts, zip(*values, strict=True), strict=True))
            assert len(contexts) == table.num_rows
        assert entries == {
            context: entry
            for context, entry in distributions_of_order.items()
            if entry[0] >= min_count
        }


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("mistral", "gptneox", "many words")]


@pytest.mark.parametrize("name", ["bytes", "gpt2", *SLOW])
def test_simplewiki(name, wiki, shared_data, tmp_path):
    source, texts = wiki
    tokenizer = tokenizer_named(name, shared_data / "tokenizers", tmp_path, texts)
    tokens, counts = tmp_path / "tokens", tmp_path / "counts"
    run("tokenize", "--input", source, "--tokenizer", tokenizer, "--output", tokens)
    small = ("--run-tokens", 40_000, "--partition-mib", 1)
    run("count", "--tokens", tokens, "--output", counts, "--max-order", MAX_ORDER, *small)
    manifest = read_manifest(str(counts))
    assert manifest.counters["runs"] > 3
    assert len(manifest.data_files) > 1

    documents = documents_of(tokens)
    end = manifest.tokenizer["end_of_document"]
    assert [document.index(end) + 1 for document in documents] == list(map(len, documents))
    if name in ("bytes", "gpt2"):
        decode = load_tokenizer(str(tokens / TOKENIZER_FOLDER)).decode
        assert [decode(document[:-1]) for document in documents] == texts
    if name == "many words":
        packed_bits = (manifest.tokenizer["vocabulary_size"] - 1).bit_length() * (MAX_ORDER + 1)
        assert packed_bits > 64
        assert max(map(max, documents)) > 1 << 16

    ngrams = [count_ngrams(documents, order) for order in range(MAX_ORDER + 1)]
    check_counts(counts, ngrams)
    expected = [distributions_of(each, TOP_K) for each in ngrams]
    for min_count in (1, 2):
        tables = tmp_path / f"tables-{min_count}"
        keep = ("--min-count", min_count, "--top-k", TOP_K)
        run("distributions", "--counts", counts, "--output", tables, *keep)
        check_tables(tables, expected, min_count)


@pytest.mark.parametrize("max_order", [0, 1, 4, 13])
def test_random_text(max_order, tmp_path):
    """Also the shortest n-grams, and the longest that the bytes' vocabulary allows."""
    write_jsonl(tmp_path / "in.jsonl", [*random_texts(1, words=8_000), "", "x"])
    tokens, counts, tables = (tmp_path / name for name in ("tokens", "counts", "tables"))
    run("tokenize", "--input", tmp_path / "in.jsonl", "--tokenizer", "bytes", "--output", tokens)
    small = ("--run-tokens", 9_999, "--partition-mib", 1)
    run("count", "--tokens", tokens, "--output", counts, "--max-order", max_order, *small)
    run("distributions", "--counts", counts, "--output", tables)
    documents = documents_of(tokens)
    orders = range(max_order + 1)
    check_counts(counts, [flat(count_contexts(documents, order)) for order in orders])
    check_tables(tables, [distributions(documents, order, 8, 2) for order in orders], 2)

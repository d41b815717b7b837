"""The formats as they are on disk: a change here is a breaking change."""

import hashlib
import json

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from corpusmill.compress import ByteStrings, Codebook, open_codec
from corpusmill.compress.byte_models import open_model, save_model
from corpusmill.compress.datasets.compressed import read_documents
from tests.compress.samples import HARD, frequencies
from tests.golden.make import CODEC_FOLDER, CODECS, HERE, KINDS, make

# Bytes are a function of the data and of pyarrow; the golden ones are of this release.
PYARROW = "25."
FOLDERS = [*KINDS, *(f"{CODEC_FOLDER}/{name}" for name in CODECS)]
# Their ids, and the ids of a text.
GOLDEN_CODEBOOKS = {
    "coder.codebook": (
        "fc0e3c754eebe170803076891e33fdce50b54d6b3e41a0cb1ff9ceea0dff016f",
        [275, 40, 141, 77, 55, 444, 411],
    ),
    "optimal.codebook": (
        "7332728f67d3dc8aad5394259241014e4a3d38beb7f72bf4788276b591360ab1",
        [342, 218, 108, 81, 445, 413],
    ),
    "used.codebook": (
        "b976a930602df10b799e5fd97577a4f67c6112ab89eba9d4a5b6d879cac06edf",
        [823, 702, 643, 785, 937],
    ),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    make(folder)
    return folder


def files(folder, suffix):
    return sorted(path.relative_to(folder) for path in folder.rglob(f"*{suffix}"))


@pytest.mark.parametrize("kind", FOLDERS)
def test_tables_have_the_golden_schema_and_rows(kind, made):
    names = files(HERE / kind, ".parquet")
    assert names
    assert files(made / kind, ".parquet") == names
    for name in names:
        golden, found = (pq.ParquetFile(folder / kind / name).read() for folder in (HERE, made))
        assert found.schema == golden.schema
        assert found.equals(golden)


@pytest.mark.parametrize("kind", FOLDERS)
def test_files_have_the_golden_bytes(kind, made):
    if not pa.__version__.startswith(PYARROW):
        pytest.xfail(f"the golden bytes are of pyarrow {PYARROW}x, this is {pa.__version__}")
    for name in files(HERE / kind, ".parquet"):
        assert (made / kind / name).read_bytes() == (HERE / kind / name).read_bytes()


@pytest.mark.parametrize("kind", FOLDERS)
def test_manifests_have_the_golden_contents(kind, made):
    golden, found = (
        json.loads((folder / kind / "manifest.json").read_text()) for folder in (HERE, made)
    )
    # Times differ, and so do the places of the inputs.
    for manifest in (golden, found):
        manifest.pop("inputs")
        manifest["counters"] = {
            name: value for name, value in manifest["counters"].items() if "seconds" not in name
        }
    assert found == golden
    assert golden["format_version"] == (2 if kind in ("counts", "targets") else 1)


@pytest.mark.parametrize("name", GOLDEN_CODEBOOKS)
def test_codebooks_have_the_golden_bytes(name, made):
    golden = HERE / "codebooks" / name
    assert (made / "codebooks" / name).read_bytes() == golden.read_bytes()
    content_hash, ids = GOLDEN_CODEBOOKS[name]
    book = Codebook.open(str(golden))
    assert book.content_hash == content_hash
    assert book.encode("the cat, thé".encode()).tolist() == ids
    assert book.decode(ids) == "the cat, thé".encode()


def test_the_transformer_has_the_golden_frequencies(tmp_path):
    model = open_model(str(HERE / "m1"))
    assert model.content_hash == "1a7b10f9282327639d4bac17b68bcecf3b46afe502dd1bd25238a1cb12ddefd1"
    assert frequencies(model, b"the cat")[97:105] == [58, 9, 8, 441, 339, 133, 16, 65]
    found = model.frequencies(ByteStrings.of(HARD)).astype("<u4")
    assert (
        hashlib.sha256(found.tobytes()).hexdigest()
        == "106ff68c1a4eac6c3c500640637d1530e304bfce3aa1329b57cb07dca3729358"
    )
    save_model(model, str(tmp_path))
    for name in ("model.json", "weights.safetensors"):
        assert (tmp_path / name).read_bytes() == (HERE / "m1" / name).read_bytes()


@pytest.mark.parametrize("name", CODECS)
def test_the_golden_ids_of_codecs_are_still_decoded(name):
    folder = HERE / CODEC_FOLDER / name
    codec = open_codec(str(folder / "tokenizer"))
    texts = [json.loads(line)["text"] for line in (HERE / "corpus.jsonl").read_text().splitlines()]
    found = []
    for file in sorted(folder.glob("part-*.parquet")):
        for _, documents in read_documents(str(file), codec):
            found += [document.decode(errors="replace") for document in documents]
    assert len(found) == len(texts)
    if codec.is_lossless:
        assert found == texts


def test_the_golden_counts_are_what_anyone_would_count():
    dataset = pyarrow.dataset.dataset(HERE / "counts", exclude_invalid_files=True)
    rows = dataset.to_table().to_pylist()
    th_e = [row for row in rows if (row["token_1"], row["token_2"]) == (ord("t"), ord("h"))]
    # "the" twice, "th" and the first byte of é once.
    assert [(row["token_3"], row["count"]) for row in th_e] == [(ord("e"), 2), (0xC3, 1)]
    assert (
        sum(row["count"] for row in rows) == len("the cat sat on the mat") + len("thé".encode()) + 3
    )

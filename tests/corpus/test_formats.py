import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard

from corpusmill.corpus.errors import UsageError
from corpusmill.corpus.formats import DamagedStreamError, decompressed
from corpusmill.corpus.inputs import ReadOptions, find_inputs
from tests.corpus.samples import JSON_LINE, PACKERS, arrow_bytes, parquet_bytes, zstd


def detected(path: Path, data: bytes, **options: Any) -> tuple[str, str | None]:
    path.write_bytes(data)
    (file,) = find_inputs([str(path)], ReadOptions(**options))
    assert file.size == len(data)
    return file.format, file.compression


class TestDetection:
    @pytest.mark.parametrize("pack", [None, gzip.compress, zstd])
    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            (JSON_LINE, "jsonl"),
            (b"\xef\xbb\xbf\r\n  \n" + JSON_LINE.replace(b"\n", b"\r\n"), "jsonl"),
            (b'{"text": "' + b"long " * 50_000 + b'"}\n', "jsonl"),
            (b"plain\n" + JSON_LINE, "text"),
            (b"[1, 2]\n", "text"),
            (b"{not json\n", "text"),
            (b"\xff\xfe\x00", "text"),
            (parquet_bytes(), "parquet"),
            (arrow_bytes(), "arrow"),
            (arrow_bytes(pa.ipc.new_file), "arrow"),
        ],
    )
    def test_content_decides(
        self, tmp_path: Path, content: bytes, expected: str, pack: Any
    ) -> None:
        compression = {None: None, gzip.compress: "gzip", zstd: "zstd"}[pack]
        data = pack(content) if pack else content
        assert detected(tmp_path / "x.bin", data) == (expected, compression)

    @pytest.mark.parametrize("name", ["x.jsonl", "X.JSON", "x.ndjson.gz", "x.json.zst"])
    def test_a_json_name_decides_where_the_first_line_is_bad(
        self, tmp_path: Path, name: str
    ) -> None:
        data = b"not json\n" + JSON_LINE
        assert detected(tmp_path / name, data) == ("jsonl", None)
        assert detected(tmp_path / name, gzip.compress(data)) == ("jsonl", "gzip")

    def test_damaged_compressed_heads_still_have_a_format(self, tmp_path: Path) -> None:
        assert detected(tmp_path / "x.jsonl.gz", b"\x1f\x8bnonsense") == ("jsonl", "gzip")
        assert detected(tmp_path / "x.zst", zstd(JSON_LINE)[:7]) == ("text", "zstd")

    def test_skippable_zstd_frames(self, tmp_path: Path) -> None:
        frame = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
        assert detected(tmp_path / "x", frame + zstd(JSON_LINE)) == ("jsonl", "zstd")

    @pytest.mark.parametrize(
        ("compression", "pack"), [("bzip2", bz2.compress), ("xz", lzma.compress)]
    )
    def test_bzip2_and_xz(
        self, tmp_path: Path, compression: str, pack: Callable[[bytes], bytes]
    ) -> None:
        assert detected(tmp_path / "x", pack(JSON_LINE)) == ("jsonl", compression)
        assert detected(tmp_path / "t.bz2", pack(b"text\n")) == ("text", compression)
        assert detected(tmp_path / "t.jsonl.xz", pack(b"")) == ("jsonl", compression)
        assert detected(tmp_path / "p", pack(parquet_bytes())) == ("parquet", compression)
        # Nothing of it comes out before a block has ended.
        large = random.Random(1).randbytes(300_000).hex().encode()
        line = b'{"text": "' + large + b'"}\n'
        assert detected(tmp_path / "y", pack(JSON_LINE + line)) == ("jsonl", compression)

    def test_numbers_that_json_has_not_are_json(self, tmp_path: Path) -> None:
        line = b'{"score": NaN, "high": Infinity, "low": -Infinity, "far": 1e999, "text": "a"}\n'
        assert detected(tmp_path / "x", line) == ("jsonl", None)

    def test_empty_files_are_allowed(self, tmp_path: Path) -> None:
        assert detected(tmp_path / "x.jsonl", b"") == ("jsonl", None)
        assert detected(tmp_path / "x", b"", input_format="parquet") == ("parquet", None)

    @pytest.mark.parametrize(
        ("wanted", "content"),
        [
            ("jsonl", parquet_bytes()),
            ("text", gzip.compress(parquet_bytes())),
            ("jsonl", arrow_bytes()),
            ("parquet", arrow_bytes()),
            ("parquet", JSON_LINE),
            ("arrow", JSON_LINE),
        ],
    )
    def test_a_format_against_the_content_is_refused(
        self, tmp_path: Path, wanted: str, content: bytes
    ) -> None:
        with pytest.raises(UsageError, match=f"--input-format is {wanted}"):
            detected(tmp_path / "x", content, input_format=wanted)

    def test_a_format_may_be_set_where_content_allows_it(self, tmp_path: Path) -> None:
        assert detected(tmp_path / "x", JSON_LINE, input_format="text") == ("text", None)
        assert detected(tmp_path / "x", b"no\n", input_format="jsonl") == ("jsonl", None)

    @pytest.mark.parametrize("content", [b"PK\x03\x04..", b"\x04\x22\x4d\x18.."])
    def test_other_compressions_are_refused(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(UsageError, match="accepted are plain, gzip, zstd, bzip2 and xz"):
            detected(tmp_path / "x", content)


class TestDecompressed:
    @pytest.mark.parametrize("compression", PACKERS)
    def test_members_and_padding(self, compression: str) -> None:
        pack = PACKERS[compression]
        data = b"".join(pack(bytes([65 + i]) * 100_000) for i in range(5))
        data += pack(b"") + pack(b"end") + b"\0" * 100_000
        expected = b"".join(bytes([65 + i]) * 100_000 for i in range(5)) + b"end"
        assert b"".join(decompressed(io.BytesIO(data), compression)) == expected

    @pytest.mark.parametrize("compression", PACKERS)
    def test_damage_comes_after_what_is_good(self, compression: str) -> None:
        # Several blocks of bzip2.
        good = random.Random(1).randbytes(1_000_000).hex().encode()
        packed = PACKERS[compression](good)
        for data in (packed[: len(packed) // 2], packed + b"garbage"):
            parts: list[bytes] = []
            blocks = decompressed(io.BytesIO(data), compression)
            with pytest.raises(DamagedStreamError, match=compression):
                parts.extend(blocks)
            content = b"".join(parts)
            assert good.startswith(content)
            assert len(content) > len(good) // 2 - 1_000_000 / 2
            if data.endswith(b"garbage"):
                assert content == good

    @pytest.mark.parametrize("compression", PACKERS)
    def test_a_bomb_is_given_out_in_parts(self, compression: str) -> None:
        packed = PACKERS[compression](b"\0" * 100_000_000)
        sizes = [len(block) for block in decompressed(io.BytesIO(packed), compression)]
        assert sum(sizes) == 100_000_000
        assert max(sizes) <= (65 << 20 if compression == "zstd" else 9 << 20)

    def test_long_windows(self) -> None:
        parameters = zstandard.ZstdCompressionParameters(window_log=31, enable_ldm=True)
        packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        packed = packer.compress(b"text" * 1000) + packer.flush()
        assert b"".join(decompressed(io.BytesIO(packed), "zstd")) == b"text" * 1000

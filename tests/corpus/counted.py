"""A store that counts what is asked of it."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

_S3FS_BLOCK_BYTES = 50 << 20
ROOT = "counted://bucket"

Request = tuple[str, str, int]
"""What is asked (`HEAD`, `GET`, `LIST`), the path, and the bytes that come."""


class CountedFileSystem(MemoryFileSystem):
    """Files in memory, below `ROOT`; how many bytes are read ahead is decided as s3fs does it."""

    protocol = "counted"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    requests: ClassVar[list[Request]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("counted://", "memory://"))

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any
    ) -> Any:
        if mode != "rb":
            return super()._open(path, mode, **options)
        return _CountedFile(
            self,
            path,
            mode,
            block_size or _S3FS_BLOCK_BYTES,
            cache_type=options.get("cache_type") or "readahead",
        )

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        self.requests.append(("HEAD", path, 0))
        found: dict[str, Any] = super().info(path, **options)
        return found

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self.requests.append(("LIST", path, 0))
        return super().ls(path, detail, **options)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        file = self.store.get(self._strip_protocol(path))
        data = b"" if file is None else file.getvalue()[start:end]
        self.requests.append(("GET", path, len(data)))
        if file is None:
            raise FileNotFoundError(path)
        return data


class _CountedFile(AbstractBufferedFile):  # type: ignore[misc]
    def _fetch_range(self, start: int, end: int) -> bytes:
        data: bytes = self.fs.cat_file(self.path, start, end)
        return data


fsspec.register_implementation("counted", CountedFileSystem, clobber=True)


@contextmanager
def counted() -> Generator[list[Request]]:
    """The requests of a block, in their order."""
    CountedFileSystem.requests.clear()
    yield CountedFileSystem.requests

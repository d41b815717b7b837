"""Which files are read, and how they are cut into segments and shards."""

import contextlib
import fnmatch
import glob
import itertools
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from corpusmill.corpus import hub_datasets, storage
from corpusmill.corpus.documents import is_unicode
from corpusmill.corpus.errors import UsageError, one_line
from corpusmill.corpus.formats import (
    TABLE_FORMATS,
    DamagedStreamError,
    check_table,
    detect,
    is_damage,
    open_table,
)
from corpusmill.corpus.options import option

INPUT_FORMATS = ("auto", "jsonl", "parquet", "text", "arrow")
TEXT_UNITS = ("line", "file")

# Byte lengths and list offsets of a tokens dataset are 32 bits wide.
_MAX_DOCUMENT_BYTES = 2**31 - 1
# Opening a file takes about as long as reading this much of it.
_OPENING_COST = 1 << 16

# By path; some web servers don't tell sizes.
_Sizes = dict[str, int | None]


@dataclass(frozen=True)
class ReadOptions:
    """How documents are read.

    Attributes:
      id_field: holds a string or an integer; by default the id is the file's name and the record's
        byte offset or row number.
      input_format: `auto` looks at each file's content, then its name.
      max_document_bytes: longer records (the line of JSONL or text as it stands in the file, the
        text file, the value in a table) are bad records.

    Raises:
      UsageError: an option is outside its range.
    """

    text_field: str = option("field or column with the text", "text", metavar="NAME")
    id_field: str | None = option(
        "field or column with the document id (default: file and offset)", None, metavar="NAME"
    )
    input_format: str = option("format of the input files", "auto", choices=INPUT_FORMATS)
    text_unit: str = option("part of a text file that is a document", "line", choices=TEXT_UNITS)
    max_document_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        if not self.text_field:
            raise UsageError("text field '' is empty; give the name of a field, such as 'text'")
        if self.id_field == "":
            raise UsageError("id field '' is empty; give the name of a field, or leave it out")
        _require_one_of("input format", self.input_format, INPUT_FORMATS)
        _require_one_of("text unit", self.text_unit, TEXT_UNITS)
        if not 1 <= self.max_document_bytes <= _MAX_DOCUMENT_BYTES:
            raise UsageError(
                f"max document bytes {self.max_document_bytes} is out of range; accepted is 1 to"
                f" {_MAX_DOCUMENT_BYTES} (--max-document-mib {_MAX_DOCUMENT_BYTES >> 20})"
            )


@dataclass(frozen=True)
class InputFile:
    """A file to be read.

    Attributes:
      url: absolute path or URL.
      name: path below the folder that all inputs have in common; begins default document ids.
      format: one of `INPUT_FORMATS` but `auto`.
      compression: None, `gzip`, `zstd`, `bzip2` or `xz`, of the file as a whole.
      size: bytes as stored.
    """

    url: str
    name: str
    format: str
    compression: str | None
    size: int


@dataclass(frozen=True)
class Segment:
    """A part of an input file that one worker reads.

    Of plain JSONL and of text by the line it owns the lines that start at bytes [start, end); of
    plain Parquet, row groups [start, end), where an end past the last one means the last one.
    Of everything else it is the whole file.
    """

    url: str
    name: str
    format: str
    compression: str | None
    start: int
    end: int


def find_inputs(patterns: Sequence[str], options: ReadOptions) -> list[InputFile]:
    """Finds the files to read, sorted by URL, whatever the order of the patterns.

    Each is read once, also a local one that links give several names: under the first of them.

    Args:
      patterns: each a file, a glob, a folder (read recursively, without names that begin with
        `.` or `_`), a folder written by `Dataset.save_to_disk`, any of these as an fsspec URL, or
        `hf:NAME`, `hf:NAME:CONFIG` or `hf:NAME:CONFIG:SPLIT` for a Hugging Face dataset, which the
        `datasets` package puts into its cache (HF_DATASETS_CACHE); workers have to see that disk.
      options: what the files are taken to be.

    Raises:
      UsageError: a pattern matches nothing, or a file can't be read as what it is said to be.
    """
    if not patterns:
        raise UsageError("no input is given; give a file, a glob, a folder, a URL or hf:NAME")
    sizes: dict[str, int] = {}
    for pattern in patterns:
        sizes.update(_expand(pattern))
    urls = _without_links(sorted(sizes))
    for url in urls:
        if not is_unicode(url):
            raise UsageError(f"the name of input {os.fsencode(url)!r} is not UTF-8; rename it")
    kinds = storage.in_threads(partial(detect, input_format=options.input_format), urls)
    return [
        InputFile(url, name, file_format, compression, sizes[url])
        for url, name, (file_format, compression) in zip(urls, _names(urls), kinds, strict=True)
    ]


def check_columns(inputs: Iterable[InputFile], options: ReadOptions) -> None:
    """Checks that every Parquet and Arrow file has the columns that are wanted.

    Damaged files pass: their fault is reported when they are read.

    Raises:
      UsageError: a column is missing or isn't of a type that can be read.
    """
    tables = [file for file in inputs if file.format in TABLE_FORMATS and file.size]
    storage.in_threads(partial(_check_file, options=options), tables)


def plan_shards(
    inputs: Iterable[InputFile], options: ReadOptions, shard_bytes: int = 64 * 2**20
) -> list[tuple[Segment, ...]]:
    """Cuts large files and groups small neighbours, so that shards have about `shard_bytes`.

    The plan follows from the set of inputs alone. Empty files are left out.
    """
    files = sorted((file for file in inputs if file.size), key=lambda file: file.url)
    shards: list[list[Segment]] = []
    room = 0
    cuts = storage.in_threads(partial(_cut, options, shard_bytes), files)
    for file, pieces in zip(files, cuts, strict=True):
        for start, end, size in pieces:
            cost = size + _OPENING_COST
            if not shards or cost > room:
                shards.append([])
                room = shard_bytes
            shards[-1].append(
                Segment(file.url, file.name, file.format, file.compression, start, end)
            )
            room -= cost
    return [tuple(shard) for shard in shards]


def _require_one_of(what: str, value: str, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise UsageError(f"{what} {value!r} is unknown; accepted are {', '.join(accepted)}")


def _expand(pattern: str) -> dict[str, int]:
    """URLs and sizes of the files that a pattern stands for."""
    if pattern.startswith("hf:") and not pattern.startswith("hf://"):
        return hub_datasets.cached_files(pattern)
    try:
        with storage.reach(pattern) as (fs, path):
            found = _find(fs, path)
    except OSError as error:
        raise UsageError(f"cannot read input {pattern!r}: {one_line(error)}") from error
    if not found:
        raise UsageError(
            f"input {pattern!r} matches no file; give a file, a glob, a folder, a URL or hf:NAME"
        )
    local = isinstance(fs, LocalFileSystem)
    scheme = "" if local or "://" not in pattern else pattern[: pattern.index("://") + 3]
    sizes: dict[str, int] = {}
    for path, size in found.items():
        if size is None:
            raise UsageError(f"the size of input {path} is unknown; copy it to a disk first")
        sizes[path if "://" in path else scheme + path] = size
    return sizes


def _without_links(urls: Iterable[str]) -> list[str]:
    """The first of all names of each file."""
    names: dict[str, str] = {}
    for url in urls:
        names.setdefault(os.path.realpath(url) if storage.is_local(url) else url, url)
    return list(names.values())


def _find(fs: fsspec.AbstractFileSystem, path: str) -> _Sizes:
    # A name with brackets in it may be meant as it is, so look before globbing.
    match storage.kind_on(fs, path):
        case "file":
            return {path: fs.size(path)}
        case "directory":
            return _find_in_folder(fs, path)
    if glob.has_magic(path):
        return _find_matches(fs, path)
    return {}


def _find_in_folder(fs: fsspec.AbstractFileSystem, folder: str) -> _Sizes:
    saved = hub_datasets.saved_files(fs, folder)
    if saved is not None:
        return saved
    if isinstance(fs, LocalFileSystem):
        return _find_in_local_folder(folder)
    return {
        path: info["size"]
        for path, info in fs.find(folder, detail=True).items()
        if info["type"] == "file" and not _is_hidden(path.removeprefix(folder).split("/"))
    }


def _find_matches(fs: fsspec.AbstractFileSystem, pattern: str) -> _Sizes:
    parts = pattern.split("/")
    fixed = len(list(itertools.takewhile(lambda part: not glob.has_magic(part), parts)))
    wants_hidden = _is_hidden(parts[fixed:])
    if isinstance(fs, LocalFileSystem):
        paths = _local_matches("/".join([*parts[:fixed], ""]), parts[fixed:], wants_hidden)
        matches = {path: _local_info(path) for path in paths}
    else:
        matches = fs.glob(pattern, detail=True)
    found: _Sizes = {}
    for path, info in sorted(matches.items()):
        if wants_hidden or not _is_hidden(path.rstrip("/").split("/")[fixed:]):
            if info["type"] == "file":
                found[path] = info["size"]
            elif info["type"] == "directory":
                found.update(_find_in_folder(fs, path.rstrip("/")))
    return found


def _local_matches(folder: str, parts: Sequence[str], wants_hidden: bool) -> Iterator[str]:
    """As `fs.glob`, which would leave out in silence what can't be looked into; some paths twice.

    Raises:
      OSError: a folder on the way can't be read.
    """
    part, *rest = parts
    any_depth = part == "**" and bool(rest)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not glob.has_magic(part):
            path = os.path.join(folder, part)
            if rest:
                yield from _local_matches(path, rest, wants_hidden)
            else:
                os.lstat(path)
                yield path
            return
        if any_depth:
            yield from _local_matches(folder, rest, wants_hidden)
        for name in os.listdir(folder):
            if _is_hidden([name]) and not wants_hidden:
                continue
            path = os.path.join(folder, name)
            if any_depth:
                yield from _local_matches(path, parts, wants_hidden)
            elif fnmatch.fnmatchcase(name, part):
                if rest:
                    yield from _local_matches(path, rest, wants_hidden)
                else:
                    yield path


def _local_info(path: str) -> dict[str, Any]:
    status = os.stat(path)
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory"}
    return {"type": kinds.get(stat.S_IFMT(status.st_mode), "other"), "size": status.st_size}


def _find_in_local_folder(folder: str) -> _Sizes:
    """As `fs.find`, which would leave out in silence what can't be listed."""

    def fail(error: OSError) -> None:
        raise error

    found: _Sizes = {}
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden([name])]
        for name in names:
            path = os.path.join(place, name)
            if not _is_hidden([name]) and (info := _local_info(path))["type"] == "file":
                found[path] = info["size"]
    return found


def _is_hidden(parts: Iterable[str]) -> bool:
    """Whether a path below a folder is one of those that tools put beside the data."""
    return any(part.startswith((".", "_")) for part in parts)


def _names(urls: Sequence[str]) -> list[str]:
    """Paths below the folder that all of `urls` have in common."""
    folders = [url.split("/")[:-1] for url in urls]
    pairs = zip(min(folders), max(folders), strict=False)
    shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return ["/".join(url.split("/")[shared:]) for url in urls]


def _check_file(file: InputFile, options: ReadOptions) -> None:
    try:
        with open_table(file.url, file.format, file.compression) as table:
            check_table(table, file.url, options.text_field, options.id_field)
    except (pa.ArrowException, OSError, DamagedStreamError) as error:
        if not is_damage(error):
            raise UsageError(f"cannot read input {file.url}: {one_line(error)}") from error


def _cut(options: ReadOptions, shard_bytes: int, file: InputFile) -> list[tuple[int, int, int]]:
    """Start, end and bytes of a file's segments."""
    if file.compression is None and file.size > shard_bytes:
        if file.format == "parquet":
            return _cut_row_groups(file, shard_bytes)
        if file.format == "jsonl" or (file.format == "text" and options.text_unit == "line"):
            count = -(-file.size // shard_bytes)
            marks = [file.size * i // count for i in range(count + 1)]
            return [(start, end, end - start) for start, end in itertools.pairwise(marks)]
    return [(0, file.size, file.size)]


def _cut_row_groups(file: InputFile, shard_bytes: int) -> list[tuple[int, int, int]]:
    try:
        with open_table(file.url, file.format, file.compression) as table:
            sizes = [row_group_bytes(table.metadata, i) for i in range(table.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        if is_damage(error):
            # Whole, so that its fault is reported once.
            return [(0, file.size, file.size)]
        raise
    pieces = [(0, 0, 0)]
    for group, size in enumerate(sizes):
        start, end, held = pieces[-1]
        if start < end and held + size > shard_bytes:
            pieces.append((group, group + 1, size))
        else:
            pieces[-1] = (start, group + 1, held + size)
    return pieces


def row_group_bytes(metadata: pq.FileMetaData, index: int) -> int:
    """Bytes of a row group as stored."""
    group = metadata.row_group(index)
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))

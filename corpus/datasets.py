"""Datasets: a folder of files and a manifest that is written last.

While a dataset is being made, its folder has an `_incomplete` folder: `job.json` (what is being
made, and by which version, so that a re-run with others is refused), `done/` (one completion record
a finished part, so that a re-run makes only what is missing) and whatever the job keeps between its
stages.
`finish` writes the manifest and removes it: no manifest, no dataset.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypedDict, cast

from corpusmill.corpus import storage
from corpusmill.corpus.errors import DataError, DatasetError, UsageError, one_line
from corpusmill.corpus.version import __version__

# Of a kind's files; 1 where nothing is said.
_FORMAT_VERSIONS = {"counts": 2, "targets": 2}
# What to do about a dataset of an older version.
_REMEDIES = {
    "counts": "make it again with corpusmill count",
    "targets": "make it again with corpusmill enrich",
}
MANIFEST = "manifest.json"
INCOMPLETE = "_incomplete"
TOKENIZER_FOLDER = "tokenizer"
# Kinds whose files have the ids of documents, row by row.
ID_KINDS = ("compressed", "examples", "tokens")

Json = Any

# Properties that are whole numbers, where a dataset has them.
_NUMBERS = (
    *("documents", "tokens", "max_order", "top_k", "min_count", "slots"),
    *("group", "piece_bytes", "seed"),
)
_NO_NAMES = ("", ".", "..")


@dataclass(frozen=True)
class FileRecord:
    """One file of a dataset.

    Attributes:
      name: path below the dataset's folder.
      rows: in it: documents (long ones of a tokens dataset have several), n-grams or contexts;
        records in a dead-letter file.
      tokens: tokens in it, or positions counted in it.
      bytes: its size.
      sha256: of its bytes.
    """

    name: str
    rows: int
    tokens: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Completion:
    """What a finished part leaves behind: its files and what was counted while making it."""

    files: tuple[FileRecord, ...]
    counters: Mapping[str, int | float]


class IdSource(TypedDict, total=False):
    """What made the ids of a dataset: a tokenizer or a codec, whose options stand here, too.

    `end_of_document` is None for codecs; `window_ids` are the ids of a window, of those that have
    windows; `lossy` stands where text may not come back.
    """

    kind: str
    content_hash: str
    vocabulary_size: int
    end_of_document: int | None
    window_ids: int | None
    lossy: bool


class Properties(TypedDict, total=False):
    """What readers of a dataset need besides, those of its kind only.

    tokens, counts, distributions, targets: `tokens`, and all but the first `max_order`.
    Of documents: `documents`. counts: `cuts` between partitions. distributions: `top_k` and
    `min_count`. targets: their options, `slots`, and `tokens_hash`, of the tokens that they are
    for. examples: how they were cut, `length` being None where nothing was dropped.
    """

    documents: int
    tokens: int
    max_order: int
    cuts: Sequence[Sequence[int]]
    top_k: int
    min_count: int
    head: int
    tail_draws: int
    slots: int
    tokens_hash: str
    length: int | None


@dataclass(frozen=True)
class Manifest:
    """What a dataset is and how it was made.

    Attributes:
      kind: `tokens`, `counts`, `distributions`, `targets`, `compressed`, `examples` or `documents`.
      config: everything that decides the data files' bytes.
      inputs: content hashes of the datasets it was made from, by location.
      tokenizer: kind, content hash, vocabulary size and end-of-document id.
      backend: the library that encoded, which has no influence on the data; in the file it is
        among what is said of the tokenizer.
      properties: what readers of this kind need besides (partition cuts, orders).
      files: every file but the manifest, sorted by name.
      counters: totals over all parts; times are in seconds of work, summed over workers.
      format_version: of the files; by default the one that this kind has now.
    """

    kind: str
    config: dict[str, Json]
    inputs: dict[str, str]
    tokenizer: IdSource
    properties: Properties
    files: tuple[FileRecord, ...]
    counters: dict[str, int | float]
    backend: str | None = None
    format_version: int = 0
    corpusmill_version: str = __version__

    def __post_init__(self) -> None:
        if not self.format_version:
            object.__setattr__(self, "format_version", format_version(self.kind))

    @property
    def content_hash(self) -> str:
        """Identifies the data: unlike the manifest's own bytes it holds no times or places."""
        data = {file.name: file.sha256 for file in self.files}
        return _hash_json([self.kind, self.format_version, self.tokenizer, self.properties, data])

    @property
    def data_files(self) -> list[FileRecord]:
        """The Parquet files, by name."""
        return [file for file in self.files if file.name.endswith(".parquet")]

    def data_urls(self, folder: str) -> list[str]:
        """Where the data files are, by name, of the dataset in `folder`."""
        return [storage.join(folder, file.name) for file in self.data_files]

    @property
    def rows(self) -> int:
        """Of all data files."""
        return sum(file.rows for file in self.data_files)

    @property
    def tokens(self) -> int:
        """Of all data files."""
        return sum(file.tokens for file in self.data_files)

    def to_json(self) -> str:
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        if (backend := fields.pop("backend")) is not None:
            fields["tokenizer"] = {**self.tokenizer, "backend": backend}
        fields["files"] = [dataclasses.asdict(file) for file in self.files]
        fields["content_hash"] = self.content_hash
        return json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        fields = json.loads(text)
        recorded = fields.pop("content_hash")
        fields["files"] = tuple(FileRecord(**file) for file in fields["files"])
        for name in ("config", "inputs", "tokenizer", "properties", "counters"):
            fields[name] = _Fields(fields[name].items(), name)
        fields["backend"] = fields["tokenizer"].pop("backend", None)
        manifest = cls(**fields)
        if recorded != manifest.content_hash:
            raise ValueError("its content hash does not fit its file list")
        _check_values(manifest)
        return manifest


def format_version(kind: str) -> int:
    """The version of the files of a kind of dataset."""
    return _FORMAT_VERSIONS.get(kind, 1)


class _Fields(dict[str, Json]):
    """A part of a manifest: what isn't there but is needed is an error of one line."""

    def __init__(self, values: Iterable[tuple[str, Json]], part: str = "fields") -> None:
        super().__init__(values)
        self._part = part

    def __missing__(self, name: str) -> NoReturn:
        raise DataError(f"a manifest is damaged: its {self._part} have no {name}")

    def __reduce__(self) -> Any:
        return _Fields, (list(self.items()), self._part)


def _check_values(manifest: Manifest) -> None:
    """Checks the types of what readers rely on; raises ValueError."""
    numbers = {
        **{name: manifest.properties.get(name, 0) for name in _NUMBERS},
        "vocabulary size": manifest.tokenizer.get("vocabulary_size", 0),
        "end of document": manifest.tokenizer.get("end_of_document") or 0,
        "window ids": manifest.tokenizer.get("window_ids") or 0,
        "length": manifest.properties.get("length") or 0,
    }
    texts = {
        "kind": manifest.kind,
        "tokenizer's kind": manifest.tokenizer.get("kind", ""),
        "tokenizer's hash": manifest.tokenizer.get("content_hash", ""),
        "tokens hash": manifest.properties.get("tokens_hash", ""),
    }
    _check_types(numbers, texts)
    _check_files(manifest.files)
    _check_counters(manifest.counters)
    cuts = manifest.properties.get("cuts", [])
    if not isinstance(cuts, list) or not all(
        isinstance(cut, list) and cut and all(type(token) is int for token in cut) for cut in cuts
    ):
        raise ValueError("its cuts are no lists of tokens")


def _check_files(files: Iterable[FileRecord]) -> None:
    for file in files:
        numbers = {"rows": file.rows, "tokens": file.tokens, "bytes": file.bytes}
        _check_types(numbers, {"name": file.name, "hash": file.sha256})
        # Files are written below other folders, too, by the names that they have here.
        if not set(file.name.split("/")).isdisjoint(_NO_NAMES):
            raise ValueError(f"{file.name!r} is no name of a file below it")


def _check_counters(counters: Mapping[str, Json]) -> None:
    for name, value in counters.items():
        if type(value) not in (int, float):
            raise ValueError(f"its counter {name} is {value!r}")


def _check_types(numbers: Mapping[str, Json], texts: Mapping[str, Json]) -> None:
    for name, value in numbers.items():
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise ValueError(f"its {name} is {value!r}, which is no whole number of 63 bits")
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"its {name} is {value!r}, which is no string")


def read_manifest(folder: str, kind: str | None = None) -> Manifest:
    """Reads and checks the manifest of a complete dataset.

    Raises:
      DatasetError: there is no manifest, its format is another one, or the dataset isn't of this
        `kind`.
      DataError: the manifest is damaged.
    """
    url = storage.join(folder, MANIFEST)
    try:
        text = storage.read_bytes(url)
    except (FileNotFoundError, NotADirectoryError) as error:
        unfinished = storage.exists(storage.join(folder, INCOMPLETE))
        remedy = "its job has not finished; run it again" if unfinished else "is the path right?"
        raise DatasetError(f"{folder} has no {MANIFEST}: {remedy}") from error
    try:
        fields = json.loads(text)
        version, found_kind = fields["format_version"], fields["kind"]
        if version != format_version(found_kind):
            remedy = f"; {_REMEDIES[found_kind]}" if found_kind in _REMEDIES else ""
            raise DatasetError(
                f"{url} has format version {version}; this corpusmill reads"
                f" {format_version(found_kind)}{remedy}"
            )
        manifest = Manifest.from_json(text)
    except KeyError as error:
        raise DataError(f"{url} is damaged: it has no {error}") from error
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{url} is damaged: {one_line(error)}") from error
    if kind is not None and manifest.kind != kind:
        raise DatasetError(f"{folder} is a dataset of kind {manifest.kind}; kind {kind} is needed")
    return manifest


def damaged_files(folder: str, manifest: Manifest) -> Iterator[tuple[FileRecord, str | None]]:
    """Compares every file with its record; yields it with what is wrong, None where nothing is."""
    for record in manifest.files:
        yield record, damage(folder, record)


def damage(folder: str, record: FileRecord) -> str | None:
    """What is wrong with a file of a dataset, None where it is as it was written."""
    url = storage.join(folder, record.name)
    if not storage.exists(url):
        return "is missing"
    if (size := storage.size(url)) != record.bytes:
        return f"has {size} bytes, not {record.bytes}"
    if storage.sha256(url) != record.sha256:
        return "has other bytes than were written (sha256 differs)"
    return None


@dataclass
class NewFile:
    """A file while it is being written: whoever writes it counts `rows` and `tokens` here."""

    name: str
    path: str
    rows: int = 0
    tokens: int = 0
    record: FileRecord | None = None

    @property
    def written(self) -> FileRecord:
        """The record of a file that must have been written."""
        if self.record is None:
            raise DataError(f"nothing was written to {self.name}")
        return self.record


@dataclass(frozen=True)
class DatasetWriter:
    """A dataset in the making. It travels to the workers, so it holds only names.

    Attributes:
      folder: where the dataset appears.
      kind: what it will be.
      config: everything that decides its bytes.
    """

    folder: str
    kind: str
    config: dict[str, Json] = field(hash=False)

    def begin(self) -> bool:
        """Claims the folder; False where it holds the finished dataset already.

        Raises:
          UsageError: the folder holds something else, a dataset of other options or one begun with
            another version (the difference is shown), or cannot be written to.
        """
        if self.finished() is not None:
            return False
        job = self.url(INCOMPLETE, "job.json")
        found = _read_record(job)
        if found and isinstance(found.get("kind"), str) and isinstance(found.get("config"), dict):
            if found["kind"] == self.kind:
                self._refuse_other_version(found)
            self._refuse_other(found["kind"], found["config"])
            return True
        if storage.exists(job):
            self._clear_damaged(job)
        others = [name for name in storage.list_names(self.folder) if name != INCOMPLETE]
        if others:
            raise UsageError(
                f"output {self.folder} holds something else ({others[0]}, ...); name a new or empty"
                " folder"
            )
        try:
            data = {"kind": self.kind, "config": self.config, **self._versions}
            storage.write_bytes(job, _to_json(data))
        except OSError as error:
            raise UsageError(f"cannot write to output {self.folder}: {error}") from error
        return True

    def _clear_damaged(self, job: str) -> None:
        """Makes room for a new job where nobody can tell what the old one was.

        Raises:
          UsageError: it has finished parts.
        """
        if self.completed_parts(""):
            raise UsageError(
                f"{job} is damaged, so nobody can tell what the finished parts in {self.folder} are"
                f" of; remove {self.url(INCOMPLETE)} to begin anew"
            )
        storage.remove_tree(self.url(INCOMPLETE))

    def finished(self) -> Manifest | None:
        """The manifest, if it is written; removes what is only needed until then.

        Whoever wrote it had no time for that, or another job with the same options went on.

        Raises:
          UsageError: it is of a dataset of other options.
        """
        if not storage.exists(self.url(MANIFEST)):
            return None
        manifest = read_manifest(self.folder)
        self._refuse_other(manifest.kind, manifest.config)
        storage.remove_tree(self.url(INCOMPLETE))
        return manifest

    def url(self, *names: str) -> str:
        return storage.join(self.folder, *names)

    def scratch(self, *names: str) -> str:
        """A place for what lives only as long as the job."""
        return self.url(INCOMPLETE, *names)

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator["NewFile"]:
        """A file of the dataset to be written at the local path `NewFile.path`.

        It appears when the block ends without an error; `NewFile.record` is there from then on.
        """
        with storage.publish(self.url(name), self.scratch()) as path:
            file = NewFile(name, path)
            yield file
            if os.path.exists(path):
                size, digest = storage.size(path), storage.sha256(path)
                file.record = FileRecord(name, file.rows, file.tokens, size, digest)

    def copy_tokenizer(self, source: str, manifest: Manifest) -> None:
        """Takes over the tokenizer of the dataset that this one is made from."""
        records = []
        for record in manifest.files:
            if record.name.startswith(f"{TOKENIZER_FOLDER}/"):
                storage.copy(storage.join(source, record.name), self.url(record.name))
                records.append(record)
        self.complete(TOKENIZER_FOLDER, Completion(tuple(records), {}))

    def complete(self, part: str, completion: Completion) -> None:
        """Leaves the completion record of a part; its files must be in place."""
        data = _to_json(dataclasses.asdict(completion))
        storage.write_bytes(self.scratch("done", f"{part}.json"), data)

    def completion(self, part: str) -> Completion | None:
        """The completion record of a part that was finished before, by this run or an earlier.

        A part with a damaged record isn't finished.
        """
        fields = _read_record(self.scratch("done", f"{part}.json")) or {}
        try:
            completion = Completion(
                tuple(FileRecord(**file) for file in fields["files"]), dict(fields["counters"])
            )
            _check_files(completion.files)
            _check_counters(completion.counters)
        except (KeyError, TypeError, ValueError):
            return None
        return completion

    def completed(self, parts: Iterable[str]) -> list[Completion]:
        """The completion records of parts that must be finished, in their order.

        Raises:
          DataError: one of them is not.
        """
        return storage.in_threads(self._completed, parts)

    def _completed(self, part: str) -> Completion:
        completion = self.completion(part)
        if completion is None:
            raise DataError(f"part {part} of {self.folder} is not complete; run it again")
        return completion

    def completed_parts(self, *prefixes: str) -> list[str]:
        """The completed parts whose names begin with one of `prefixes`."""
        names = storage.list_names(self.scratch("done"))
        return [name.removesuffix(".json") for name in names if name.startswith(prefixes)]

    def finish(
        self,
        completions: Sequence[Completion],
        *,
        inputs: Mapping[str, str],
        tokenizer: Mapping[str, Json],
        properties: Mapping[str, Json],
        backend: str | None = None,
    ) -> Manifest:
        """Writes the manifest over all parts, and removes what was only needed meanwhile."""
        files = {file.name: file for completion in completions for file in completion.files}
        manifest = Manifest(
            kind=self.kind,
            config=self.config,
            inputs=dict(inputs),
            tokenizer=cast("IdSource", dict(tokenizer)),
            properties=cast("Properties", dict(properties)),
            files=tuple(files[name] for name in sorted(files)),
            counters=add_up(completion.counters for completion in completions),
            backend=backend,
        )
        storage.write_bytes(self.url(MANIFEST), manifest.to_json().encode())
        storage.remove_tree(self.url(INCOMPLETE))
        return manifest

    @property
    def _versions(self) -> dict[str, Json]:
        """Of what makes the parts: those of others mustn't be among them."""
        return {
            "format_version": format_version(self.kind),
            "corpusmill_version": __version__,
        }

    def _refuse_other_version(self, job: Mapping[str, Json]) -> None:
        versions = self._versions
        differences = describe_differences({name: job.get(name) for name in versions}, versions)
        if differences:
            raise UsageError(
                f"output {self.folder} was begun with another version of corpusmill"
                f" ({'; '.join(differences)}); finish it with that one, or remove the folder"
            )

    def _refuse_other(self, kind: str, config: Mapping[str, Json]) -> None:
        if kind != self.kind:
            raise UsageError(
                f"output {self.folder} holds a {kind} dataset, not {self.kind}; name a new folder"
            )
        differences = describe_differences(config, self.config)
        if differences:
            raise UsageError(
                f"output {self.folder} was made with other options ({'; '.join(differences)});"
                " use the same ones, or name a new folder"
            )


def describe_differences(before: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    """One phrase for each key whose value differs between two configurations."""
    normal = json.loads(json.dumps(now))
    return [
        f"{key}: {json.dumps(before.get(key))} there, {json.dumps(normal.get(key))} now"
        for key in sorted({*before, *normal})
        if before.get(key) != normal.get(key)
    ]


def _read_record(url: str) -> dict[str, Json] | None:
    """A JSON object; None where there is none, or something else."""
    try:
        found = json.loads(storage.read_bytes(url))
    except (FileNotFoundError, NotADirectoryError, RecursionError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def part_name(index: int, count: int) -> str:
    """`part-00007-of-00064.parquet`"""
    return f"part-{index:05d}-of-{count:05d}.parquet"


def add_up(counters: Iterable[Mapping[str, int | float]]) -> dict[str, int | float]:
    """Sums counters by name."""
    totals: dict[str, int | float] = {}
    for each in counters:
        for name, value in each.items():
            totals[name] = totals.get(name, 0) + value
    return _Fields(totals.items(), "counters")


def _to_json(fields: Json) -> bytes:
    return json.dumps(fields, indent=1, sort_keys=True, ensure_ascii=False).encode()


def _hash_json(value: Json) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(canonical).hexdigest()


def hash_listing(items: Sequence[Json]) -> str:
    """A short stand-in, in a configuration, for a list that may be long."""
    return _hash_json(list(items))

"""A shard on disk, as values: its header, what `shard.json` and `progress.json` say, and whether its files agree.

    shards/tmp_00003-of-00064.<attempt>/   one attempt's checkpoint: column files, rejects.jsonl, progress.json
    attempts/00003-of-00064/               an empty file for each of its tmp_ folders, named like it
    shards/00003-of-00064/                 committed, immutable: the same files, meta.json of each table, shard.json

Nothing in a committed folder tells when, where or in how many attempts it was made. `writing` makes these folders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hpcdata.base import digest, files, sealed
from hpcdata.base.typed import checked
from hpcdata.shards.columns import token_schema
from hpcdata.shards.counts import Counts
from hpcdata.shards.schema import FILES, LISTING, Schema, Sizes

FORMAT = "hpcdata-shard-1"
TOKENIZE = "tokenize"
"""The stage of shards that name none."""
PROGRESS = "progress.json"
SHARD = "shard.json"
WORK = "work"
"""In a tmp_ folder: the sample at which its attempt is, blank when it left in order."""


@dataclass(frozen=True, kw_only=True)
class ShardHeader:
    """What a shard is, known before it is written. Enters shard.json."""

    name: str
    shard: int
    num_shards: int
    fingerprint: str
    id_dtype: str
    """Of tokens, empty for what has none."""
    source: str
    """Label of the input file."""
    first_index: int
    num_inputs: int
    stage: str = TOKENIZE
    contents: Schema | None = None
    """None for tokens, whose schema follows from the dtype of their ids."""

    @cached_property
    def schema(self) -> Schema:
        return token_schema(self.id_dtype) if self.contents is None else self.contents

    def to_mapping(self) -> dict[str, Any]:
        """Shards of tokens say nothing of stage and schema, as before there were others."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        stage, contents = values.pop("stage"), values.pop("contents")
        return values if contents is None else {**values, "stage": stage, "contents": contents.to_mapping()}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ShardHeader:
        contents = values.get("contents")
        return cls(**{**values, "contents": Schema.from_mapping(contents) if contents else None})


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """The content of shard.json."""

    header: ShardHeader
    counts: Counts
    sizes: Sizes
    content_digest: str
    files: dict[str, str]
    """Relative path -> sha256 of every other file of the shard."""

    def to_json(self) -> bytes:
        values = {**self.header.to_mapping(), "format": FORMAT, "content_digest": self.content_digest}
        return files.to_json({**values, "counts": self.counts.to_mapping(), "sizes": self.sizes, "files": self.files})


def read_summary(folder: Path) -> ShardSummary:
    """Reads shard.json. Raises FileNotFoundError, or ValueError when it is not one."""
    values = files.read_json(folder / SHARD)
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise ValueError(f"{folder / SHARD}: not a {FORMAT} file")
    try:
        summary = ShardSummary(
            counts=Counts.from_mapping(values.pop("counts")),
            sizes=values.pop("sizes"),
            files=values.pop("files"),
            content_digest=values.pop("content_digest"),
            header=ShardHeader.from_mapping(values),
        )
        return _with_tables(checked(summary))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / SHARD}: damaged ({error})") from None


def sha256_of(folders: Iterable[Path]) -> str:
    """Of the shard.json of several shards, one after the other."""
    sha256 = hashlib.sha256()
    for folder in folders:
        sha256.update(hashlib.sha256((folder / SHARD).read_bytes()).digest())
    return sha256.hexdigest()


def _with_tables(summary: ShardSummary) -> ShardSummary:
    if summary.sizes.keys() != set(summary.header.schema.tables):
        raise ValueError(f"sizes of {', '.join(summary.sizes)}, expected {', '.join(summary.header.schema.tables)}")
    return summary


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The content of progress.json: what a checkpoint vouches for."""

    fingerprint: str
    samples_read: int
    sizes: Sizes
    counts: Counts
    content_digest: str
    files: dict[str, tuple[int, str]]
    """Relative path -> (bytes, sha256 of them)."""

    def to_json(self) -> bytes:
        values = dataclasses.asdict(self)
        return sealed.to_json({**values, "counts": self.counts.to_mapping()})


def read_progress(folder: Path) -> Progress | None:
    """The checkpoint in a tmp_ folder, None when there is no valid one."""
    try:
        values = sealed.read_json(folder / PROGRESS)
        progress = Progress(
            fingerprint=values["fingerprint"],
            samples_read=values["samples_read"],
            sizes=values["sizes"],
            counts=Counts.from_mapping(values["counts"]),
            content_digest=values["content_digest"],
            files={path: (size, sha256) for path, (size, sha256) in values["files"].items()},
        )
        return checked(progress)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_work_note(folder: Path) -> int | None:
    """The position in the shard at which the attempt of a tmp_ folder died, None when it did not."""
    try:
        return parse_work_note((folder / WORK).read_bytes())
    except (OSError, ValueError):
        return None


def work_note(position: int | None) -> bytes:
    """The content of a `work` file. It is replaced in place, so it has its own check: the number stands there twice."""
    return ("" if position is None else f"{position} {position}").encode().ljust(20)


def parse_work_note(data: bytes) -> int | None:
    """None of a blank one. Raises ValueError for what no version has written."""
    numbers = data.decode().strip(" ").split(" ")
    if numbers == [""]:
        return None
    if len(numbers) > 2 or numbers[0] != numbers[-1]:  # once in older versions
        raise ValueError(f"{data!r} is no position in a shard")
    return int(numbers[0])


def seconds_lost(folder: Path) -> float:
    """Work of a dead attempt between its last checkpoint and the end of its last batch."""
    try:
        return round(max(0.0, (folder / WORK).stat().st_mtime - (folder / PROGRESS).stat().st_mtime), 3)
    except OSError:
        return 0.0


def make_folders(shards: Path) -> None:
    """Makes what holds shards and the notes on their attempts, durably: whoever writes there calls it once."""
    for folder in (shards, shards.parent / "attempts"):
        folder.mkdir(parents=True, exist_ok=True)
    files.sync_folder(shards.parent)


def note_attempt(shards: Path, name: str, attempt: str) -> None:
    """Notes durably, before it is made, that the folder `attempt` of a shard may exist: see `list_attempts`."""
    notes = _notes(shards, name)
    while True:
        notes.mkdir(parents=True, exist_ok=True)
        try:
            (notes / attempt).touch()
            files.sync_folder(notes)
            files.sync_folder(notes.parent)
            return
        except FileNotFoundError:  # a commit of the shard has removed the notes meanwhile
            continue


def noted_attempts(shards: Path, name: str) -> list[str]:
    """Names of tmp_ folders that a shard has or had."""
    try:
        return sorted(os.listdir(_notes(shards, name)))
    except FileNotFoundError:
        return []


def list_attempts(shards: Path, name: str) -> list[Path]:
    """The tmp_ folders of a shard, found by their notes: `shards/` may hold 100,000 names, too many to list."""
    return [shards / attempt for attempt in noted_attempts(shards, name) if (shards / attempt).is_dir()]


def remove_attempt(shards: Path, name: str, attempt: str) -> None:
    """Removes a tmp_ folder, also what a killed removal has left of it, and then its note."""
    files.remove_folder(shards / attempt)
    files.empty_trash(shards, attempt)
    (_notes(shards, name) / attempt).unlink(missing_ok=True)


def forget_attempts(shards: Path, name: str) -> None:
    """Removes all tmp_ folders of a shard and the notes on them."""
    for attempt in noted_attempts(shards, name):
        remove_attempt(shards, name, attempt)
    with contextlib.suppress(OSError):  # another attempt has just begun, and will learn that the shard is committed
        _notes(shards, name).rmdir()


def _notes(shards: Path, name: str) -> Path:
    return shards.parent / "attempts" / name


def valid_progress(old: Path, header: ShardHeader) -> Progress | None:
    """The checkpoint in a tmp_ folder if it belongs to the plan of `header`."""
    progress = read_progress(old)
    if progress is None or progress.fingerprint != header.fingerprint or not _agrees(progress, header.schema):
        return None
    return progress


def _agrees(progress: Progress, schema: Schema) -> bool:
    """Whether what a checkpoint says of samples, rows and bytes is one account."""
    counts, sizes = progress.counts, progress.sizes
    rows = {column.path: sizes.get(column.table, -1) * column.row_bytes for column in schema.columns}
    has_rows = all(progress.files.get(path, (-1, ""))[0] == size for path, size in rows.items())
    return has_rows and counts.is_balanced() and counts.inputs == progress.samples_read


def check_files(folder: Path, summary: ShardSummary) -> list[str]:
    """What is wrong with the files of a committed shard, by their sha256; empty when nothing is."""
    present = list_files(folder) - {SHARD, PROGRESS}
    expected = dict(summary.files)
    if summary.header.schema.has_files and LISTING in present:
        expected |= {f"{FILES}/{item.name}": item.sha256 for item in read_listing(folder)}
    problems = [f"{path}: not listed in {SHARD}" for path in sorted(present - expected.keys())]
    problems += [f"{path}: missing" for path in expected if path not in present]
    read = [path for path in expected if path in present]
    found = digest.sha256_files([f"{folder}/{path}" for path in read])
    changed = (path for path, sha256 in zip(read, found, strict=True) if sha256 != expected[path])
    return [*problems, *(f"{path}: its sha256 is not the one in {SHARD}" for path in changed)]


def check_sizes(folder: Path, summary: ShardSummary) -> list[str]:
    """What is wrong with a committed shard as far as names and sizes tell: time independent of bytes."""
    present, schema = list_files(folder) - {SHARD}, summary.header.schema
    expected = {
        column.path: summary.sizes[column.table] * column.row_bytes
        for column in schema.columns
        if column.path in present
    }
    own = {}
    if schema.has_files and LISTING in present:
        own = {f"{FILES}/{item.name}": item.size for item in read_listing(folder)}
    problems = [f"{path}: missing" for path in sorted((summary.files.keys() | own.keys()) - present)]
    problems += [f"{path}: not listed in {SHARD}" for path in sorted(present - summary.files.keys() - own.keys())]
    for path, size in (expected | own).items():
        if path in present and (found := os.stat(f"{folder}/{path}").st_size) != size:
            problems.append(f"{path}: {found} bytes, expected {size}")
    if not summary.counts.is_balanced() or summary.counts.inputs != summary.header.num_inputs:
        problems.append(f"{SHARD}: its account does not balance")
    return problems


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """A line of files.list."""

    name: str
    size: int
    sha256: str


def read_listing(folder: Path) -> Iterator[ListedFile]:
    """The files of their own that a shard lists. Raises ValueError for a line that is damaged."""
    with open(folder / LISTING, "rb") as lines:
        for line in lines:
            try:
                item = checked(ListedFile(**files.parse_lenient(line)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{folder / LISTING}: damaged ({error})") from None
            if "/" in item.name or item.name in ("", ".", ".."):
                raise ValueError(f"{folder / LISTING}: {item.name!r} is outside of its shard")
            yield item


def list_files(folder: Path) -> set[str]:
    """Relative paths of all files below a folder, without what NFS keeps of removed files that are still open."""
    found, ahead = set[str](), [""]
    while ahead:
        place = ahead.pop()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder / place) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    ahead.append(f"{place}{entry.name}/")
                elif entry.is_file() and not entry.name.startswith(".nfs"):
                    found.add(f"{place}{entry.name}")
    return found

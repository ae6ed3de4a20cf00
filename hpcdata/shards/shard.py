"""A shard on disk, as values: its header, what `shard.json` and `progress.json` say, and whether its files agree.

    shards/tmp_00003-of-00064.<attempt>/   one attempt's checkpoint: column files, rejects.jsonl, progress.json
    attempts/00003-of-00064/               an empty file for each of its tmp_ folders, named like it
    shards/00003-of-00064/                 committed, immutable: the same files, meta.json of each table, shard.json

Nothing in a committed folder tells when, where or in how many attempts it was made. `store` writes these folders.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base import digest, files
from hpcdata.base.typed import checked
from hpcdata.shards.columns import columns
from hpcdata.shards.counts import Counts, Sizes

FORMAT = "hpcdata-shard-1"
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
    source: str
    """Label of the input file."""
    first_index: int
    num_inputs: int


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
        values = {**dataclasses.asdict(self.header), "format": FORMAT, "content_digest": self.content_digest}
        sizes = dataclasses.asdict(self.sizes)
        return files.to_json({**values, "counts": self.counts.to_mapping(), "sizes": sizes, "files": self.files})


def read_summary(folder: Path) -> ShardSummary:
    """Reads shard.json. Raises FileNotFoundError, or ValueError when it is not one."""
    values = files.read_json(folder / SHARD)
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise ValueError(f"{folder / SHARD}: not a {FORMAT} file")
    try:
        summary = ShardSummary(
            counts=Counts.from_mapping(values.pop("counts")),
            sizes=Sizes(**values.pop("sizes")),
            files=values.pop("files"),
            content_digest=values.pop("content_digest"),
            header=ShardHeader(**values),
        )
        return checked(summary)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / SHARD}: damaged ({error})") from None


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
        return files.to_json({**values, "counts": self.counts.to_mapping()})


def read_progress(folder: Path) -> Progress | None:
    """The checkpoint in a tmp_ folder, None when there is no valid one."""
    try:
        values = files.read_json(folder / PROGRESS)
        progress = Progress(
            fingerprint=values["fingerprint"],
            samples_read=values["samples_read"],
            sizes=Sizes(**values["sizes"]),
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
        return int((folder / WORK).read_text())
    except (OSError, ValueError):
        return None


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
    if progress is not None and progress.fingerprint == header.fingerprint:
        return progress
    return None


def check_files(folder: Path, summary: ShardSummary) -> list[str]:
    """What is wrong with the files of a committed shard, by their sha256; empty when nothing is."""
    present = list_files(folder) - {SHARD, PROGRESS}
    problems = [f"{path}: not listed in {SHARD}" for path in sorted(present - summary.files.keys())]
    for path, sha256 in summary.files.items():
        if path not in present:
            problems.append(f"{path}: missing")
        elif digest.sha256_file(folder / path) != sha256:
            problems.append(f"{path}: its sha256 is not the one in {SHARD}")
    return problems


def check_sizes(folder: Path, summary: ShardSummary) -> list[str]:
    """What is wrong with a committed shard as far as names and sizes tell: time independent of bytes."""
    present = list_files(folder) - {SHARD}
    problems = [f"{path}: missing" for path in sorted(summary.files.keys() - present)]
    problems += [f"{path}: not listed in {SHARD}" for path in sorted(present - summary.files.keys())]
    rows = dataclasses.asdict(summary.sizes)
    for column in columns(summary.header.id_dtype):
        if column.path in present:
            found = (folder / column.path).stat().st_size
            expected = rows[column.table] * column.row_bytes
            if found != expected:
                problems.append(f"{column.path}: {found} bytes, expected {expected}")
    if not summary.counts.is_balanced() or summary.counts.inputs != summary.header.num_inputs:
        problems.append(f"{SHARD}: its account does not balance")
    return problems


def list_files(folder: Path) -> set[str]:
    """Relative paths of all files below a folder, without what NFS keeps of removed files that are still open."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".nfs"))
    return {path.relative_to(folder).as_posix() for path in found}

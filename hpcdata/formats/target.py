"""What an export is and came from, as `hpcdata.json` in its folder: written last, read by `verify` and by a rerun.

    {"format": "hpcdata-export-1", "target": "mds", "options": {...}, "source": {...}, "origins": {...},
     "counts": {...}, "facts": {...}, "files": [{"name": ..., "size": ..., "sha256": ...}, ...]}

Of more than `MOST_NAMED` files the list is a file of its own, `hpcdata.files.jsonl`, of which `files` is the entry. A
file that several shards have filled has `pieces` instead of one sha256: size and sha256 of each, from its beginning.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hpcdata.base import files, sealed
from hpcdata.base.digest import sha256_file
from hpcdata.base.errors import Failed, UserError
from hpcdata.base.reads import walk
from hpcdata.base.typed import checked
from hpcdata.base.version import code_version
from hpcdata.dataset.manifest import Manifest
from hpcdata.shards.counts import Counts

FORMAT = "hpcdata-export-1"
FILE_NAME, LISTING = "hpcdata.json", "hpcdata.files.jsonl"
MOST_NAMED = 1000
_CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class Piece:
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of an export."""

    name: str
    """Below its folder, with `/`."""
    size: int
    sha256: str = ""
    """Empty where there are pieces."""
    pieces: tuple[Piece, ...] = ()

    def to_mapping(self) -> dict[str, Any]:
        values: dict[str, Any] = {"name": self.name, "size": self.size}
        return (
            {**values, "pieces": [vars(piece) for piece in self.pieces]}
            if self.pieces
            else {
                **values,
                "sha256": self.sha256,
            }
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FileEntry:
        """Raises ValueError, KeyError or TypeError for what `to_mapping` has not made."""
        pieces = tuple(Piece(**piece) for piece in values.get("pieces", ()))
        name = str(values["name"])
        if not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{name!r} is outside of its folder")
        entry = checked(cls(name=name, size=values["size"], sha256=values.get("sha256", ""), pieces=pieces))
        if entry.size < 0 or any(piece.size < 0 for piece in pieces):
            raise ValueError(f"{name} has a size below 0")
        if pieces and entry.size != sum(piece.size for piece in pieces):
            raise ValueError(f"{name} has {entry.size} bytes, and not those of its pieces")
        return entry

    def problem(self, folder: Path) -> str:
        """What is wrong with the file, by its bytes; empty when nothing is."""
        path = folder / self.name
        try:
            size = path.stat().st_size
            if size != self.size:
                return f"{self.name}: {size} bytes, expected {self.size}"
            if not self.pieces:
                return "" if sha256_file(path) == self.sha256 else f"{self.name}: its bytes are not those written"
            with open(path, "rb") as file:
                for number, piece in enumerate(self.pieces):
                    if _sha256(file, piece.size) != piece.sha256:
                        return f"{self.name}: the bytes of piece {number} are not those written"
        except FileNotFoundError:
            return f"{self.name} is gone"
        except OSError as error:
            return f"{self.name} cannot be read: {error.strerror}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The dataset that an export was made of: what identifies it, and no path."""

    fingerprint: str
    """Of its plan."""
    content_digest: str
    stage: str
    num_samples: int
    counts: Counts | None = field(default=None, compare=False)
    """Its account, so that no one takes the rows that it had for all that it was made of. None in older files."""

    def to_mapping(self) -> dict[str, Any]:
        values = dict(vars(self))
        return values if self.counts is None else {**values, "counts": self.counts.to_mapping()}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Source:
        counts = values.get("counts")
        return cls(**{**values, "counts": None if counts is None else Counts.from_mapping(counts)})

    @classmethod
    def of(cls, manifest: Manifest) -> Source:
        return cls(
            fingerprint=manifest.fingerprint,
            content_digest=manifest.content_digest,
            stage=manifest.stage or "tokenize",
            num_samples=manifest.num_samples,
            counts=manifest.counts,
        )


@dataclass(frozen=True, kw_only=True)
class Target:
    """An export: the first four say what it is to be, the others what was written."""

    format: str
    """Its name, as in `hpcdata export --format`."""
    options: Mapping[str, Any]
    """All that its bytes depend on beside the source, as values of JSON."""
    source: Source
    counts: Counts
    """What became of the rows of the source."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What users of it must know, such as a shift of ids."""
    origins: Mapping[str, Any] = field(default_factory=dict)
    """What the source came from (`formats.origins`); nothing of exports of before."""
    files: tuple[FileEntry, ...] = ()
    """All, or the listing that has them."""
    code_version: str = ""
    folder: Path = Path()
    """Where it was read from: not part of the file."""

    def describe(self) -> str:
        """Its account, how many of the written ones it cannot hold, and what is missing in its source already."""
        left_out = self.facts.get("left_out")
        reasons = sorted(left_out.items()) if isinstance(left_out, dict) else []
        without = ", ".join(f"{number} {reason}" for reason, number in reasons)
        made = f"{self.format}, {self.counts.describe()}" + (f", without {without}" if without else "")
        of = self.source.counts
        is_told = of is None or of.inputs == self.counts.inputs
        return made if is_told or of is None else f"{made}, of a dataset with {of.describe()}"

    def is_like(self, other: Target) -> bool:
        """Whether both are to be the same bytes."""
        return self.is_for(other) and (self.source, self.counts) == (other.source, other.counts)

    def is_for(self, other: Target) -> bool:
        """Whether both are the same export of the same run, whose dataset may have grown (`rejects --retry`)."""
        mine, theirs = (json.loads(json.dumps(dict(item.options))) for item in (self, other))
        return (self.format, mine, self.source.fingerprint) == (other.format, theirs, other.source.fingerprint)

    def to_json(self) -> bytes:
        return sealed.to_json(
            {
                "format": FORMAT,
                "target": self.format,
                "options": dict(self.options),
                "source": self.source.to_mapping(),
                **({"origins": dict(self.origins)} if self.origins else {}),
                "counts": self.counts.to_mapping(),
                "facts": dict(self.facts),
                "files": [entry.to_mapping() for entry in self.files],
                "code_version": self.code_version or code_version(),
            }
        )

    def entries(self) -> Iterator[FileEntry]:
        """Every file but `hpcdata.json`, one at a time. Raises Failed for a damaged listing."""
        for entry in self.files:
            yield entry
            if entry.name == LISTING:
                yield from read_listing(self.folder / LISTING)


def is_target(folder: Path) -> bool:
    return (folder / FILE_NAME).is_file()


def read_target(folder: Path, *, even_if_changed: bool = False) -> Target:
    """Raises UserError where there is none, Failed where it is damaged.

    even_if_changed: reads it although its bytes are not those that were written, for `problems_of`.
    """
    path = folder / FILE_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{folder} is no export of hpcdata: it has no {FILE_NAME}") from None
    advice = "export it again into a new folder"
    try:
        if not even_if_changed and (fault := sealed.fault_of(data)) is not None:
            raise ValueError(fault)
        values = files.parse_json(data, FILE_NAME)
        if values.get("format") != FORMAT:
            raise UserError(f"{path} has format {values.get('format')!r}, this version of hpcdata reads {FORMAT!r}")
        target = checked(
            Target(
                format=values["target"],
                options=values["options"],
                source=Source.from_mapping(values["source"]),
                counts=Counts.from_mapping(values["counts"]),
                facts=values["facts"],
                origins=dict(values.get("origins", {})),
                files=tuple(FileEntry.from_mapping(entry) for entry in values["files"]),
                code_version=values["code_version"],
                folder=folder,
            )
        )
        for counts in (target.counts, target.source.counts):
            if counts is not None and not counts.is_possible():
                raise ValueError(f"its account does not add up: {counts.describe()}")
        return target
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Failed(f"{path} is damaged ({error}): {advice}") from None


def read_listing(path: Path) -> Iterator[FileEntry]:
    """Raises Failed where it is damaged."""
    try:
        with open(path, "rb") as file:
            for line in file:
                yield FileEntry.from_mapping(json.loads(line))
    except FileNotFoundError:
        return
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Failed(f"{path} is damaged ({error}): export it again into a new folder") from None


def problems_of(folder: Path) -> list[str]:
    """Reads every file of an export back: what is not as it was written, and what was added. Raises UserError."""
    target = read_target(folder, even_if_changed=True)
    problems, names = [], {FILE_NAME}
    if (fault := sealed.fault_of((folder / FILE_NAME).read_bytes())) is not None:
        problems.append(f"{FILE_NAME}: {fault}")
    try:
        for entry in target.entries():
            names.add(entry.name)
            if problem := entry.problem(folder):
                problems.append(problem)
    except Failed as error:
        problems.append(str(error))
    try:
        added = sorted(name for name in _names(folder) if name not in names and not _is_cache(name, names))
    except OSError as error:
        return [*problems, f"{error.filename} cannot be listed: {error.strerror}"]
    return [*problems, *_told(added)]


def _is_cache(name: str, names: set[str]) -> bool:
    """Whether it is what `datasets` puts beside the files of a folder that it reads: orders that it has drawn."""
    path = PurePosixPath(name)
    is_of_datasets = re.fullmatch(r"cache-[0-9a-f]+\.arrow", path.name) is not None
    return is_of_datasets and (path.parent / "state.json").as_posix() in names


def _told(added: Sequence[str]) -> list[str]:
    if not added:
        return []
    return [f"{len(added)} files were not there when it was made, such as {added[0]}: remove them, or read without"]


def _names(folder: Path) -> Iterator[str]:
    for place, _, names in walk(folder):
        for name in names:
            yield Path(place, name).relative_to(folder).as_posix()


def _sha256(file: Any, size: int) -> str:
    hasher = hashlib.sha256()
    while size and (chunk := file.read(min(size, _CHUNK))):
        hasher.update(chunk)
        size -= len(chunk)
    return hasher.hexdigest() if not size else ""

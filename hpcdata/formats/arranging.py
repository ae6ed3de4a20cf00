"""Arranging: an export is laid out beside its final name, from files that are there, and appears at once.

    target = arrange(out, Target(format="mds", options=..., source=Source.of(manifest), counts=manifest.counts), fill)

`fill(building)` gives the folder its files: `link` (a hard link of a file of a shard, whose sha256 is known), `write`
(bytes), `open` (a file that is written piece by piece), `adopt` (what a library has written there). It returns the
facts for `hpcdata.json`, which is written last; then all is durable, and one rename publishes it. Killed at any moment,
the same call makes the same bytes: what a killed attempt has left is removed, and what is complete is found. `fill`
must depend on nothing but the target.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcdata.base import files
from hpcdata.base.digest import sha256_file
from hpcdata.base.errors import Failed, Unfinished, UserError
from hpcdata.base.reads import naming, walk
from hpcdata.base.version import code_version
from hpcdata.dataset.publishing import publish, recover
from hpcdata.formats.target import FILE_NAME, LISTING, MOST_NAMED, FileEntry, Piece, Target, is_target, read_target
from hpcdata.runs.claims import Claims, Owner
from hpcdata.shards.appending import AppendFile

log = logging.getLogger(__name__)

CLAIM_TIMEOUT_S = 120.0
_as_json = json.JSONEncoder(ensure_ascii=False).encode
Fill = Callable[["Building"], Mapping[str, Any]]


class Building:
    """The folder of an export while it is made. Names are relative, with `/`; folders are made as needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listing = AppendFile(folder / LISTING)
        self._num_files = 0
        self._made = {""}
        """Folders."""

    def link(self, source: Path | str, name: str, sha256: str, *, pieces: Sequence[Piece] = ()) -> None:
        """Adds a durable file by a hard link, or as a copy where there are none. sha256: of its bytes, as its shard
        says; empty where it has pieces."""
        path = self._place(name)
        files.link_file(source, path)
        self._add(FileEntry(name=name, size=os.stat(path).st_size, sha256=sha256, pieces=tuple(pieces)))

    def write(self, name: str, data: bytes) -> None:
        with self.open(name) as file:
            file.append(data)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[AppendFile]:
        """A new file to append to; durable when the block ends."""
        file = AppendFile(Path(self._place(name)))
        try:
            yield file
            file.sync()
        finally:
            file.close()
        self._add(FileEntry(name=name, size=file.size, sha256=file.sha256()))

    def adopt(self) -> None:
        """Adds what a library has written into the folder by itself, in the order of names."""
        for place, folders, names in walk(self.folder):
            folders.sort()
            for path in sorted(Path(place, name) for name in names if name not in (FILE_NAME, LISTING)):
                files.sync_file(path)
                name = path.relative_to(self.folder).as_posix()
                self._add(FileEntry(name=name, size=path.stat().st_size, sha256=sha256_file(path)))

    def finish(self) -> tuple[FileEntry, ...]:
        """Makes names durable; returns what `hpcdata.json` says of the files."""
        self._listing.sync()
        self._listing.close()
        listing = self.folder / LISTING
        if self._num_files <= MOST_NAMED:
            lines = listing.read_bytes().splitlines()
            listing.unlink()
            entries = tuple(FileEntry.from_mapping(json.loads(line)) for line in lines)
        else:
            entries = (FileEntry(name=LISTING, size=self._listing.size, sha256=self._listing.sha256()),)
        for place, _, _ in walk(self.folder, topdown=False):
            files.sync_folder(Path(place))
        return entries

    def close(self) -> None:
        self._listing.close()

    def _place(self, name: str) -> str:
        if name.startswith("/") or ".." in name.split("/") or name in ("", FILE_NAME, LISTING):
            raise AssertionError(f"{name!r} is no name for a file of an export")
        folder = name.rpartition("/")[0]
        if folder not in self._made:
            os.makedirs(self.folder / folder, exist_ok=True)
            self._made.add(folder)
        return f"{self.folder}/{name}"

    def _add(self, entry: FileEntry) -> None:
        self._num_files += 1
        self._listing.append(files.to_bytes(f"{_as_json(entry.to_mapping())}\n"))


def arrange(out: Path, target: Target, fill: Fill) -> Target:
    """Makes the export at `out`, or finds it there. Raises UserError where the place is taken.

    One that was made of the same run before its dataset has grown is replaced, so that one of the two is always there.
    """
    out = out.absolute()
    require_place(out, target)
    with naming(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    claims_folder = out.with_name(f".{out.name}.claims")
    owner = Owner.of_this_process(f"arrange-{os.getpid()}-{time.time_ns()}")
    try:
        with Claims(claims_folder, owner, timeout_s=CLAIM_TIMEOUT_S) as claims:
            if not claims.try_claim("arrange"):
                raise Unfinished(f"another process is making {out}: wait for it, then run this again")
            return _arrange(out, target, fill)
    finally:
        with contextlib.suppress(OSError):
            claims_folder.rmdir()


def _arrange(out: Path, target: Target, fill: Fill) -> Target:
    recover(out)
    for pattern in (f".{glob.escape(out.name)}.building.*", f"{files.TRASH}.{glob.escape(out.name)}.building.*"):
        for old in out.parent.glob(pattern):  # of killed attempts: we hold the claim
            files.remove_folder(old)
    if (made := _existing(out, target)) is not None:
        log.info("%s holds this export already", out)
        return made
    building = out.with_name(f".{out.name}.building.{secrets.token_hex(4)}")
    with files.removed_on_error(building):
        building.mkdir()
        made = _build(building, target, fill)
        publish(building, out)
    return dataclasses.replace(made, folder=out)


def _build(folder: Path, target: Target, fill: Fill) -> Target:
    with contextlib.closing(Building(folder)) as building:
        facts = fill(building)
        entries = building.finish()
    made = dataclasses.replace(target, facts=facts, files=entries, code_version=code_version(), folder=folder)
    files.write_atomic(folder / FILE_NAME, made.to_json())
    return made


def _existing(out: Path, target: Target) -> Target | None:
    """The export that is there and complete; None where one is to be made."""
    require_place(out, target)
    if not is_target(out):
        return None
    try:
        found = read_target(out)
    except Failed as error:
        log.warning("%s; it is made again", error)
        return None
    return found if found.is_like(target) else None


def require_free(out: Path, format_name: str) -> None:
    """Raises UserError where `out` is something else than an export of this format: before there is one to make."""
    if not os.path.lexists(out):
        return
    if is_target(out):
        found = read_target(out, even_if_changed=True)
        if found.format == format_name:
            return
        raise UserError(f"{out} holds another export (of format {found.format}): choose another folder")
    if not out.is_dir() or any(out.iterdir()):
        raise UserError(f"{out} exists already: choose another folder")


def require_place(out: Path, target: Target) -> None:
    """Raises UserError where `out` is something else than this export: call it before all the work."""
    if not os.path.lexists(out):
        return
    if is_target(out):
        found = read_target(out, even_if_changed=True)
        if found.is_for(target):
            return
        raise UserError(f"{out} holds another export ({_difference(found, target)}): choose another folder")
    if not out.is_dir() or any(out.iterdir()):
        raise UserError(f"{out} exists already: choose another folder")


def _difference(found: Target, wanted: Target) -> str:
    if found.format != wanted.format:
        return f"of format {found.format}"
    if found.source.fingerprint != wanted.source.fingerprint:
        return "of another dataset"
    names = sorted(found.options.keys() | wanted.options.keys())
    pairs = [(name, found.options.get(name), wanted.options.get(name)) for name in names]
    return ", ".join(f"{name} was {old}, now {new}" for name, old, new in pairs if old != new)

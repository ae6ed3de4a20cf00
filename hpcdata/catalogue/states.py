"""How a set is: here, in part, or what has to be done to get it. Read from the disk alone, in no time."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base import units
from hpcdata.base.command import quoted
from hpcdata.base.errors import Failed, UserError
from hpcdata.base.reads import walk
from hpcdata.catalogue import listing
from hpcdata.catalogue.entry import ACCESS, Entry
from hpcdata.catalogue.listing import Listed
from hpcdata.catalogue.record import FOLDER, Known, Record
from hpcdata.catalogue.registry import Catalogue, matcher
from hpcdata.catalogue.unpacking.marks import missing_of

PRESENT, PARTIAL, ABSENT, DAMAGED, UNKNOWN = "present", "partial", "absent", "damaged", "unknown"


@dataclass(frozen=True)
class State:
    """name: present, partial, absent, damaged, unknown (nobody has looked), or what `Entry.access` says. remedy: what
    to do, empty when nothing.
    """

    name: str
    remedy: str
    num_bytes: int = 0
    """Of the files that are here."""


def folder_of(entry: Entry, data_dir: Path) -> Path:
    """Where the set lies: the first of its places that has something in it, else where it will lie."""
    places = [data_dir / name for name in (entry.folder, *entry.also_in)]
    return next((place for place in places if place.is_dir() and any(os.scandir(place))), places[0])


def sets_of(made: Path, names: Sequence[str], catalogue: Callable[[], Catalogue]) -> dict[str, Entry | None]:
    """The sets that inputs of a run (or of its dataset) are of, as far as its plan is there and is of this version, and
    then those of `names`; None for a name that the catalogue does not have. catalogue: asked for if there is any.
    """
    from hpcdata.runs.plan import load_plan

    places = dict[Path, None]()
    if (run := next((folder for folder in (made, made.parent) if (folder / "plan.json").is_file()), None)) is not None:
        with contextlib.suppress(UserError):
            origins = [Path(item.origin) for item in load_plan(run).inputs]
            places = dict.fromkeys(path if path.is_dir() else path.parent for path in origins)
    entries = [entry_at(place, lambda: catalogue().entries) for place in places]
    found: dict[str, Entry | None] = {entry.name: entry for entry in entries if entry is not None}
    for name in names:
        entry = catalogue().find(name)
        found.setdefault(name if entry is None else entry.name, entry)
    return found


def entry_at(place: Path, entries: Callable[[], Iterable[Entry]]) -> Entry | None:
    """Of which set a folder is, by the listing in it or above it: the entry that it was made from. None for others."""
    for folder in (place, *place.parents):
        if not listing.path_of(folder).is_file():
            continue
        listed = listing.load(folder)
        sources = None if listed is None else listed.sources
        fits = [entry for entry in entries() if listing.sources_of(entry) == sources]
        its = [entry for entry in fits if any(_lies_so(folder, name) for name in (entry.folder, *entry.also_in))]
        return next(iter(its), fits[0] if len(fits) == 1 else None)
    return None


def _lies_so(folder: Path, name: str) -> bool:
    parts = Path(name).parts
    return folder.parts[-len(parts) :] == parts


def fetch_line(entry: Entry, folder: Path) -> str:
    """What brings the pictures of a list of addresses, once its tables are here."""
    urls = entry.urls[0]
    words = [
        *("hpcdata launch +experiments=fetch fetch.contact=you@lab.org", f"fetch.url_field={urls.url}"),
        *([f"fetch.sha256_field={urls.sha256}"] if urls.sha256 else []),
        f"data.raw_data_dir={quoted(os.path.join(glob.escape(str(folder)), urls.tables[0]))}",
        f"data.token_output_dir={quoted(str(folder / urls.folder))}",
    ]
    return " ".join(words)


def read_state(entry: Entry, data_dir: Path | None) -> State:
    """data_dir: None where nothing says where sets lie."""
    type_again = f"hpcdata download {quoted(entry.name)}"
    if data_dir is None:
        return State(UNKNOWN, type_again) if entry.access == "open" else _unreached(entry, type_again)
    try:
        return _state(entry, folder_of(entry, data_dir), type_again)
    except Failed as error:
        return State(DAMAGED, str(error))
    except OSError as error:
        return State(DAMAGED, f"{error.filename} cannot be read: {error.strerror}")


def _state(entry: Entry, folder: Path, type_again: str) -> State:
    listed, known = listing.load(folder), Record(folder).read()
    if listed is not None:
        fits = [item for item in listed.files if _fits_record(item, known, folder)]
        num_bytes = sum(known.here[item.path].size for item in fits)
        if listed.sources != listing.sources_of(entry):
            return State(PARTIAL, f"its entry is another one than when it was listed: {type_again}", num_bytes)
        if len(fits) == len(listed.files):
            if packed := missing_of(entry, folder):
                return State(PARTIAL, f"{len(packed)} archives are not unpacked: {type_again}", num_bytes)
            if entry.urls and not (folder / entry.urls[0].folder / "dataset").is_dir():
                return State(PARTIAL, f"its pictures: {fetch_line(entry, folder)}", num_bytes)
            return State(PRESENT, "", num_bytes)
        others = [item for item in listed.files if not _fits_record(item, known, folder)]
        if all(_has_its_size(item, folder) for item in others):
            told = f"{len(others)} of {len(listed.files)} files are others than were recorded, or copies of these"
            return State(PARTIAL, f"{told}: {type_again} reads them through", num_bytes)
        return State(PARTIAL, f"{len(others)} of {len(listed.files)} files are missing: {type_again}", num_bytes)
    if entry.access == "open":
        of_splits = matcher([pattern for patterns in entry.splits.values() for pattern in patterns]).fullmatch
        if any(map(of_splits, names_below(folder))):
            return State(PARTIAL, f"files are here that nobody has checked: {type_again} reads them through")
        return State(ABSENT, type_again)
    if entry.access == "manual":
        return _manual(entry, folder, type_again)
    return _unreached(entry, type_again)


def _fits_record(item: Listed, known: Known, folder: Path) -> bool:
    here = known.here.get(item.path)
    return here is not None and here.is_as_recorded(folder / item.path)


def _has_its_size(item: Listed, folder: Path) -> bool:
    try:
        return item.size in (None, (folder / item.path).stat().st_size)
    except FileNotFoundError:
        return False


def _unreached(entry: Entry, type_again: str) -> State:
    what = entry.note or ACCESS[entry.access]
    return State(entry.access, f"{what}; then {type_again}" if entry.access in ("gated", "manual") else what)


def _manual(entry: Entry, folder: Path, type_again: str) -> State:
    missing = missing_needs(entry, folder)
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        return State("manual", f"{', '.join(missing)} {verb} not in {folder}: {type_again} says what to do")
    return State(PARTIAL, f"what was placed by hand is there, unchecked: {type_again}")


def missing_needs(entry: Entry, folder: Path) -> list[str]:
    """Patterns of what a person has to place, that fit nothing."""
    names = list(names_below(folder))
    return [need for need in entry.needs if not any(map(matcher([need]).fullmatch, names))]


def names_below(folder: Path) -> Iterator[str]:
    """All files of a set, without ours. Links to folders are followed: pictures may lie on a larger disk."""
    seen = set[tuple[int, int]]()
    for root, folders, names in walk(folder, follow=True):
        found = os.stat(root)
        if (found.st_dev, found.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if name != FOLDER)
        for name in sorted(names):
            yield os.path.relpath(os.path.join(root, name), folder)


def size_of(entry: Entry, state: State) -> str:
    if state.name == PRESENT:
        return units.size(state.num_bytes)
    return "?" if entry.size is None else f"~{units.size(entry.size)}"

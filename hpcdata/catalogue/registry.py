"""The entries that there are, by name, alias, variant and group: a name means one of them, and a folder is of one.

Names are told apart by letters and digits alone: `ChartQa`, `chart_qa` and `chart-qa` are one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcdata.base.errors import UserError
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.reading import read_entry

OWN = Path(__file__).parent / "entries"
ALL = "all"
ENDINGS = (".yaml", ".yml")


class Catalogue:
    """folders: of the user's own entries, which stand before ours of the same name; the first one wins."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        """Raises UserError for a folder that is not there, an entry that is wrong, a name or folder that two have."""
        self.entries: list[Entry] = []
        self._by_name: dict[str, Entry] = {}
        self._paths: dict[str, Path] = {}
        for folder in [*folders, OWN]:
            if not folder.is_dir():
                raise UserError(f"{folder} is no folder: it should hold entries of data sets, NAME.yaml")
            for path in sorted(path for path in folder.iterdir() if path.suffix in ENDINGS and path.is_file()):
                self._add(read_entry(path), path, is_own=folder == OWN)
        self.groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for group in entry.groups:
                self.groups.setdefault(group, []).append(entry)
        self._require_one_meaning()

    def find(self, name: str) -> Entry | None:
        return self._by_name.get(key_of(name))

    def choose(self, names: Sequence[str]) -> list[Entry]:
        """Those of names and groups, each once, in their order. Raises UserError for a name that none has."""
        found: dict[str, Entry] = {}
        for name in names:
            for entry in self._chosen(name):
                found.setdefault(entry.name, entry)
        return list(found.values())

    def asked_for(self, names: Sequence[str]) -> set[str]:
        """Names of the entries that are named themselves, and not as one of a group."""
        return {entry.name for entry in map(self.find, names) if entry is not None}

    def nearest(self, name: str, count: int = 3) -> list[str]:
        """Names and groups that come near to one that is none."""
        known = [*(item for entry in self.entries for item in entry.names()), *self.groups, ALL]
        return difflib.get_close_matches(name.lower(), known, n=count, cutoff=0.5)

    def _chosen(self, name: str) -> list[Entry]:
        entry = self.find(name)
        if entry is not None:
            return [entry]
        groups = {key_of(group): entries for group, entries in self.groups.items()} | {ALL: self.entries}
        if key_of(name) in groups:
            return groups[key_of(name)]
        near = self.nearest(name)
        hint = f"did you mean {', '.join(near)}?" if near else "hpcdata download --list has all"
        raise UserError(f"there is no data set and no group {name}: {hint}")

    def _add(self, entry: Entry, path: Path, *, is_own: bool) -> None:
        if is_own and any(key_of(entry.name) == key_of(other.name) for other in self.entries):
            return  # the user has an entry of this name
        for key, name in {key_of(name): name for name in entry.names()}.items():
            other = self._by_name.get(key)
            if other is None:
                self._by_name[key] = entry
            elif not is_own:
                raise UserError(f"{path}: the name {name} is taken, by {other.name}")
            elif key == key_of(entry.name):
                hint = f"an entry that takes its place is called {entry.name}"
                raise UserError(f"{self._paths[other.name]}: the name {name} is taken, by one of hpcdata's own: {hint}")
        if (other := next((item for item in self.entries if item.folder == entry.folder), None)) is not None:
            where, by = (self._paths[other.name], entry) if is_own else (path, other)
            raise UserError(f"{where}: the folder {entry.folder} is taken, by {by.name}")
        self.entries.append(entry)
        self._paths[entry.name] = path

    def _require_one_meaning(self) -> None:
        for group, entries in self.groups.items():
            taken = self._by_name.get(key_of(group))
            if taken is not None or key_of(group) == ALL:
                paths = [self._paths[entry.name] for entry in (*entries, *filter(None, [taken]))]
                path = next((path for path in paths if path.parent != OWN), paths[0])
                what = f"the data set {taken.name}" if taken is not None else "all data sets"
                raise UserError(f"{path}: {group} is a group and means {what}, too: choose another word")
        if (entry := self._by_name.get(ALL)) is not None:
            raise UserError(f"{self._paths[entry.name]}: the name {ALL} means all data sets: choose another one")


def key_of(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def matcher(patterns: Sequence[str]) -> re.Pattern[str]:
    """Whole paths that fit one of the patterns: `*` stays in its folder, `**` does not; brackets are letters."""
    return re.compile("|".join("".join(_translated(pattern)) for pattern in patterns))


def _translated(pattern: str) -> Iterator[str]:
    for piece in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        yield {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))

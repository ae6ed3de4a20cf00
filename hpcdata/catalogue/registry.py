"""The entries that there are, by name, alias, variant and group.

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


class Catalogue:
    """folders: of the user's own entries, which stand before ours of the same name; the first one wins."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        """Raises UserError for a folder that is not there, an entry that is wrong, and a name that two have."""
        self.entries: list[Entry] = []
        self._by_name: dict[str, Entry] = {}
        for folder in [*folders, OWN]:
            if not folder.is_dir():
                raise UserError(f"{folder} is no folder: it should hold entries of data sets, NAME.yaml")
            for path in sorted(folder.glob("*.yaml")):
                self._add(read_entry(path), path, is_own=folder == OWN)
        self.groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            for group in entry.groups:
                self.groups.setdefault(group, []).append(entry)

    def find(self, name: str) -> Entry | None:
        return self._by_name.get(key_of(name))

    def choose(self, names: Sequence[str]) -> list[Entry]:
        """Those of names and groups, each once, in their order. Raises UserError for a name that none has."""
        found: dict[str, Entry] = {}
        for name in names:
            for entry in self._chosen(name):
                found.setdefault(entry.name, entry)
        return list(found.values())

    def _chosen(self, name: str) -> list[Entry]:
        entry = self.find(name)
        if entry is not None:
            return [entry]
        groups = {key_of(group): entries for group, entries in self.groups.items()} | {ALL: self.entries}
        if key_of(name) in groups:
            return groups[key_of(name)]
        known = [*(item for entry in self.entries for item in entry.names()), *self.groups, ALL]
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "hpcdata download --list has all"
        raise UserError(f"there is no data set and no group {name}: {hint}")

    def _add(self, entry: Entry, path: Path, *, is_own: bool) -> None:
        names = {key_of(name): name for name in entry.names()}
        if is_own and any(key_of(entry.name) == key_of(other.name) for other in self.entries):
            return  # the user has an entry of this name
        for key, name in names.items():
            other = self._by_name.get(key)
            if other is not None and not is_own:
                raise UserError(f"{path}: the name {name} is taken, by {other.name}")
            self._by_name.setdefault(key, entry)
        self.entries.append(entry)


def key_of(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def matcher(patterns: Sequence[str]) -> re.Pattern[str]:
    """Whole paths that fit one of the patterns: `*` stays in its folder, `**` does not; brackets are letters."""
    return re.compile("|".join("".join(_translated(pattern)) for pattern in patterns))


def _translated(pattern: str) -> Iterator[str]:
    for piece in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        yield {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))

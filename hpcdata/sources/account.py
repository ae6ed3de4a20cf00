"""What of the folders of inputs is not read: counted by ending while planning, each with an example.

The account of a run begins here: files found = inputs + parts of their samples + not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpcdata.base.reads import is_folder
from hpcdata.sources import wids
from hpcdata.sources.base import InputFile, clean_name, refusing_faults
from hpcdata.sources.folder import Passed, parts_of, walk
from hpcdata.sources.patterns import expand_paths

_MOST_CLASSES = 64
_LONGEST_ENDING = 12
OTHERS = "(other endings)"


@dataclass(frozen=True, kw_only=True)
class NotRead:
    """Files of one ending, or of one class in brackets, that no sample is made of."""

    ending: str
    count: int
    example: str
    """The path of one of them, below the folder that was named."""


def find_not_read(raw_data_dir: str | Sequence[str], listed: Sequence[InputFile], without: str) -> tuple[NotRead, ...]:
    """The files of all named folders that are neither an input nor a part of a sample, the most frequent first.

    listed: what `list_inputs` found. without: the folder of the run, which is left out. Raises UserError.
    """
    taken = {file.path for file in listed}
    counts: dict[str, list[int | str]] = {}
    for folder in dict.fromkeys(expand_paths(raw_data_dir)):
        with refusing_faults(folder):
            is_listed = is_folder(folder)
        if is_listed:
            for kind, path in _left_out(folder, taken, {os.path.realpath(path) for path in taken}, without):
                kind = kind if kind in counts or len(counts) < _MOST_CLASSES else OTHERS
                entry = counts.setdefault(kind, [0, clean_name(os.fsencode(os.path.relpath(path, folder)))])
                entry[0] = int(entry[0]) + 1
    found = [NotRead(ending=kind, count=int(count), example=str(name)) for kind, (count, name) in counts.items()]
    return tuple(sorted(found, key=lambda item: (-item.count, item.ending)))


def describe(not_read: Sequence[NotRead]) -> str:
    """One line, the most frequent endings first."""
    shown = [f"{item.count} {item.ending} ({item.example})" for item in not_read[:8]]
    more = f", and {len(not_read) - 8} other endings" if len(not_read) > 8 else ""
    return f"{sum(item.count for item in not_read)} files: {', '.join(shown)}{more}"


def _left_out(folder: str, taken: set[str], real: set[str], without: str) -> Iterator[tuple[str, str]]:
    """(class, path) of every file that is not read."""
    passed = Passed()
    for directory, names in walk(folder, without=without, passed=passed):
        used = parts_of(names) if folder in taken else set[str]()
        for name in names:
            path = os.path.join(directory, name)
            if path not in taken and name not in used:
                yield _class(path, name, real), path
    yield from (("(hidden)", path) for path in passed.hidden)
    yield from (("(no file, or a link to nothing)", path) for path in passed.no_files)
    yield from (("(folder that is read already)", path) for path in passed.repeated)


def _class(path: str, name: str, real: set[str]) -> str:
    if os.path.realpath(path) in real:
        return "(read already)"
    if name in wids.INDEX_NAMES:
        return "(wids index)"
    ending = os.path.splitext(name)[1].lower()
    return ending if ending.isascii() and ending.isprintable() and 1 < len(ending) <= _LONGEST_ENDING else "(no ending)"

"""What the folders of inputs hold and what becomes of it: counted while planning, each kind with an example.

The account of a run begins here: files found = inputs + parts of their samples + not read. Found are the files that
`find -L FOLDER -type f` lists: hidden ones too, and those behind links.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from hpcdata.base.reads import kind_of
from hpcdata.media.kinds import IMAGE_EXTENSIONS
from hpcdata.sources.base import RECORDS, InputFile, clean_name, refusing_faults
from hpcdata.sources.documents import ENDINGS
from hpcdata.sources.folder import NOTES, Passed, parts_of, walk
from hpcdata.sources.patterns import expand_paths
from hpcdata.sources.tar import wids
from hpcdata.sources.url_lists.rows import is_table

_MOST_CLASSES = 64
_LONGEST_ENDING = 12
OTHERS = "(other endings)"
NO_FILES = "(no file, or a link to nothing)"
LOOPS = "(link to a folder above)"
PICTURES = "(pictures that records may name)"
RUNS = "(in the folder of a run)"
HIDDEN, AGAIN, INDEX, NOTE = "(hidden)", "(read already)", "(wids index)", "(notes: README, statistics)"
_EXPECTED = (PICTURES, HIDDEN, AGAIN, INDEX, NOTE, LOOPS)
"""Classes that nobody misses in a dataset."""
_REMEDIES = {
    RUNS: "the folder of a run of hpcdata is read where it, or a folder in it, is named itself",
    ".arrow": "Arrow is read in a folder of save_to_disk, whose state.json lists it, and where it is named itself",
    ".zst": "a tar is read plain or gzipped: zstd -d",
    ".bz2": "bzip2 is not read: bunzip2",
    ".xz": "xz is not read: unxz",
    ".zip": "zip is not read: unpack it, or make tars of it",
    ".7z": "7-Zip is not read: unpack it, or make tars of it",
    ".rar": "RAR is not read: unpack it, or make tars of it",
}


@dataclass(frozen=True, kw_only=True)
class NotRead:
    """Files of one ending, or of one class in brackets, that no sample is made of."""

    ending: str
    count: int
    example: str
    """The path of one of them, below the folder that was named."""

    @property
    def num_files(self) -> int:
        """0 for what is no file."""
        return 0 if self.ending in (NO_FILES, LOOPS) else self.count


@dataclass(frozen=True, kw_only=True)
class Found:
    """How many files the folders of inputs hold, how many are inputs or parts of samples; all others are `NotRead`."""

    files: int
    inputs: int
    parts: int


def find_account(
    raw_data_dir: str | Sequence[str], listed: Sequence[InputFile], without: str
) -> tuple[Found, tuple[NotRead, ...]]:
    """The account of all named folders; of what is not read the most frequent come first.

    listed: what `list_inputs` found. without: the folder of the run, which is left out. Raises UserError.
    """
    counts: dict[str, list[int | str]] = {}
    num_inputs = num_parts = 0
    kinds = _Kinds(listed)
    for folder in _folders(raw_data_dir):
        for kind, path in kinds.of(folder, without):
            if kind == _INPUT:
                num_inputs += 1
            elif kind == _PART:
                num_parts += 1
            else:
                kind = kind if kind in counts or len(counts) < _MOST_CLASSES else OTHERS
                entry = counts.setdefault(kind, [0, clean_name(os.fsencode(os.path.relpath(path, folder)))])
                entry[0] = int(entry[0]) + 1
    items = [NotRead(ending=kind, count=int(count), example=str(name)) for kind, (count, name) in counts.items()]
    num_files = num_inputs + num_parts + sum(item.num_files for item in items)
    found = Found(files=num_files, inputs=num_inputs, parts=num_parts)
    return found, tuple(sorted(items, key=lambda item: (-item.count, item.ending)))


def is_worth_a_warning(not_read: Sequence[NotRead]) -> bool:
    """Whether there is something that may be data."""
    return any(item.ending not in _EXPECTED for item in not_read)


def describe(found: Found, not_read: Sequence[NotRead]) -> str:
    """The account in one line."""
    taken = [(found.inputs, "inputs"), (found.parts, "parts of samples")]
    shown = [f"{number} {what}" for number, what in taken if number]
    if not_read:
        shown.append(f"{sum(item.num_files for item in not_read)} not read: {describe_not_read(not_read)}")
    return f"{found.files} files found: {', '.join(shown)}"


def describe_not_read(not_read: Sequence[NotRead]) -> str:
    """What is not read by ending, and what to do about formats that others write."""
    shown = ", ".join(f"{item.count} {item.ending} ({item.example})" for item in not_read[:8])
    more = f", and {len(not_read) - 8} other endings, see plan.json" if len(not_read) > 8 else ""
    remedies = [_REMEDIES[item.ending] for item in not_read if item.ending in _REMEDIES]
    return "; ".join([f"{shown}{more}", *remedies])


_INPUT, _PART = "input", "part"


class _Kinds:
    """What becomes of each file, given what `list_inputs` found."""

    def __init__(self, listed: Sequence[InputFile]) -> None:
        self._taken = {file.path for file in listed}
        self._real = {os.path.realpath(path) for path in self._taken}
        self._albums = [os.path.join(file.path, "") for file in listed if file.format == "folder"]
        self._texts = [os.path.join(file.path, "") for file in listed if file.format == "documentfolder"]
        self._tables = [os.path.join(file.path, "") for file in listed if file.format == "urls"]
        self._names_pictures = any(
            file.format.startswith(("jsonl", "array", "csv", "table", "urls", RECORDS)) for file in listed
        )

    def of(self, folder: str, without: str) -> Iterator[tuple[str, str]]:
        """(`input`, `part` or the class of what is not read, path) of every file that is found."""
        passed = Passed()
        reals: dict[str, str] = {}
        for directory, names in walk(folder, without=without, passed=passed):
            used: Collection[str] = parts_of(directory, names) if _is_in(self._albums, directory) else ()
            if _is_in(self._texts, directory):
                used = {name for name in names if name.lower().endswith(ENDINGS)}
            if _is_in(self._tables, directory):
                used = {name for name in names if is_table(name) and not NOTES.fullmatch(name)}
            parent, name_of_it = os.path.split(directory)
            is_known = parent in reals and not os.path.islink(directory)
            real = reals[directory] = (
                os.path.join(reals[parent], name_of_it) if is_known else os.path.realpath(directory)
            )
            for name in names:
                path = os.path.join(directory, name)
                if path in self._taken or name in used:
                    yield _PART if name in used else _INPUT, path
                elif (os.path.realpath(path) if name in passed.links else os.path.join(real, name)) in self._real:
                    yield AGAIN, path
                else:
                    yield self._class(name), path
        for hidden in passed.hidden:
            yield from ((HIDDEN, path) for path in _files_below(hidden, folder, without))
        for run in passed.runs:
            yield from ((RUNS, path) for path in _files_below(run, folder, without))
        yield from ((NO_FILES, path) for path in passed.no_files)
        for again in passed.repeated:
            if _is_loop(again, folder):
                yield LOOPS, again
            else:
                yield from ((AGAIN, path) for path in _files_below(again, folder, without))

    def _class(self, name: str) -> str:
        if name in wids.INDEX_NAMES:
            return INDEX
        if NOTES.fullmatch(name):
            return NOTE
        ending = os.path.splitext(name)[1].lower()
        if self._names_pictures and ending[1:] in IMAGE_EXTENSIONS:
            return PICTURES
        return (
            ending if ending.isascii() and ending.isprintable() and 1 < len(ending) <= _LONGEST_ENDING else _NO_ENDING
        )


_NO_ENDING = "(no ending)"


def _is_in(folders: Sequence[str], directory: str) -> bool:
    return any(os.path.join(directory, "").startswith(folder) for folder in folders)


def _folders(raw_data_dir: str | Sequence[str]) -> Iterator[str]:
    """The folders among what was named, without those that lie in another one."""
    named = dict.fromkeys(expand_paths(raw_data_dir))
    with refusing_faults(os.path.commonpath(named)):
        folders = [path for path in named if kind_of(path) == "folder"]
    for path in folders:
        if not any(path != other and path.startswith(os.path.join(other, "")) for other in folders):
            yield path


def _is_loop(path: str, start: str) -> bool:
    """Whether a folder is one of those that lie above it, as the path goes from `start`."""
    with refusing_faults(path):
        target, above = os.stat(path), os.path.dirname(path)
        while not os.path.samestat(target, os.stat(above)):
            if len(above) <= len(start):
                return False
            above = os.path.dirname(above)
    return True


def _files_below(path: str, start: str, without: str) -> Iterator[str]:
    """A file, or all files in a folder and below it, hidden ones and those behind links too; no loop is followed."""
    ahead = [path]
    while ahead:
        path = ahead.pop()
        if without and (os.path.realpath(path) + os.sep).startswith(os.path.realpath(without) + os.sep):
            continue
        with refusing_faults(path):
            kind = kind_of(path)
            names = sorted(os.listdir(path)) if kind == "folder" and not _is_loop(path, start) else []
        if kind == "file":
            yield path
        ahead += [os.path.join(path, name) for name in reversed(names)]

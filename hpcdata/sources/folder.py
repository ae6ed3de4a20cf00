"""A folder of pictures with sidecar texts, listed once into JSON lines so that no task walks it again.

Pictures are told by their endings, and by their first bytes where an ending says nothing (none, `.img`, `.jpg_large`).
Files of one folder that differ in their last extension only belong together: every image with the first of `.txt`,
`.text`, `.caption`, `.json` there is. A line is `{"key": ..., "image": ..., "text": ...}`, paths relative to the
folder, null for what is missing; file names that are not UTF-8 survive as JSON escapes. Notes on the data set (README,
statistics) are no samples.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of, read_beginning
from hpcdata.media import kinds
from hpcdata.sources.base import TEXT_EXTENSIONS, clean_name, refusing_faults

_SIDECARS = (*TEXT_EXTENSIONS, "json")
NOTES = re.compile(
    r"(readme|license|licence|copying|citation|changelog)(\..*)?|_success|.*_stats\.json"
    r"|(dataset_infos?|dataset_dict|state)\.json|hpcdata(\.\w+)?\.jsonl?",
    re.IGNORECASE,
)
"""Names of files that say something of a data set and hold no sample."""

_OF_A_RUN = {"plan.json", "runtime.json"}


def list_folder(path: str, out_path: str, *, without: str = "") -> int:
    """Writes the listing of a folder, sorted, and returns the number of its lines."""
    num_lines = 0
    partial = f"{out_path}.{os.getpid()}.partial"
    with open(partial, "w", encoding="ascii") as out:
        for directory, names in walk(path, without=without):
            relative = os.path.relpath(directory, path)
            for entry in _entries("" if relative == "." else relative, names, directory):
                out.write(json.dumps(entry) + "\n")
                num_lines += 1
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, out_path)
    return num_lines


@dataclass
class Passed:
    """What a walk did not give: paths of hidden names, of what is no file, of folders of runs and of those that it had
    given before."""

    hidden: list[str] = field(default_factory=list)
    no_files: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    links: set[str] = field(default_factory=set)
    """Names of the folder that was given last: the files that are links."""


def walk(path: str, *, without: str = "", passed: Passed | None = None) -> Iterator[tuple[str, list[str]]]:
    """(folder, sorted file names) of a folder and what lies in it, hidden names left out.

    Folders behind links come after all others, and each folder comes once: a link may lead back or to the same place.
    So are the folders of runs, unless one is `path` itself: what they hold was made of other files there.
    without: a folder that is left out as well. Raises UserError for what cannot be read.
    """
    passed = Passed() if passed is None else passed
    without = without and os.path.realpath(without)
    root = path
    seen: set[tuple[int, int]] = set()
    linked = deque([path])
    while linked:
        yield from _walk(linked.popleft(), root, without, passed, seen, linked)


def is_below(path: str, folder: str) -> bool:
    """Whether a path leads to a folder or into it, behind all links; nothing is below "", which is no folder."""
    return bool(folder) and (os.path.realpath(path) + os.sep).startswith(os.path.realpath(folder) + os.sep)


def parts_of(directory: str, names: list[str]) -> set[str]:
    """The names, of all in one folder, that a sample is made of."""
    return {
        name for entry in _entries("", names, directory) for name in (entry["image"], entry["text"]) if name is not None
    }


def is_picture(path: str) -> bool:
    """By the first bytes of a file. Raises UserError."""
    with refusing_faults(path):
        return kinds.is_picture(read_beginning(path, kinds.BEGINNING_BYTES))


def _walk(
    path: str, root: str, without: str, passed: Passed, seen: set[tuple[int, int]], linked: deque[str]
) -> Iterator[tuple[str, list[str]]]:
    """A folder and those below it, however deep; its links go to `linked` in the order of the walk."""
    with _readable(without):
        left_out = _identity(without) if without and kind_of(without) == "folder" else None
    ahead = [(path, False)]
    while ahead:
        path, is_link = ahead.pop()
        if is_link:
            linked.append(path)
            continue
        identity = _identity(path)
        if identity == left_out:
            continue
        if identity in seen:
            passed.repeated.append(path)
            continue
        seen.add(identity)
        with _readable(path), os.scandir(path) as scanned:
            entries = sorted(scanned, key=lambda item: item.name)
        if path != root and {entry.name for entry in entries} >= _OF_A_RUN:
            passed.runs.append(path)
            continue
        passed.hidden += [entry.path for entry in entries if entry.name.startswith(".")]
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        kinds = {entry.name: _kind(entry) for entry in entries}
        passed.no_files += [entry.path for entry in entries if not kinds[entry.name]]
        passed.links = {entry.name for entry in entries if kinds[entry.name] == "file" and entry.is_symlink()}
        yield path, [name for name, kind in kinds.items() if kind == "file"]
        folders = [(entry.path, entry.is_symlink()) for entry in entries if kinds[entry.name] == "folder"]
        ahead += [item for item in reversed(folders) if not (item[1] and is_below(item[0], without))]


def _identity(path: str) -> tuple[int, int]:
    """Device and number of a folder."""
    with _readable(path):
        stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def _kind(entry: os.DirEntry[str]) -> str:
    """`file`, `folder`, or nothing for a link that leads nowhere and for devices and pipes."""
    with _readable(entry.path):
        try:
            return "file" if entry.is_file() else "folder" if entry.is_dir() else ""
        except OSError as error:
            if error.errno == errno.ELOOP:
                return ""
            raise


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot list {path}: {error.strerror}") from None


def _entries(folder: str, names: list[str], directory: str) -> Iterator[dict[str, str | None]]:
    """What is listed of `names` in `directory`, whose path is `folder` for the listing."""
    images: dict[str, list[str | None]] = {}
    texts: dict[str, dict[str, str]] = {}
    unclear: list[str] = []
    for name in names:
        stem, extension = os.path.splitext(name)
        extension = extension[1:].lower()
        if extension in _SIDECARS:
            texts.setdefault(stem, {}).setdefault(extension, name)
        elif extension in kinds.IMAGE_EXTENSIONS:
            images.setdefault(stem, []).append(name)
        elif kinds.says_nothing(extension):
            unclear.append(name)
    for name in unclear:
        if is_picture(os.path.join(directory, name)):
            images.setdefault(name if name in texts else os.path.splitext(name)[0], []).append(name)
    used: set[str] = set()
    for stem in sorted(images.keys() | texts.keys()):
        found = texts.get(stem, {})
        text = next((found[extension] for extension in _SIDECARS if extension in found), None)
        if stem not in images and text is not None and NOTES.fullmatch(text):
            continue
        for image in images.get(stem) or [None]:
            key = _unused(stem if len(images.get(stem, ())) < 2 else str(image), used)
            yield {
                "key": clean_name(os.fsencode(os.path.join(folder, key))),
                "image": image and os.path.join(folder, image),
                "text": text and os.path.join(folder, text),
            }


def _unused(key: str, used: set[str]) -> str:
    while key in used:
        key += "#2"
    used.add(key)
    return key

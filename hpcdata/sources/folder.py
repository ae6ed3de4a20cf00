"""A folder of pictures with sidecar texts, listed once into JSON lines so that no task walks it again.

Files of one folder that differ in their last extension only belong together: every image with the first of `.txt`,
`.text`, `.caption`, `.json` there is. A line is `{"key": ..., "image": ..., "text": ...}`, paths relative to the
folder, null for what is missing; file names that are not UTF-8 survive as JSON escapes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from hpcdata.base.errors import UserError
from hpcdata.sources.base import IMAGE_EXTENSIONS, TEXT_EXTENSIONS, clean_name

_SIDECARS = (*TEXT_EXTENSIONS, "json")


def list_folder(path: str, out_path: str, *, without: str = "") -> int:
    """Writes the listing of a folder, sorted, and returns the number of its lines."""
    num_lines = 0
    partial = f"{out_path}.{os.getpid()}.partial"
    with open(partial, "w", encoding="ascii") as out:
        for directory, names in walk(path, without=without):
            relative = os.path.relpath(directory, path)
            for entry in _entries("" if relative == "." else relative, names):
                out.write(json.dumps(entry) + "\n")
                num_lines += 1
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, out_path)
    return num_lines


def walk(path: str, *, without: str = "") -> Iterator[tuple[str, list[str]]]:
    """(folder, sorted file names) of a folder and what lies in it, hidden names and links to folders left out.

    without: a folder that is left out as well.
    """
    try:
        with os.scandir(path) as scanned:
            entries = sorted((entry for entry in scanned if not entry.name.startswith(".")), key=lambda item: item.name)
    except OSError as error:
        raise UserError(f"cannot list {path}: {error.strerror}") from None
    without = without and os.path.realpath(without)
    yield path, [entry.name for entry in entries if entry.is_file()]
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not (without and os.path.realpath(entry.path) == without):
            yield from walk(entry.path, without=without)


def _entries(folder: str, names: list[str]) -> Iterator[dict[str, str | None]]:
    images: dict[str, list[str | None]] = {}
    texts: dict[str, dict[str, str]] = {}
    for name in names:
        stem, _, extension = name.rpartition(".")
        if extension.lower() in IMAGE_EXTENSIONS:
            images.setdefault(stem, []).append(name)
        elif extension.lower() in _SIDECARS:
            texts.setdefault(stem, {}).setdefault(extension.lower(), name)
    used: set[str] = set()
    for stem in sorted(images.keys() | texts.keys()):
        found = texts.get(stem, {})
        text = next((found[extension] for extension in _SIDECARS if extension in found), None)
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

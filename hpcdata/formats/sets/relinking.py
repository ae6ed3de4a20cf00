"""Relinking: folders of JSON whose pictures' paths are made to start where a training looks, and are looked for.

    SOURCE/ureader_kg/ureader_kg.json            [{"image": "a/1.jpg", ...}]
    TARGET/ureader_kg/image/a/1.jpg              its pictures, unpacked
    TARGET/ureader_kg/ureader_kg.json            [{"image": "TARGET/ureader_kg/image/a/1.jpg", ...}]
    TARGET/missing-pictures.csv                  set,record,id,path,reason of what is not there, of all sets

Files are streamed, whatever their size, and no other byte of them changes. A JSON whose pictures are not all there is
not written unless that is asked for. A path that is relinked already stays as it is: doing it again changes nothing.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import orjson

from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of
from hpcdata.formats.sets.editing import edited
from hpcdata.sources.base import clean_name, refusing_faults
from hpcdata.sources.folder import NOTES
from hpcdata.sources.json.pieces import lines, objects
from hpcdata.sources.json.shapes import SNIFF_BYTES, find_shape

FIELDS = ("image", "images")
IMAGES, MISSING = "image", "missing-pictures.csv"
_HEADER = ("set", "record", "id", "path", "reason")
_ENDINGS = (".json", ".jsonl")
_CHUNK_BYTES, _MOST_BYTES = 1 << 20, 256 << 20
_ELSEWHERE = ("http://", "https://", "data:", "s3://", "gs://", "hf://")


@dataclass(frozen=True, kw_only=True)
class RelinkOptions:
    source: Path
    """A folder of sets, each a folder with JSON in it; or one set."""
    target: Path
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Set -> its JSON. Of another set it is SET.json or, where there is none, all JSON in its folder."""
    root_name: str | None = None
    """What paths start with before the name of the set; None: the name of the target folder."""
    only: Sequence[str] = ()
    """Sets by name; none: all."""
    writes_incomplete: bool = False
    """Write a JSON although some of its pictures are missing."""


@dataclass(kw_only=True)
class Relinked:
    """What became of one JSON."""

    set_name: str
    path: Path
    """Where it was written, or would have been."""
    records: int = 0
    pictures: int = 0
    missing: Counter[str] = field(default_factory=Counter)
    """Reason -> pictures."""
    elsewhere: int = 0
    """Pictures on the web or in the record itself, which stay as they are."""
    is_written: bool = False

    def describe(self) -> str:
        missing = "".join(f", {number} {reason}" for reason, number in sorted(self.missing.items()))
        text = f"{self.set_name}/{self.path.name}: {self.records} records, {self.pictures} pictures{missing}"
        return text if self.is_written else f"{text}: not written"


def set_folders(options: RelinkOptions) -> list[Path]:
    """The folders of sets in order of their names. Raises UserError for one that is asked for and not there."""
    source = options.source.absolute()
    with refusing_faults(str(source)):
        if kind_of(str(source)) != "folder":
            raise UserError(f"{source} is no folder")
        names = sorted(name for name in os.listdir(source) if not name.startswith("."))
        folders = [source / name for name in names if kind_of(str(source / name)) == "folder"]
        found = [folder for folder in folders if folder != options.target.absolute()]
    wanted = list(options.only or options.mapping)
    if own := json_in(source):
        inner = [folder.name for folder in found if json_in(folder)]
        is_set = not inner or wanted == [source.name] or f"{source.name}.json" in own
        if is_set and not set(wanted) & set(inner):
            found = [source]
        elif not wanted:
            raise UserError(
                f"{source} has JSON of its own ({own[0]}) and in its folders ({', '.join(inner[:3])}): "
                "which of them are sets? Name these with --set, or give the folder of one"
            )
    if missing := [name for name in wanted if name not in {folder.name for folder in found}]:
        raise UserError(f"{source} has no set {missing[0]}: it has {', '.join(f.name for f in found) or 'none'}")
    return [folder for folder in found if not options.only or folder.name in options.only]


def json_of(folder: Path, mapping: Mapping[str, str]) -> list[str]:
    """Names of the JSON files of a set, in order. Raises UserError where the one that is named is not there."""
    names = json_in(folder)
    if named := mapping.get(folder.name):
        if named not in names:
            raise UserError(f"{folder} has no {named}, which the mapping names: it has {', '.join(names) or 'no JSON'}")
        return [named]
    plain = f"{folder.name}.json"
    return [plain] if plain in names else names


def files_to_relink(options: RelinkOptions) -> list[tuple[Path, list[str]]]:
    """The folder of each set, and its JSON. Raises UserError for a set that is asked for and has none."""
    found = [(folder, json_of(folder, options.mapping)) for folder in set_folders(options)]
    if none := [folder for folder, names in found if not names and folder.name in options.only]:
        raise UserError(f"{none[0]} has no JSON in it (in a folder below it none is looked for)")
    return found


def relink(options: RelinkOptions) -> Iterator[Relinked]:
    """Each JSON of each set as it is done. Raises UserError, with the file, for what is no JSON of records."""
    found = files_to_relink(options)
    options.target.mkdir(parents=True, exist_ok=True)
    with _replaced(options.target / MISSING) as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(_HEADER)
        for folder, names in found:
            for name in names:
                yield _relink_file(folder, name, options, rows)


def _relink_file(folder: Path, name: str, options: RelinkOptions, rows: Any) -> Relinked:
    target = options.target / folder.name
    done = Relinked(set_name=folder.name, path=target / name)
    source = folder / name
    if kind_of(str(done.path)) and os.path.samefile(source, done.path):
        raise UserError(f"{source} would be written over itself: give another target folder")
    target.mkdir(parents=True, exist_ok=True)
    links = _Links(target / IMAGES, f"{options.root_name or options.target.absolute().name}/{folder.name}/{IMAGES}/")
    partial = target / f".{name}.{os.getpid()}.partial"
    try:
        with open(source, "rb") as read, open(partial, "wb") as out:
            is_array = _is_array(source)
            stream = iter(lambda: read.read(_CHUNK_BYTES), b"")
            pieces = objects(stream, level=1, limit=_MOST_BYTES) if is_array else lines(stream, limit=_MOST_BYTES)
            for piece in pieces:
                out.write(links.relinked(piece.data, done, rows) if piece.is_record else piece.data)
            out.flush()
            os.fsync(out.fileno())
        if not done.missing or options.writes_incomplete:
            os.replace(partial, done.path)
            files.sync_folder(target)
            done.is_written = True
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return done


class _Links:
    """The pictures of one set."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix

    def relinked(self, record: bytes, done: Relinked, rows: Any) -> bytes:
        number = done.records
        done.records += 1
        values = _parsed(record, number)
        if not isinstance(values, dict) or not any(values.get(name) for name in FIELDS):
            return record

        def before(path: str) -> str:
            if not path:
                return ""
            if path.lower().startswith(_ELSEWHERE):
                done.elsewhere += 1
                return ""
            is_done = path.startswith(self._prefix)
            inner = path.removeprefix(self._prefix)
            done.pictures += 1
            if reason := self._problem(inner):
                done.missing[reason] += 1
                name = values.get("id", "")
                rows.writerow((done.set_name, number, _shown(name), _shown(path), reason))
            return "" if is_done else self._prefix

        return edited(record, FIELDS, before)

    def _problem(self, path: str) -> str:
        """Why a picture cannot be read, as far as that is seen without opening it; nothing where it can."""
        if os.path.isabs(path) or os.path.normpath(path).split(os.sep)[0] == os.pardir or "\0" in path:
            return "outside_root"
        place = self._folder / path
        with refusing_faults(str(place)):
            if kind_of(str(place)) != "file":
                return "missing_image"
            return "" if os.path.getsize(place) else "empty_image"


def _parsed(record: bytes, number: int) -> object:
    """Also what Python writes and others refuse: NaN, halves of surrogate pairs. Raises UserError."""
    try:
        return orjson.loads(record)
    except orjson.JSONDecodeError as error:
        place = error.pos
    try:
        return json.loads(record)
    except (ValueError, RecursionError):
        raise UserError(f"record {number} is no JSON at character {place}") from None


def _shown(value: object) -> str:
    return clean_name(str(value).encode("utf-8", "backslashreplace"))


def json_in(folder: Path) -> list[str]:
    """Names of the JSON in a folder, in order, without notes on a data set. Raises UserError."""
    with refusing_faults(str(folder)):
        names = [name for name in sorted(os.listdir(folder)) if name.endswith(_ENDINGS) and name[0] != "."]
        return [name for name in names if not NOTES.fullmatch(name) and kind_of(str(folder / name)) == "file"]


def _is_array(path: Path) -> bool:
    with open(path, "rb") as file:
        return find_shape(str(path), file.read(SNIFF_BYTES)) == "array"


@contextmanager
def _replaced(path: Path) -> Iterator[TextIO]:
    """A text file that takes its name when it is whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8", newline="") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(partial, path)
        files.sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)

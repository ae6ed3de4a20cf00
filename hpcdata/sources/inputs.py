"""Which files a run reads, in which order, under which labels and formats. Resolved once, into the plan.

`auto` goes by names, and by content where a name lies about compression: tars, JSON lines and arrays, Parquet, text.
A folder holds, in this order, a wids index, tars, JSON lines or Parquet, pictures, text files. JSON whose beginning
mentions images, conversations or captions is read as samples (`jsonl`), other JSON as documents (`text`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from hpcdata.base.errors import UserError
from hpcdata.samples import BadSample
from hpcdata.sources import wids
from hpcdata.sources.base import IMAGE_EXTENSIONS, InputFile, Scan, clean_name, refusing_faults
from hpcdata.sources.folder import list_folder, walk
from hpcdata.sources.json_array import flatten_json
from hpcdata.sources.patterns import expand_paths
from hpcdata.sources.streams import chunks, codec_of

logger = logging.getLogger(__name__)

_TARS = (".tar", ".tar.gz", ".tgz")
_JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".ndjson.zst", ".json.gz", ".json.zst")
_DOCUMENTS = (".txt", ".txt.gz", ".txt.zst")
_IMAGES = tuple(f".{extension}" for extension in sorted(IMAGE_EXTENSIONS))
_SNIFF_BYTES = 1 << 20
_MOST_ROWS = 100
_RECORD_FIELDS = frozenset(("conversations", "messages", "image", "images"))
_SAMPLE_FIELDS = re.compile(
    rb'"(image|image_path|conversations|text_prompt|caption)"\s*:|'
    rb'"(images|img|img_path|image_url|messages|videos?|audios?)"\s*:\s*(?!null|""|\[\s*\]|\{\s*\})["\[{]|'
    rb'"file_name"\s*:\s*"[^"]*\.(%s)"' % b"|".join(extension.encode() for extension in sorted(IMAGE_EXTENSIONS)),
    re.IGNORECASE,
)
_OF_RECORDS = ("jsonl", "array", "text", "textarray", "parquet")


@dataclass(frozen=True, kw_only=True)
class _Found:
    path: str
    format: str
    num_declared: int | None = None


def list_inputs(
    raw_data_dir: str | Sequence[str],
    source: str,
    *,
    without: str = "",
    image_root: str | None = None,
    allows_outside: bool = False,
) -> list[InputFile]:
    """All inputs in order. Raises UserError if one is missing, is of no known kind, or there is none.

    without: a folder that is never looked into, of a run that writes into the folder of its inputs. image_root: where
    pictures of records lie, None for the folder of each file. allows_outside: also anywhere else.
    """
    if image_root is not None and not os.path.isdir(image_root):
        raise UserError(f"data.image_root={image_root} is no folder")
    root = image_root and os.path.abspath(image_root)
    paths = [path for path in expand_paths(raw_data_dir) if not _is_below(path, without)]
    found = [file for path in paths for file in _found(path, source, without)]
    if not found:
        raise UserError(f"no inputs in {raw_data_dir}")
    unique = _without_repeats(found)
    parent = os.path.commonpath([os.path.dirname(file.path) for file in unique])
    return [
        InputFile(
            path=file.path,
            label=clean_name(os.fsencode(os.path.relpath(file.path, parent))),
            format=file.format,
            num_declared=file.num_declared,
            **_places(file, root, allows_outside),
        )
        for file in unique
    ]


class _Places(TypedDict):
    base: str
    roots: tuple[str, ...]


def _places(file: _Found, root: str | None, allows_outside: bool) -> _Places:
    """Where the pictures of its records lie, and may lie."""
    if not file.format.startswith(_OF_RECORDS):
        return _Places(base=file.path if file.format == "folder" else os.path.dirname(file.path), roots=())
    base = root or os.path.dirname(file.path)
    return _Places(base=base, roots=("/",) if allows_outside else (base,))


def _is_below(path: str, folder: str) -> bool:
    return bool(folder) and (os.path.realpath(path) + os.sep).startswith(os.path.realpath(folder) + os.sep)


def prepare(file: InputFile, folder: Path, *, without: str = "") -> InputFile:
    """The input in a form that can be sliced: JSON arrays and folders of pictures become JSON lines in `folder`.

    Other formats are returned as they are, and nothing is written. Raises UserError.
    """
    prepared = {"folder": "listing", "array": "jsonl", "textarray": "text"}.get(file.format.partition(".")[0])
    if prepared is None:
        return file
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", file.label)[:64]
    out_path = str(folder / f"{name}-{hashlib.sha256(file.label.encode()).hexdigest()[:8]}.jsonl")
    if prepared == "listing":
        list_folder(file.path, out_path, without=without)
    else:
        flatten_json(file, out_path)
    return replace(file, path=out_path, format=prepared)


def warn_of_differences(files: Sequence[InputFile], scans: Sequence[Scan]) -> int:
    """Logs the files that hold another number of samples than their wids index says; returns how many do."""
    differing = [
        (file, scan)
        for file, scan in zip(files, scans, strict=True)
        if file.num_declared is not None and file.num_declared != scan.num_samples
    ]
    for file, scan in differing:
        logger.warning("%s has %d samples, its index says %d", file.label, scan.num_samples, file.num_declared)
    return len(differing)


def _found(path: str, source: str, without: str = "") -> list[_Found]:
    if os.path.isdir(path):
        return _found_in_folder(path, source, without)
    name = os.path.basename(path).lower()
    if source in ("auto", "webdataset"):
        if _is_tar(name):
            return [_Found(path=path, format=_tar_format(path))]
        if name.endswith(".json") and wids.is_index(path):
            return _indexed(path)
    if source in ("auto", "jsonl", "text") and name.endswith((".json", *_JSON_LINES)):
        return [_Found(path=path, format=_json_format(path, source))]
    if source in ("auto", "text"):
        if name.endswith(".parquet"):
            return [_Found(path=path, format="parquet")]
        if name.endswith(_DOCUMENTS):
            return [_Found(path=path, format="document" + codec_of(path, is_document=True))]
    raise UserError(f"{path} is no input of data.source={source}: its name has no known ending")


def _found_in_folder(folder: str, source: str, without: str) -> list[_Found]:
    if source == "folder":
        return [_Found(path=folder, format="folder")]
    if source in ("auto", "webdataset"):
        for name in wids.INDEX_NAMES:
            index = os.path.join(folder, name)
            if os.path.isfile(index) and wids.is_index(index):
                return _indexed(index)
    for endings in _folder_contents(source):
        paths = list(_with_endings(folder, endings, without))
        if paths and endings is _IMAGES:
            return [_Found(path=folder, format="folder")]
        if paths:
            return [found for path in paths for found in _found(path, source)]
    raise UserError(f"{folder} holds no input of data.source={source}")


def _folder_contents(source: str) -> tuple[tuple[str, ...], ...]:
    """What to look for in a folder, in this order."""
    tars, rows = _TARS, (*_JSON_LINES, ".parquet")
    return {
        "auto": (tars, rows, _IMAGES, _DOCUMENTS, (".json",)),
        "webdataset": (tars,),
        "jsonl": ((*_JSON_LINES, ".json"),),
        "text": ((*rows, ".json", *_DOCUMENTS),),
    }[source]


def _with_endings(folder: str, endings: tuple[str, ...], without: str) -> Iterator[str]:
    for directory, names in walk(folder, without=without):
        for name in names:
            if name.lower().endswith(endings):
                yield os.path.join(directory, name)
                if endings is _IMAGES:
                    return


def _indexed(path: str) -> list[_Found]:
    shards = wids.read_index(path)
    names = [shard.path for shard in shards if not _is_tar(shard.path.lower())]
    if names:
        raise UserError(f"{path} lists {names[0]}, which is no tar")
    return [_Found(path=shard.path, format=_tar_format(shard.path), num_declared=shard.num_samples) for shard in shards]


def _is_tar(name: str) -> bool:
    return name.endswith(_TARS)


def _tar_format(path: str) -> str:
    codec = codec_of(path, is_tar=True)
    if codec == ".zst":
        raise UserError(f"{path} holds a zstd stream, and tars are read plain or gzipped: decompress it with zstd -d")
    return "tar" + codec


def _json_format(path: str, source: str) -> str:
    codec = codec_of(path)
    beginning = _beginning(InputFile(path=path, label="", format="text" + codec))
    is_samples = source == "jsonl" or (source == "auto" and _SAMPLE_FIELDS.search(beginning))
    is_array = ".json" in path.lower() and beginning.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    if path.lower().endswith((".json", ".json.gz", ".json.zst")):
        _require_records(path, beginning)
    if is_array and ".jsonl" not in path.lower():
        return ("array" if is_samples else "textarray") + codec
    return ("jsonl" if is_samples else "text") + codec


def _require_records(path: str, beginning: bytes) -> None:
    """Raises UserError for one object over many lines, and for one that holds others: no record is found in it."""
    rows = [line for line in beginning.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]
    if not rows or rows[0].lstrip()[:1] != b"{" or len(rows[0]) >= _SNIFF_BYTES:
        return
    values = [value for value in map(_parsed, rows[:_MOST_ROWS]) if isinstance(value, dict)]
    is_one = len(rows) == 1 and len(values) == 1 and values[0] and values[0].keys().isdisjoint(_RECORD_FIELDS)
    if not values or (is_one and all(isinstance(value, list | dict) for value in values[0].values())):
        raise UserError(f"{path} holds one object, expected an array of records, or a record in each line: convert it")


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _beginning(file: InputFile) -> bytes:
    beginning = b""
    stream = chunks(file)
    try:
        with refusing_faults(file.path):
            while len(beginning) < _SNIFF_BYTES and (chunk := next(stream, b"")):
                beginning += chunk
    except BadSample:
        pass
    finally:
        stream.close()
    return beginning[:_SNIFF_BYTES]


def _without_repeats(found: list[_Found]) -> list[_Found]:
    unique: dict[str, _Found] = {}
    for file in found:
        first = unique.setdefault(os.path.realpath(file.path), file)
        if first is not file:
            logger.warning("input %s is given twice (first as %s): it is read once", file.path, first.path)
    return list(unique.values())

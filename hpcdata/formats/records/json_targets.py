"""Targets of JSON lines and their files: jsonl and llava."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcdata.base import files
from hpcdata.formats.arranging import Building
from hpcdata.formats.records.copied import Copied
from hpcdata.formats.records.llava import llava_record
from hpcdata.formats.records.options import RecordOptions
from hpcdata.samples import BadSample, Reason
from hpcdata.shards.appending import AppendFile
from hpcdata.sources import parsing, records
from hpcdata.sources.base import TEXT_FIELDS, Options
from hpcdata.sources.pictures.fields import TALKS

Facts = Mapping[str, Any]
_FILES = "files/"
"""How a copied line names its files."""
LEFT_OUT = "hpcdata.left_out.jsonl"
"""Key, reason and message of records that have no form in a target."""


def jsonl(building: Building, copies: Copied, options: RecordOptions) -> Facts:
    if options.style == "liquid":
        return _liquid(building, copies)
    for part in copies.parts:
        building.link(part.stream, f"{part.name}/{part.stream.name}", part.stream_sha256)
        for item in part.files():
            building.link(part.file(item.name), f"{part.name}/files/{item.name}", item.sha256)
    return {}


def _liquid(building: Building, copies: Copied) -> Facts:
    """Lines of Liquid's map-style data set, for a model that holds the image tokenizer: paths in place of codes."""
    left_out, number = Counter[str](), 0
    with building.open(LEFT_OUT) as noted, building.open("liquid.jsonl") as out:
        for part in copies.parts:
            wanted = set[str]()
            for row, line in enumerate(part.samples()):
                try:
                    out.append(_line(_liquid_record(line, part.name, wanted)))
                except BadSample as bad:
                    left_out[bad.reason] += 1
                    noted.append(_line({"key": part.key(row), "reason": bad.reason, "message": bad.message}))
                    continue
                number += 1
            for item in part.files():
                if item.name in wanted:
                    building.link(part.file(item.name), f"images/{part.name}/{item.name}", item.sha256)
    return {"records": number, "left_out": dict(left_out)}


def _liquid_record(line: bytes, folder: str, wanted: set[str]) -> dict[str, Any]:
    """wanted: gets the name of its picture. Raises BadSample for what is no pair and no text."""
    record = parsing.load_exact(line)
    assert isinstance(record, dict)
    if talk := next((name for name in TALKS if record.get(name) is not None), None):
        raise BadSample(Reason.BAD_RECORD, f"it holds a conversation ({talk}), a line of Liquid has one text")
    names = _own_pictures(record)
    if len(names) > 1:
        raise BadSample(Reason.TOO_MANY_IMAGES, f"{len(names)} pictures, a line of Liquid has one")
    text = records.text_of(record, TEXT_FIELDS, Options())
    wanted.update(Path(name).name for name in names)
    kind = "image_text" if names else "text_pretrain"
    return {"data_type": kind, "text": text, "image_path": _moved(names[0], folder) if names else ""}


def llava(building: Building, copies: Copied, options: RecordOptions) -> Facts:
    left_out, number = Counter[str](), 0
    with building.open(LEFT_OUT) as noted, building.open(f"llava.json{'l' * options.lines}") as out:
        for part in copies.parts:
            wanted = set[str]()
            for row, line in enumerate(part.samples()):
                key = part.key(row)
                try:
                    record = _llava_record(line, key, part.name, wanted, options)
                except BadSample as bad:
                    left_out[bad.reason] += 1
                    noted.append(_line({"key": key, "reason": bad.reason, "message": bad.message}))
                    continue
                _append(out, record, number, as_lines=options.lines)
                number += 1
            for item in part.files():
                if item.name in wanted:
                    building.link(part.file(item.name), f"images/{part.name}/{item.name}", item.sha256)
        out.append(b"" if options.lines else b"\n]\n" if number else b"[]\n")
    return {"records": number, "left_out": dict(left_out)}


def _llava_record(line: bytes, key: str, folder: str, wanted: set[str], options: RecordOptions) -> dict[str, Any]:
    """wanted: gets the names of its files. Raises BadSample."""
    record = parsing.load_exact(line)
    assert isinstance(record, dict)
    names, others = _own_pictures(record), _own_files(record)
    pictures = [_moved(name, folder) for name in names]
    made = llava_record(record, key, pictures, prompt=options.prompt, placeholders=options.placeholders)
    wanted.update(Path(name).name for name in (*names, *others.values()))
    return {**made, "files": {name: _moved(path, folder) for name, path in others.items()}} if others else made


def _own_pictures(record: dict[str, Any]) -> list[str]:
    """Those that were copied; takes them out of the record. Raises BadSample for others, which are no files."""
    found = record.pop("image", None)
    names = found if isinstance(found, list) else [found]
    if all(isinstance(name, str) and name.startswith(_FILES) for name in names):
        return names
    if any(names):
        raise BadSample(Reason.UNSUPPORTED_MEDIA, "its picture is no file, and was not copied")
    return []


def _own_files(record: dict[str, Any]) -> dict[str, str]:
    """The other files that were copied; takes them out of the record, whose own field may have this name."""
    found = record.get("files")
    is_ours = isinstance(found, dict) and all(
        isinstance(path, str) and path.startswith(_FILES) for path in found.values()
    )
    return record.pop("files") if found and is_ours else {}


def _moved(name: str, folder: str) -> str:
    return f"images/{folder}/{Path(name).name}"


def _append(out: AppendFile, record: dict[str, Any], number: int, *, as_lines: bool) -> None:
    line = _line(record)
    out.append(line if as_lines else (b",\n" if number else b"[\n") + line.removesuffix(b"\n"))


def _line(values: Mapping[str, Any]) -> bytes:
    return files.to_bytes(json.dumps(values, ensure_ascii=False) + "\n")

"""Rows that an export of ours wrote (`--format hf`, of copied records), read back as the records that they were.

    pairs      key, image, text, metadata
    records    key, images, text, conversations, metadata, files

The columns are those of `stages.copy.rows`. `hpcdata.json` in their folder, or above that of a split, says that they
are ours: a table of anybody else is read by the names of its columns alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.samples import BadSample, Blob, Member, Reason, Record, Reject, Sample
from hpcdata.sources import parsing, records
from hpcdata.sources.base import InputFile, Options, json_type, refusing_faults
from hpcdata.sources.pictures.fields import TALKS, readable_row
from hpcdata.sources.pictures.turns import without_names

_EXPORT, _TARGET = "hpcdata.json", "hf"
_COLUMNS = (
    ["key", "image", "text", "metadata"],
    ["key", "images", "text", "conversations", "metadata", "files"],
)
_IDS = "input_ids"


def holds_records(path: str, schema: pa.Schema) -> bool:
    """Whether an Arrow file is of our records. Raises UserError for one of our tokens that has no texts."""
    if not _is_exported(path):
        return False
    if _IDS in schema.names and "text" not in schema.names:
        raise UserError(
            f"{path} holds ids of tokens and no text, and sources read records: "
            "export it with --columns input_ids,text from a run with text.keep_raw=true"
        )
    return schema.names in _COLUMNS


def record_of(file: InputFile, position: int, row: object, options: Options) -> Record:
    key = f"{file.label}#{position}"
    try:
        row = readable_row(row)
        key = _key(file, row["key"], key)
        record, pictures = _record(row), _pictures(row)
        shown = _with_pictures(record, pictures)
        value, is_fixed = records.with_markers(shown, options)
        parts = records.sample_parts(value, file, options)
        if is_fixed:
            record = _without_pictures(value, record)
        members = _members(record, pictures, row.get("files") or ()) if options.keeps_members else ()
        return Sample(position=position, key=key, parts=parts, offset=position, members=members, is_fixed=is_fixed)
    except BadSample as bad:
        return Reject(position=position, key=key, reason=bad.reason, message=bad.message, offset=position)


def _is_exported(path: str) -> bool:
    folder = os.path.dirname(os.path.abspath(path))
    for place in (folder, os.path.dirname(folder)):
        note = Path(place, _EXPORT)
        with refusing_faults(str(note)), suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            if sealed.read_json(note)["target"] == _TARGET:
                return True
    return False


def _key(file: InputFile, key: object, other: str) -> str:
    """That of the row, unique in its export; the folder precedes it where inputs are of several."""
    folder = os.path.dirname(file.label)
    return other if not isinstance(key, str) or not key else f"{folder}/{key}" if folder else key


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """Its fields, without pictures. Raises BadSample."""
    text = row["metadata"] or "{}"
    record = parsing.load_exact(text.encode()) if isinstance(text, str) else text
    if not isinstance(record, dict):
        raise BadSample(Reason.BAD_RECORD, f"metadata is {json_type(record)}, expected an object as JSON")
    if row["text"] is not None:
        # under the first name that is free: those before it in the order of texts are there, and are no texts
        name = next((name for name in ("text", "text_prompt", "caption") if name not in record), "text")
        record[name] = row["text"]
    if row.get("conversations") is not None and not any(record.get(name) is not None for name in TALKS):
        record["conversations"] = row["conversations"]
    return record


def _pictures(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Raises BadSample for one without bytes."""
    found = row["images"] if "images" in row else [row["image"]]
    pictures = [item for item in found or () if item is not None]
    for number, item in enumerate(pictures):
        if not item.get("bytes"):
            raise BadSample(Reason.EMPTY_IMAGE, f"picture {number} is of 0 bytes")
    return pictures


def _with_pictures(record: dict[str, Any], pictures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What names its pictures: turns that name files of before leave their places only."""
    if not pictures:
        return record
    talks = {name: without_names(record[name]) for name in TALKS if record.get(name) is not None}
    return {**record, **talks, "image_path": None, "image": list(pictures)}


def _without_pictures(value: object, record: dict[str, Any]) -> dict[str, Any]:
    """The same fields as `record` has, of a value that got markers."""
    assert isinstance(value, dict)
    return {name: value[name] for name in record}


def _members(
    record: dict[str, Any], pictures: Sequence[dict[str, Any]], files: Sequence[dict[str, Any]]
) -> tuple[Member, ...]:
    """A picture is named `000000007.0.jpg`, of which its extension is `0.jpg`."""
    line = json.dumps(record, ensure_ascii=False).encode()
    held = [(os.path.basename(item.get("path") or "").partition(".")[2] or "img", item["bytes"]) for item in pictures]
    held += [(item["name"], item["data"] or b"") for item in files]
    return (
        Member(extension="json", blob=Blob(path="", data=line)),
        *(Member(extension=name, blob=Blob(path="", data=data)) for name, data in held),
    )

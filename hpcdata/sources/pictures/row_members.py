"""A row of a table -> its members: the row as JSON, and the pictures that it holds or names."""

from __future__ import annotations

import json
from typing import Any

import orjson

from hpcdata.media.kinds import extension_of
from hpcdata.samples import BadSample, Blob, Member, Reason
from hpcdata.sources import records
from hpcdata.sources.base import InputFile, Options
from hpcdata.sources.pictures.fields import BYTES_FIELDS, IMAGE_FIELDS
from hpcdata.sources.pictures.numbered import base_of
from hpcdata.sources.pictures.places import picture, shown

ID, PICTURE = "id", "img"


def members_of(row: dict[str, Any], file: InputFile, options: Options) -> tuple[Member, ...]:
    """The row as JSON, without its pictures, and its pictures."""
    if options.notes_ids:
        return _whole(row, file)
    named = [item for item in records.named_in(row) if not item.url]
    blobs = [Blob(path="", data=item.data) if item.data else picture(item.path, file).blob for item in named]
    endings = records.numbered(
        [extension_of(item.data) if item.data else records.extension(item.path) for item in named]
    )
    others = ((name, value) for name, value in row.items() if base_of(name) not in (*IMAGE_FIELDS, *BYTES_FIELDS))
    rest = {name: value for name, value in others if not _is_picture(value)}
    rest |= {ID: readable(rest[ID])} if ID in rest else {}
    line = Member(extension="json", blob=Blob(path="", data=json.dumps(rest, default=_plain).encode()))
    return line, *(Member(extension=ending, blob=blob) for ending, blob in zip(endings, blobs, strict=True))


def readable(value: object) -> object:
    """Bytes as text; those that are no UTF-8 are escaped."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _whole(row: dict[str, Any], file: InputFile) -> tuple[Member, ...]:
    """The row as JSON, without the field of its pictures, others with bytes, and nulls; then its pictures.

    Raises BadSample for one on the web.
    """
    named = records.named_in(row, keeps_empty=True)
    if address := next((item.url for item in named if item.url), ""):
        message = f"{named[0].field} is {shown(address)}: pictures are not fetched; download them before"
        raise BadSample(Reason.UNSUPPORTED_MEDIA, message)
    blobs = [picture(item.path, file).blob if item.data is None else Blob(path="", data=item.data) for item in named]
    fields = {item.field for item in named}
    rest = {name: value for name, value in row.items() if _is_kept(name, value) and name not in fields}
    line = orjson.dumps(rest, _plain, orjson.OPT_PASSTHROUGH_DATETIME)
    return Member(extension="json", blob=Blob(path="", data=line)), *(
        Member(extension=PICTURE, blob=blob) for blob in blobs
    )


def leaves_out(row: object, members: tuple[Member, ...]) -> bool:
    """Whether a row has bytes that are none of its members' pictures."""
    return _num_bytes(row) > sum(bool(member.blob.data) for member in members[1:])


def _num_bytes(value: object) -> int:
    """How many values in a row are bytes."""
    if isinstance(value, dict | list):
        return sum(map(_num_bytes, value.values() if isinstance(value, dict) else value))
    return int(isinstance(value, bytes) and bool(value))


def _is_kept(name: str, value: object) -> bool:
    if value is None or isinstance(value, bytes) or _is_picture(value):
        return False
    return base_of(name) not in IMAGE_FIELDS or (isinstance(value, str) and bool(value))


def _is_picture(value: object) -> bool:
    """Whether it holds the bytes of a file, as Hugging Face's features do, or a list of such."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_picture, value))
    return isinstance(value, dict) and isinstance(value.get("bytes"), bytes)


def _plain(value: object) -> object:
    """For what JSON has no form for: dates as text; bytes are left out, as pictures are files of their own."""
    return None if isinstance(value, bytes) else str(value)

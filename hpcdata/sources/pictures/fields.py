"""Which pictures a record names, and what it holds beside pictures and texts: one list of fields for all formats.

    {"image": "a.jpg"}  {"images": ["a.jpg", "b.jpg"]}  {"image": {"bytes": ..., "path": "a.jpg"}}
    {"file_name": "a.jpg"}  {"image_url": "data:image/png;base64,..."}  {"image": "a.jpg", "image_2": "b.jpg"}

The first field of `IMAGE_FIELDS` that is not empty counts, with those of its name and a number (`numbered`); others of
pictures are said (`telling`). Media that are not read here (videos, audio, pictures on the web, pictures under other
names) are named by `unread`, so that no record which holds them becomes a plain text.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from hpcdata.media.kinds import BEGINNING_BYTES, IMAGE_EXTENSIONS, find_kind
from hpcdata.samples import BadSample, Reason
from hpcdata.sources.base import clean_name, json_type
from hpcdata.sources.pictures.numbered import base_of, numbered

_OF_ANY_FILE = "file_name"
IMAGE_FIELDS = ("image_path", "image", "images", "img", "img_path", "image_url", _OF_ANY_FILE)
"""Fields that name pictures, in order of preference; `file_name` only where its value has the ending of a picture."""
BYTES_FIELDS = ("jpg", "jpeg", "png", "webp", "image_bytes", "img_bytes")
"""Columns of Parquet that hold the bytes of a picture."""
TALKS = ("conversations", "messages")
"""Fields that hold a conversation, in order of preference."""
SPEAKER, SPOKEN = ("from", "role"), ("value", "content")
"""Fields of a turn, in order of preference."""
_VIDEOS = ("mp4", "mkv", "avi", "mov", "webm", "mpg", "mpeg", "m4v", "flv", "wmv", "3gp")
_SOUNDS = ("mp3", "wav", "flac", "ogg", "oga", "opus", "m4a", "aac", "wma")
_OTHER_PICTURES = ("jxl", "svg")
_NUMBER = r"(_?[0-9]{1,2})?"
_OTHERS = re.compile(rf"(video|audio)s?(_(path|file|url|name)s?)?{_NUMBER}", re.IGNORECASE)
_LIKE_A_PICTURE = re.compile(
    rf"((image|img|picture|photo)s?(_(path|file|url|data|bytes|base64)s?)?|jpe?g|png|webp|pixel_values){_NUMBER}",
    re.IGNORECASE,
)
_ENDINGS = "|".join(sorted({*IMAGE_EXTENSIONS, *_OTHER_PICTURES, *_VIDEOS, *_SOUNDS}))
_MEDIA_ENDING = re.compile(rf"\.({_ENDINGS})(\?|\Z)", re.IGNORECASE)
_PICTURE_NAME = re.compile(rf"\.({'|'.join(sorted(IMAGE_EXTENSIONS))})\Z", re.IGNORECASE)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
ELSEWHERE = re.compile(r"data:(image|video|audio)/|(?!file:)[A-Za-z][A-Za-z0-9+.-]*://", re.IGNORECASE)
_LONGEST_NAME = 2000
_MOST_OF_A_NAME = 64
_DEPTH = 3


@dataclass(frozen=True, kw_only=True)
class Named:
    """A picture as a record names it: by a path, by its own bytes, or by an address that is not read."""

    field: str
    path: str = ""
    data: bytes | None = dataclasses.field(default=None, repr=False)
    url: str = ""


MOST_PICTURES = 10_000
"""Of one record."""


def readable_row(row: object) -> dict[str, Any]:
    """A row of a table. Raises the BadSample that stands in its place, or in that of one of its values."""
    if isinstance(row, BadSample):
        raise row
    assert isinstance(row, dict)
    if bad := next((value for value in row.values() if isinstance(value, BadSample)), None):
        raise bad
    return row


def named_pictures(record: Mapping[str, Any], *, keeps_empty: bool = False) -> list[Named]:
    """The pictures that a record names, in order. Raises BadSample for a value that names none.

    keeps_empty: one without bytes and path, `{"bytes": b"", "path": null}` or null in a list, has the data `b""`.
    """
    others = numbered(record)
    for name in IMAGE_FIELDS:
        pictures = list[Named]()
        for field in (name, *others[name]) if name in others else (name,):
            value = record.get(field)
            if value is not None and (name != _OF_ANY_FILE or _is_picture_name(value)):
                pictures += pictures_in(value, field, keeps_empty=keeps_empty)
        if pictures:
            return pictures
    for name in BYTES_FIELDS:
        held = ((field, record.get(field)) for field in (name, *others.get(name, ())))
        if pictures := [Named(field=field, data=value) for field, value in held if isinstance(value, bytes) and value]:
            return pictures
    return []


def pictures_in(value: object, name: str, *, keeps_empty: bool = False) -> list[Named]:
    """The pictures of one value. Raises BadSample."""
    value = listed(value, name)
    if keeps_empty and isinstance(value, dict | bytes):
        value = [value]
    if not isinstance(value, list):
        picture = _picture(value, name)
        return [] if picture is None else [picture]
    if len(value) > MOST_PICTURES:
        raise BadSample(Reason.BAD_RECORD, f"{name} has {len(value)} pictures, the limit is {MOST_PICTURES}")
    nothing = Named(field=name, data=b"")
    pictures = [nothing if keeps_empty and is_empty(item) else _picture(item, name) for item in value]
    if any(picture is None for picture in pictures):
        raise _unexpected(value, name)
    return [picture for picture in pictures if picture is not None]


def unread(record: Mapping[str, Any], texts: Iterable[str], *, has_pictures: bool, only_files: bool = False) -> str:
    """What a record holds that is neither read as a picture nor a text, in words; empty if nothing.

    texts: fields that are read as text, whatever they say. only_files: media on the web or in the record itself are no
    matter, for who keeps the record as it is.
    """
    for name, value in record.items():
        if (other := _OTHERS.fullmatch(name)) and _is_something(value, only_files):
            what = {"video": "a video", "audio": "sound"}[other[1].lower()]
            return f"the record holds {what} ({shown_name(name)}), which is not read"
    left = {*texts, *TALKS}
    for name, value in {} if has_pictures else record.items():
        is_like = _LIKE_A_PICTURE.fullmatch(name) and _is_something(value, only_files)
        if name not in left and (is_like or _names_media(value, only_files, _DEPTH)):
            return (
                f"{shown_name(name)} names a picture, video or sound; pictures are read from {', '.join(IMAGE_FIELDS)}"
            )
    return ""


def shown_name(name: str) -> str:
    return clean_name(name.encode("utf-8", "backslashreplace"))[:_MOST_OF_A_NAME]


def is_called_so(name: str) -> bool:
    """Whether a field of this name, its number left out, holds pictures by its name, read here or not."""
    base = base_of(name)
    return (base in IMAGE_FIELDS and base != _OF_ANY_FILE) or _LIKE_A_PICTURE.fullmatch(name) is not None


def holds_media(column: str) -> bool:
    """Whether a column of this name holds pictures, sound or videos; `file_name` may name any file."""
    return is_called_so(column) or _OTHERS.fullmatch(column) is not None


def listed(value: object, name: str) -> object:
    """A list of objects where a table holds it as an object of lists, as older Hugging Face sets do; else the value.

    {"from": ["human", "gpt"], "value": ["...", "..."]}. Raises BadSample where the lists differ in length.
    """
    if not isinstance(value, dict) or list not in map(type, value.values()):
        return value
    columns = {key: item for key, item in value.items() if item is not None}
    lengths = {len(item) if isinstance(item, list) else -1 for item in columns.values()}
    if len(lengths) > 1:
        raise BadSample(Reason.BAD_RECORD, f"{name} is an object of lists of different lengths")
    return [dict(zip(columns, items, strict=True)) for items in zip(*columns.values(), strict=True)]


def talk_in(record: Mapping[str, Any]) -> tuple[str, object] | None:
    """(the field, its turns) of a record's conversation: a list of objects, whatever a table makes of it; else the
    value as it is. None where there is none. Raises BadSample where an object of lists is none of turns.
    """
    name = next((name for name in TALKS if record.get(name) is not None), None)
    return None if name is None else (name, turns_in(record[name], name))


def turns_in(value: object, name: str) -> object:
    """`listed`, of turns: what is said in pieces is a list of them too."""
    turns = listed(value, name)
    if not isinstance(turns, list) or not any(_has_columns(turn) for turn in turns):
        return turns
    return [_with_pieces(turn, name) if _has_columns(turn) else turn for turn in turns]


def _has_columns(turn: object) -> bool:
    return isinstance(turn, dict) and dict in map(type, turn.values())


def _with_pieces(turn: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: listed(value, name) if key in SPOKEN else value for key, value in turn.items()}


def is_empty(value: object) -> bool:
    """Whether this stands in the place of a picture, and is none."""
    if isinstance(value, dict):
        return bool(value) and all(item is None or item == b"" or item == "" for item in value.values())
    return value is None or value == "" or value == b""


def _picture(value: object, name: str) -> Named | None:
    """None for what is empty."""
    if value is None or value == "" or value == b"":
        return None
    if isinstance(value, bytes):
        return Named(field=name, data=value)
    if isinstance(value, dict):
        return _of_object(value, name)
    if not isinstance(value, str):
        raise _unexpected(value, name)
    if value[:5].lower() == "data:":
        return Named(field=name, data=_decoded(value.partition(",")[2], name))
    if not _URL.match(value):
        return Named(field=name, path=value)
    if value[:7].lower() == "file://":
        return Named(field=name, path=unquote(urlsplit(value).path))
    return Named(field=name, url=value)


def _of_object(value: dict[str, Any], name: str) -> Named | None:
    """`{"bytes": ..., "path": ...}` of Hugging Face, `{"url": ...}` of chats."""
    data = value.get("bytes")
    if isinstance(data, bytes) and data:
        return Named(field=name, data=data)
    if isinstance(data, str) and data:
        return Named(field=name, data=_decoded(data, name))
    for key in ("path", "url"):
        if isinstance(value.get(key), str) and value[key]:
            return _picture(value[key], name)
    if value and all(item is None for item in value.values()):
        return None
    if is_empty(value):
        raise BadSample(Reason.EMPTY_IMAGE, f"{name} is a picture of 0 bytes")
    raise _unexpected(value, name)


def _decoded(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadSample(Reason.UNREADABLE_IMAGE, f"{name} holds a picture that is no base64") from None


def _unexpected(value: object, name: str) -> BadSample:
    return BadSample(Reason.BAD_RECORD, f"{name} is {json_type(value)}, expected a path or a list of paths")


def _is_picture_name(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(isinstance(item, str) and _PICTURE_NAME.search(item) for item in values)


def _is_media_name(value: str) -> bool:
    """Whether its first line ends in the ending of a picture, video or sound, or has `?` and no space behind one."""
    first_line = value.partition("\n")[0]
    for ending in _MEDIA_ENDING.finditer(value):
        if ending.start() > len(first_line):
            return False
        rest = value[ending.end() :]
        if not rest or rest.split() == [rest]:
            return True
    return False


def _is_something(value: object, only_files: bool) -> bool:
    if isinstance(value, str):
        return bool(value) and not (only_files and ELSEWHERE.match(value))
    if isinstance(value, list | dict):
        items = value if isinstance(value, list) else value.values()
        return any(_is_something(item, only_files) for item in items)
    return isinstance(value, bytes) and bool(value) and not only_files


def _names_media(value: object, only_files: bool, depth: int) -> bool:
    if isinstance(value, str):
        if ELSEWHERE.match(value) and (only_files or value[:5].lower() == "data:"):
            return not only_files
        return len(value) <= _LONGEST_NAME and _is_media_name(value)
    if isinstance(value, bytes):
        return not only_files and find_kind(value[:BEGINNING_BYTES]) is not None
    if depth and isinstance(value, list | dict):
        items = value if isinstance(value, list) else value.values()
        return any(_names_media(item, only_files, depth - 1) for item in items)
    return False

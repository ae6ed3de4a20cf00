"""One parsed JSON record -> the parts of a sample: pairs, conversations, documents, entries of a folder listing.

    {"image_path" or "image": "a.jpg", "text_prompt" or "text" or "caption": "..."}     a pair: text, then image
    {"text": "..."}                                                                     a text-only row
    {"image": "a.jpg" or [...], "conversations": [{"from": "human", "value": "<image>\\n..."}, ...]}
    {"text" or "content": "..."}                                                        a document

`pictures.fields` has all names of pictures, `pictures.turns` all forms of conversations. Pairs and documents are
predicted whole; of a conversation the assistant's turns are. Images of a conversation stand where its `<image>` markers
stand, in order, or in front if it has none. Raises BadSample for everything else: where pictures are asked for, media
that are not read make no text.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from typing import Any

import orjson

from hpcdata.base.errors import Failed
from hpcdata.base.reads import read_beginning
from hpcdata.samples import BadSample, Blob, ImagePart, Member, Reason, TextPart
from hpcdata.sources.base import (
    DOCUMENT_FIELDS,
    TEXT_FIELDS,
    InputFile,
    Options,
    checked_text,
    decoded_text,
    is_plain,
    json_type,
)
from hpcdata.sources.custom.applying import applied
from hpcdata.sources.custom.mapping import parsed
from hpcdata.sources.pictures import places
from hpcdata.sources.pictures.fields import TALKS, Named, named_pictures, talk_in, unread
from hpcdata.sources.pictures.placeholders import KEEP, placed
from hpcdata.sources.pictures.telling import tell_others
from hpcdata.sources.pictures.turns import Turn, old_turns, talk_parts, turns_of

Parts = tuple[TextPart | ImagePart, ...]

_LENIENT = re.compile(rb"NaN|Infinity|\\u[dD][89a-fA-F]")
"""What a line must hold for the slower parser to be worth its time."""
_LONG_NUMBER = b"0" * 19
"""Digits of the smallest number of more than 64 bits, and of no float that Python writes; see `_AS_ZEROS`."""
_AS_ZEROS = bytes(ord("0") if chr(byte) in "123456789" else byte for byte in range(256))
"""All digits as 0: looked for so, long numbers cost a third of parsing; by a regular expression four times as much."""
_IMAGE_FIELDS = ("image_path", "image")
_NO_DOCUMENT = frozenset((*_IMAGE_FIELDS, "conversations"))


def load(data: bytes) -> object:
    """JSON as Python writes it: NaN and Infinity too, but no lone surrogate and no nesting that overflows a stack."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        position = error.pos
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSample(Reason.BAD_JSON, f"not UTF-8 at byte {error.start}") from None
    if _LENIENT.search(data) is None:
        raise BadSample(Reason.BAD_JSON, f"not JSON at character {position}")
    return _lenient(text, position)


def load_exact(data: bytes) -> object:
    """As `load`, for what is written again: a whole number of more than 64 bits is not made a float."""
    value = load(data)
    return _lenient(data.decode(), 0) if _LONG_NUMBER in data.translate(_AS_ZEROS) else value


def dumped(value: object) -> bytes:
    """JSON of what `load_exact` has made."""
    try:
        return orjson.dumps(value)
    except TypeError:  # of numbers beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _lenient(text: str, position: int) -> object:
    """The value by the slower parser, for what the fast one refuses and other writers make."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        message = f"half a surrogate pair in {_half_pair(value)}: \\ud800 to \\udfff are no characters alone"
        raise BadSample(Reason.UNREADABLE_TEXT, message) from None
    except (ValueError, RecursionError):
        raise BadSample(Reason.BAD_JSON, f"not JSON at character {position}") from None
    return value


_HALF = re.compile("[\ud800-\udfff]")


def _half_pair(value: object) -> str:
    """Where in parsed JSON the first text is that has one: `images[0]`, or a key."""
    ahead: list[tuple[str, object]] = [("", value)]
    while ahead:
        where, value = ahead.pop()
        if isinstance(value, str) and _HALF.search(value):
            return repr(where) if where else "the text"
        if isinstance(value, dict):
            if key := next(filter(_HALF.search, value), ""):
                return f"the key {key!a}"
            ahead += [(f"{where}.{key}".lstrip("."), item) for key, item in reversed(value.items())]
        elif isinstance(value, list):
            ahead += [(f"{where}[{index}]", item) for index, item in reversed([*enumerate(value)])]
    return "it"


def load_listed(line: bytes) -> dict[str, Any]:
    """A line that `list_folder` wrote: file names may hold surrogates where they are not UTF-8. Raises UserError."""
    try:
        entry = json.loads(line)
        if isinstance(entry["key"], str) and all(isinstance(entry[name], str | None) for name in ("image", "text")):
            return entry
    except (ValueError, RecursionError, KeyError, TypeError):
        pass
    raise Failed("the listing of a folder in inputs/ is damaged: plan again into a new output directory")


def sample_parts(value: object, file: InputFile, options: Options) -> Parts:
    """The parts of a pair, a text-only row or a conversation of this file."""
    record = _record(value)
    talk, images = _talk_and_images(record, file, options)
    if is_kept_whole(options):
        return ()
    if talk is not None:
        return selected(talk_parts(talk, images, options), options)
    if len(images) > 1:
        message = f"{len(images)} images in a record without conversations, expected one"
        raise BadSample(Reason.BAD_RECORD, f"{message}: image of data.mapping names it" if file.roots else message)
    if not options.needs_text:
        return selected(images, options)
    try:
        text = TextPart(text=text_of(record, TEXT_FIELDS, options))
    except BadSample as bad:
        is_missing = file.roots and bad.reason is Reason.MISSING_TEXT
        raise BadSample(bad.reason, f"{bad.message}{_talk_elsewhere(record) if is_missing else ''}") from None
    return selected([text, *images], options)


def is_kept_whole(options: Options) -> bool:
    """Whether a record is written as it is, and nothing asked of it."""
    return options.keeps_members and not (options.needs_text or options.needs_image)


def talk_beside(value: object, images: Sequence[ImagePart], options: Options) -> Parts:
    """The parts of a conversation whose pictures lie beside it, whatever its fields name. Raises BadSample."""
    record = _record(value)
    _require_media_read(record, options, has_pictures=True)
    talk, named = _talk_and_named(record, is_lenient=False)
    if named and not images and options.needs_image:
        raise BadSample(Reason.MISSING_IMAGE, f"the conversation names {len(named)} pictures, and none is beside it")
    assert talk is not None
    return selected(talk_parts(talk, list(images), options), options)


def mapped(value: object, position: int, options: Options) -> object:
    """A record as `options.mapping` says, if it says something. Raises BadSample."""
    return applied(value, parsed(options.mapping), position) if options.mapping else value


def with_markers(value: object, options: Options, *, num_images: int | None = None) -> tuple[object, bool]:
    """(the record with markers by `options.placeholders`, whether they were put in). Raises BadSample.

    num_images: of pictures that lie beside the record; None: it names them.
    """
    if options.placeholders == KEEP or not isinstance(value, dict):
        return value, False
    pictures = len(named_in(value)) if num_images is None else num_images
    return placed(value, options.placeholders, num_images=pictures, only_users_show=options.only_users_show)


def members_of(line: bytes, value: object, file: InputFile) -> tuple[Member, ...]:
    """The line as it is, and the pictures that it names: `jpg`, or `0.jpg`, `1.jpg`... where there are several."""
    record = _record(value)
    names = [item.path for item in named_in(record) if item.path] if file.roots else _image_names(record)
    pictures = (
        Member(extension=ending, blob=places.picture(name, file).blob)
        for ending, name in zip(numbered([extension(name) for name in names]), names, strict=True)
    )
    return (Member(extension="json", blob=Blob(path="", data=line)), *pictures)


def whole(line: bytes) -> tuple[Member, ...]:
    """A line as it is. Raises BadSample for one that holds no object."""
    _record(load(line))
    return (Member(extension="json", blob=Blob(path="", data=line)),)


def numbered(extensions: list[str]) -> list[str]:
    """Extensions of the pictures of one record: `jpg`, or `0.jpg`, `1.jpg`... where there are several."""
    return [f"{number}.{item}" for number, item in enumerate(extensions)] if len(extensions) > 1 else extensions


def named_in(record: dict[str, Any], *, keeps_empty: bool = False) -> list[Named]:
    """The pictures of a record, whatever else it holds. keeps_empty: see `named_pictures`."""
    return _talk_and_named(record, is_lenient=True, keeps_empty=keeps_empty)[1]


def are_looked_at(file: InputFile, options: Options) -> bool:
    """Whether pictures of a file's lines are read by the names of their fields."""
    is_read = file.format.startswith("jsonl") and bool(file.roots) and not (options.mapping or options.is_of_urls)
    return is_read and (options.needs_image or options.keeps_members)


def tell_unread(line: bytes) -> None:
    """Says which fields of a line hold pictures, and are not read as others are."""
    with contextlib.suppress(BadSample):
        record = _record(load(line))
        for named in named_in(record)[:1]:
            tell_others(record, named.field)


def keys_of(line: bytes) -> list[str]:
    """The names of the fields of a line of JSON, fit for a message; none of one that is no object."""
    with contextlib.suppress(BadSample):
        return [places.shown(name)[:32] for name in _record(load(line))]
    return []


def listed_members(entry: dict[str, Any], file: InputFile) -> tuple[Member, ...]:
    """A picture and its sidecar, as far as they are there."""
    names = [name for name in (entry["image"], entry["text"]) if name is not None]
    return tuple(Member(extension=extension(name), blob=places.picture(name, file).blob) for name in names)


def document_parts(value: object, file: InputFile, options: Options) -> Parts:
    record = _record(value)
    if record.get("conversations") or _image_names(record):
        raise BadSample(Reason.BAD_RECORD, "the record has images or conversations: read it with data.source=jsonl")
    if file.roots and options.needs_image:
        has_pictures = bool(named_pictures(record))
        media = "the record names pictures" if has_pictures else _unread(record, has_pictures, options)
        if media:
            raise BadSample(Reason.UNSUPPORTED_MEDIA, f"{media}: read as a document; data.source=jsonl reads pictures")
    return (TextPart(text=text_of(record, DOCUMENT_FIELDS, options)),)


def plain_document(line: bytes, options: Options) -> str | None:
    """The text of a line that is nothing but a good document, in short; None for all that needs `document_parts`."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or not _NO_DOCUMENT.isdisjoint(record):
        return None
    text = None
    for name in (options.text_field,) if options.text_field else DOCUMENT_FIELDS:
        if (text := record.get(name)) is not None:
            break
    return text if is_plain(text) else None


def listed_parts(entry: dict[str, Any], file: InputFile, options: Options) -> Parts:
    """The parts of a picture and its sidecar, which is read now."""
    parts: list[TextPart | ImagePart] = []
    if options.needs_text:
        if entry["text"] is None:
            raise BadSample(Reason.MISSING_TEXT, "no text file of the same name")
        parts.append(TextPart(text=_sidecar_text(file.base, entry["text"], options)))
    if options.needs_image:
        if entry["image"] is None:
            raise BadSample(Reason.MISSING_IMAGE, "no image of the same name")
        parts.append(places.picture(entry["image"], file))
    return selected(parts, options)


def text_of(record: dict[str, Any], fields: tuple[str, ...], options: Options) -> str:
    """The first of the fields that the record has (`options.text_field` alone, if it is set)."""
    names = (options.text_field,) if options.text_field else fields
    for name in names:
        if record.get(name) is not None:
            return checked_text(record[name], what=name)
    raise BadSample(Reason.MISSING_TEXT, f"no {' or '.join(names)} in the record")


def text_of_json(data: bytes, options: Options) -> str:
    """The text in a JSON file that stands beside an image."""
    return text_of(_record(load(data)), TEXT_FIELDS, options)


def _talk_elsewhere(record: dict[str, Any]) -> str:
    """For a message: the field that looks like a conversation and is none by its name."""
    for name, value in record.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            return (
                f"; {places.shown(name)[:32]} is a list of objects, and conversations are read from {', '.join(TALKS)}"
            )
    return ""


def selected(parts: Sequence[TextPart | ImagePart], options: Options) -> Parts:
    """The parts that the options ask for."""
    kept = tuple(part for part in parts if (options.needs_text if isinstance(part, TextPart) else options.needs_image))
    if not kept and not options.keeps_members:
        reason, what = (Reason.MISSING_TEXT, "text") if options.needs_text else (Reason.MISSING_IMAGE, "image")
        raise BadSample(reason, f"no {what} in the record")
    return kept


def _record(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadSample(Reason.BAD_RECORD, f"the record is {json_type(value)}, expected an object")
    return value


def _image_names(record: dict[str, Any]) -> list[str]:
    for field in _IMAGE_FIELDS:
        names = record.get(field)
        if names is None:
            continue
        if isinstance(names, str):
            return [names] if names else []
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise BadSample(Reason.BAD_RECORD, f"{field} is {json_type(names)}, expected a path or a list of paths")
        return names
    return []


def _talk_and_images(
    record: dict[str, Any], file: InputFile, options: Options
) -> tuple[list[Turn] | None, list[ImagePart]]:
    """The turns of a conversation, None where there is none, and the pictures of a record."""
    if not file.roots:
        images = [places.picture(name, file) for name in _image_names(record)]
        turns = None if is_kept_whole(options) else record.get("conversations")
        return None if turns is None else old_turns(turns), images
    _require_media_read(record, options, has_pictures=True)
    talk, named = _talk_and_named(record, is_lenient=is_kept_whole(options), keeps_empty=options.notes_ids)
    _require_media_read(record, options, has_pictures=bool(named))
    if named and (options.needs_image or options.keeps_members):
        tell_others(record, named[0].field)
    return talk, [places.image_part(item, file, options) for item in named]


def _talk_and_named(
    record: dict[str, Any], *, is_lenient: bool, keeps_empty: bool = False
) -> tuple[list[Turn] | None, list[Named]]:
    """The turns, and the pictures that they name themselves, or else those of the record's fields.

    is_lenient: a conversation of another form is none.
    """
    talk, named = None, list[Named]()
    with contextlib.suppress(*[BadSample] if is_lenient else []):
        if (found := talk_in(record)) is not None:
            talk, named = turns_of(found[1], found[0])
    return talk, named or named_pictures(record, keeps_empty=keeps_empty)


def _require_media_read(record: dict[str, Any], options: Options, *, has_pictures: bool) -> None:
    """Raises BadSample for media in a record that are not read, where whoever asks for pictures would lose them."""
    if (options.needs_image or options.keeps_members) and (media := _unread(record, has_pictures, options)):
        raise BadSample(Reason.UNSUPPORTED_MEDIA, media)


def _unread(record: dict[str, Any], has_pictures: bool, options: Options) -> str:
    texts = (options.text_field,) if options.text_field else (*TEXT_FIELDS, *DOCUMENT_FIELDS)
    return unread(record, texts, has_pictures=has_pictures, only_files=not options.needs_image)


def extension(name: str) -> str:
    """Of a file's name, `img` where it has none that is one."""
    extension = os.path.splitext(name)[1][1:].lower()
    return extension if re.fullmatch("[a-z0-9]{1,8}", extension) else "img"


def _sidecar_text(base: str, name: str, options: Options) -> str:
    path, limit = os.path.join(base, name), options.max_record_bytes
    try:
        data = read_beginning(path, limit + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError) as error:
        raise BadSample(Reason.MISSING_TEXT, f"{places.shown(name)} cannot be read: {type(error).__name__}") from None
    if len(data) > limit:
        raise BadSample(Reason.OVERSIZED_TEXT, f"the text file has more than {limit} bytes")
    if path.lower().endswith(".json"):
        return text_of_json(data, options)
    return decoded_text(data, what="the text file")

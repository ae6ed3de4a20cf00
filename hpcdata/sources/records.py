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
import os
import re
from collections.abc import Sequence
from typing import Any

import orjson

from hpcdata.samples import BadSample, Blob, ImagePart, Member, Reason, TextPart
from hpcdata.sources.base import (
    DOCUMENT_FIELDS,
    TEXT_FIELDS,
    InputFile,
    Options,
    checked_text,
    is_plain,
    json_type,
)
from hpcdata.sources.custom.applying import applied
from hpcdata.sources.custom.mapping import parsed
from hpcdata.sources.parsing import load
from hpcdata.sources.pictures import places
from hpcdata.sources.pictures.fields import TALKS, Named, named_pictures, talk_in, unread
from hpcdata.sources.pictures.placeholders import KEEP, placed
from hpcdata.sources.pictures.telling import tell_others
from hpcdata.sources.pictures.turns import Turn, old_turns, talk_parts, turns_of

Parts = tuple[TextPart | ImagePart, ...]

_IMAGE_FIELDS = ("image_path", "image")
_NO_DOCUMENT = frozenset((*_IMAGE_FIELDS, "conversations"))


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

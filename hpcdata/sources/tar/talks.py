"""Samples whose `json` member holds a conversation, as `stage=fetch`, `stage=copy` and exports of chats write them.

    000012.jpg  000012.json                     {"conversations": [...]} or {"messages": [...]}
    000013.0.jpg  000013.1.jpg  000013.json     several pictures, in the order of their numbers; also image_0.jpg

Pictures are members of the sample, whatever the fields of the record say. A `txt`, `text` or `caption` member comes
before a conversation, and so does `data.text_field`. It is a rule of an archive (`Rules.talks`), found when it is
scanned: plans of before have no such rule, and their records are read as then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcdata.media import kinds
from hpcdata.samples import BadSample, ImagePart
from hpcdata.sources import parsing, records
from hpcdata.sources.base import TEXT_EXTENSIONS, Options
from hpcdata.sources.pictures.fields import TALKS
from hpcdata.sources.pictures.placeholders import KEEP
from hpcdata.sources.tar.groups import Content, Group, TarSource
from hpcdata.sources.tar.oddities import NUMBER, PICTURES, find_picture

JSON = b"json"
_TALK = re.compile(rb'"(?:%s)"\s*:\s*[\[{]' % "|".join(TALKS).encode())
_ENDING = re.compile(rb"[a-z0-9_]{1,16}")
_TEXTS = frozenset(name.encode() for name in TEXT_EXTENSIONS)


def are_wanted(options: Options) -> bool:
    """Whether conversations are another thing than a text that is missing, and a picture beside it."""
    return not options.text_field and (options.needs_text or options.needs_image or options.placeholders != KEEP)


def may_hold(group: Group) -> bool:
    return JSON in group.contents and _TEXTS.isdisjoint(group.contents)


def holds(data: bytes) -> bool:
    """Whether a JSON file is a record with a conversation."""
    if _TALK.search(data) is None:
        return False
    try:
        record = parsing.load(data)
    except BadSample:
        return False
    return isinstance(record, dict) and any(record.get(name) for name in TALKS)


def pictures(source: TarSource, group: Group) -> list[Content]:
    """All with a usual ending, and those with numbers, or else the one that is a picture by its bytes."""
    numbered = [
        (int(match[1]), content)
        for extension, content in group.contents.items()
        for stem, _, kind in [extension.rpartition(b".")]
        if (match := NUMBER.fullmatch(stem)) and _ENDING.fullmatch(kind) and _is_picture(kind, source, content)
    ]
    found = [content for extension, content in group.contents.items() if extension in PICTURES]
    found += [content for _, content in sorted(numbered, key=lambda item: item[0])]
    other = None if found else find_picture(source, group)
    return found if other is None else [other]


def parts_of(data: bytes, images: Sequence[ImagePart], options: Options) -> tuple[records.Parts, bytes | None]:
    """(the texts and pictures in order, the JSON with markers where `data.placeholders` puts some in).

    Raises BadSample.
    """
    record, is_fixed = records.with_markers(parsing.load_exact(data), options, num_images=len(images))
    parts = () if records.is_kept_whole(options) else records.talk_beside(record, images, options)
    return parts, parsing.dumped(record) if is_fixed else None


def _is_picture(kind: bytes, source: TarSource, content: Content) -> bool:
    if kind in PICTURES:
        return True
    is_open = kinds.says_nothing(kind.decode()) and content.is_complete
    return is_open and kinds.is_picture(source.head(content, kinds.BEGINNING_BYTES))

"""Messages -> turns, with the places of pictures.

A picture stands where its marker stands in what a user says (`<image>` or `<|image|>`), or where a part of a message is
a picture; in a conversation with such parts, markers are text. Without any of them, pictures stand before the text. In
answers and in what the system says, markers are text always.

A conversation has a marker for each picture, or none. More markers than pictures are the reject `marker_without_image`,
fewer are `image_without_marker`. For data without pictures in which the letters of a marker are meant as such,
`lone_markers="text"`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from hpcdata.multimodal.formatting.fields import Message
from hpcdata.multimodal.values import Branch, Slot, Turn
from hpcdata.samples import BadSample, Reason

MARKERS = ("<|image|>", "<image>")
_MARKER = re.compile("|".join(map(re.escape, MARKERS)))
LONE_MARKERS = ("reject", "text")


def has_marker(message: Message) -> bool:
    """Whether a text of a user spells a marker."""
    return message.role == "user" and _MARKER.search(message.text) is not None


def branch_of(messages: Sequence[Message], num_pictures: int, *, lone_markers: str = "reject") -> Branch:
    """Raises BadSample: MARKER_WITHOUT_IMAGE, IMAGE_WITHOUT_MARKER."""
    has_parts = any(message.has_picture_parts for message in messages)
    found = number_of(messages) if has_parts or num_pictures or lone_markers == "reject" else 0
    if found > num_pictures:
        raise BadSample(
            Reason.MARKER_WITHOUT_IMAGE,
            f"a conversation shows {found} pictures by markers, the example has {num_pictures}",
        )
    if 0 < found < num_pictures:
        raise BadSample(
            Reason.IMAGE_WITHOUT_MARKER, f"of {num_pictures} pictures a conversation shows {found} by markers"
        )
    numbers = itertools.count()
    return tuple(
        Turn(role=message.role, parts=tuple(_parts(message, numbers, has_parts, found)), weight=message.weight)
        for message in messages
    )


def number_of(messages: Sequence[Message]) -> int:
    """Pictures that a conversation shows by parts of messages, or by markers."""
    if any(message.has_picture_parts for message in messages):
        return sum(part is True for message in messages for part in message.parts)
    return sum(len(_MARKER.findall(message.text)) for message in messages if message.role == "user")


def _parts(message: Message, numbers: Iterator[int], has_parts: bool, found: int) -> Iterator[str | Slot]:
    if has_parts:
        yield from (Slot(next(numbers)) if part is True else part for part in message.parts)
    elif message.role != "user" or not found:
        yield message.text
    else:
        for place, text in enumerate(_MARKER.split(message.text)):
            if place:
                yield Slot(next(numbers))
            yield text

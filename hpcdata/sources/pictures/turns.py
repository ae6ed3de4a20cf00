"""Conversations: a list of turns -> who speaks and what, with markers where pictures stand.

{"conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": "..."}]}       LLaVA, ShareGPT
{"messages": [{"role": "user", "content": "<image>..."}, ...], "images": ["a.jpg"]}                     chats
{"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "..."}]}]}
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from hpcdata.samples import BadSample, ImagePart, Reason, Role, TextPart
from hpcdata.sources.base import Options, json_type
from hpcdata.sources.pictures.fields import SPEAKER, SPOKEN, Named, pictures_in, turns_in

IMAGE_MARKER = "<image>"
ROLES = {
    "system": Role.SYSTEM,
    "human": Role.USER,
    "user": Role.USER,
    "gpt": Role.ASSISTANT,
    "assistant": Role.ASSISTANT,
}
PICTURE_PIECES = ("image", "image_url")
"""Types of the pieces of a turn that are pictures."""
_OTHER_MARKER = re.compile(r"<(video|audio)>")
Turn = tuple[Role, str]


def old_turns(turns: object) -> list[Turn]:
    """Those of `conversations`, by the names `from` and `value` alone. Raises BadSample."""
    if not isinstance(turns, list) or not turns:
        raise BadSample(Reason.BAD_RECORD, f"conversations is {json_type(turns)}, expected a list of turns")
    found = list[Turn]()
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise BadSample(Reason.BAD_RECORD, f"turn {number} is {json_type(turn)}, expected an object")
        found.append((_role(turn.get("from"), number), _text(turn.get("value"), number)))
    return found


def turns_of(turns: object, name: str) -> tuple[list[Turn], list[Named]]:
    """The turns of a conversation, and the pictures that they name themselves. Raises BadSample."""
    pictures = list[Named]()
    return [turn_of(turn, number, pictures) for number, turn in enumerate(list_of_turns(turns, name))], pictures


def list_of_turns(turns: object, name: str) -> list[object]:
    """The turns as they are. Raises BadSample where there are none."""
    turns = turns_in(turns, name)
    if not isinstance(turns, list) or not turns:
        what = "empty" if turns == [] else json_type(turns)
        raise BadSample(Reason.BAD_RECORD, f"{name} is {what}, expected a list of turns")
    return turns


def turn_of(turn: object, number: int, pictures: list[Named]) -> Turn:
    """Who speaks and what; pictures that the turn names itself are appended to `pictures`. Raises BadSample."""
    if not isinstance(turn, dict):
        raise BadSample(Reason.BAD_RECORD, f"turn {number} is {json_type(turn)}, expected an object")
    speaker, text = _either(turn, *SPEAKER), _either(turn, *SPOKEN)
    role = _role(speaker, number)
    text = _text(_flattened(text, number, pictures) if isinstance(text, list) else text, number)
    _require_no_other_marker(role, text, number)
    return role, text


def talk_parts(turns: list[Turn], images: list[ImagePart], options: Options) -> list[TextPart | ImagePart]:
    """The texts and pictures of a conversation, in order. Raises BadSample where markers and pictures do not fit."""
    num_markers = sum(text.count(IMAGE_MARKER) for role, text in turns if _shows(role, options))
    if num_markers not in (0, len(images)) or (num_markers and not images):
        reason = Reason.BAD_RECORD
        if options.only_users_show:
            is_more = num_markers > len(images)
            reason = Reason.MARKER_WITHOUT_IMAGE if is_more else Reason.IMAGE_WITHOUT_MARKER
        raise BadSample(reason, f"{num_markers} {IMAGE_MARKER} markers for {len(images)} images")
    parts: list[TextPart | ImagePart] = [] if num_markers else list(images)
    remaining = iter(images)
    for role, text in turns:
        if num_markers and _shows(role, options):
            parts += _turn_parts(role, text, remaining, keep_marker=options.keep_image_marker)
        else:
            parts += _piece(role, text)
    if options.needs_text and not any(isinstance(part, TextPart) for part in parts):
        raise BadSample(Reason.EMPTY_TEXT, "the conversation has no text")
    return parts


def _turn_parts(role: Role, text: str, images: Iterator[ImagePart], *, keep_marker: bool) -> list[TextPart | ImagePart]:
    """Text and images in order; pieces of nothing but space between them are dropped."""
    parts: list[TextPart | ImagePart] = []
    *before_images, last = text.split(IMAGE_MARKER)
    for piece in before_images:
        piece += IMAGE_MARKER if keep_marker else ""
        parts += [*_piece(role, piece), next(images)]
    return [*parts, *_piece(role, last)]


def _shows(role: Role, options: Options) -> bool:
    return role is Role.USER or not options.only_users_show


def _piece(role: Role, text: str) -> list[TextPart]:
    if not text or text.isspace():
        return []
    return [TextPart(text=text, role=role, loss=role is Role.ASSISTANT)]


def _either(turn: dict[str, Any], name: str, other: str) -> object:
    value = turn.get(name)
    return turn.get(other) if value is None else value


def _role(speaker: object, number: int) -> Role:
    role = ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise BadSample(Reason.BAD_RECORD, f"turn {number} is from nobody known, expected one of {', '.join(ROLES)}")
    return role


def _text(text: object, number: int) -> str:
    if not isinstance(text, str):
        raise BadSample(Reason.BAD_RECORD, f"the value of turn {number} is {json_type(text)}, expected a string")
    if "\0" in text:
        raise BadSample(Reason.UNREADABLE_TEXT, f"turn {number} has a NUL character at {text.index(chr(0))}")
    return text


def _flattened(pieces: list[object], number: int, pictures: list[Named]) -> str:
    """The text of a turn in pieces, with a marker for each picture; those that are named are appended to `pictures`."""
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        kind = piece.get("type") if isinstance(piece, dict) else None
        if not isinstance(piece, dict) or not isinstance(kind, str):
            raise BadSample(Reason.BAD_RECORD, f"turn {number} has a piece without a type, expected text or image")
        if kind == "text":
            text += _text(piece.get("text"), number)
        elif kind in PICTURE_PIECES:
            text += IMAGE_MARKER
            values = (piece[name] for name in ("image", "image_url", "url", "path") if piece.get(name))
            pictures += pictures_in(next(values, None), kind)
        else:
            raise BadSample(
                Reason.UNSUPPORTED_MEDIA, f"turn {number} holds {kind[:32]!r}, only text and image are read"
            )
    return text


def without_names(turns: object) -> object:
    """The turns without the names of their pictures, whose places stay: `{"type": "image"}`; what is none, as it is."""
    with contextlib.suppress(BadSample):
        turns = turns_in(turns, "")
    if not isinstance(turns, list):
        return turns
    return [_without_names(turn) if isinstance(turn, dict) else turn for turn in turns]


def _without_names(turn: dict[str, Any]) -> dict[str, Any]:
    pieces = {name: said for name in SPOKEN if isinstance(said := turn.get(name), list)}
    return turn | {name: [_without_name(piece) for piece in said] for name, said in pieces.items()}


def _without_name(piece: object) -> object:
    is_picture = isinstance(piece, dict) and piece.get("type") in PICTURE_PIECES
    return {"type": piece["type"]} if is_picture and isinstance(piece, dict) else piece


def _require_no_other_marker(role: Role, text: str, number: int) -> None:
    """Raises BadSample for `<video>` where a turn puts it in the place of one, and not as a tag of HTML."""
    if role is Role.ASSISTANT or "<" not in text:
        return
    if (kind := _other_marker(text)) and f"</{kind}>" not in text:
        raise BadSample(Reason.UNSUPPORTED_MEDIA, f"turn {number} has a <{kind}>, which is not read")


def _other_marker(text: str) -> str:
    """The first `video` or `audio` whose marker begins its line or ends the text, but for spaces. Linear in time."""
    end, last = len(text.rstrip()), 0
    for marker in _OTHER_MARKER.finditer(text):
        line = text.rfind("\n", last, marker.start()) + 1
        begins_line = (line or not last) and not text[line : marker.start()].strip()
        if begins_line or marker.end() == end:
            return marker[1]
        last = marker.end()
    return ""

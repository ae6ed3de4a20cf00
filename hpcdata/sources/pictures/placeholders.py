"""Markers of pictures in conversations: what becomes of a record that has another number of them than pictures.

    keep      as the record has them: pictures without any marker stand before the text
    fix       a record without a marker gets one for each picture, in front of what a user says first
    reject    a record with another number of markers than pictures is a reject

A marker stays where it is written; LLaVA's trainer moves the only one of a turn to the turn's front. A marker in a
record without pictures is a reject where its text is read; the trainer takes it for text. Only a record without any
marker is fixed: of some that are too few or too many nobody knows which picture is meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcdata.samples import BadSample, Reason, Role
from hpcdata.sources.pictures.fields import SPEAKER, SPOKEN, talk_in
from hpcdata.sources.pictures.turns import IMAGE_MARKER, PICTURE_PIECES, ROLES

KEEP, FIX, REJECT = "keep", "fix", "reject"
POLICIES = (KEEP, FIX, REJECT)


def placed(
    record: dict[str, Any], policy: str, *, num_images: int, only_users_show: bool = False
) -> tuple[dict[str, Any], bool]:
    """(the record, or a new one with markers; whether it is a new one). Raises BadSample, see above.

    only_users_show: in what others say a marker is text. A record without a conversation, or with one of no known form,
    is returned as it is: whoever reads it says what is wrong.
    """
    found = None if policy == KEEP else talk_in(record)
    name, turns = found or ("", None)
    if not isinstance(turns, list) or not turns:
        return record, False
    number = sum(_markers(turn) for turn in turns if not only_users_show or _speaker(turn) is Role.USER)
    if number == num_images or (policy == FIX and number):
        return record, False
    if policy == REJECT:
        reason = Reason.MARKER_WITHOUT_IMAGE if number > num_images else Reason.IMAGE_WITHOUT_MARKER
        message = f"{number} {IMAGE_MARKER} markers for {num_images} images (data.placeholders=reject)"
        raise BadSample(reason, message)
    place = next((place for place, turn in enumerate(turns) if _is_said_by_user(turn)), None)
    if place is None:
        message = f"no {IMAGE_MARKER} marker for {num_images} images, and no user speaks where one could be put in"
        raise BadSample(Reason.IMAGE_WITHOUT_MARKER, message)
    return {**record, name: [*turns[:place], _with_markers(turns[place], num_images), *turns[place + 1 :]]}, True


def _is_said_by_user(turn: object) -> bool:
    return _speaker(turn) is Role.USER and isinstance(_of(turn, *SPOKEN), str | list)


def _speaker(turn: object) -> Role | None:
    speaker = _of(turn, *SPEAKER)
    return ROLES.get(speaker) if isinstance(speaker, str) else None


def _of(turn: object, *names: str) -> object:
    if not isinstance(turn, Mapping):
        return None
    return next((turn[name] for name in names if turn.get(name) is not None), None)


def _markers(turn: object) -> int:
    said = _of(turn, *SPOKEN)
    if isinstance(said, str):
        return said.count(IMAGE_MARKER)
    return sum(_markers_of_piece(piece) for piece in said) if isinstance(said, list) else 0


def _markers_of_piece(piece: object) -> int:
    if isinstance(piece, str):
        return piece.count(IMAGE_MARKER)
    if not isinstance(piece, Mapping):
        return 0
    if piece.get("type") in PICTURE_PIECES:
        return 1
    text = piece.get("text")
    return text.count(IMAGE_MARKER) if isinstance(text, str) else 0


def _with_markers(turn: dict[str, Any], number: int) -> dict[str, Any]:
    name = next(name for name in SPOKEN if turn.get(name) is not None)
    said = turn[name]
    if isinstance(said, list):
        return {**turn, name: [*({"type": "image"} for _ in range(number)), *said]}
    return {**turn, name: f"{IMAGE_MARKER}\n" * number + said}

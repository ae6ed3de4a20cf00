"""Changes of a conversation before it is split at its pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from hpcdata.multimodal.formatting import markers
from hpcdata.multimodal.formatting.fields import Message, bad
from hpcdata.samples import BadSample, Reason


def begun(messages: list[Message], before: str) -> list[Message]:
    """With a system prompt before the first thing that a user says."""
    for place, message in enumerate(messages):
        if message.role == "user" and before:
            space = " " if message.parts and message.parts[0] != "" else ""
            parts = (before + space, *message.parts)
            return [*messages[:place], dataclasses.replace(message, parts=parts), *messages[place + 1 :]]
    return messages


def weighted(messages: Sequence[Message], weight: float) -> list[Message]:
    return [dataclasses.replace(message, weight=message.weight * weight) for message in messages]


def numbered(messages: Sequence[Message], number: int) -> list[Message]:
    names = {"user": f"Q{number}: ", "assistant": f"A{number}: "}
    return [dataclasses.replace(message, parts=(names.get(message.role, ""), *message.parts)) for message in messages]


def asked(messages: list[Message]) -> list[Message]:
    """Up to the last question."""
    last = max((place + 1 for place, message in enumerate(messages) if message.role == "user"), default=0)
    if not last:
        bad("no message of a user asks for an answer")
    return messages[:last]


def answered(messages: list[Message]) -> list[Message]:
    """Questions behind the last answer teach nothing."""
    last = max((place + 1 for place, message in enumerate(messages) if message.role == "assistant"), default=0)
    if not last:
        raise BadSample(Reason.NOTHING_TO_LEARN, "a conversation has no answer")
    return messages[:last]


def shown_last(messages: list[Message], num_pictures: int) -> list[Message]:
    """With the pictures behind what is said first, unless they have places."""
    first = messages[0]
    has_places = any(message.has_picture_parts or markers.has_marker(message) for message in messages)
    if has_places or first.role != "user":
        return messages
    shown: tuple[Any, ...] = (True,) * num_pictures
    return [dataclasses.replace(first, parts=(*first.parts, *shown)), *messages[1:]]

"""A copied record as LLaVA's trainer reads it: `{"id", "image", "conversations": [{"from", "value"}, ...]}`.

Conversations keep their turns; those of chats (`role`, `content`) become `from` and `value`, with `<image>` where a
picture stands between texts. A picture with a caption becomes a conversation of two turns. `image` is left out where
there is no picture: the trainer fails on null. An id that is missing is the sample's key. Other fields stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpcdata.samples import BadSample, Reason, Role
from hpcdata.sources.base import TEXT_FIELDS
from hpcdata.sources.pictures.fields import IMAGE_FIELDS, TALKS, talk_in
from hpcdata.sources.pictures.numbered import base_of
from hpcdata.sources.pictures.placeholders import placed
from hpcdata.sources.pictures.turns import IMAGE_MARKER, turns_of

_NAMES = {Role.SYSTEM: "system", Role.USER: "human", Role.ASSISTANT: "gpt"}
_OWN = {"key", "id", *IMAGE_FIELDS, *TALKS}


def llava_record(
    record: dict[str, Any], key: str, pictures: Sequence[str], *, prompt: str, placeholders: str
) -> dict[str, Any]:
    """The record in LLaVA's form; pictures: their paths. Raises BadSample for what has no form there.

    prompt: what is asked of a picture with a caption, behind its marker. placeholders: what becomes of a conversation
    with another number of markers than pictures (`sources.pictures.placeholders`).
    """
    talk = talk_in(record)
    caption = next((field for field in TEXT_FIELDS if isinstance(record.get(field), str)), None)
    if talk is not None:
        record, _ = placed(record, placeholders, num_images=len(pictures), only_users_show=True)
        turns = _turns(*(talk_in(record) or talk))
    elif pictures and caption:
        asked = "\n".join([IMAGE_MARKER] * len(pictures)) + (f"\n{prompt}" if prompt else "")
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": record[caption]}]
    elif pictures:
        raise BadSample(Reason.MISSING_TEXT, "a picture without a caption or conversation")
    else:
        raise BadSample(Reason.BAD_RECORD, "a text alone, and no conversation")
    shown = {"image": pictures[0] if len(pictures) == 1 else list(pictures)} if pictures else {}
    left_out = _OWN | ({caption} if talk is None else set())
    others = {
        field: value for field, value in record.items() if field not in left_out and base_of(field) not in IMAGE_FIELDS
    }
    return {"id": _id(record.get("id"), key), **shown, "conversations": turns, **others}


def _id(found: object, key: str) -> str | int:
    return found if isinstance(found, str | int) and not isinstance(found, bool) and found != "" else key


def _turns(name: str, found: object) -> list[dict[str, Any]]:
    """Turns as they are where they are LLaVA's. Raises BadSample."""
    parsed, _ = turns_of(found, name)
    assert isinstance(found, list)
    is_as_it_is = all(isinstance(turn.get("value"), str) and turn.get("from") in _NAMES.values() for turn in found)
    if is_as_it_is:
        return [dict(turn) for turn in found]
    return [{"from": _NAMES[role], "value": text} for role, text in parsed]

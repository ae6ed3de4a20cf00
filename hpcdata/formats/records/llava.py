"""A copied record as LLaVA's trainer reads it: `{"id", "image", "conversations": [{"from", "value"}, ...]}`.

Conversations keep their turns; those of chats (`role`, `content`) become `from` and `value`, with `<image>` where a
picture stands between texts. A picture with a caption becomes a conversation of two turns. `image` is left out where
there is no picture: the trainer fails on null. An id that is missing is the sample's key. Other fields stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from hpcdata.samples import BadSample, Reason, Role
from hpcdata.sources.base import TEXT_FIELDS
from hpcdata.sources.pictures.fields import IMAGE_FIELDS, TALKS
from hpcdata.sources.pictures.turns import IMAGE_MARKER, turns_of

Placeholders = Literal["keep", "fix", "reject"]
"""Where markers and pictures do not fit: as they are; with one marker a picture in front, if there is none; left out."""
_NAMES = {Role.SYSTEM: "system", Role.USER: "human", Role.ASSISTANT: "gpt"}
_OWN = {"key", "id", "files", *IMAGE_FIELDS, *TALKS}


def llava_record(
    record: dict[str, Any], key: str, pictures: Sequence[str], *, prompt: str, placeholders: Placeholders
) -> dict[str, Any]:
    """The record in LLaVA's form; pictures: their paths. Raises BadSample for what has no form there.

    prompt: what is asked of a picture with a caption, behind its marker.
    """
    name = next((name for name in TALKS if record.get(name) is not None), None)
    caption = next((field for field in TEXT_FIELDS if isinstance(record.get(field), str)), None)
    if name is not None:
        turns = _turns(record[name], name)
        _fit(turns, len(pictures), placeholders)
    elif pictures and caption:
        asked = "\n".join([IMAGE_MARKER] * len(pictures)) + (f"\n{prompt}" if prompt else "")
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": record[caption]}]
    elif pictures:
        raise BadSample(Reason.MISSING_TEXT, "a picture without a caption or conversation")
    else:
        raise BadSample(Reason.BAD_RECORD, "a text alone, and no conversation")
    shown = {"image": pictures[0] if len(pictures) == 1 else list(pictures)} if pictures else {}
    left_out = _OWN | ({caption} if name is None else set())
    others = {field: value for field, value in record.items() if field not in left_out}
    return {"id": _id(record.get("id"), key), **shown, "conversations": turns, **others}


def _id(found: object, key: str) -> str | int:
    return found if isinstance(found, str | int) and not isinstance(found, bool) and found != "" else key


def _turns(found: object, name: str) -> list[dict[str, Any]]:
    """Turns as they are where they are LLaVA's. Raises BadSample."""
    parsed, _ = turns_of(found, name)
    assert isinstance(found, list)
    is_as_it_is = all(isinstance(turn.get("value"), str) and turn.get("from") in _NAMES.values() for turn in found)
    if is_as_it_is:
        return [dict(turn) for turn in found]
    return [{"from": _NAMES[role], "value": text} for role, text in parsed]


def _fit(turns: list[dict[str, Any]], num_pictures: int, placeholders: Placeholders) -> None:
    asked = [turn for turn in turns if turn["from"] == "human"]
    found = sum(turn["value"].count(IMAGE_MARKER) for turn in asked)
    if placeholders == "keep" or found == num_pictures:
        return
    if placeholders == "fix" and found == 0 and asked:
        asked[0]["value"] = f"{IMAGE_MARKER}\n" * num_pictures + asked[0]["value"]
        return
    reason = Reason.MARKER_WITHOUT_IMAGE if found > num_pictures else Reason.IMAGE_WITHOUT_MARKER
    raise BadSample(reason, f"{found} {IMAGE_MARKER} for {num_pictures} pictures")

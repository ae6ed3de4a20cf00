"""A record of any fields -> a record as all other sources have it, by a mapping.

    {"image": ..., "text": "..."}    {"image": ..., "conversations": [{"from": "human", "value": "..."}, ...]}

What is missing or of another kind raises BadSample, which names the field, and the fields that are there.
"""

from __future__ import annotations

import hashlib
from typing import Any

from hpcdata.samples import BadSample, Reason
from hpcdata.sources.base import clean_name, json_type
from hpcdata.sources.custom.mapping import PROMPT, Mapping, Template
from hpcdata.sources.pictures.fields import SPEAKER, SPOKEN, is_empty, listed

_SPOKEN = {"system": "system", "user": "human", "assistant": "gpt"}
_MOST_KEYS, _LONGEST_NAME = 12, 32


def applied(value: object, mapping: Mapping, position: int) -> dict[str, Any]:
    """position: of the record in its input; prompts are drawn by it. Raises BadSample."""
    if isinstance(value, list):
        raise BadSample(Reason.BAD_RECORD, f"the row has {len(value)} values, which is not the number of columns")
    if not isinstance(value, dict):
        raise BadSample(Reason.BAD_RECORD, f"the record is {json_type(value)}, expected an object")
    found = dict[str, Any]()
    if mapping.id is not None:
        found["id"] = _field(value, mapping.id, "id", Reason.BAD_RECORD)
    if mapping.images:
        found["image"] = _pictures(value, mapping.images)
    prompt = _drawn(mapping, position)
    if mapping.text is not None:
        found["text"] = _written(value, mapping.text, "text", prompt)
    elif mapping.turns:
        found["conversations"] = [
            {"from": _SPOKEN[role], "value": _written(value, said, f"turn {number}", prompt)}
            for number, (role, said) in enumerate(mapping.turns)
        ]
    elif mapping.conversations is not None:
        found["conversations"] = _talk(value, mapping)
    return found


def _pictures(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the one field, or those of several that are not empty, in order."""
    if len(names) == 1:
        return _field(record, names[0], "image", Reason.MISSING_IMAGE)
    values = [_value(record, name, "image", Reason.MISSING_IMAGE) for name in names]
    each = [item for value in values for item in (value if isinstance(value, list) else [value])]
    found = [item for item in each if not is_empty(item)]
    if not found:
        fields = ", ".join(map(_name, names))
        raise BadSample(Reason.MISSING_IMAGE, f"image is read from {fields}, which are empty")
    return found


def _drawn(mapping: Mapping, position: int) -> Template | None:
    if not mapping.prompts:
        return None
    digest = hashlib.blake2b(f"hpcdata prompt 1: {position} of {mapping.seed}".encode(), digest_size=8).digest()
    return mapping.prompts[int.from_bytes(digest, "little") % len(mapping.prompts)]


def _written(record: dict[str, Any], template: Template, key: str, prompt: Template | None) -> str:
    text = template.pieces[0]
    for name, piece in zip(template.fields, template.pieces[1:], strict=True):
        if name == PROMPT and prompt is not None:
            text += _written(record, prompt, PROMPT, None) + piece
        else:
            text += _plain(_field(record, name, key, Reason.MISSING_TEXT), name, key) + piece
    return text


def _plain(value: object, name: str, key: str) -> str:
    """A value as text: numbers as JSON writes them, lists of such values with commas."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list) and not any(isinstance(item, list | dict) or item is None for item in value):
        return ", ".join(_plain(item, name, key) for item in value)
    raise BadSample(Reason.BAD_RECORD, f"{key} is read from {_name(name)}, which is {json_type(value)}, expected text")


def _field(record: dict[str, Any], name: str, key: str, reason: Reason) -> Any:
    """The value of a field that is not empty."""
    value = _value(record, name, key, reason)
    if value is None or value == "":
        raise BadSample(reason, f"{key} is read from {_name(name)}, which is {'null' if value is None else 'empty'}")
    return value


def _value(record: dict[str, Any], name: str, key: str, reason: Reason) -> Any:
    """The value of a field, or of `a.b` where no field has that name."""
    if name in record:
        value = record[name]
    else:
        value = record
        for part in name.split("."):
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                raise BadSample(reason, f"{key} is read from {_name(name)}, and the record has {_keys(record)}")
    return value


def _talk(record: dict[str, Any], mapping: Mapping) -> list[dict[str, Any]]:
    assert mapping.conversations is not None
    name = mapping.conversations
    turns = listed(_field(record, name, "conversations", Reason.MISSING_TEXT), _name(name))
    if not isinstance(turns, list) or not turns:
        what = "empty" if turns == [] else json_type(turns)
        message = f"conversations is read from {_name(name)}, which is {what}, expected a list of turns"
        raise BadSample(Reason.BAD_RECORD, message)
    return [_turn(turn, number, mapping) for number, turn in enumerate(turns)]


def _turn(turn: object, number: int, mapping: Mapping) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise BadSample(Reason.BAD_RECORD, f"turn {number} is {json_type(turn)}, expected an object")
    speaker = _of_turn(turn, number, "speaker", mapping.speaker, SPEAKER)
    said = _of_turn(turn, number, "said", mapping.said, SPOKEN)
    roles = dict(mapping.speakers)
    if roles:
        if speaker not in roles:
            known = ", ".join(roles)
            shown = _name(str(speaker))
            raise BadSample(Reason.BAD_RECORD, f"turn {number} is from {shown}, and speakers has {known}")
        speaker = _SPOKEN[roles[speaker]]
    return {"from": speaker, "value": said}


def _of_turn(turn: dict[str, Any], number: int, key: str, name: str | None, usual: tuple[str, ...]) -> Any:
    names = usual if name is None else (name,)
    for one in names:
        if turn.get(one) is not None:
            return turn[one]
    wanted = " or ".join(names)
    raise BadSample(Reason.BAD_RECORD, f"{key} of turn {number} is read from {wanted}, and the turn has {_keys(turn)}")


def _keys(record: dict[str, Any]) -> str:
    names = [_name(name) for name in record][:_MOST_KEYS]
    more = ", ..." if len(record) > _MOST_KEYS else ""
    return f"{', '.join(names)}{more}" if names else "no fields"


def _name(name: str) -> str:
    return clean_name(name.encode("utf-8", "backslashreplace"))[:_LONGEST_NAME]

"""Conversations in the form of LLaVA: `[{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": ...}]`.

Turns of other forms (`role` and `content`, content in pieces, objects of lists) are written so as well. Further keys of
a turn stay, but for those that are null: a table gives every turn the keys of all.
"""

from __future__ import annotations

from typing import Any

from hpcdata.samples import BadSample, Reason, Role
from hpcdata.sources.pictures.fields import SPEAKER, SPOKEN, TALKS, Named, talk_in
from hpcdata.sources.pictures.turns import IMAGE_MARKER, list_of_turns, turn_of

CONVERSATIONS = TALKS[0]
_NAMES = {Role.SYSTEM: "system", Role.USER: "human", Role.ASSISTANT: "gpt"}


def llava_turns(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of a record's conversation. Raises BadSample where there is none, or one of no known form."""
    found = talk_in(record)
    if found is None:
        raise BadSample(Reason.BAD_RECORD, f"no {' or '.join(TALKS)} in the record")
    return [_turn(turn, number) for number, turn in enumerate(list_of_turns(found[1], found[0]))]


def num_markers(turns: list[dict[str, Any]]) -> int:
    """Of all turns: a trainer puts a picture wherever one stands."""
    return sum(turn["value"].count(IMAGE_MARKER) for turn in turns)


def _turn(turn: object, number: int) -> dict[str, Any]:
    role, text = turn_of(turn, number, list[Named]())
    assert isinstance(turn, dict)
    others = {name: value for name, value in turn.items() if name not in (*SPEAKER, *SPOKEN) and value is not None}
    return {"from": _NAMES[role], "value": text, **others}

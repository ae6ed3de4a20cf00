"""Conversation templates: what stands around each turn of a conversation, put between the stored spans.

    SFT(max_length=4096, template="chat")                                  # the tokenizer's own chat template
    SFT(max_length=4096, template=ChatTemplate(name="unidisc", system="You are ..."))

A template is applied turn by turn: the ids of a turn stay as they are stored, and what the template writes between two
turns is encoded by itself. So masks are right by construction: a turn is trained on if its text is, together with what
ends it; what begins a turn never is. A turn is all consecutive texts of one role. An image belongs to the turn of the
text before it, or to the first turn. A sample without roles (a pair, a document) stands between bos and eos.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.manifest import Manifest
from hpcdata.dataset.parts import PartMaps
from hpcdata.dataset.span_table import COLUMNS, SpanTable
from hpcdata.samples import LOSS_FLAG, ROLE_MASK, Around, Kind

_SLOTS = 3
"""Spans that a turn may get: before it, its end, and what stands behind that."""


class Conversations(Protocol):
    """A template with the ids of a tokenizer."""

    def around(self, roles: tuple[int, ...]) -> list[Around]:
        """What stands around each turn of a conversation of these roles. Raises UserError where it cannot be one."""
        ...

    def settings(self) -> dict[str, Any]:
        """What the ids depend on, as plain values."""
        ...


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A conversation template, to be bound to a dataset."""

    name: str = "chat"
    """`chat`: the tokenizer's own; `unidisc`: `<s>system</s>`, then `<s>text</s>` a turn; or a file of Jinja."""
    system: str | None = None
    """What the system says in conversations in which it says nothing."""
    text_tokenizer: str | None = None
    """The tokenizer's file or folder, where the dataset does not lie beside its run."""

    def bind(self, manifest: Manifest) -> Conversations:
        """Raises UserError: no such template, another tokenizer than the dataset's."""
        from hpcdata.dataset.decoding import open_conversations

        return open_conversations(manifest, self.name, system=self.system, text_tokenizer=self.text_tokenizer)


Template = str | Mapping[str, Any] | ChatTemplate | Conversations
"""A name, the options of a ChatTemplate, or one; bound to a dataset once the layout is."""


def bind(template: Template, manifest: Manifest) -> Conversations:
    if isinstance(template, str):
        template = ChatTemplate(name=template)
    elif isinstance(template, Mapping):
        template = ChatTemplate(**template)
    return template.bind(manifest) if isinstance(template, ChatTemplate) else template


class Applied(NamedTuple):
    table: SpanTable
    """With what stands around the turns as spans of text of their own."""
    refused: np.ndarray
    """[num_rows] bool: conversations that the template cannot write, which stay as they are."""


def applied(conversations: Conversations, table: SpanTable, *, skips: bool = False) -> Applied:
    """Raises UserError for a conversation that the template cannot write, unless `skips`."""
    refused = np.zeros(table.num_rows, bool)
    if table.kind.max(initial=0) == Kind.BYTES:
        table = table.select(table.kind != Kind.BYTES)
    if not len(table.row):
        return Applied(table, refused)
    all_roles = _roles(table)
    turn, first, last, trained = _turns(table, all_roles)
    roles, its_row = all_roles[last].astype(np.uint8), table.row[first]
    maps, edges = table.maps, np.flatnonzero(np.diff(its_row, prepend=-1, append=-1)).tolist()
    patterns = [roles[start:stop].tobytes() for start, stop in itertools.pairwise(edges)]
    around = _found(conversations, maps, patterns)
    why = {roles: found for roles, found in around.items() if isinstance(found, UserError)}
    if why:
        refused[its_row[edges[:-1]]] = [roles in why for roles in patterns]
        if not skips:
            raise UserError(
                f"sample {table.index[refused.argmax()]}: {next(why[roles] for roles in patterns if roles in why)}"
            )
        around |= {roles: np.zeros((2, len(roles), _SLOTS), np.int64) for roles in why}
    length, place = np.concatenate([around[roles] for roles in patterns], axis=1)
    is_stored, at = _arranged(len(table.row), turn, first, last)
    size = len(is_stored)
    columns = {name: np.zeros(size, np.int64) for name in COLUMNS}
    given = np.full(size, -1)
    for name, column in columns.items():
        column[is_stored] = getattr(table, name)
    for slot, before in enumerate((first, last, last)):
        columns["row"][at[slot]] = its_row
        columns["kind"][at[slot]] = Kind.TEXT
        columns["length"][at[slot]] = length[:, slot]
        columns["part"][at[slot]] = table.part[before]
        columns["place"][at[slot]] = table.place[before]
        columns["first_token"][at[slot]] = place[:, slot] - maps.tokens[table.part[before]]
        given[at[slot]] = np.where(trained, LOSS_FLAG, 0) if slot == 1 else 0
    kept = is_stored | (columns["length"] > 0)
    columns = {name: column[kept] for name, column in columns.items()}
    return Applied(SpanTable(index=table.index, maps=maps, given_flags=given[kept], **columns), refused)


_Known = dict[bytes, "np.ndarray | UserError"]
"""What stands around the turns of some roles: [2, num_turns, 3], lengths and where the ids are, as literals."""
_known: WeakKeyDictionary[Conversations, WeakKeyDictionary[PartMaps, _Known]] = WeakKeyDictionary()


def _found(conversations: Conversations, maps: PartMaps, patterns: list[bytes]) -> _Known:
    """Of these orders of roles; of those that cannot be, why."""
    known = _known.setdefault(conversations, WeakKeyDictionary()).setdefault(maps, {})
    wanted = set(patterns)
    for roles in wanted.difference(known):
        try:
            turns = conversations.around(tuple(roles))
        except UserError as error:
            known[roles] = error
            continue
        lengths = [[len(ids) for ids in around] for around in turns]
        places = [[maps.literal(ids) if ids else 0 for ids in around] for around in turns]
        known[roles] = np.array([lengths, places], np.int64)
    return {roles: known[roles] for roles in wanted}


def _roles(table: SpanTable) -> np.ndarray:
    """[num_spans]: of images that of the text before them in their row, else of the first text behind them."""
    is_text = table.kind == Kind.TEXT
    roles = table.flags & ROLE_MASK
    number = np.arange(len(roles))
    row_start = np.searchsorted(table.row, table.row)
    before = np.maximum.accumulate(np.where(is_text, number, -1))
    behind = np.minimum.accumulate(np.where(is_text, number, len(roles))[::-1])[::-1]
    row_stop = np.searchsorted(table.row, table.row, side="right")
    source = np.where(before >= row_start, before, np.where(behind < row_stop, behind, -1))
    return np.where(source >= 0, roles[source], 0)


def _turns(table: SpanTable, roles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(turn of each span, first and last span of each turn, whether its last text is trained on)."""
    begins = np.ones(len(roles), bool)
    begins[1:] = (table.row[1:] != table.row[:-1]) | (roles[1:] != roles[:-1])
    turn = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(roles)) - 1
    texts = np.flatnonzero(table.kind == Kind.TEXT)
    trained = np.zeros(len(first), bool)
    trained[turn[texts]] = table.flags[texts] & LOSS_FLAG > 0  # the last one stays
    return turn, first, last, trained


def _arranged(
    num_spans: int, turn: np.ndarray, first: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """([size] where stored spans stand, where the spans of each slot do)."""
    number = _SLOTS * np.arange(len(first))
    is_stored = np.zeros(num_spans + _SLOTS * len(first), bool)
    is_stored[np.arange(num_spans) + _SLOTS * turn + 1] = True
    return is_stored, (first + number, last + number + 2, last + number + 3)

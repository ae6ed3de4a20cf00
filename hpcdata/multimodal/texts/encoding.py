"""Branches of turns -> ids, turn by turn, and what they share before all of them.

All texts of an example are encoded in one call. What stands between them was written by the chat format: so which ids
are learned is known, and nothing is searched for.

Several branches share their pictures. Where all branches begin alike up to their last picture, this beginning is
shared. Where they do not, and where no branch says where its pictures stand, the pictures stand behind bos.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpcdata.multimodal.texts.formats import Format, Piece, Written
from hpcdata.multimodal.texts.words import Words
from hpcdata.multimodal.values import Branch, Measure, Slot

Ids = np.ndarray | Slot
"""[n] int32, or the place of a picture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedTurn:
    lead: tuple[Ids, ...]
    """What is not learned."""
    answer: np.ndarray
    """[n] int32: what is, behind the lead."""
    weight: float
    """Of the loss of `answer`."""

    @property
    def num_tokens(self) -> int:
        """Without pictures."""
        return sum(len(part) for part in self.lead if not isinstance(part, Slot)) + len(self.answer)

    @property
    def num_learned(self) -> int:
        return len(self.answer) if self.weight > 0 else 0

    @property
    def has_picture(self) -> bool:
        return any(isinstance(part, Slot) for part in self.lead)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """An example as ids, with places for its pictures."""

    shared: tuple[Ids, ...]
    """Before all branches: bos, then pictures that stand in no turn or in all branches alike."""
    branches: tuple[tuple[EncodedTurn, ...], ...]
    is_open: bool
    """The last turns are not the assistant's: an answer is asked for."""

    def measure(self, sizes: Sequence[tuple[int, int]], *, is_drawn: bool = False) -> Measure:
        """sizes: (height, width) of the pictures. is_drawn: see `Measure`."""
        return Measure(
            sizes=tuple(sizes),
            num_tokens=tuple(tuple(turn.num_tokens for turn in branch) for branch in self.branches),
            num_learned=tuple(tuple(turn.num_learned for turn in branch) for branch in self.branches),
            num_kept=tuple(_turns_with_pictures(branch) for branch in self.branches),
            num_shared=sum(len(part) for part in self.shared if not isinstance(part, Slot)),
            is_drawn=is_drawn,
        )


def encode(
    branches: Sequence[Branch],
    words: Words,
    form: Format,
    *,
    num_pictures: int,
    max_answer_len: int | None = None,
    learns_last_only: bool = False,
) -> Encoded:
    """branches: at least one, of at least one turn each; each with a slot for every picture, or with none.
    max_answer_len: ids of an answer behind these are left out, with what ends it. learns_last_only: earlier answers
    are not learned.

    Raises BadSample: UNREADABLE_TEXT, BAD_EXAMPLE.
    """
    is_open = branches[0][-1].role != "assistant"
    written = [form.write(branch, opens_answer=is_open) for branch in branches]
    ids = iter(words.encode(list(_texts(written))))
    encoded = []
    for branch, turns in zip(branches, written, strict=True):
        weights = [0.0 if learns_last_only and turn is not branch[-1] else float(turn.weight) for turn in branch]
        encoded.append([_turn(turn, ids, weight, max_answer_len) for turn, weight in zip(turns, weights, strict=True)])
    begin: list[Ids] = [np.array([words.bos], np.int32)] if form.begins_with_bos else _bos_of(encoded, words.bos)
    alike = _taken_alike(encoded) if len(encoded) > 1 else []
    if not any(turn.has_picture for branch in encoded for turn in branch) and not alike:
        alike = [Slot(number) for number in range(num_pictures)]
    return Encoded(shared=(*begin, *alike), branches=tuple(map(tuple, encoded)), is_open=is_open)


def _texts(written: Sequence[Sequence[Written]]) -> Iterator[str]:
    for turn in (turn for branch in written for turn in branch):
        yield from (piece for piece in (*turn.lead, *turn.answer) if isinstance(piece, str))


def _turn(written: Written, ids: Iterator[np.ndarray], weight: float, max_answer_len: int | None) -> EncodedTurn:
    lead = tuple(_ends_joined(_ids(written.lead, ids)))
    answer = np.concatenate([np.zeros(0, np.int32), *(part for part in _ids(written.answer, ids) if _is_ids(part))])
    return EncodedTurn(lead=lead, answer=answer[:max_answer_len], weight=weight if written.answer else 0.0)


def _ids(pieces: Sequence[Piece], ids: Iterator[np.ndarray]) -> list[Ids]:
    found: list[Ids] = []
    for piece in pieces:
        if isinstance(piece, str):
            found.append(next(ids))
        else:
            found.append(piece if isinstance(piece, Slot) else np.array([piece], np.int32))
    return found


def _is_ids(part: Ids) -> bool:
    return not isinstance(part, Slot)


def _ends_joined(parts: Sequence[Ids]) -> Iterator[Ids]:
    """Slots, and between them one array each, none of which is empty."""
    run: list[np.ndarray] = []
    for part in (*parts, None):
        if isinstance(part, np.ndarray):
            run.append(part)
            continue
        if sum(map(len, run)):
            yield np.concatenate(run)
        run = []
        if part is not None:
            yield part


def _bos_of(branches: list[list[EncodedTurn]], bos: int) -> list[Ids]:
    """What a template begins with is taken from the branches, where this is bos."""
    firsts = [branch[0].lead[0] if branch[0].lead else None for branch in branches]
    if not all(isinstance(first, np.ndarray) and first[0] == bos for first in firsts):
        return []
    for branch, first in zip(branches, firsts, strict=True):
        assert isinstance(first, np.ndarray)
        rest = () if len(first) == 1 else (first[1:],)
        branch[0] = dataclasses.replace(branch[0], lead=(*rest, *branch[0].lead[1:]))
    return [np.array([bos], np.int32)]


def _taken_alike(branches: list[list[EncodedTurn]]) -> list[Ids]:
    """Takes the pictures out of branches, and with them what stands before them where this is the same in all."""
    heads = [branch[0].lead[: _stop(branch[0].lead)] for branch in branches]
    is_alike = all(_same(head, heads[0]) for head in heads)
    is_alike = is_alike and not any(turn.has_picture for branch in branches for turn in branch[1:])
    for number, branch in enumerate(branches):
        if is_alike:
            branch[0] = dataclasses.replace(branch[0], lead=branch[0].lead[len(heads[number]) :])
            continue
        for place, turn in enumerate(branch):
            rest = [part for part in turn.lead if isinstance(part, np.ndarray)]
            branch[place] = dataclasses.replace(turn, lead=tuple(_ends_joined(rest)))
    return list(heads[0]) if is_alike else []


def _stop(lead: Sequence[Ids]) -> int:
    """Behind the last picture."""
    return max((place + 1 for place, part in enumerate(lead) if isinstance(part, Slot)), default=0)


def _same(ours: Sequence[Ids], theirs: Sequence[Ids]) -> bool:
    return len(ours) == len(theirs) and all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else a == b
        for a, b in zip(ours, theirs, strict=True)
    )


def _turns_with_pictures(branch: Sequence[EncodedTurn]) -> int:
    return max((place + 1 for place, turn in enumerate(branch) if turn.has_picture), default=0)

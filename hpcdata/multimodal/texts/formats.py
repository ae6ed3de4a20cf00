"""Chat formats: what is written around the texts of turns, and which of it a model must say itself.

| name | a user says u | an assistant says a | ends an answer |
|---|---|---|---|
| `role` (default) | `User: u Assistant:` | `a` | eos |
| `none` | `u` | `a` | eos |
| `chatml` | `<|im_start|>user`, newline, `u<|im_end|>`, newline | the same with `assistant` | `<|im_end|>` |
| `template` | as the tokenizer's own chat template says | | its special token |
| a file of Jinja | as this template says | | its special token |

In `role` and `none` every turn but the first begins with one space; the first one, too, with `always_start_with_space`.
Of a tokenizer that puts a space before every text this is that space.
All but the two of templates begin a text with bos. Templates render in Jinja's sandbox, once for each order of roles,
with placeholders for the texts: where a turn begins and ends is never searched for in a finished text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hpcdata.base.errors import UserError
from hpcdata.encoders.text import chat
from hpcdata.multimodal.texts.words import Words
from hpcdata.multimodal.values import Branch, Slot, Turn
from hpcdata.samples import Around, BadSample, Reason, Role

_ROLES = {"system": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}
_CHATML = "<|im_start|>", "<|im_end|>"

Piece = str | int | Slot
"""Text, one id, or the place of a picture."""


@dataclass(kw_only=True)
class Written:
    """A turn as it is written. `answer`: what a model must say, with what ends it; empty of other sides' turns."""

    lead: list[Piece] = field(default_factory=list)
    answer: list[Piece] = field(default_factory=list)


class Format(Protocol):
    begins_with_bos: bool
    """Whether bos stands before everything, also before pictures; else the format itself writes what stands there."""

    def settings(self) -> dict[str, object]: ...

    def write(self, branch: Branch, *, opens_answer: bool) -> list[Written]:
        """One for each turn. opens_answer: the last turn is not the assistant's, whose answer is asked for now.
        Raises BadSample BAD_EXAMPLE for an order of turns that cannot be written.
        """
        ...


def build_format(name: str, words: Words, *, always_start_with_space: bool = False) -> Format:
    """Raises UserError: no such format, or the tokenizer has no tokens for it."""
    match name:
        case "role":
            return Spoken(words, names_roles=True, starts_with_space=always_start_with_space)
        case "none":
            return Spoken(words, names_roles=False, starts_with_space=always_start_with_space)
        case "chatml":
            return ChatMl(words)
        case "template":
            if words.template is None:
                raise UserError(
                    "message_format=template: the tokenizer has no chat template: name role, chatml, or a file"
                )
            return Template(words, *words.template)
    if name.endswith((".jinja", ".j2", ".txt")):
        return Template(words, chat.read_template(name), name)
    raise UserError(f"message_format={name}: expected role, none, chatml, template, or a file of Jinja")


class Spoken:
    """`role` and `none`."""

    begins_with_bos = True

    def __init__(self, words: Words, *, names_roles: bool, starts_with_space: bool, spaces: bool = True) -> None:
        """spaces: False for texts that have their spaces already."""
        self._eos, self._names_roles, self._starts = words.eos, names_roles, starts_with_space
        self._spaces = spaces and not words.puts_spaces

    def settings(self) -> dict[str, object]:
        return {"format": "role" if self._names_roles else "none", "starts_with_space": self._starts}

    def write(self, branch: Branch, *, opens_answer: bool) -> list[Written]:
        written = []
        for number, turn in enumerate(branch):
            space = " " if self._spaces and (number > 0 or self._starts) else ""
            if turn.role == "assistant":
                written.append(Written(answer=[space + text_of(turn), self._eos]))
                continue
            is_named = self._names_roles and turn.role == "user"
            is_answered = number + 1 == len(branch) or branch[number + 1].role == "assistant"
            before, after = space + ("User: " if is_named else ""), " Assistant:" if is_named and is_answered else ""
            written.append(Written(lead=_joined([before, *turn.parts, after])))
        return written


class ChatMl:
    """ChatML: `<|im_start|>`, the role, a newline, the text, `<|im_end|>`, a newline."""

    begins_with_bos = True

    def __init__(self, words: Words) -> None:
        self._start, self._end = (words.special(token) for token in _CHATML)

    def settings(self) -> dict[str, object]:
        return {"format": "chatml"}

    def write(self, branch: Branch, *, opens_answer: bool) -> list[Written]:
        around = [Around((), (self._end,)) for _ in branch]
        heads: list[list[Piece]] = [["\n", self._start, f"{turn.role}\n"] for turn in branch]
        heads[0] = heads[0][1:]
        written = _written(branch, around, heads)
        if opens_answer:
            written[-1].lead += ["\n", self._start, "assistant\n"]
        return written


class Template:
    """A chat template of Jinja. What it writes before the first turn stands for bos."""

    begins_with_bos = False

    def __init__(self, words: Words, source: str, where: str) -> None:
        frame = chat.Frame(words.bos, words.eos)
        self._chat = chat.Chat(source, words.engine, frame, system=None, where=where)
        self._chat.around((Role.USER, Role.ASSISTANT))

    def settings(self) -> dict[str, object]:
        return {"format": "template", **self._chat.settings()}

    def write(self, branch: Branch, *, opens_answer: bool) -> list[Written]:
        roles = (*(_ROLES[turn.role] for turn in branch), *([Role.ASSISTANT] if opens_answer else []))
        try:
            around = self._chat.around(roles)
        except UserError as error:
            raise BadSample(Reason.BAD_EXAMPLE, str(error)) from None
        behind = [(), *(before.behind for before in around[:-1])]
        heads = [[*ids, *turn.before] for ids, turn in zip(behind, around, strict=True)]
        written = _written(branch, around[: len(branch)], heads[: len(branch)])
        if opens_answer:
            written[-1].lead += heads[-1]
        return written


def _written(branch: Branch, around: Sequence[Around], heads: Sequence[Sequence[Piece]]) -> list[Written]:
    """heads: what stands before the text of each turn, from what ends the turn before it."""
    written = []
    for turn, its, head in zip(branch, around, heads, strict=True):
        if turn.role == "assistant":
            written.append(Written(lead=[*head], answer=[text_of(turn), *its.end]))
        else:
            written.append(Written(lead=[*head, *_joined(turn.parts), *its.end]))
    return written


def text_of(turn: Turn) -> str:
    """Of a turn without pictures. Raises BadSample BAD_EXAMPLE."""
    if any(isinstance(part, Slot) for part in turn.parts):
        raise BadSample(Reason.BAD_EXAMPLE, f"a picture in a turn of the {turn.role}: only users show pictures")
    return "".join(part for part in turn.parts if isinstance(part, str))


def _joined(pieces: Sequence[str | Slot]) -> list[Piece]:
    """With texts that follow each other as one, and no empty ones."""
    joined: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and joined and isinstance(joined[-1], str):
            joined[-1] += piece
        elif piece != "":
            joined.append(piece)
    return joined

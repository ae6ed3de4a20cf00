"""Conversation templates as ids: what a template writes around the turns of a conversation.

A template is rendered with placeholders for the texts, by Jinja in its sandbox, once for each order of roles. What
stands between two placeholders is encoded by itself: special tokens by their ids, the rest as text. How far it belongs
to the turn before it is told by the template itself: that is what it writes behind this turn when it is the last one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
import orjson

from hpcdata.base.errors import UserError
from hpcdata.samples import Around, Role

CHAT, UNIDISC = "chat", "unidisc"
_NAMES = {Role.SYSTEM: "system", Role.USER: "user", Role.ASSISTANT: "assistant"}
_PLACEHOLDER = re.compile("\ue000(\\d+)\ue001")
"""Of private characters, which no template has: the text of a turn."""
_MAX_BYTES = 2**20


class Engine(Protocol):
    """A text tokenizer, see `hpcdata.encoders.text.tokenizer`."""

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]: ...

    def special_tokens(self) -> dict[str, int]:
        """What a template may write as one id."""
        ...

    def piece(self, token_id: int) -> str: ...


class Frame(NamedTuple):
    """The ids that begin and end a text, where the tokenizer has them."""

    bos: int | None
    eos: int | None


class Chat:
    """A chat template and the tokenizer that it is for: what stands around turns, by their roles."""

    def __init__(self, source: str, engine: Engine, frame: Frame, *, system: str | None, where: str) -> None:
        """`source`: Jinja, as in `tokenizer_config.json`; `where`: its file, for messages."""
        self._source, self._engine, self._frame, self._system, self._where = source, engine, frame, system, where
        self._known: dict[tuple[int, ...], list[Around]] = {}

    def settings(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._source.encode()).hexdigest()[:32]
        return {"template": digest, "system": self._system}

    def around(self, roles: tuple[int, ...]) -> list[Around]:
        """What stands around each turn of a conversation of these roles. Raises UserError: the template refuses it,
        or does not render turn by turn.
        """
        if roles not in self._known:
            self._known[roles] = self._around(roles) if Role.NONE not in roles else framed(roles, self._frame)
        return self._known[roles]

    def _around(self, roles: tuple[int, ...]) -> list[Around]:
        whole = self._render(roles, roles)
        places = [match.span() for match in _places(whole, len(roles))]
        if len(places) != len(roles):
            self._refuse(roles, "it does not write each text once, in order")
        found, done = [], 0
        for number, (start, stop) in enumerate(places):
            end = self._end(roles, number, whole)
            if not whole.startswith(end, stop):
                self._refuse(roles, f"it ends turn {number + 1} otherwise when others follow")
            before = self._encode(whole[done:start], follows_text=number > 0 and done == places[number - 1][1])
            its_end = self._encode(end, follows_text=True, precedes_text=False)
            found.append(Around(tuple(before), *self._split(its_end)))
            done = stop + len(end)
        return found

    def _end(self, roles: tuple[int, ...], number: int, whole: str) -> str:
        """What stands behind a turn when it is the last one. Templates may join what the system says with a turn."""
        if number == 0 and roles[0] == Role.SYSTEM:
            return ""
        alone = whole if number == len(roles) - 1 else self._render(roles[: number + 1], roles)
        places = _places(alone, number + 1)
        if len(places) != number + 1:
            self._refuse(roles, f"it does not write the text of turn {number + 1} where that is the last one")
        return alone[places[-1].end() :]

    def _split(self, end: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(to the last special token, which a model must say, what stands behind it)."""
        special = set(self._engine.special_tokens().values())
        last = max((at + 1 for at, token_id in enumerate(end) if token_id in special), default=len(end))
        return tuple(end[:last]), tuple(end[last:])

    def _render(self, roles: tuple[int, ...], asked: tuple[int, ...]) -> str:
        import jinja2
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> NoReturn:
            raise jinja2.TemplateError(message)

        turns = [{"role": _NAMES[Role(role)], "content": f"\ue000{n}\ue001"} for n, role in enumerate(roles)]
        if self._system is not None and roles[0] != Role.SYSTEM:
            turns.insert(0, {"role": "system", "content": self._system})
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        environment.globals |= {"raise_exception": refuse}
        words = {token_id: token for token, token_id in self._engine.special_tokens().items()}
        named = {f"{name}_token": words.get(token_id or 0, "") for name, token_id in self._frame._asdict().items()}
        try:
            return environment.from_string(self._source).render(messages=turns, add_generation_prompt=False, **named)
        except Exception as error:  # whatever a template does
            self._refuse(asked, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def _encode(self, text: str, *, follows_text: bool, precedes_text: bool = True) -> list[int]:
        """The ids of what a template writes. `follows_text`, `precedes_text`: a turn stands there."""
        specials = self._engine.special_tokens()
        literal = "|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or r"(?!)"
        pieces = re.split(f"({literal})", text)
        ids: list[int] = []
        for number, piece in enumerate(pieces):
            if number % 2:
                ids.append(specials[piece])
            elif piece:
                is_last = number == len(pieces) - 1
                ids += self._encode_text(piece, number == 0 and follows_text, is_last and precedes_text)
        return ids

    def _encode_text(self, text: str, follows: bool, precedes: bool) -> list[int]:
        """A tokenizer that puts a space before every text has done so for the turns: it is not put twice."""
        if not self._puts_spaces:
            return self._ids(text)
        if precedes and text.endswith(" "):
            text = text[:-1]
        if not text or not follows:
            return self._ids(text)
        if text[0] == " " and text.strip(" "):
            return self._ids(text[1:])
        return self._ids("\n" + text)[len(self._ids("\n")) :]

    def _ids(self, text: str) -> list[int]:
        return self._engine.encode([text])[0].tolist() if text else []

    @property
    def _puts_spaces(self) -> bool:
        return self._engine.piece(self._ids("a")[0]).startswith("\u2581")

    def _refuse(self, roles: tuple[int, ...], why: str) -> NoReturn:
        order = ", ".join(Role(role).name.lower() for role in roles)
        raise UserError(f"the chat template in {self._where} cannot be used for turns of {order}: {why}")


class UniDisc:
    """UniDisc's conversations: `<s>system</s>`, then `<s>text</s>` a turn, whoever speaks."""

    def __init__(self, frame: Frame, system: Sequence[int] = ()) -> None:
        """`system`: ids of what the system says in conversations in which it says nothing."""
        if frame.bos is None or frame.eos is None:
            raise UserError("template unidisc needs a text tokenizer with bos and eos")
        self._frame, self._system = frame, tuple(system)

    def settings(self) -> dict[str, Any]:
        return {"template": UNIDISC, "frame": list(self._frame), "system": list(self._system)}

    def around(self, roles: tuple[int, ...]) -> list[Around]:
        if Role.NONE in roles:
            return framed(roles, self._frame)
        bos, eos = self._frame
        assert bos is not None
        assert eos is not None
        turns = [Around((bos,), (eos,)) for _ in roles]
        if roles[0] != Role.SYSTEM:
            turns[0] = Around((bos, *self._system, eos, bos), (eos,))
        return turns


def _places(rendered: str, num_turns: int) -> list[re.Match[str]]:
    """Where the texts of turns stand; none if they do not stand there once each, in order."""
    found = list(_PLACEHOLDER.finditer(rendered))
    return found if [int(match[1]) for match in found] == list(range(num_turns)) else []


def framed(roles: tuple[int, ...], frame: Frame) -> list[Around]:
    """Of a sample that is no conversation: bos and eos around it."""
    bos, eos = (() if token_id is None else (token_id,) for token_id in frame)
    last = len(roles) - 1
    return [Around(bos if at == 0 else (), eos if at == last else ()) for at in range(len(roles))]


def find_template(tokenizer: str) -> tuple[str, str]:
    """(Jinja, its file) beside a tokenizer. Raises UserError where there is none."""
    folder = Path(tokenizer) if Path(tokenizer).is_dir() else Path(tokenizer).parent
    for name in ("chat_template.jinja", "chat_template.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file() and (source := _source_in(path)):
            return source, str(path)
    raise UserError(
        f"{folder} has no chat template (tokenizer_config.json, chat_template.jinja): name another template, or a file "
        "of Jinja"
    )


def read_template(path: str) -> str:
    """A file of Jinja. Raises UserError."""
    try:
        data = Path(path).read_bytes()
        if len(data) > _MAX_BYTES:
            raise UserError(f"{path} has {len(data)} bytes: a conversation template has at most {_MAX_BYTES}")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"conversation template {path}: expected chat, unidisc, or a file of Jinja ({error})") from None


def _source_in(path: Path) -> str | None:
    text = read_template(str(path))
    if path.suffix == ".jinja":
        return text
    try:
        content = orjson.loads(text)
    except ValueError:
        raise UserError(f"{path} is not readable JSON: repair it") from None
    found = content.get("chat_template") if isinstance(content, Mapping) else None
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, Mapping)}
        found = named.get("default")
    return found if isinstance(found, str) else None

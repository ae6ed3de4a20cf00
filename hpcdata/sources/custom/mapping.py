"""Mappings: which field of a record is its text, its picture, its conversation. YAML or JSON.

    image: photo.path                   a field; `a.b` is a field of an object, `a.0` an entry of a list
    text: caption                       a field

    image: [front, side]                several fields, of which some may be empty: their pictures in this order

    image: img                          a question and its answer, written by templates: {field}, {{ is a brace
    prompts: ["What is it?", "Name it."]
    turns:
      - user: "<image>\\n{prompt}"       {prompt} is one of `prompts`, drawn for each record
      - assistant: "{title}, {year}"

    image: photos                       a conversation
    conversations: dialog               a field: a list of turns
    speaker: who                        of a turn; from or role, unless it is set
    said: what                          of a turn; value or content, unless it is set
    speakers: {customer: user, clerk: assistant}

and, where they are wanted: `id` (a field), `seed` (a number, for prompts); of CSV and TSV `delimiter`, `columns` (their
names, where the first line does not have them), `quotes: false` (a quote is a letter like any other).
"""

from __future__ import annotations

import csv
import difflib
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.base.foreign import yaml_text
from hpcdata.base.units import one_line

ROLES = ("system", "user", "assistant")
PROMPT = "prompt"
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_CONTENTS = ("text", "turns", "conversations")
_OF_TALK = ("speaker", "said", "speakers")
_KEYS = (*_CONTENTS, *_OF_TALK, "image", "id", "prompts", "seed", "delimiter", "columns", "quotes")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Template:
    """Literal text and fields in turn: `pieces[0] fields[0] pieces[1] ...`."""

    pieces: tuple[str, ...]
    fields: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Mapping:
    images: tuple[str, ...] = ()
    text: Template | None = None
    turns: tuple[tuple[str, Template], ...] = ()
    """(role, what is said)."""
    conversations: str | None = None
    speaker: str | None = None
    said: str | None = None
    speakers: tuple[tuple[str, str], ...] = ()
    """Name in the data -> role."""
    id: str | None = None
    prompts: tuple[Template, ...] = ()
    seed: int = 0
    delimiter: str | None = None
    columns: tuple[str, ...] = ()
    quotes: bool = True

    def fields(self) -> list[str]:
        """All that records must have for it, the prompt left out."""
        templates = [*([self.text] if self.text else []), *(said for _, said in self.turns), *self.prompts]
        named = [name for template in templates for name in template.fields if name != PROMPT or not self.prompts]
        return list(dict.fromkeys([*filter(None, (*self.images, self.conversations, self.id)), *named]))


def read_mapping(path: str) -> str:
    """A file as `parsed` takes it: one line of JSON, the same for the same mapping. Raises UserError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"data.mapping={path} cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise UserError(f"data.mapping={path} has more than {_MOST_BYTES} bytes, and is no mapping")
    try:
        line = json.dumps(yaml_text.load(data), sort_keys=True)
    except (ValueError, TypeError) as error:
        raise UserError(f"data.mapping={path} is not YAML: {error}") from None
    try:
        parsed(line)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return line


@functools.lru_cache(maxsize=16)
def parsed(line: str) -> Mapping:
    """Raises UserError that names the key."""
    values = json.loads(line)
    if not isinstance(values, dict) or not values:
        raise UserError(f"expected a mapping of keys such as image, text or turns to fields, found {_kind(values)}")
    for key in values:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            raise UserError(f"there is no key {key}: {f'did you mean {near[0]}?' if near else ', '.join(_KEYS)}")
    given = [name for name in _CONTENTS if values.get(name) is not None]
    if len(given) > 1:
        raise UserError(f"it has {' and '.join(given)}: expected one of {', '.join(_CONTENTS)}")
    if not given and values.get("image") is None:
        raise UserError(f"it names no picture and no text: expected image, {', '.join(_CONTENTS)}")
    if "conversations" not in given and (others := [name for name in _OF_TALK if name in values]):
        raise UserError(f"{others[0]} is of conversations, which it does not have")
    prompts = tuple(template_of(item, "prompts") for item in _list(values, "prompts"))
    mapping = Mapping(
        images=tuple(_fields(values, "image")),
        text=_text(values),
        turns=tuple(_turns(values)),
        conversations=_field(values, "conversations"),
        speaker=_field(values, "speaker"),
        said=_field(values, "said"),
        speakers=tuple(_speakers(values)),
        id=_field(values, "id"),
        prompts=prompts,
        seed=_number(values, "seed"),
        delimiter=_delimiter(values),
        columns=tuple(_names(values, "columns")),
        quotes=_boolean(values, "quotes"),
    )
    draws = any(PROMPT in said.fields for _, said in mapping.turns) or (mapping.text and PROMPT in mapping.text.fields)
    if prompts and not draws:
        raise UserError("it has prompts, and no {prompt} in its turns or text")
    return mapping


def template_of(text: object, key: str) -> Template:
    """Raises UserError for braces that are not closed or hold nothing."""
    if not isinstance(text, str) or not text:
        raise UserError(f"{key} has {_kind(text)}, expected a text with fields in braces")
    pieces, fields, done = [""], list[str](), 0
    for match in _PIECE.finditer(text):
        pieces[-1] += text[done : match.start()]
        done = match.end()
        name = match[1]
        if match[0] in ("{{", "}}"):
            pieces[-1] += match[0][0]
        elif name is None or not name.strip():
            raise UserError(f"{key}: {text!r} has a brace that holds no field; {{{{ and }}}} are braces themselves")
        else:
            fields.append(name.strip())
            pieces.append("")
    pieces[-1] += text[done:]
    return Template(pieces=tuple(pieces), fields=tuple(fields))


def _text(values: dict[str, Any]) -> Template | None:
    """A field, or a template that has one in braces."""
    text = values.get("text")
    if text is None:
        return None
    if isinstance(text, str) and "{" not in text and "}" not in text and text.strip():
        return Template(pieces=("", ""), fields=(text.strip(),))
    return template_of(text, "text")


def _turns(values: dict[str, Any]) -> Iterator[tuple[str, Template]]:
    for number, turn in enumerate(_list(values, "turns")):
        if not isinstance(turn, dict) or len(turn) != 1 or next(iter(turn)) not in ROLES:
            raise UserError(f"turn {number} is {_shown(turn)}, expected one of {', '.join(ROLES)} and what it says")
        ((role, said),) = turn.items()
        yield role, template_of(said, f"turn {number}")


def _speakers(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    found = values.get("speakers") or {}
    if not isinstance(found, dict):
        raise UserError(f"speakers is {_kind(found)}, expected names of the data, each with one of {', '.join(ROLES)}")
    for name, role in found.items():
        if role not in ROLES:
            raise UserError(f"speakers has {name}: {role}, expected one of {', '.join(ROLES)}")
        yield str(name), role


def _field(values: dict[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or "{" in value:
        raise UserError(f"{key} is {_shown(value)}, expected the name of a field")
    return value.strip()


def _fields(values: dict[str, Any], key: str) -> list[str]:
    """One field, or a list of them."""
    if not isinstance(values.get(key), list):
        found = _field(values, key)
        return [] if found is None else [found]
    names = [_field({key: name}, key) or "" for name in _list(values, key)]
    if len(set(names)) != len(names) or "" in names:
        raise UserError(f"{key} has a field twice, or one without a name")
    return names


def _list(values: dict[str, Any], key: str) -> list[Any]:
    value = values.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not value:
        raise UserError(f"{key} is {_kind(value)}, expected a list")
    return value


def _names(values: dict[str, Any], key: str) -> list[str]:
    names = [str(name).strip() for name in _list(values, key)]
    if len(set(names)) != len(names) or "" in names:
        raise UserError(f"{key} has a name twice, or one that is empty")
    return names


def _number(values: dict[str, Any], key: str) -> int:
    value = values.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{key} is {_shown(value)}, expected a whole number")
    return value


def _boolean(values: dict[str, Any], key: str) -> bool:
    value = values.get(key, True)
    if not isinstance(value, bool):
        raise UserError(f"{key} is {_shown(value)}, expected true or false")
    return value


def _delimiter(values: dict[str, Any]) -> str | None:
    value = values.get("delimiter")
    if value is None:
        return None
    value = {"tab": "\t", "\\t": "\t"}.get(value, value) if isinstance(value, str) else value
    if not isinstance(value, str) or len(value) != 1 or value in '\r\n"' or not value.isascii():
        raise UserError(f"delimiter is {_shown(value)}, expected one character, such as ';' or tab")
    csv.reader([], delimiter=value)
    return value


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    return one_line(repr(value))

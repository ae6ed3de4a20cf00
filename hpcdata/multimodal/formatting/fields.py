"""The fields of an example: its pictures, its conversations and its annotations, in one shape.

An example is a dictionary. What it may have:

- `image` or `images`: a path, bytes, a picture of PIL, an array [height, width, 3] uint8, a dictionary of Hugging Face
  (`bytes`, `path`), or a list of these;
- `messages`: dictionaries of `role` and `content` (also `from` and `value`), or plain texts, by turns of the user and
  the assistant; `content` may be a list of parts `{"type": "text", "text": ...}` and `{"type": "image"}`;
- `message_list`: several conversations or annotations of the same pictures;
- or an annotation itself: `style`, `question`, `prompt`, `label`, `answer`, `answers`, `text`, `options`, `points` ...;
- `weight` of its loss, and `metadata`.

Fields of other names are named in the metadata, `unknown_fields`. One that is nearly the name of a field which is
missing is a misspelling: a reject.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeGuard

import numpy as np

from hpcdata.multimodal.values import Role
from hpcdata.samples import BadSample, Reason
from hpcdata.sources.pictures.numbered import base_of, numbered

PICTURES = ("image", "images")
ANNOTATION = (
    "style",
    "question",
    "prompt",
    "label",
    "label_cased",
    "answer",
    "answers",
    "text",
    "answer_with_points",
    "answer_annotations",
    "explanation",
    "options",
    "unlabelled_options",
    "answer_idx",
    "points",
    "point_scale",
    "count",
)
_TEXTS = (
    "question",
    "prompt",
    "label",
    "label_cased",
    "answer",
    "text",
    "answer_with_points",
    "explanation",
)
"""Fields that are texts, or numbers that are written as such."""
_LISTS = ("answers", "answer_annotations", "options", "unlabelled_options", "points", "messages", "message_list")
FIELDS = (*PICTURES, "messages", "message_list", "weight", "metadata", *ANNOTATION)
_ROLES: Mapping[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "system": "system",
}
_NEARLY = 0.87
_WEIGHTS = 1e-9, 1e9
"""The least and the most above 0: products of those of an example, an annotation and a message are float32."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What one side says, not yet split at pictures."""

    role: Role
    parts: tuple[str | Literal[True], ...]
    """Texts; True where a part is a picture."""
    weight: float = 1.0

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def has_picture_parts(self) -> bool:
        return True in self.parts


def bad(message: str) -> NoReturn:
    raise BadSample(Reason.BAD_EXAMPLE, message)


def pictures_of(example: Mapping[str, Any]) -> list[Any]:
    """The pictures of an example in their order, as they are: also those of `image_1`, `image_2` and so on.
    Raises BadSample BAD_EXAMPLE.
    """
    given = picture_fields(example)
    if len({base_of(field) for field in given}) > 1:
        bad("an example has image and images: put all pictures into one of them")
    return [picture for field in given for picture in _pictures(example[field], field)]


def picture_fields(example: Mapping[str, Any]) -> list[str]:
    """The fields of an example that hold pictures, those with numbers behind the one without."""
    others = numbered(field for field in example if isinstance(field, str))
    fields = (field for name in PICTURES for field in (name, *others.get(name, ())))
    return [field for field in fields if example.get(field) is not None]


def _pictures(value: Any, field: str) -> list[Any]:
    several = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim in (1, 4))
    pictures = [_picture(picture) for picture in (value if several else [value])]
    if any(picture is None for picture in pictures):
        bad(f"{field} holds None among {len(pictures)} pictures")
    return pictures


def _picture(value: Any) -> Any:
    """A dictionary of Hugging Face as its bytes, or as its path."""
    if not isinstance(value, Mapping):
        return value
    return value["bytes"] if value.get("bytes") is not None else value.get("path")


def check_fields(example: Mapping[str, Any], more: Sequence[str] = ()) -> list[str]:
    """The names of fields that are not known, more: of a user's templates. Raises BadSample for a misspelling."""
    if not isinstance(example, Mapping):
        bad(f"an example is a dictionary, not of type {type(example).__name__}")
    pictures = picture_fields(example)
    unknown = [str(field) for field in example if field not in FIELDS and field not in more and field not in pictures]
    _check_types(example)
    for field in unknown:
        if (near := _nearest(field)) is not None and example.get(near) is None:
            bad(f"field {field!r} is not known: did you mean {near!r}? Known fields: {', '.join(FIELDS)}")
    return unknown


def _check_types(example: Mapping[str, Any]) -> None:
    for field in _TEXTS:
        value = example.get(field)
        if value is not None and not isinstance(value, str) and not is_number(value):
            bad(f"{field} is of type {type(value).__name__}: expected a text")
    for field in _LISTS:
        value = example.get(field)
        if value is not None and not is_list(value) and not isinstance(value, str):
            bad(f"{field} is of type {type(value).__name__}: expected a list")
    if not isinstance(example.get("style"), str | None):
        bad(f"style is {example['style']!r}: expected a name")
    if not isinstance(example.get("metadata"), Mapping | None):
        bad(f"metadata are of type {type(example['metadata']).__name__}: expected a dictionary")


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Also an array of numpy."""
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)


def is_number(value: object) -> bool:
    """Also one of numpy, but no NaN, which stands for a value that is missing."""
    try:
        return isinstance(value, int | float | np.integer | np.floating) and bool(math.isfinite(value))
    except OverflowError:  # an int that no float can be
        return False


def text_items(name: str, values: object) -> list[str]:
    """Of a list of texts, or numbers that are written as such. Raises BadSample BAD_EXAMPLE."""
    if not is_list(values) or not len(values):
        bad(f"{name} are not a list of at least one text")
    for value in values:
        if not isinstance(value, str) and not is_number(value):
            bad(f"{name} hold one of type {type(value).__name__}: expected texts")
    return [str(value) for value in values]


@functools.lru_cache(maxsize=1024)
def _nearest(field: str) -> str | None:
    return next(iter(difflib.get_close_matches(field, FIELDS, n=1, cutoff=_NEARLY)), None)


def messages_of(conversation: object) -> list[Message]:
    """Of `messages` in any of their shapes. Raises BadSample BAD_EXAMPLE."""
    if not is_list(conversation):
        bad(f"messages are a list of texts or of dictionaries, not of type {type(conversation).__name__}")
    if not len(conversation):
        bad("messages are empty")
    if all(isinstance(item, str) for item in conversation):
        sides: tuple[Role, Role] = ("user", "assistant")
        return [Message(role=sides[number % 2], parts=(text,)) for number, text in enumerate(conversation)]
    return [_message(item, number) for number, item in enumerate(conversation, 1)]


def weight_of(holder: Mapping[str, Any]) -> float:
    """Raises BadSample BAD_EXAMPLE."""
    value = holder.get("weight")
    if value is None:
        return 1.0
    least, most = _WEIGHTS
    if not is_number(value) or not (value == 0 or least <= value <= most):
        bad(f"weight is {value!s:.40}: expected 0, or a number from {least:g} to {most:g}")
    return float(value)


def _message(item: object, number: int) -> Message:
    if not isinstance(item, Mapping):
        bad(f"message {number} is neither a text among texts nor a dictionary among dictionaries")
    names = ("role", "content") if "role" in item else ("from", "value")
    role, content = item.get(names[0]), item.get(names[1])
    if not isinstance(role, str) or role not in _ROLES:
        bad(f"message {number} has the role {role!r}: expected {', '.join(_ROLES)}")
    return Message(role=_ROLES[role], parts=_parts(content, number), weight=weight_of(item))


def _parts(content: object, number: int) -> tuple[str | Literal[True], ...]:
    if isinstance(content, str):
        return (content,)
    if not is_list(content):
        bad(f"message {number} has no content that is text, but {type(content).__name__}")
    return tuple(_part(part, number) for part in content)


def _part(part: object, number: int) -> str | Literal[True]:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "image" and isinstance(part, Mapping) and not {"image", "path", "url"} & {*part}:
        return True
    if kind in ("image", "image_url"):
        bad(f"message {number} holds a picture: put it into the field image, and {{'type': 'image'}} here")
    bad(f"message {number} has a part of type {kind!r}: expected text or image")

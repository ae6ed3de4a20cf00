"""Multiple choice: options behind letters. Behind Z follow AA, AB and so on: no option is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcdata.multimodal.formatting.fields import text_items
from hpcdata.samples import BadSample, Reason


class Choice(NamedTuple):
    question: str
    """The question, and one option a line."""
    answer: str | None
    """What is to be said; None where the right option is not known."""
    names: list[str]
    """The letters of the options, or the options themselves where they have none."""


def letter(number: int) -> str:
    """A, B ... Z, AA, AB ... of 0, 1 ..."""
    name = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def choice(annotation: Mapping[str, Any]) -> Choice:
    """Of an example with `options`, or with `unlabelled_options`, whose answer is the option itself.

    Raises BadSample BAD_EXAMPLE.
    """
    has_letters = annotation.get("options") is not None
    options = annotation["options" if has_letters else "unlabelled_options"]
    texts = text_items("options", options)
    names = [letter(number) for number in range(len(texts))] if has_letters else texts
    lines = [f"{name}: {text}" for name, text in zip(names, texts, strict=True)] if has_letters else texts
    question = "\n".join([str(annotation.get("question") or ""), *lines, ""])
    return Choice(question, _right(annotation.get("answer_idx"), names), names)


def _right(answer_idx: object, names: Sequence[str]) -> str | None:
    if answer_idx is None:
        return None
    index = int(answer_idx) if isinstance(answer_idx, int | np.integer) else -1
    if not 0 <= index < len(names):
        raise BadSample(Reason.BAD_EXAMPLE, f"answer_idx is {answer_idx!r}, there are {len(names)} options")
    return names[index]

"""Prompts in the place of an empty question: a turn that is nothing but `<image>` asks for a description.

Sets that describe pictures anew (LLaVA-ReCap) have such turns. Which prompt a record gets depends on the seed and its
index in the plan alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from hpcdata.sources.pictures.turns import IMAGE_MARKER

RECAP = "recap"
NAMED = {
    RECAP: (
        "Please generate detailed descriptions of the given image.",
        "Describe this image in as much detail as you can.",
        "What can be seen in this picture? Answer at length.",
        "Write a thorough description of the image.",
        "Explain everything that the image shows.",
        "Give a detailed account of the contents of this picture.",
        "Look at the image closely, and describe what is in it.",
    )
}
"""The first one has its own probability, the others share the rest evenly."""
_STEPS = 2**32


def texts_of(prompt: str | Sequence[str] | None) -> tuple[str, ...]:
    """The prompts that a setting names or lists."""
    if prompt is None:
        return ()
    if isinstance(prompt, str):
        return NAMED.get(prompt, (prompt,))
    return tuple(prompt)


def draw(texts: Sequence[str], first_probability: float, *, seed: int, index: int) -> str:
    """The prompt of a record. index: of the sample in the plan."""
    drawn = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    where, which = (int.from_bytes(part, "little") for part in (drawn[:4], drawn[4:]))
    if len(texts) == 1 or where < first_probability * _STEPS:
        return texts[0]
    return texts[1 + which * (len(texts) - 1) // _STEPS]


def asked(value: str, prompt: str) -> str:
    return f"{IMAGE_MARKER}\n{prompt}"


def is_empty_question(value: str) -> bool:
    return value.strip() == IMAGE_MARKER

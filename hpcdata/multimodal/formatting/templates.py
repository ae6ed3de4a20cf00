"""Ways to ask: templates of prompts by style, and a user's own from a YAML file.

A file is a mapping of styles to lists of templates. A style of the file takes the place of ours:

    pointing:
      - "Where is the {label}?"
      - "Point at every {label}."
    my_style: ["{question} ({language})"]

Letters in braces name fields of an example; other braces are text. All templates of a style have the same ones, so that
a draw of a template does not change what an example needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.base.foreign import yaml_text

Templates = Mapping[str, tuple[str, ...]]

_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MAX_BYTES = 2**20

OURS: Templates = {
    "short_caption": (
        "Describe this picture in a sentence.",
        "What does the image show, in short?",
        "Write a brief caption for this image.",
        "Sum the picture up in a few words.",
        "Caption the image. One sentence is enough.",
        "In one line: what can be seen here?",
        "Give this photo a short description.",
        "Say shortly what is in this image.",
    ),
    "long_caption": (
        "Describe this image.",
        "Describe the picture with all of its details.",
        "What can be seen in this image? Leave nothing out.",
        "Write a long, careful description of the picture.",
        "Explain to somebody who cannot see it what this image shows.",
        "Give a full account of what is in the image.",
        "Go through the picture and tell me everything in it.",
        "I would like a detailed caption of this image.",
        "Tell me at length what you see here.",
        "Please write several sentences about what the image contains.",
        "What is in this picture, from the main subject to the background?",
        "Describe objects, people, text and colors of this image.",
    ),
    "long_caption_no_pointing": (
        "Describe this image in words alone, without points.",
        "Write a long description of the picture. Do not point at anything.",
        "What does the image show in detail? Give text and no points.",
        "Describe everything in the picture; no coordinates, please.",
    ),
    "transcript": (
        "Talk about this image for a while, as one speaks.",
        "Describe the image as if you told a friend about it.",
        "Say aloud what you see in the picture.",
        "Speak freely about what this image shows.",
    ),
    "pointing": (
        "Point at the {label}.",
        "Point to {label}",
        "Where can {label} be found in the image?",
        "Show me the {label}.",
        "Mark every {label} in the picture.",
        "Find the {label} and point at it.",
        "Locate {label}.",
        "Give the places of all {label} with points.",
        "Which parts of the image show {label}? Use points.",
        "Is there any {label}? Point at each one.",
        "Please put a point on {label}.",
        "Identify {label} by pointing.",
    ),
    "refexp_pointing": (
        'Point at what is meant by "{label}".',
        "Which place does this describe: {label}? Point there.",
        "Find what these words refer to: {label}",
        "One thing in the image is described as {label}. Where is it?",
        "Locate the object of this description: {label}.",
    ),
    "point_count": (
        "How many {label} are there?",
        "Count the {label}.",
        "Count every {label} in the image by pointing.",
        "What is the number of {label}? Point at each.",
        "How many {label} can you see?",
        "Point at all {label} and tell me how many there are.",
        "Give the total of {label} in this picture.",
        "Please count {label} for me.",
        "Number of {label}?",
        "Find each {label}, then say how many there are.",
    ),
    "count_then_point": (
        "First say how many {label} there are, then point at them.",
        "Give the number of {label} before you show them.",
        "How many {label}? Answer, then mark each of them.",
        "Count {label}, and after that point to each one.",
    ),
    "only_count": (
        "How many {label} are there? Answer with the number alone.",
        "Count the {label} without pointing.",
        "Only the number, please: how many {label}?",
        "Write how many {label} you see, and no points.",
    ),
    "short_answer": (
        "{question} Answer in a word or two.",
        "{question}\nA short answer is enough.",
        "{question} Be brief.",
        "Answer shortly: {question}",
        "Question: {question}\nShort answer:",
        "{question} Reply with as few words as possible.",
        "Give the answer alone. {question}",
        "{question}\nKeep the answer short.",
    ),
    "multiple_choice": (
        "{question}",
        "{question}Reply with the letter of the right option.",
        "Pick one of the options.\n{question}",
        "{question}Which option is right?",
        "Choose the correct answer.\n{question}",
        "Question: {question}Letter of the answer:",
    ),
    "chain_of_thought": ("{question} Explain how you find the answer, then give it.",),
    "plain": ("{question}",),
}


def fields_of(template: str) -> frozenset[str]:
    """The fields that a template names."""
    return frozenset(_FIELD.findall(template))


def filled(template: str, values: Mapping[str, str]) -> str:
    """`values`: of every field of the template. What stands in a value is text, braces as well."""
    return _FIELD.sub(lambda match: values[match[1]], template)


def read_templates(path: str | Path) -> Templates:
    """A user's file, with ours for other styles. Raises UserError that names the file and the style."""
    try:
        data = Path(path).read_bytes()
        content = yaml_text.load(data.decode()) if len(data) <= _MAX_BYTES else None
    except (OSError, ValueError) as error:
        raise UserError(f"templates {path}: not readable YAML ({' '.join(str(error).split())[:160]})") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"templates {path}: expected a mapping of styles to lists of templates")
    return merged(content, str(path))


def merged(content: Mapping[Any, Any], where: str) -> Templates:
    """Ours, and those of `content` in their places. Raises UserError."""
    found = dict(OURS)
    for style, templates in content.items():
        if not isinstance(style, str):
            raise UserError(f"templates {where}: {style!r} is no name of a style: put it in quotes")
        its = [templates] if isinstance(templates, str) else templates
        if not isinstance(its, Sequence) or not its or not all(isinstance(item, str) and item for item in its):
            raise UserError(f"templates {where}: {style} needs a list of texts")
        first = fields_of(its[0])
        for template in its:
            if fields_of(template) != first:
                raise UserError(
                    f"templates {where}: all templates of {style} must name the same fields: {template!r} has "
                    f"{_listed(fields_of(template))}, the first one {_listed(first)}"
                )
        found[style] = tuple(its)
    return found


def _listed(fields: frozenset[str]) -> str:
    return ", ".join(f"{{{field}}}" for field in sorted(fields)) or "none"

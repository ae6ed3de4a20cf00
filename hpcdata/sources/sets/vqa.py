"""VQA v2: questions and their ten answers, a record a question.

    v2_OpenEnded_mscoco_train2014_questions.json     {"data_subtype": "train2014", "questions": [...]}
    v2_mscoco_train2014_annotations.json             {"annotations": [...]}, beside it

The answer is `multiple_choice_answer` or, without one, what most of the ten say (of equally many the first); all of
them stay in the record, `answers: [["yes", 8], ["no", 2]]`. A picture is `COCO_train2014_000000000009.jpg`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of, read_beginning
from hpcdata.samples import Reason
from hpcdata.sources.base import InputFile, refusing_faults
from hpcdata.sources.sets.elements import elements, number_in, parsed
from hpcdata.sources.sets.joining import Places
from hpcdata.sources.sets.writing import Lines, lines_at
from hpcdata.sources.streams import open_input

_SUBTYPE = re.compile(rb'"data_subtype"\s*:\s*"(\w+)"')
_OF_NAME = re.compile(r"(train|val|test)[-\w]*?20\d\d")
_BEGINNING = 1 << 16


def annotations_of(path: str) -> str:
    """The file of answers beside one of questions. Raises UserError where there is none."""
    folder, name = os.path.split(path)
    wanted = re.sub(r"(OpenEnded|MultipleChoice)_", "", name).replace("questions", "annotations")
    found = os.path.join(folder, wanted)
    with refusing_faults(found):
        if wanted == name or kind_of(found) != "file":
            raise UserError(f"{path}: expected its answers in {found}, which is not there")
    return found


def flatten(file: InputFile, out_path: str) -> None:
    """Writes the records as lines. Raises UserError."""
    answers_path = annotations_of(file.path)
    subtype = _subtype(file.path)
    with ExitStack() as stack:
        stack.enter_context(refusing_faults(file.path))
        questions = _places(file, "questions", stack)
        answers = _places(replace(file, path=answers_path), "annotations", stack)
        with lines_at(out_path) as lines:
            repeated = questions.repeated()
            for index, number in enumerate(questions.numbers.tolist()):
                if number in repeated:
                    lines.reject(Reason.BAD_RECORD, f"question {number} comes again: which of them is answered?")
                    continue
                _write(questions.get(index), list(answers.of(number)), number, subtype, lines)
            for answer in answers.lonely(questions):
                lines.reject(Reason.BAD_RECORD, f"answers of question {answer['question_id']}, which is not there")


def _places(file: InputFile, name: str, stack: ExitStack) -> Places:
    descriptor = open_input(file)
    stack.callback(os.close, descriptor)
    found = Places(descriptor, file.path)
    for element in elements(descriptor, file.path):
        if element.name == name:
            number = number_in(parsed(element.data, file.path, element.place), "question_id", file.path, element.place)
            found.add(number, element.place, len(element.data))
    if not len(found):
        raise UserError(f"{file.path} has no list of {name}: expected the JSON of VQA v2")
    found.close()
    return found


def _write(question: dict[str, Any], answers: list[dict[str, Any]], number: int, subtype: str, lines: Lines) -> None:
    text, image = question.get("question"), question.get("image_id")
    if not isinstance(text, str) or not text.strip() or not isinstance(image, int):
        lines.reject(Reason.BAD_RECORD, f"question {number} has no text, or no image_id")
        return
    if not answers:
        lines.reject(Reason.MISSING_TEXT, f"question {number} has no answers")
        return
    if any(item.get("image_id", image) != image or item != answers[0] for item in answers):
        lines.reject(Reason.BAD_RECORD, f"question {number} has several answers, or those of another image")
        return
    counted = _counted(answers[0])
    best = answers[0].get("multiple_choice_answer") or next(iter(counted), "")
    if not isinstance(best, str) or not best.strip():
        lines.reject(Reason.EMPTY_TEXT, f"question {number} has empty answers")
        return
    lines.record(
        {
            "id": number,
            "image": f"COCO_{subtype}_{image:012d}.jpg",
            "conversations": [
                {"from": "human", "value": f"<image>\n{text.strip()}"},
                {"from": "gpt", "value": best.strip()},
            ],
            "answers": list(counted.items()),
        }
    )


def _counted(answer: dict[str, Any]) -> dict[str, int]:
    """Answer -> how many gave it, the most frequent first."""
    answers = answer.get("answers")
    given = [item.get("answer") for item in answers if isinstance(item, dict)] if isinstance(answers, list) else []
    return dict(Counter(text for text in given if isinstance(text, str) and text.strip()).most_common())


def _subtype(path: str) -> str:
    """`train2014`, as the file or its name says. Raises UserError."""
    with refusing_faults(path):
        said = _SUBTYPE.search(read_beginning(path, _BEGINNING))
    if said:
        return said[1].decode()
    named = _OF_NAME.search(os.path.basename(path))
    if named is None:
        raise UserError(f"{path} does not say of which pictures it is: no data_subtype, and no train2014 in its name")
    return named[0]

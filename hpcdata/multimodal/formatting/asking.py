"""What an annotation asks, and what is answered.

The answer, by the first field that there is: the right one of `options`, the most frequent of `answers`, `answer` (with
its points where `<|POINT|>` marks them; behind an `explanation`), `answer_with_points`, `text`, `points` or `count`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcdata.multimodal.formatting import points, templates
from hpcdata.multimodal.formatting.fields import bad, is_list, is_number, text_items
from hpcdata.multimodal.formatting.options import choice
from hpcdata.multimodal.formatting.points import Sizes
from hpcdata.samples import BadSample, Reason

PROMPT_TEMPLATES = ("none", "uber_model", "uber_model_v2")
_CAPTIONS = ("long_caption", "short_caption", "transcript", "long_caption_no_pointing")
_POINTING = ("pointing", "point_count", "count_then_point", "only_count", "refexp_pointing")
_SHORT = ("vqa2", "text_vqa", "ok_vqa", "okvqa", "short_answer", "eval_short_answer", "chart_qa", "doc_qa", "info_qa")
_POINT = "<|POINT|>"
"""Where an annotation of points belongs in an answer."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """See `DataFormatter`, whose settings these are."""

    known: templates.Templates
    prompt_templates: str
    select_answer: str
    pointing_format: str
    debug: bool

    def prompt(
        self, annotation: Mapping[str, Any], rng: np.random.RandomState | None
    ) -> tuple[str, str | list[str] | None]:
        """(what is asked, the names of options where there are some)."""
        if annotation.get("prompt") is not None:
            return str(annotation["prompt"]), None
        names: str | list[str] | None = None
        question = annotation.get("question")
        if is_choice(annotation):
            asked = choice({name: value for name, value in annotation.items() if name != "answer_idx"})
            has_letters = annotation.get("options") is not None and all(len(name) == 1 for name in asked.names)
            question, names = asked.question, "".join(asked.names) if has_letters else asked.names
        label = annotation.get("label_cased", annotation.get("label"))
        values = {name: str(value) for name, value in annotation.items() if isinstance(value, str | int | float)}
        values |= {} if question is None else {"question": str(question)}
        values |= {} if label is None else {"label": str(label)}
        group = self._group(annotation, has_question=question is not None, has_options=names is not None)
        if group is None:
            bare = question if question is not None else label
            return str(bare), names
        its = self.known[group]
        template = its[0 if rng is None or self.debug else rng.randint(0, len(its))]
        if missing := templates.fields_of(template) - {*values}:
            bad(f"a prompt of style {group} needs the field {', '.join(sorted(missing))}")
        return templates.filled(template, values), names

    def _group(self, annotation: Mapping[str, Any], *, has_question: bool, has_options: bool) -> str | None:
        """Which templates ask for this annotation; None: its question or its label as it is."""
        style = annotation.get("style")
        if style in self.known and style not in templates.OURS:
            return str(style)  # a user's own
        has_words = has_question or annotation.get("label") is not None or annotation.get("label_cased") is not None
        if self.prompt_templates != "none":
            if style in _CAPTIONS and not has_question:
                return str(style)
            if style in _POINTING and not has_question:
                return str(style)
            if isinstance(style, str) and style.endswith("_exp") and has_question:
                return "chain_of_thought"
            if self.prompt_templates == "uber_model_v2" and has_question:
                return "multiple_choice" if has_options else "short_answer" if style in _SHORT else None
        if not has_words and annotation.get("text") is not None:
            return str(style) if style in _CAPTIONS else "long_caption"
        if not has_words:
            known = ", ".join(name for name in annotation if annotation[name] is not None)
            bad(f"nothing says what is asked: expected messages, question, prompt, label or text among {known}")
        return None

    def answer(self, annotation: Mapping[str, Any], rng: np.random.RandomState | None, sizes: Sizes) -> str:
        if is_choice(annotation) and (right := choice(annotation).answer) is not None:
            return right
        if annotation.get("answers") is not None:
            return self._selected(annotation["answers"], rng)
        style = annotation.get("style")
        if annotation.get("answer") is not None:
            answer = self._with_points(str(annotation["answer"]), annotation.get("answer_annotations"), sizes)
            explanation = annotation.get("explanation")
            return answer if explanation is None else f"{explanation} Answer: {answer}"
        for name in ("answer_with_points", "text"):
            if annotation.get(name) is not None:
                return str(annotation[name])
        if annotation.get("points") is not None or annotation.get("count") is not None:
            return self.of_points(annotation, style if style in points.STYLES else "pointing", sizes)
        raise BadSample(
            Reason.NOTHING_TO_LEARN, "an annotation has no answer: answers, answer, text, points or options"
        )

    def _selected(self, answers: object, rng: np.random.RandomState | None) -> str:
        if isinstance(answers, str):
            return answers
        texts = text_items("answers", answers)
        if self.select_answer == "first":
            return min(texts)
        counts = Counter(texts)
        most = max(counts.values())
        best = [text for text, number in counts.items() if number == most]
        return best[0 if rng is None or len(best) == 1 else rng.randint(0, len(best))]

    def _with_points(self, answer: str, annotations: object, sizes: Sizes) -> str:
        """An answer with its points where they are marked."""
        pieces = answer.split(_POINT)
        its = list(annotations) if is_list(annotations) else []
        if not its:
            return answer
        if not all(isinstance(annotation, Mapping) for annotation in its):
            bad("answer_annotations are not dictionaries")
        if len(its) != len(pieces) - 1:
            bad(f"an answer has {len(pieces) - 1} markers of points, and {len(its)} annotations for them")
        written = [pieces[0]]
        for annotation, piece in zip(its, pieces[1:], strict=True):
            label = str(annotation.get("inline_text", annotation.get("label", "")))
            scale = points.scale_of(annotation, sizes)
            places = points.in_percent(annotation.get("points"), scale)
            if not places:
                bad("an annotation of points in an answer has no points")
            written += [points.element(places, label, annotation.get("alt_text")), piece]
        return "".join(written)

    def of_points(self, annotation: Mapping[str, Any], style: str, sizes: Sizes) -> str:
        given = points.coordinates(annotation.get("points"))
        count = annotation.get("count")
        if count is not None and (not is_number(count) or count < 0 or int(count) != count):
            bad(f"count is {count!r}: expected a whole number from 0 on")
        if count is not None and len(given) and count != len(given):
            bad(f"count is {count}, there are {len(given)} points")
        places = points.in_percent(given, points.scale_of(annotation, sizes)) if len(given) else []
        label = annotation.get("label_cased", annotation.get("label")) or annotation.get("question") or ""
        number = len(given) if count is None else int(count)
        return points.answer(style, places, str(label), number, self.pointing_format)


def is_choice(annotation: Mapping[str, Any]) -> bool:
    return annotation.get("options") is not None or annotation.get("unlabelled_options") is not None

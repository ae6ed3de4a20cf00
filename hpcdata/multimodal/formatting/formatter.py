"""DataFormatter: an example -> conversations about its pictures, as turns.

One annotation: a prompt by its style's templates or its own words, then its answer; before it what `styles` says.
Several (`message_list`) are branches, in training in an order drawn for each example. Nothing of an example is changed.

Random draws, in this order: of each annotation its template, its answer and its system prompt; which annotations are
kept; their order.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal import image_files
from hpcdata.multimodal.formatting import conversations, fields, markers, points, styles
from hpcdata.multimodal.formatting import templates as prompts
from hpcdata.multimodal.formatting.asking import PROMPT_TEMPLATES, Asking, is_choice
from hpcdata.multimodal.formatting.fields import Message, bad
from hpcdata.multimodal.formatting.options import choice
from hpcdata.multimodal.formatting.points import Sizes
from hpcdata.multimodal.picture_settings import check
from hpcdata.multimodal.values import Branch

_KEPT = (
    "answer_idx",
    "answers",
    "answer",
    "points",
    "point_scale",
    "options",
    "unlabelled_options",
    "label",
    "question",
)
"""Fields of an annotation that go into metadata, as they were."""


@dataclass(frozen=True, kw_only=True)
class DataFormatter:
    """`format_qa` and its siblings make messages of fields; calling it makes turns of examples."""

    prompt_templates: str = "uber_model"
    """`none`: questions and labels as they are. `uber_model`: templates for captions, pointing and counting, and for
    styles that end in `_exp`; other questions as they are. `uber_model_v2`: for questions, too.
    """
    templates: Mapping[str, Any] | str | Path | None = None
    """A YAML file of templates, or a mapping: see `templates`."""
    system_prompt: str = "demo_or_style"
    default_inference_len: int | None = 65
    select_answer: str = "best"
    """Of several answers: `best`, the one that is given most often, or `first`, by the alphabet."""
    pointing_format: str = "default"
    format_message_list: str | None = None
    """`numbered_qa`: Q1:, A1: and so on before the messages of several annotations."""
    p_one_message: float = 0.0
    """How often one annotation is kept alone."""
    shuffle_messages: bool = True
    image_last: bool = False
    """Pictures stand behind the first message, where it has no markers."""
    lone_markers: str = "reject"
    debug: bool = False
    """The first template always."""
    message_format: str = "role"
    """The chat format, see `hpcdata.multimodal.texts.formats`; it is the preprocessor's to write."""
    always_start_with_space: bool = False
    _asking: Asking = field(init=False, repr=False, compare=False)
    _fields: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check("prompt_templates", self.prompt_templates, PROMPT_TEMPLATES)
        check("select_answer", self.select_answer, ("best", "first"))
        check("format_message_list", self.format_message_list, (None, "numbered_qa"))
        check("system_prompt", self.system_prompt, styles.SYSTEM_PROMPTS)
        check("pointing_format", self.pointing_format, points.FORMATS)
        check("lone_markers", self.lone_markers, markers.LONE_MARKERS)
        if not 0 <= self.p_one_message <= 1:
            raise UserError(f"p_one_message={self.p_one_message}: expected a share from 0 to 1")
        known = _read(self.templates)
        asking = Asking(
            known=known,
            prompt_templates=self.prompt_templates,
            select_answer=self.select_answer,
            pointing_format=self.pointing_format,
            debug=self.debug,
        )
        object.__setattr__(self, "_asking", asking)
        object.__setattr__(
            self, "_fields", tuple({name for its in known.values() for name in prompts.fields_of(its[0])})
        )

    def settings(self) -> dict[str, object]:
        """All that changes what comes out, as plain values: what is not by default, and a digest of the templates."""
        named = [item for item in dataclasses.fields(self) if item.init and item.name != "templates"]
        given = {item.name: getattr(self, item.name) for item in named if getattr(self, item.name) != item.default}
        known = repr(sorted(self._asking.known.items())).encode()
        return given | {"templates": hashlib.sha256(known).hexdigest()[:32]}

    def format_qa(self, question: str, answer: object, image: object = None) -> dict[str, Any]:
        """A question and its answer as messages."""
        return _said(image, question, str(answer))

    def format_caption(self, image: object, caption: str, style: str = "long_caption") -> dict[str, Any]:
        """A caption, asked for by the first template of its style."""
        return _said(image, self._first(style), caption)

    def format_instruction(self, instruction: str, response: str, image: object = None) -> dict[str, Any]:
        """An instruction and what follows it."""
        return _said(image, instruction, response)

    def format_multiple_choice(
        self, question: str, options: Sequence[str], answer_idx: int, image: object = None
    ) -> dict[str, Any]:
        """Options behind letters, as many as there are; the answer is a letter."""
        its = choice({"question": question, "options": options, "answer_idx": answer_idx})
        return _said(image, its.question, str(its.answer))

    def format_pointing(
        self,
        question: str,
        points: object,
        image: object = None,
        *,
        label: str | None = None,
        point_scale: float | None = None,
    ) -> dict[str, Any]:
        """Points (x, y) in pixels, or in parts of `point_scale`. label: of what they are; without it the question."""
        annotation = {"points": points, "point_scale": point_scale, "label": label or question}
        return _said(image, question, self._asking.of_points(annotation, "pointing", lambda: _sizes([image])))

    def format_counting(
        self, image: object, count: int | None = None, *, label: str = "objects", points: object = None
    ) -> dict[str, Any]:
        """How many there are: a number, or points in pixels, which are written and counted."""
        style = "only_count" if points is None else "point_count"
        annotation = {"points": points, "count": count, "label": label}
        answer = self._asking.of_points(annotation, style, lambda: _sizes([image]))
        return _said(image, prompts.filled(self._asking.known[style][0], {"label": label.lower()}), answer)

    def __call__(
        self,
        example: Mapping[str, Any],
        rng: np.random.RandomState | None = None,
        *,
        is_training: bool = True,
        for_inference: bool = False,
        sizes: Sizes | None = None,
    ) -> tuple[list[Branch], dict[str, Any]]:
        """(branches, metadata). for_inference: without the last answer, which is asked for. rng: None for no chance.
        sizes: of the pictures, where the example has paths.

        Raises BadSample: BAD_EXAMPLE, NOTHING_TO_LEARN, MARKER_WITHOUT_IMAGE, IMAGE_WITHOUT_MARKER.
        """
        unknown = fields.check_fields(example, self._fields)
        pictures = fields.pictures_of(example)
        sizes = sizes or (lambda: _sizes(pictures))
        metadata = dict(copy.deepcopy(example.get("metadata")) or {})
        annotations = self._annotations(example)
        found = []
        for number, annotation in enumerate(annotations, 1):
            messages, kept = self._messages(annotation, rng, for_inference, sizes)
            if len(annotations) > 1 and self.format_message_list == "numbered_qa":
                messages = conversations.numbered(messages, number)
            found.append((messages, kept))
        if rng is not None and is_training and len(found) > 1:
            found = self._drawn(found, rng)
        if example.get("message_list") is None:
            metadata = found[0][1] | metadata
        elif any(kept for _, kept in found):
            metadata.setdefault("message_list", [kept for _, kept in found])
        if unknown:
            metadata.setdefault("unknown_fields", unknown)
        return [self._branch(messages, len(pictures)) for messages, _ in found], metadata

    def _annotations(self, example: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        several = example.get("message_list")
        if several is None:
            return [example]
        if not fields.is_list(several) or not len(several):
            bad("message_list is not a list of at least one annotation or conversation")
        common = {name: example[name] for name in ("style",) if example.get(name) is not None}
        found: list[Mapping[str, Any]] = []
        for item in several:
            if isinstance(item, Mapping):
                fields.check_fields(item, self._fields)
            annotation = common | (dict(item) if isinstance(item, Mapping) else {"messages": item})
            found.append(annotation | {"weight": fields.weight_of(annotation) * fields.weight_of(example)})
        return found

    def _messages(
        self, annotation: Mapping[str, Any], rng: np.random.RandomState | None, for_inference: bool, sizes: Sizes
    ) -> tuple[list[Message], dict[str, Any]]:
        """(a conversation, what metadata keep of it)."""
        weight, style = fields.weight_of(annotation), annotation.get("style")
        kept = {name: copy.deepcopy(annotation[name]) for name in _KEPT if annotation.get(name) is not None}
        if annotation.get("messages") is not None:
            messages = fields.messages_of(annotation["messages"])
        else:
            prompt, names = self._asking.prompt(annotation, rng)
            kept |= {"option_names": names} if is_choice(annotation) else {}
            messages = [Message(role="user", parts=(prompt,))]
            if not for_inference:
                answer = self._asking.answer(annotation, rng, sizes)
                messages.append(Message(role="assistant", parts=(answer,)))
        messages = conversations.asked(messages) if for_inference else conversations.answered(messages)
        before = styles.prefix(
            self.system_prompt,
            style,
            None if for_inference else messages[-1].text,
            rng,
            default_inference_len=self.default_inference_len,
        )
        return conversations.weighted(conversations.begun(messages, before), weight), kept

    def _drawn(self, found: list[Any], rng: np.random.RandomState) -> list[Any]:
        if self.p_one_message and rng.random_sample() < self.p_one_message:
            return found[:1]
        if not self.shuffle_messages:
            return found
        order = np.arange(len(found))
        rng.shuffle(order)
        return [found[place] for place in order]

    def _branch(self, messages: list[Message], num_pictures: int) -> Branch:
        if self.image_last and num_pictures:
            messages = conversations.shown_last(messages, num_pictures)
        return markers.branch_of(messages, num_pictures, lone_markers=self.lone_markers)

    def _first(self, style: str) -> str:
        if style not in self._asking.known:
            raise UserError(f"style={style}: expected one of {', '.join(self._asking.known)}")
        return self._asking.known[style][0]


def _read(given: Mapping[str, Any] | str | Path | None) -> prompts.Templates:
    if given is None:
        return prompts.OURS
    return prompts.merged(given, "of a mapping") if isinstance(given, Mapping) else prompts.read_templates(given)


def _said(image: object, question: str, answer: str) -> dict[str, Any]:
    return {
        "image": image,
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
    }


def _sizes(pictures: Sequence[Any]) -> list[tuple[int, int]]:
    return [image_files.size_of(picture) for picture in pictures if picture is not None]

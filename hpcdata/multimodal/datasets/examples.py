"""Records of sources -> examples.

    a pair              {"image": PictureFile, "text": "a caption"}
    a document          {"text": "..."}
    a conversation      {"image": [...], "messages": [{"role": "user", "content": "..."}, ...]}

with `metadata`: the record's `key` and the label of its input, `source`. Where a marker shows the place of a picture in
a conversation, the content of that message is a list of parts; the letters of other markers are text. Where masks of
objects are kept, `masks` has an array [h, w] uint8 of each, in pixels of the file, and `mask_categories` of the
metadata says what they show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hpcdata.media.rules import MOLMO, Rule
from hpcdata.multimodal.datasets.base import Example
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.samples import BadSample, ImagePart, Reason, Record, Role, Sample, TextPart, refusal
from hpcdata.sources.base import Options
from hpcdata.sources.pictures.turns import IMAGE_MARKER
from hpcdata.sources.sets.masks import pixels_of

_MOST_MASK_BYTES = 1 << 30
_ROLES = {Role.SYSTEM: "system", Role.USER: "user", Role.ASSISTANT: "assistant"}


def options_for(
    *,
    text_field: str | None = None,
    image_field: str | None = None,
    max_record_bytes: int = Options.max_record_bytes,
    needs_text: bool = True,
    needs_image: bool = True,
    placeholders: str = Options.placeholders,
    mapping: str = "",
) -> Options:
    """What is read of a record so that it becomes an example."""
    return Options(
        text_field=text_field,
        image_field=image_field,
        max_record_bytes=max_record_bytes,
        needs_text=needs_text,
        needs_image=needs_image,
        keep_image_marker=True,
        only_users_show=True,
        placeholders=placeholders,
        mapping=mapping,
    )


def example_of(
    record: Record, *, source: str = "", sizes: Sequence[tuple[int, int]] | None = None, rule: Rule = MOLMO
) -> Example:
    """source: label of its input. sizes: (height, width) of its pictures by a rule, as far as they are known.
    Raises BadSample for a record that is no sample.
    """
    if (bad := refusal(record, None)) is not None:
        raise BadSample(bad.reason, f"{record.key}: {bad.message}")
    assert isinstance(record, Sample)
    blobs = [part.blob for part in record.parts if isinstance(part, ImagePart)]
    known = [None] * len(blobs) if sizes is None else [(size, rule) for size in sizes]
    if len(known) != len(blobs):
        raise BadSample(Reason.CHANGED_INPUT, f"{record.key}: {len(blobs)} pictures, {len(known)} were measured")
    pictures = [PictureFile(blob, known=its) for blob, its in zip(blobs, known, strict=True)]
    example: Example = {}
    if pictures:
        example["image"] = pictures[0] if len(pictures) == 1 else pictures
    texts = [part for part in record.parts if isinstance(part, TextPart)]
    if any(part.role is not Role.NONE for part in texts):
        example["messages"] = _messages(record.parts)
    elif texts:
        example["text"] = "\n\n".join(part.text for part in texts)
    metadata: dict[str, Any] = {"key": record.key, "source": record.source or source}
    if record.masks:
        _require_few_pixels([runs for _, runs in record.masks], record.key)
        example["masks"] = [pixels_of(runs) for _, runs in record.masks]
        metadata["mask_categories"] = [category for category, _ in record.masks]
    return {**example, "metadata": metadata}


def _require_few_pixels(masks: Sequence[Mapping[str, Any]], key: str) -> None:
    """A mask of a few letters may have a picture's pixels, and a record any number of them."""
    pixels = sum(math.prod(runs["size"]) for runs in masks)
    if pixels > _MOST_MASK_BYTES:
        message = f"{key}: {len(masks)} masks of {pixels} bytes together, the limit is {_MOST_MASK_BYTES}"
        raise BadSample(Reason.OVERSIZED_RECORD, message)


def _messages(parts: Sequence[TextPart | ImagePart]) -> list[dict[str, Any]]:
    """Of consecutive parts of one side one message. Pictures that no marker shows stand in none."""
    found: list[tuple[str, list[str | None]]] = []
    for part, following in zip(parts, (*parts[1:], None), strict=True):
        if not isinstance(part, TextPart):
            continue
        role = _ROLES[part.role]
        if not found or found[-1][0] != role:
            found.append((role, []))
        shows = isinstance(following, ImagePart) and part.text.endswith(IMAGE_MARKER)
        text = part.text.removesuffix(IMAGE_MARKER) if shows else part.text
        found[-1][1].extend([*([text] if text else []), *([None] if shows else [])])
    return [{"role": role, "content": _content(pieces)} for role, pieces in found]


def _content(pieces: list[str | None]) -> str | list[dict[str, str]]:
    """None stands for a picture."""
    if None not in pieces:
        return "".join(piece for piece in pieces if piece is not None)
    return [{"type": "image"} if piece is None else {"type": "text", "text": piece} for piece in pieces]

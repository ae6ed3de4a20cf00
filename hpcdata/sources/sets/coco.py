"""COCO and LVIS: pictures and their annotations -> captions, boxes, counts, presence and keypoints, as conversations.

    captions    {"image", "text"}: a record a caption, without the space around it
    boxes       for each category of a picture, where its objects are
    count       how many there are: of no category that has a crowd, or an object that is left out, or (LVIS) that is
                not labelled exhaustively
    presence    whether there are any: "no" only of categories that LVIS says are not there
    keypoints   the keypoints of each object (of each person, in COCO) that are labelled
    masks       nothing is asked: objects in the record have their mask, `segmentation`, see `sets.masks`

Crowds (`iscrowd`) are in no box and in no count. Boxes are clipped at the border; what is empty then is left out. A
picture without annotations is kept where COCO means that it shows none of its categories, and not in LVIS, where it
means nothing. An annotation of a picture that is not there, a picture that comes again, or that has no name or size,
and a picture of which nothing can be asked are rejects. Annotations that say the same of a picture twice count once.
Categories of one name are one.
Pixels stay in the record: `width`, `height`, `objects: [{"category", "box": [x, y, w, h]}]`.
What can be asked goes by the kind of annotations, panoptic ones too: see `kinds`.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from hpcdata.samples import Reason
from hpcdata.sources.base import InputFile, refusing_faults
from hpcdata.sources.sets import masks
from hpcdata.sources.sets.categories import Categories
from hpcdata.sources.sets.coordinates import Box, boxes_text, points_text
from hpcdata.sources.sets.elements import elements, number_in, parsed
from hpcdata.sources.sets.joining import Places
from hpcdata.sources.sets.kinds import Kinds, instances
from hpcdata.sources.sets.settings import SetSettings, read_settings
from hpcdata.sources.sets.writing import Lines, lines_at
from hpcdata.sources.streams import open_input

logger = logging.getLogger(__name__)

MARKER = "<image>"
_LISTS = ("images", "annotations", "categories")


def flatten(file: InputFile, out_path: str) -> None:
    """Writes the records as lines. Raises UserError for what is no file of COCO or LVIS."""
    settings = read_settings(file.settings)
    descriptor = open_input(file)
    try:
        with refusing_faults(file.path), lines_at(out_path) as lines:
            _Writer(descriptor, file.path, settings).write(lines)
    finally:
        os.close(descriptor)
    if lines.left_out:
        said = ", ".join(f"{number} {what}" for what, number in sorted(lines.left_out.items()))
        logger.warning("%s: left out of records: %s", file.label, said)


@dataclass
class _Picture:
    """A picture and what is labelled in it."""

    image: dict[str, Any]
    name: str
    size: tuple[int, int]
    boxes: dict[int, list[Box]] = field(default_factory=dict)
    """Category -> its boxes, crowds left out."""
    masks: dict[int, list[masks.Runs | None]] = field(default_factory=dict)
    """Of each of them, where masks are kept."""
    crowds: set[int] = field(default_factory=set)
    """Categories that have one."""
    stuff: dict[int, list[Box]] = field(default_factory=dict)
    """Category that is no thing -> its boxes."""
    captions: list[str] = field(default_factory=list)
    keypoints: list[tuple[int, Box, list[float]]] = field(default_factory=list)
    """Category, box and flat keypoints of each object that has some."""
    uncounted: set[int] = field(default_factory=set)
    """Categories of which an object is left out, crowds among them."""
    left_out: Counter[str] = field(default_factory=Counter)


class _Writer:
    def __init__(self, descriptor: int, path: str, settings: SetSettings) -> None:
        self._path, self._settings = path, settings
        self._masks = masks.Masks(path, os.fstat(descriptor).st_size)
        if "masks" in settings.tasks:
            masks.require_library()
        self._categories = Categories(path)
        self._images, self._annotations = Places(descriptor, path), Places(descriptor, path)
        found, kinds = set[str](), Kinds(path)
        for element in elements(descriptor, path, found):
            if element.name not in _LISTS:
                continue
            values = parsed(element.data, path, element.place)
            if element.name == "categories":
                self._categories.add(number_in(values, "id", path, element.place), values)
            elif element.name == "images":
                self._images.add(number_in(values, "id", path, element.place), element.place, len(element.data))
            else:
                kinds.add(values)
                number = number_in(values, "image_id", path, element.place)
                self._annotations.add(number, element.place, len(element.data))
        self._tasks = kinds.tasks(settings.tasks, found)
        self._images.close()
        self._annotations.close()

    def write(self, lines: Lines) -> None:
        seen: set[int] = set()
        for index, number in enumerate(self._images.numbers.tolist()):
            image = self._images.get(index)
            if number in seen:
                lines.reject(Reason.BAD_RECORD, f"image {number} comes again in its file")
                continue
            seen.add(number)
            self._write_picture(image, number, lines)
        for annotation in self._annotations.lonely(self._images):
            message = (
                f"annotation {annotation.get('id')} is of image {annotation['image_id']}, which is not in its file"
            )
            lines.reject(Reason.MISSING_IMAGE, message)

    def _write_picture(self, image: dict[str, Any], number: int, lines: Lines) -> None:
        name, width, height = name_of(image), image.get("width"), image.get("height")
        if not name:
            lines.reject(Reason.MISSING_IMAGE, f"image {number} has no file_name and no coco_url")
            return
        needs_size = self._tasks != ("captions",)
        if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
            width = height = 0
        if needs_size and not width:
            lines.reject(Reason.BAD_RECORD, f"image {number} has no width and height, or 0")
            return
        picture = _Picture(image=image, name=name, size=(width or 1, height or 1))
        for annotation in self._unlike(instances(self._annotations.of(number)), picture):
            self._take(annotation, picture)
        made = list(self._records(picture, number))
        lines.left_out.update(picture.left_out)
        if not made:
            lines.reject(Reason.NOTHING_TO_LEARN, f"image {number} ({name}) has nothing for {', '.join(self._tasks)}")
        for record in made:
            lines.record(record)

    def _unlike(self, annotations: Iterator[dict[str, Any]], picture: _Picture) -> Iterator[dict[str, Any]]:
        """Without those that say the same twice."""
        seen: set[bytes] = set()
        for item in annotations:
            said = _said(item)
            if said in seen:
                picture.left_out["annotations that come again"] += 1
                continue
            seen.update([said] if said else [])
            yield item

    def _take(self, annotation: dict[str, Any], picture: _Picture) -> None:
        if isinstance(caption := annotation.get("caption"), str):
            if caption := " ".join(caption.split()):
                picture.captions.append(caption)
            else:
                picture.left_out["empty captions"] += 1
            return
        category = self._categories.number_of(annotation.get("category_id"))
        if category is None:
            picture.left_out["annotations of no known category"] += 1
            return
        if annotation.get("iscrowd"):
            picture.crowds.add(category)
            picture.uncounted.add(category)
            picture.left_out["crowds"] += 1
            return
        box = _clipped(annotation.get("bbox"), picture)
        if box is None:
            picture.uncounted.add(category)
            return
        if not self._categories.is_thing(category):
            picture.stuff.setdefault(category, []).append(box)
            return
        picture.boxes.setdefault(category, []).append(box)
        if "masks" in self._tasks:
            mask = self._masks.of(annotation.get("segmentation"), picture.size)
            picture.masks.setdefault(category, []).append(mask)
            if mask is None:
                picture.left_out["segmentations that are no mask of their picture"] += 1
        keypoints = annotation.get("keypoints")
        if isinstance(keypoints, list) and all(map(_is_number, keypoints)) and annotation.get("num_keypoints") != 0:
            picture.keypoints.append((category, box, keypoints))

    def _records(self, picture: _Picture, number: int) -> Iterator[dict[str, Any]]:
        if "captions" in self._tasks:
            yield from ({"id": number, "image": picture.name, "text": caption} for caption in picture.captions)
        turns = [
            turn
            for task in self._tasks
            if task not in ("captions", "masks")
            for turn in getattr(self, f"_{task}")(picture)
        ]
        if not turns:
            return
        sides = ("human", "gpt")
        talk = [{"from": side, "value": said} for pair in turns for side, said in zip(sides, pair, strict=True)]
        talk[0]["value"] = f"{MARKER}\n{talk[0]['value']}"
        yield {
            "id": number,
            "image": picture.name,
            "conversations": talk,
            "width": picture.size[0],
            "height": picture.size[1],
            "objects": [
                {"category": self._categories.name(category), "box": _as_stored(box)}
                | ({"segmentation": mask} if mask else {})
                for category, boxes in picture.boxes.items()
                for box, mask in zip(boxes, picture.masks.get(category) or [None] * len(boxes), strict=True)
            ]
            + [
                {"category": self._categories.name(category), "box": _as_stored(box), "isthing": 0}
                for category, boxes in picture.stuff.items()
                for box in boxes
            ],
        }

    def _boxes(self, picture: _Picture) -> Iterator[tuple[str, str]]:
        style = self._settings.coordinates
        for category, boxes in picture.boxes.items():
            name = self._categories.name(category)
            yield f"Where is each {name}?", boxes_text(boxes, picture.size, style, name)
        if self._shows_none(picture):
            yield "Where is each object of a known category?", "There is none."

    def _count(self, picture: _Picture) -> Iterator[tuple[str, str]]:
        unsure = {*picture.uncounted, *self._categories.numbers_of(picture.image.get("not_exhaustive_category_ids"))}
        for category, boxes in picture.boxes.items():
            if category not in unsure:
                yield f"How many objects of the category {self._categories.name(category)} are there?", str(len(boxes))
        for category in self._absent(picture):
            yield f"How many objects of the category {self._categories.name(category)} are there?", "0"
        if self._shows_none(picture):
            yield "How many objects of known categories are there?", "0"

    def _presence(self, picture: _Picture) -> Iterator[tuple[str, str]]:
        for category in dict.fromkeys([*picture.boxes, *sorted(picture.crowds), *picture.stuff]):
            yield f"Is there any {self._categories.name(category)}?", "Yes."
        for category in self._absent(picture):
            yield f"Is there any {self._categories.name(category)}?", "No."

    def _keypoints(self, picture: _Picture) -> Iterator[tuple[str, str]]:
        style = self._settings.coordinates
        for category, box, flat in picture.keypoints:
            names = self._categories.keypoints(category)
            if len(flat) != 3 * len(names):
                picture.left_out["keypoints of another number"] += 1
                continue
            points = [(names[n], flat[3 * n], flat[3 * n + 1]) for n in range(len(names)) if flat[3 * n + 2] > 0]
            if not points:
                continue
            what = self._categories.name(category)
            where = boxes_text([box], picture.size, style, what)
            said = "; ".join(f"{name} {points_text([(x, y)], picture.size, style, name)}" for name, x, y in points)
            yield f"Where are the keypoints of the {what} at {where}?", said

    def _absent(self, picture: _Picture) -> list[int]:
        """Categories that the set says are not in a picture."""
        found, there = picture.image.get("neg_category_ids"), {*picture.boxes, *picture.uncounted}
        return [category for category in self._categories.numbers_of(found) if category not in there]

    def _shows_none(self, picture: _Picture) -> bool:
        is_empty = not (picture.boxes or picture.crowds or picture.stuff or picture.left_out)
        return is_empty and not self._categories.is_lvis


def _said(annotation: dict[str, Any]) -> bytes:
    """What it says of a box; nothing where it has none, or what nobody reads: lists of 254 levels."""
    box = annotation.get("bbox")
    try:
        values = [annotation.get("category_id"), box, annotation.get("iscrowd", 0)]
        return orjson.dumps(values) if isinstance(box, list) else b""
    except TypeError:
        return b""


def name_of(image: dict[str, Any]) -> str:
    """The picture's file: `file_name` or, in LVIS, the last two parts of its address."""
    name = image.get("file_name")
    if isinstance(name, str) and name:
        return name
    url = image.get("coco_url")
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) and url else ""


def _clipped(values: object, picture: _Picture) -> Box | None:
    """x1, y1, x2, y2 within the picture; None, and counted, for what is no box."""
    if not isinstance(values, list) or len(values) != 4 or not all(map(_is_number, values)):
        picture.left_out["annotations without a box"] += 1
        return None
    x, y, width, height = map(float, values)
    if not (width > 0 and height > 0):
        picture.left_out["empty boxes"] += 1
        return None
    box = (max(x, 0.0), max(y, 0.0), min(x + width, picture.size[0]), min(y + height, picture.size[1]))
    if box[0] >= box[2] or box[1] >= box[3]:
        picture.left_out["boxes outside of their picture"] += 1
        return None
    return box


def _as_stored(box: Box) -> list[float]:
    """x, y, width, height."""
    return [round(value, 3) for value in (box[0], box[1], box[2] - box[0], box[3] - box[1])]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)

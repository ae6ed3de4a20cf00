"""Kinds of annotations in a file of COCO's form, by their fields, and the tasks that can be asked of each.

    captions     {"caption": "A dog."}
    instances    {"bbox": [x, y, w, h], "category_id": 1, "segmentation": [...], "iscrowd": 0}
    keypoints    the same with "keypoints": [x, y, v, ...]
    panoptic     {"segments_info": [{"category_id": 1, "bbox": [x, y, w, h], "iscrowd": 0}, ...]}

A segment of panoptic annotations is read as an instance is. What is no thing (`isthing: 0` of its category: sky, grass)
is there or not, and has no box and no number.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpcdata.base.errors import UserError

_FIELDS = {"caption": "captions", "bbox": "instances", "keypoints": "keypoints", "segments_info": "panoptic"}
_OF_TASK = {
    "captions": ("captions",),
    "boxes": ("instances", "panoptic"),
    "count": ("instances", "panoptic"),
    "presence": ("instances", "panoptic"),
    "keypoints": ("keypoints",),
    "masks": ("instances",),
}
_MOST_NAMES = 8


class Kinds:
    """Those of a file, as its annotations come."""

    def __init__(self, path: str) -> None:
        self._path, self._found, self._names = path, set[str](), ""

    def add(self, annotation: dict[str, Any]) -> None:
        self._names = self._names or ", ".join(map(repr, list(annotation)[:_MOST_NAMES]))
        if len(self._found) < len(_FIELDS):
            self._found.update(kind for name, kind in _FIELDS.items() if name in annotation)

    def tasks(self, wanted: tuple[str, ...], lists: set[str]) -> tuple[str, ...]:
        """Those that are wanted, or the usual ones. lists: of the file. Raises UserError for what nobody can ask."""
        if "images" not in lists:
            raise UserError(f"{self._path} has no list of images: expected the JSON of COCO or LVIS")
        if "annotations" not in lists:
            raise UserError(
                f"{self._path} has no list of annotations, as the image_info of test sets: nothing is known of "
                "its images"
            )
        if self._names and not self._found:
            raise UserError(
                f"{self._path} has annotations of no kind that is read (fields {self._names}): expected captions "
                "(caption), instances (bbox), keypoints or panoptic ones (segments_info)"
            )
        for task in wanted if self._found else ():
            if self._found.isdisjoint(_OF_TASK[task]):
                kinds, of = ", ".join(sorted(self._found)), " or ".join(_OF_TASK[task])
                png = ", and its masks stand in PNG files, which are not read" if task == "masks" else ""
                raise UserError(f"data.tasks has {task}, which is of {of}: {self._path} has {kinds}{png}")
        return wanted or self._usual()

    def _usual(self) -> tuple[str, ...]:
        return next(((kind,) for kind in ("captions", "keypoints") if kind in self._found), ("boxes",))


def instances(annotations: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The annotations, of panoptic ones their segments."""
    for annotation in annotations:
        segments = annotation.get("segments_info")
        if isinstance(segments, list):
            yield from (segment for segment in segments if isinstance(segment, dict))
        else:
            yield annotation

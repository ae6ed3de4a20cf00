"""What is made of annotations: tasks and the style of coordinates, as one line of JSON."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from hpcdata.base.errors import UserError
from hpcdata.sources.sets.coordinates import STYLES

SOURCES = ("coco", "vqa")
TASKS = ("captions", "boxes", "count", "presence", "keypoints", "masks")
_BESIDE = ("captions", "masks")
"""Of which no conversation is made, whose objects have masks."""


@dataclass(frozen=True, kw_only=True)
class SetSettings:
    tasks: tuple[str, ...] = ()
    """None: `captions` of files that have captions, `keypoints` of those that have some, else `boxes`."""
    coordinates: str = "llava"


def settings_line(tasks: Sequence[str] | None, coordinates: str) -> str:
    """Raises UserError for tasks that there are not."""
    if wrong := [task for task in tasks or () if task not in TASKS]:
        raise UserError(f"data.tasks has {wrong[0]}: expected some of {', '.join(TASKS)}")
    if tasks is not None and not tasks:
        raise UserError(f"data.tasks is empty: expected some of {', '.join(TASKS)}")
    if tasks and "masks" in tasks and set(tasks) <= set(_BESIDE):
        raise UserError("data.tasks has masks, which are kept beside what is asked: add boxes, count or another task")
    if coordinates not in STYLES:
        raise UserError(f"data.coordinates={coordinates}: expected one of {', '.join(STYLES)}")
    return json.dumps({"tasks": list(tasks or ()), "coordinates": coordinates}, sort_keys=True)


@functools.cache
def keeps_masks(line: str) -> bool:
    """Whether a line of settings, or of a mapping, is of records with masks."""
    return "masks" in read_settings(line).tasks and "coordinates" in json.loads(line)


def read_settings(line: str) -> SetSettings:
    values = json.loads(line) if line else {}
    return SetSettings(tasks=tuple(values.get("tasks", ())), coordinates=values.get("coordinates", "llava"))

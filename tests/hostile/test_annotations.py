"""Annotations of COCO's form of at most 10 MB take no more than 30 s and 2 GiB.

pytest tests/hostile/test_annotations.py

Each is read by a process of its own: what draws masks is a library in C, and may end it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.test_inputs import MEMORY_BYTES, WATCH

CPU_S = 30
IMAGE = {"id": 1, "file_name": "a.jpg", "width": 16384, "height": 16384}
BOX = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}
PREPARE = """
import sys
from pathlib import Path
from hpcdata.base.errors import UserError
from hpcdata.sources import list_inputs, prepare
from hpcdata.sources.sets.settings import settings_line

(file,) = list_inputs(sys.argv[1], "coco", made=settings_line(sys.argv[3].split(","), "llava"))
try:
    print(len(Path(prepare(file, Path(sys.argv[2])).path).read_bytes()))
except UserError as error:
    print(error)
"""


def _coco(path: Path, images: Any, annotations: Any, categories: Any = ({"id": 1, "name": "dog"},)) -> None:
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def categories_that_are_not_there(path: Path) -> None:
    """A picture that shows 80,000 categories, and not 80,000 others."""
    number = 80_000
    boxes = [{"image_id": 1, "category_id": item, "bbox": [1, 1, 9, 9]} for item in range(number)]
    images = [{**IMAGE, "neg_category_ids": list(range(number, 2 * number))}]
    _coco(path, images, boxes, [{"id": item, "name": f"{item:x}"} for item in range(2 * number)])


def lists_of_nothing(path: Path) -> None:
    """1.3 million of them."""
    path.write_text('{"images":[],"annotations":[],' + '"a":[],' * 1_300_000 + '"categories":[]}')


def a_scribble(path: Path) -> None:
    """A polygon of a million corners, each on another side of its picture."""
    _coco(path, [IMAGE], [{**BOX, "segmentation": [[0, 0, *[0, 65000, 65000, 0] * 480_000]]}])


FILES: dict[Callable[[Path], None], str] = {
    categories_that_are_not_there: "boxes,count",
    lists_of_nothing: "boxes",
    a_scribble: "boxes,masks",
}
"""Function -> tasks."""


@pytest.mark.slow
@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_annotations_take_no_more_time_and_memory_than_their_limits(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    if "masks" in (tasks := FILES[make]):
        pytest.importorskip("pycocotools")
    make(tmp_path / "x.json")
    assert (tmp_path / "x.json").stat().st_size < 11 * 10**6
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "x.json"), str(tmp_path / "made"), tasks]
    done = subprocess.run([sys.executable, "-c", WATCH, str(CPU_S), *command], capture_output=True, text=True)
    said, _, found = done.stdout.rstrip().rpartition("\n")
    code, _, kilobytes = found.split()
    assert int(code) == 0, done.stderr[-1000:]
    assert said.strip().isdigit()
    assert int(kilobytes) << 10 <= MEMORY_BYTES

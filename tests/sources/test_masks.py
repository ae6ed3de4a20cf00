"""Masks of COCO and LVIS.   python -m pytest tests/sources/test_masks.py"""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hpcdata.base.errors import UserError
from hpcdata.multimodal import SourceDataset
from hpcdata.multimodal.datasets.examples import example_of
from hpcdata.samples import BadSample, Role, Sample, TextPart
from hpcdata.sources import list_inputs
from hpcdata.sources import prepare as prepare_input
from hpcdata.sources.sets import masks
from hpcdata.sources.sets.settings import settings_line
from tests.sources.source_files import write
from tests.sources.test_sets import box, coco, image
from tests.work.test_task import png

SIZE = (100, 200)
SQUARE = [10.0, 20.0, 40.0, 20.0, 40.0, 60.0, 10.0, 60.0]


def test_polygons_and_run_lengths_stay_in_the_record_and_become_arrays(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    write(tmp_path / "pictures/000000000009.jpg", png(9))
    flat = {"size": [200, 100], "counts": [200, 200, 200 * 98]}
    segmentations: list[Any] = [[SQUARE, [0, 0, 5, 0, 5, 5]], flat, [[1.0, 2.0, 3.0, 4.0]]]
    boxes = [
        box(number, 9, at=(10, 20, 30 + number, 40), segmentation=item) for number, item in enumerate(segmentations)
    ]
    path = coco(tmp_path / "instances.json", [image(9)], boxes)
    (file,) = list_inputs(str(path), "coco", made=settings_line(["boxes", "masks"], "llava"))
    (line,) = Path(prepare_input(file, tmp_path / "made").path).read_text().splitlines()
    first, second, third = json.loads(line)["objects"]
    drawn = np.zeros((200, 100), np.uint8)
    drawn[20:60, 10:40] = 1
    found = masks.pixels_of(first["segmentation"])
    assert found.dtype == np.uint8
    assert np.array_equal(found[10:], drawn[10:])
    assert 0 < found[:10].sum() < 25
    column = masks.pixels_of(second["segmentation"])
    assert (column[:, 1].all(), column.sum()) == (True, 200)
    assert "segmentation" not in third
    raw = SourceDataset(
        path, source="coco", image_root=str(tmp_path / "pictures"), tasks=["boxes", "masks"], needs_image=True
    )[0]
    assert [mask.tolist() for mask in raw["masks"]] == [found.tolist(), column.tolist()]
    assert raw["metadata"]["mask_categories"] == ["person", "person"]


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
@settings(max_examples=30, deadline=None)
def test_text_of_run_lengths_is_read_as_pycocotools_reads_it(pixels: np.ndarray) -> None:
    tool = pytest.importorskip("pycocotools.mask")
    made = tool.encode(np.asfortranarray(pixels))
    runs = {"size": made["size"], "counts": made["counts"].decode()}
    assert np.array_equal(masks.pixels_of(runs), pixels)
    height, width = pixels.shape
    assert masks.runs_of(runs, (width, height)) == runs


@pytest.mark.parametrize(
    "value",
    [
        *(None, 3, [], [[]], [3], [[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5, float("nan")]], [[0, 0, 1e9, 0, 5, 5]]),
        *(
            {},
            {"size": [200, 100]},
            {"size": [200, 100], "counts": [-1, 20001]},
        ),
        *({"size": [200, 100], "counts": [19999]}, {"size": [200, 100], "counts": "ooooooooooooooo"}),
        *({"size": [200, 100], "counts": "\u732b"}, {"size": [200, 100], "counts": [True, 19999]}),
    ],
)
def test_what_is_no_mask_is_none(value: Any) -> None:
    pytest.importorskip("pycocotools")
    assert masks.runs_of(value, SIZE) is None
    assert masks.runs_of({"size": [100, 200], "counts": [20000]}, SIZE) is None
    assert masks.runs_of([SQUARE], (10**6, 10**6)) is None
    with pytest.raises(ValueError, match="a mask"):
        masks.pixels_of(value)


def test_masks_need_another_task_and_pycocotools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="add boxes, count"):
        settings_line(["masks", "captions"], "llava")
    original = builtins.__import__

    def missing(name: str, *others: Any, **more: Any) -> Any:
        if name.startswith("pycocotools"):
            raise ImportError("No module named pycocotools")
        return original(name, *others, **more)

    path = coco(tmp_path / "instances.json", [image(9)], [box(1, 9)])
    (file,) = list_inputs(str(path), "coco", made=settings_line(["boxes", "masks"], "llava"))
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r"pip install 'hpcdata\[coco\]'"):
        prepare_input(file, tmp_path / "made")


def test_what_would_be_drawn_for_hours_is_no_mask_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corner takes ten bytes of JSON, and its edge any number of pixels: all are drawn."""
    pytest.importorskip("pycocotools")
    size, scribble = (16384, 16384), [0.0, 0.0, *[0.0, 60000.0, 60000.0, 0.0] * 50]
    assert masks.runs_of([scribble], size) is None
    triangle = [[0.0, 0.0, 16000.0, 16000.0, 0.0, 16000.0]]
    assert masks.Masks("x.json", size=0).of(triangle, size) == masks.runs_of(triangle, size)
    monkeypatch.setattr(masks, "_OUTLINE_OF_ALL", 48_000)
    with pytest.raises(UserError, match=r"x\.json has polygons whose outlines are more than 50 pixels for each of its"):
        masks.Masks("x.json", size=0).of(triangle, size)


def test_masks_of_a_record_have_a_limit_together() -> None:
    """Ten letters are the mask of a whole picture."""
    full = {"size": [16384, 16384], "counts": "0PPPPP8"}
    talk = (TextPart(text="a", role=Role.USER), TextPart(text="b", role=Role.ASSISTANT))
    record = Sample(key="7", position=0, parts=talk, masks=(("dog", full),) * 5)
    with pytest.raises(BadSample, match=r"7: 5 masks of 1342177280 bytes together, the limit is 1073741824"):
        example_of(record)

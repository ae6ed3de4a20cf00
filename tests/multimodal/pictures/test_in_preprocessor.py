"""Each preprocessor of pictures in one of examples.   pytest tests/multimodal/pictures/test_in_preprocessor.py"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest

from hpcdata.multimodal import LlavaPictures, MolmoPreprocessorConfig, QwenPictures
from hpcdata.multimodal.preprocessor import MolmoPreprocessor
from hpcdata.multimodal.values import Measures
from hpcdata.samples import BadSample, Reason
from tests.multimodal.pictures import made

CONFIG = MolmoPreprocessorConfig(tokenizer="embedded", max_crops=2, output="patches", pixels="fast")
PICTURES: dict[str, Any] = {
    "molmo": None,
    "llava": functools.partial(LlavaPictures, form="patches", pixels="fast"),
    "llava-pad": functools.partial(LlavaPictures, mode="pad", form="patches", pixels="fast"),
    "qwen": functools.partial(QwenPictures, max_pixels=20 * 28 * 28, pixels="fast"),
}
EXAMPLES: list[dict[str, Any]] = [
    {"image": made.photograph(60, 90), "messages": ["What is it?", "A wave."]},
    {"image": [made.photograph(400, 300), made.photograph(30, 500)], "messages": ["And these?", "Two waves."]},
    {"messages": ["No picture?", "None."]},
]


def _preprocessor(name: str) -> MolmoPreprocessor:
    return CONFIG.build_preprocessor(pictures=PICTURES[name])


@pytest.mark.parametrize("name", PICTURES)
def test_measures_say_what_is_made(name: str) -> None:
    preprocessor = _preprocessor(name)
    measures = [preprocessor.measure(example) for example in EXAMPLES]
    rooms = preprocessor.rooms(Measures.of(measures, preprocessor.written_by))
    assert rooms is not None
    for row, example in enumerate(EXAMPLES):
        arrays = preprocessor(example)
        found = [len(arrays["input_ids"]), len(arrays.get("images", ())), len(arrays.get("pooled_patches_idx", ())), 0]
        assert found == [int(column[row]) for column in rooms]
        room = preprocessor.room(measures[row])
        assert found[:3] == [room.num_tokens, room.num_crops, room.num_pooled]


def test_stored_sizes_of_more_pixels_than_allowed_are_rejects() -> None:
    preprocessor = _preprocessor(next(iter(PICTURES)))
    small = dataclasses.replace(CONFIG, max_pixels=60 * 90).build_preprocessor(pictures=PICTURES[next(iter(PICTURES))])
    measures = [preprocessor.measure(example) for example in EXAMPLES]
    rooms = small.rooms(Measures.of(measures, small.written_by))
    assert rooms is not None
    too_large = 1 + list(Reason).index(Reason.OVERSIZED_IMAGE)
    assert [int(reason) for reason in rooms[3]] == [0, too_large, 0]
    assert int(rooms[0][1]) == 0


@pytest.mark.parametrize("name", PICTURES)
def test_pooled_patches_are_those_of_their_own_picture(name: str) -> None:
    preprocessor = _preprocessor(name)
    arrays = preprocessor(EXAMPLES[1])
    first = preprocessor(EXAMPLES[1] | {"image": EXAMPLES[1]["image"][0]})
    patches = first["images"].shape[0] * first["images"].shape[1]
    of_first = arrays["pooled_patches_idx"][: len(first["pooled_patches_idx"])]
    of_second = arrays["pooled_patches_idx"][len(first["pooled_patches_idx"]) :]
    np.testing.assert_array_equal(of_first, first["pooled_patches_idx"])
    assert of_second[of_second >= 0].min() >= patches
    places = arrays["image_input_idx"][arrays["image_input_idx"] >= 0]
    patch_id = preprocessor.words.special("<im_patch>")
    assert set(arrays["input_ids"][places]) == {patch_id}


@pytest.mark.parametrize("name", PICTURES)
def test_batches_of_them_are_collated(name: str) -> None:
    preprocessor = _preprocessor(name)
    batch = preprocessor.build_collator()([preprocessor(example) for example in EXAMPLES])
    assert batch["images"].shape[0] == len(EXAMPLES)
    assert ("image_grid_thw" in batch) == (name == "qwen")


def test_grids_of_a_resolution_of_their_own_come_with_the_pictures() -> None:
    arrays = _preprocessor("qwen")(EXAMPLES[1])
    grids = arrays["image_grid_thw"]
    assert grids.shape == (2, 3)
    assert grids.prod(axis=1).sum() == arrays["images"].shape[0] * arrays["images"].shape[1]


def test_a_picture_that_is_refused_is_a_reject_by_its_measure_too() -> None:
    preprocessor = _preprocessor("qwen")
    example = EXAMPLES[0] | {"image": made.photograph(2, 900)}
    measure = preprocessor.measure(example)
    for make in (lambda: preprocessor(example), lambda: preprocessor.room(measure)):
        with pytest.raises(BadSample) as caught:
            make()
        assert caught.value.reason == Reason.UNSUPPORTED_MEDIA
    rooms = preprocessor.rooms(Measures.of([measure, preprocessor.measure(EXAMPLES[0])], preprocessor.written_by))
    assert rooms is not None
    assert [column[0] for column in rooms[:3]] == [0, 0, 0]
    assert rooms[3].tolist() == [1 + tuple(Reason).index(Reason.UNSUPPORTED_MEDIA), 0]

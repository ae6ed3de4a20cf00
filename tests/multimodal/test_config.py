"""Settings by the names of Molmo's documents and code, and what they build.   pytest tests/multimodal/test_config.py"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.multimodal import MolmoPreprocessor, MolmoPreprocessorConfig
from hpcdata.multimodal.values import Room
from hpcdata.samples import BadSample, Reason
from tests.multimodal.byte_tokenizer import ByteTokenizer

PATCH = 259
SMALL: dict[str, Any] = {
    "tokenizer": ByteTokenizer(),
    "base_image_input_size": [56, 56],
    "overlap_margins": [1, 1],
    "max_crops": 4,
    "system_prompt": "none",
}
"""Crops of 4 x 4 patches."""


def picture(height: int, width: int) -> np.ndarray:
    return np.random.RandomState(height * 7 + width).randint(0, 256, (height, width, 3), np.uint8)


def made(example: dict[str, Any], **given: Any) -> dict[str, Any]:
    rng = np.random.RandomState(0)
    return MolmoPreprocessorConfig(**{**SMALL, **given}).build_preprocessor()(example, rng)


def taken(preprocessor: MolmoPreprocessor, example: dict[str, Any]) -> Room | Reason:
    try:
        return preprocessor.room(preprocessor.measure(example))
    except BadSample as error:
        return error.reason


QA = {"image": picture(100, 150), "messages": ["How many?", "Two."]}


def test_the_documents_settings_are_one_crop_without_pooling() -> None:
    config = MolmoPreprocessorConfig(
        max_crops=1,
        overlap_margins=[0, 0],
        base_image_input_size=[336, 336],
        image_token_length_w=24,
        image_token_length_h=24,
        tokenizer=ByteTokenizer(),
    )
    found = config.build_preprocessor(for_inference=False, is_training=True)(QA, np.random.RandomState(0))
    assert found["images"].shape == (1, 3, 336, 336)
    assert found["images"].dtype == np.float32
    assert found["image_masks"].shape == (1, 576)
    assert found["image_input_idx"].tolist() == [2]
    assert (found["input_ids"] == PATCH).sum() == 24 * 24


def test_images_are_the_pixels_of_patches() -> None:
    whole, patches = made(QA), made(QA, output="patches")
    assert whole["input_ids"].tolist() == patches["input_ids"].tolist()
    number = len(whole["images"])
    assert number > 1
    assert patches["images"].shape == (number, 16, 588)
    unfolded = patches["images"].reshape(number, 4, 4, 14, 14, 3).transpose(0, 5, 1, 3, 2, 4)
    np.testing.assert_array_equal(whole["images"], unfolded.reshape(number, 3, 56, 56))
    assert len(patches["pooled_patches_idx"]) == (patches["input_ids"] == PATCH).sum()
    assert patches["pooled_patches_idx"].max() < number * 16
    assert patches["pooled_patches_idx"].dtype == patches["image_input_idx"].dtype == np.int64
    used = patches["image_input_idx"][patches["image_input_idx"] >= 0]
    assert sorted(used) == np.flatnonzero(patches["input_ids"] == PATCH).tolist()


def test_defect_10_indices_of_later_pictures_count_on_and_none_stays_none() -> None:
    """SigLIP's 27 patches are padded to cells of two: the padding of a later picture must not be a patch of the one
    before it.
    """
    given: dict[str, Any] = {
        "vision": "siglip",
        "base_image_input_size": [70, 70],
        "output": "patches",
        "crop_mode": "resize",
    }
    one = made({**QA, "image": [picture(40, 40)]}, **given)["pooled_patches_idx"]
    assert (one < 0).any()
    two = made({**QA, "image": [picture(40, 40), picture(30, 60)]}, **given)["pooled_patches_idx"]
    np.testing.assert_array_equal(two[: len(one)], one)
    np.testing.assert_array_equal(two[len(one) :], np.where(one < 0, -1, one + 25))


def test_fast_pixels_are_bytes_and_can_be_looked_at() -> None:
    exact, fast = MolmoPreprocessorConfig(**SMALL), MolmoPreprocessorConfig(**SMALL, pixels="fast")
    ours = [config.build_preprocessor() for config in (exact, fast)]
    found = [preprocessor(QA, np.random.RandomState(0)) for preprocessor in ours]
    assert found[1]["images"].dtype == np.uint8
    shown = [np.asarray(list(one.crops_as_pixels(its["images"]))) for one, its in zip(ours, found, strict=True)]
    assert shown[0].shape == shown[1].shape == (len(found[0]["images"]), 56, 56, 3)
    assert np.abs(shown[0].astype(int) - shown[1]).max() <= 4
    assert ours[0].settings()["pictures"] != ours[1].settings()["pictures"]
    np.testing.assert_array_equal(ours[0].load_image(QA["image"]), QA["image"])


def test_pictures_whose_places_are_told_are_not_moved() -> None:
    config = MolmoPreprocessorConfig(**SMALL, use_horizontal_flip=True, use_random_crops=True)
    ours, plain = config.build_preprocessor(), MolmoPreprocessorConfig(**SMALL).build_preprocessor()
    told = {**QA, "messages": ["Where?", '<point x="1.0" y="2.0" alt="a">a</point>']}
    for example, is_moved in ((QA, True), (told, False)):
        found = [ours(example, np.random.RandomState(seed))["images"] for seed in range(4)]
        expected = plain(example, np.random.RandomState(0))["images"]
        assert all(np.array_equal(images, expected) for images in found) != is_moved
    varied = MolmoPreprocessorConfig(**SMALL, resize="torch-rng").build_preprocessor()
    assert len({varied(told, np.random.RandomState(seed))["images"].tobytes() for seed in range(9)}) > 2


def test_thin_pictures_get_tiles_unless_an_old_run_is_repeated() -> None:
    clip = {"tokenizer": "embedded", "max_crops": 12}
    crops = {}
    for tiling in ("every_side", "v1"):
        pictures = MolmoPreprocessorConfig(**clip, tiling=tiling).build_preprocessor().pictures
        crops[tiling] = pictures.plan(60, 3000).num_crops
    assert crops == {"every_side": 13, "v1": 2}
    with pytest.raises(UserError, match="tiling='v2', expected one of every_side, v1"):
        MolmoPreprocessorConfig(**clip, tiling="v2")


def test_the_forks_settings_are_taken() -> None:
    config = MolmoPreprocessorConfig(
        crop_mode="overlap-and-resize-c2",
        max_crops=12,
        max_images=5,
        pooling_w=2,
        pooling_h=2,
        overlap_margins=(4, 4),
        use_col_tokens=False,
        loss_token_weighting="root_subsegments",
        legacy_image_mask=True,
    )
    example = {"image": picture(480, 640), "message_list": [["a", "b"], ["c", "d"]]}
    found = config.build_preprocessor("embedded")(example, np.random.RandomState(0))
    assert len(found["images"]) == 7
    assert (found["image_masks"][-1] == -1).all()
    np.testing.assert_allclose(found["loss_masks"].max(), 1 / np.sqrt(2))


@pytest.mark.parametrize(
    ("vision", "size", "num_tokens"), [("clip", 336, 12 * 12), ("siglip", 378, 14 * 14), ("dino", 336, 144)]
)
def test_backbones_have_their_sizes(vision: str, size: int, num_tokens: int) -> None:
    config = MolmoPreprocessorConfig(tokenizer=ByteTokenizer(), vision=vision, crop_mode="resize")
    found = config.build_preprocessor()({**QA, "image": picture(30, 20)})
    assert found["images"].shape == (1, 3, size, size)
    assert (found["input_ids"] == PATCH).sum() == num_tokens
    assert ("image_masks" in found) == (vision == "clip")


def test_generations_end_branches_and_pool_as_they_do() -> None:
    example = {"image": picture(60, 140), "message_list": [["a", "b"], ["c", "d"]]}
    found = {}
    for name in ("molmo2", "molmo"):
        given: dict[str, Any] = {**SMALL, "generation": name, "overlap_margins": [0, 0], "base_image_input_size": 70}
        ours = MolmoPreprocessorConfig(**given, crop_mode="overlap-and-resize").build_preprocessor()
        made = ours(example, np.random.RandomState(0))
        assert ours.room(ours.measure(example, np.random.RandomState(0))).num_tokens == len(made["input_ids"])
        found[name] = (len(made["input_ids"]), int((made["input_ids"] == PATCH).sum()))
    assert [patches for _, patches in found.values()] == [3 * 5, 3 * 6]  # of 5 x 10 patches, and of 5 x 5 twice
    assert found["molmo"][0] - found["molmo2"][0] == 3 + 1  # more patch tokens, and what ends the first branch


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_crop": 3}, "has no setting max_crop: did you mean max_crops?"),
        ({"max_crops": 0}, "max_crops=0: expected a whole number from 1 on"),
        ({"max_sequence_length": 2.5}, "max_sequence_length=2.5"),
        ({"crop_mode": "crop"}, "crop_mode='crop', expected one of overlap-and-resize-c2"),
        ({"vision": "clap"}, "vision=clap: expected one of clip"),
        ({"base_image_input_size": [336, 300]}, "crops are squares"),
        ({"base_image_input_size": "336"}, "expected two whole numbers"),
        ({"base_image_input_size": [330, 330]}, "no multiple of patch_size"),
        ({"image_token_length_h": 13}, "image_token_length_h=13"),
        ({"overlap_margins": [12, 12]}, "leave nothing of a crop"),
        ({"truncation": "cut"}, "truncation=cut: expected error, skip"),
        ({"loss_token_weighting": "x"}, "loss_token_weighting=x: expected one of"),
        ({"image_rule": "x"}, "image_rule=x: expected one of"),
        ({"output": "x"}, "output=x"),
        ({"system_prompt": "x"}, "system_prompt=x"),
    ],
)
def test_settings_that_are_wrong_are_refused_when_they_are_made(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        MolmoPreprocessorConfig(**given)
    assert message in str(caught.value)


def test_settings_and_what_they_build_can_go_to_another_process() -> None:
    config = MolmoPreprocessorConfig(**SMALL)
    ours = config.build_preprocessor()
    for copy in (pickle.loads(pickle.dumps(config)).build_preprocessor(), pickle.loads(pickle.dumps(ours))):
        np.testing.assert_equal(copy(QA, np.random.RandomState(1)), ours(QA, np.random.RandomState(1)))
    assert MolmoPreprocessorConfig(**SMALL) == config


def test_the_collator_is_for_the_tokenizer_that_was_used_last() -> None:
    config = MolmoPreprocessorConfig(**{**SMALL, "tokenizer": "embedded", "output": "patches"})
    preprocessor = config.build_preprocessor(ByteTokenizer())
    long = preprocessor(QA, np.random.RandomState(0))
    with pytest.raises(ValueError, match="an image would have been cut"):
        config.build_collator(sequence_length=9, pad_mode="max_len")([long])


@pytest.mark.parametrize("consumer", ["hf", "molmo"])
@pytest.mark.parametrize("pad_mode", ["max_len", "batch_max", "to_128"])
def test_collators_know_what_the_preprocessor_makes(consumer: str, pad_mode: str) -> None:
    config = MolmoPreprocessorConfig(**SMALL, max_images=2, output="patches")
    ours = config.build_preprocessor()
    collator = config.build_collator(sequence_length=256, pad_mode=pad_mode, consumer=consumer)
    rng = np.random.RandomState(0)
    rows = [ours(example, rng) for example in (QA, {**QA, "image": [picture(20, 99), picture(9, 9)]})]
    texts = [ours({"messages": ["text", "only"]}, rng)]
    batch, of_texts = collator(rows), collator(texts)
    assert set(of_texts) == set(batch)
    columns = {"max_len": 256, "to_128": 128}.get(pad_mode)
    assert columns is None or batch["input_ids"].shape == (2, columns)
    assert batch["images"].shape[2:] == (16, 588)
    if pad_mode == "max_len":
        assert batch["images"].shape[1] == of_texts["images"].shape[1] == 2 * 5
        assert batch["pooled_patches_idx"].shape[1] == of_texts["pooled_patches_idx"].shape[1]
    with pytest.raises(ValueError, match="an image would have been cut"):
        config.build_collator(sequence_length=20, pad_mode="max_len", consumer=consumer)(rows)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_room_of_a_measure_is_what_molmos_pictures_take(data: st.DataObject) -> None:
    sides = st.sampled_from([1, 3, 14, 40, 56, 57, 84, 112, 150, 200])
    sizes = data.draw(st.lists(st.tuples(sides, sides), min_size=1, max_size=2))
    config = MolmoPreprocessorConfig(
        **SMALL,
        output=data.draw(st.sampled_from(["images", "patches"])),
        crop_mode=data.draw(st.sampled_from(["resize", "overlap-and-resize", "overlap-and-resize-c2"])),
        max_sequence_length=data.draw(st.sampled_from([None, 60, 90, 130])),
        truncation=data.draw(st.sampled_from(["skip", "fewer_crops", "drop_last_turns,fewer_crops"])),
        pixels="fast",
    )
    ours = config.build_preprocessor()
    example = {"image": [picture(*size) for size in sizes], "messages": ["a", "b", "c" * 9, "d"]}
    room = taken(ours, example)
    if isinstance(room, Reason):
        with pytest.raises(BadSample) as caught:
            ours(example)
        assert caught.value.reason is room
        return
    found = ours(example)
    pooled = int((found["input_ids"] == PATCH).sum())
    assert room == Room(num_tokens=len(found["input_ids"]), num_crops=len(found["images"]), num_pooled=pooled)

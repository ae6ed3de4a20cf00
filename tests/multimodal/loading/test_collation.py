"""Batches of preprocessed examples.   pytest tests/multimodal/loading/test_collation.py

The first table is what Molmo's own collators made (allenai/molmo2 and its robot fork), of examples like `example`.
"""

import numpy as np
import pytest
import torch

from hpcdata.base.errors import UserError
from hpcdata.multimodal.loading.collation import MMCollator, Shape
from hpcdata.multimodal.loading.masks import branch_mask

IMAGE_TOKEN = 259


def example(size: int, *, crops: int = 0, first_learned: int = 5, image_at: int | None = None, number: int = 0):
    ids = np.arange(size) + number
    if image_at is not None:
        ids[image_at] = IMAGE_TOKEN
    made = {
        "input_ids": ids,
        "labels": np.arange(1, size + 1) + number,
        "loss_masks": (np.arange(size) >= first_learned).astype(np.float32),
        "position_ids": np.arange(size),
        "metadata": {"id": size},
    }
    if crops:
        made["images"] = np.full((crops, 4, 3), 0.5, np.float32)
        made["pooled_patches_idx"] = np.arange(crops * 8).reshape(-1, 4)
    return made


EMPTY = {"images": np.zeros((0, 4, 3), np.float32), "pooled_patches_idx": np.zeros((0, 4), np.int64)}
TWO = [example(10, crops=2), example(6, crops=1)]
ROWS = {
    # pad mode, examples -> columns, pads and sum of loss_masks, of positions, of labels, and of both of pictures
    "two, no padding asked": (None, TWO, 10, (4, 2), (4, 56), (4, 72), ([2, 2, 4, 3], 12, 6), ([2, 4, 4], 8, 140)),
    "two, cut": ("truncate", TWO, 10, (4, 2), (4, 56), (4, 72), ([2, 2, 4, 3], 12, 6), ([2, 4, 4], 8, 140)),
    "two, most": ("to_max", TWO, 16, (16, -10), (16, 44), (16, 60), ([2, 4, 4, 3], 60, -42), ([2, 8, 4], 40, 108)),
    "long, whole": (None, [example(30, crops=1)], 30, (0, 25), (0, 435), (0, 465), ([1, 1, 4, 3], 0, 6), None),
    "long, most": ("to_max", [example(30, crops=1)], 16, (0, 11), (0, 120), (0, 136), ([1, 4, 4, 3], 36, -30), None),
    "texts, most": (
        "to_max",
        [example(10), example(6)],
        16,
        (16, -10),
        (16, 44),
        (16, 60),
        ([2, 4, 4, 3], 96, -96),
        ([2, 8, 4], 64, -64),
    ),
}


def of_molmo(pad_mode, **options):
    most = {"max_crops": 4, "max_pooled": 8} if pad_mode == "to_max" else {}
    return MMCollator(
        16, pad_mode, consumer="molmo", image_token_ids=[IMAGE_TOKEN], empty_pictures=EMPTY, **most, **options
    )


def summary(tensor):
    return int((tensor == -1).sum()), float(tensor.sum())


@pytest.mark.parametrize("row", ROWS)
def test_batches_are_those_of_molmo(row):
    pad_mode, examples, columns, weights, positions, labels, images, pooled = ROWS[row]
    batch = of_molmo(pad_mode)(examples)
    assert batch["input_ids"].shape == (len(examples), columns)
    assert batch["input_ids"].dtype == batch["labels"].dtype == batch["position_ids"].dtype == torch.int64
    assert batch["loss_masks"].dtype == torch.float32
    assert summary(batch["loss_masks"]) == weights
    assert summary(batch["position_ids"]) == summary(batch["input_ids"]) == positions
    assert summary(batch["labels"]) == labels
    assert (list(batch["images"].shape), *summary(batch["images"])) == images
    if pooled:
        assert (list(batch["pooled_patches_idx"].shape), *summary(batch["pooled_patches_idx"])) == pooled
    assert batch["metadata"] == [made["metadata"] for made in examples]
    assert "attention_mask" not in batch


@pytest.mark.parametrize("pad_mode", ["to_max", "truncate", "max_len", "batch_max", "to_4"])
def test_a_picture_is_never_cut(pad_mode):
    with pytest.raises(ValueError, match="an image would have been cut: there is room for 16 of 30 ids"):
        of_molmo(pad_mode)([example(30, crops=1, image_at=20, first_learned=1)])


def test_all_that_is_learned_is_never_cut():
    with pytest.raises(ValueError, match="all that is learned would have been cut"):
        of_molmo("to_max")([example(30, first_learned=20)])


def test_defect_08_a_batch_of_texts_only_is_a_batch():
    for consumer in ("hf", "molmo"):
        batch = MMCollator(consumer=consumer)([example(10), example(6)])
        assert "images" not in batch
        assert batch["input_ids"].shape[0] == 2


@pytest.mark.parametrize(
    ("pad_mode", "columns"), [("max_len", 128), ("batch_max", 11), ("to_8", 16), ("to_128", 128), (None, 11)]
)
def test_columns_of_each_padding(pad_mode, columns):
    batch = MMCollator(128, pad_mode)([example(10), example(6)])
    assert batch["input_ids"].shape == (2, columns)


def test_labels_for_transformers_stand_where_their_tokens_do():
    batch = MMCollator()([example(10), example(6)])
    assert batch["input_ids"][0].tolist() == [*range(10), 10]
    assert batch["labels"][0].tolist() == [-100] * 6 + [6, 7, 8, 9, 10]
    assert batch["attention_mask"].sum(1).tolist() == [11, 7]
    assert batch["labels"][1].tolist() == [-100] * 6 + [6] + [-100] * 4
    assert set(batch) == {"input_ids", "labels", "attention_mask", "position_ids"}


def test_what_is_for_inference_has_no_column_more_and_no_labels():
    made = example(6, first_learned=99)
    batch = MMCollator()([made])
    assert batch["input_ids"].shape == (1, 6)
    assert bool((batch["labels"] == -100).all())


def test_weights_come_where_they_are_not_zero_and_one():
    made = example(6)
    made["loss_masks"] = made["loss_masks"] * np.float32(0.5)
    batch = MMCollator()([made])
    assert batch["loss_masks"].tolist() == [[0, 0, 0, 0, 0, 0, 0.5]]


@pytest.mark.parametrize("consumer", ["hf", "molmo"])
def test_packed_pictures_keep_their_patches(consumer):
    """Places count from the beginning of the row; none stays none, which defect 10 moved."""
    one, two = example(6, crops=2), example(8, crops=1)
    two["pooled_patches_idx"] = np.array([[0, 1, -1, -1], [2, 3, -1, -1]])
    one["image_input_idx"], two["image_input_idx"] = np.array([0, -1]), np.array([3])
    batch = MMCollator(32, "max_len", consumer=consumer)([[one, two], [two]])
    more = 1 if consumer == "hf" else 0
    assert batch["pooled_patches_idx"][0, 4].tolist() == [8, 9, -1, -1]
    assert batch["pooled_patches_idx"][1, 0].tolist() == [0, 1, -1, -1]
    assert batch["image_input_idx"].tolist() == [[0, -1, 6 + more + 3], [3, -1, -1]]
    assert batch["segment_ids"][0].tolist()[: 14 + 2 * more] == [1] * (6 + more) + [2] * (8 + more)
    assert batch["position_ids"][0, 6 + more] == 0


def test_packed_rows_for_transformers_say_where_examples_begin():
    batch = MMCollator(16, "max_len")([[example(4, first_learned=1), example(6)], []])
    assert batch["cu_seq_lens_q"].tolist() == [0, 5, 12, 16, 32]
    assert batch["max_length_q"] == 16
    assert "attention_mask" not in batch


def branches(*, weight: float = 1.0):
    """A prefix of three, and two branches of two: the last target of each is the end."""
    return {
        "input_ids": np.array([9, 1, 2, 11, 12, 21, 22]),
        "labels": np.array([1, 2, 11, 12, 7, 22, 7]),
        "loss_masks": np.array([0, 0, 0, 1, 1, 1, 1], np.float32) * np.float32(weight),
        "position_ids": np.array([0, 1, 2, 3, 4, 3, 4]),
        "subsegment_ids": np.array([10000, 10000, 10000, 0, 0, 1, 1]),
    }


def test_branches_see_what_they_share_and_not_each_other():
    batch = MMCollator()([branches(), example(4)])
    mask = batch["attention_mask"]
    assert mask.shape == (2, 1, 8, 8)
    assert mask[0, 0, 5].tolist() == [True, True, True, False, False, True, False, False]
    assert mask[0, 0, 3].tolist() == [True, True, True, True, False, False, False, False]
    assert mask[1, 0, 3].tolist() == [True] * 4 + [False] * 4
    assert batch["labels"][0].tolist() == [-100, -100, -100, -100, 12, 7, 22, 7]


def test_packed_branches_stay_apart():
    batch = MMCollator(20, "max_len", consumer="molmo")([[branches(), branches()]])
    mask = branch_mask(batch)[0, 0]
    alone = branch_mask(MMCollator(7, "max_len", consumer="molmo")([branches()]))[0, 0]
    assert torch.equal(mask[:7, :7], alone)
    assert torch.equal(mask[7:14, 7:14], alone)
    assert not mask[7:14, :7].any()


def test_a_batch_can_be_padded_as_the_largest_of_all_ranks():
    batch = MMCollator(64, "to_8", consumer="molmo")([example(6, crops=1)], Shape(columns=20, crops=3, pooled=9))
    assert batch["input_ids"].shape == (1, 24)
    assert batch["images"].shape[:2] == (1, 3)
    assert batch["pooled_patches_idx"].shape[:2] == (1, 9)


def test_a_row_without_an_example_teaches_nothing():
    batch = MMCollator()([None, example(6)])
    assert bool((batch["labels"][0] == -100).all())
    assert batch["attention_mask"].sum(1).tolist() == [0, 7]


def test_pictures_of_bytes_are_padded_with_zeros():
    made = example(6, crops=1)
    made["images"] = np.full((1, 4, 3), 7, np.uint8)
    batch = MMCollator(16, "to_max", consumer="molmo", max_crops=2)([made])
    assert batch["images"].dtype == torch.uint8
    assert int(batch["images"][0, 1].sum()) == 0


def test_a_batch_that_is_held_is_never_written_over():
    """Memory is used again only when nothing of a batch is left."""
    collator = MMCollator()
    large = example(6, crops=1)
    large["images"] = np.full((1, 700, 600), 1.0, np.float32)

    def batch_of(value):
        return collator([{**large, "images": large["images"] * np.float32(value)}])["images"]

    held = [batch_of(value) for value in range(8)]
    part = batch_of(8)[0, 0, 5:9]
    later = [float(batch_of(value).mean()) for value in range(20, 26)]
    assert [float(one.mean()) for one in held] == list(range(8))
    assert float(part.mean()) == 8
    assert later == list(range(20, 26))
    pointers = {batch_of(1).data_ptr() for _ in range(5)}
    assert len(pointers) == 1


def test_wrong_options_are_refused():
    with pytest.raises(UserError, match="pad_mode='to_0', expected max_len"):
        MMCollator(pad_mode="to_0")
    with pytest.raises(UserError, match="needs a sequence_length"):
        MMCollator(pad_mode="max_len")
    with pytest.raises(UserError, match="expected one of hf, molmo"):
        MMCollator(consumer="any")
    with pytest.raises(UserError, match="has 2 crops, more than max_crops=1"):
        MMCollator(max_crops=1)([example(6, crops=2)])

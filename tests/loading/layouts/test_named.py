"""python -m pytest tests/loading/layouts/test_named.py"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import TokenDataset
from hpcdata.loading.layouts.named import KEYS, T2I, Text, find_layout
from hpcdata.samples import Example, Kind
from tests.loading import made
from tests.selection import examples

CODES = [0, 7, 16383, 0]
SHIFTED = [32001, 32008, 48384, 32001]


def example(*spans, index=0):
    return Example(index=index, key=str(index), spans=spans)


def dataset_of(folder, *examples, **manifest):
    layout = {**made.LAYOUT, "block_size": 6, "resolution": 32}
    return TokenDataset(made.make_dataset(folder, [examples], **{"layout": layout, **manifest}))


def batch_of(dataset, layout, rows=None):
    return layout.bind(dataset.manifest).batch(dataset, np.arange(len(dataset)) if rows is None else np.array(rows))


def test_t2i_by_hand(tmp_path):
    """A pair, a cut text, an image without text, a text without image (which must not shift the next image)."""
    dataset = dataset_of(
        tmp_path,
        example(made.text(5, 0, 9), made.image(*CODES), index=10),
        example(made.image(*CODES), made.text(11, 12, 13, 14, 15), index=20),
        example(made.image(*CODES), index=30),
        example(made.text(21), index=40),
        example(made.text(0), made.image(0, 0, 0, 0), index=50),
    )
    batch = batch_of(dataset, T2I())
    arrays = batch.arrays
    assert arrays["input_ids"].tolist() == [
        [1, 5, 0, 9, 2, 2, *SHIFTED],
        [1, 11, 12, 13, 14, 2, *SHIFTED],
        [1, 2, 2, 2, 2, 2, *SHIFTED],
        [1, 21, 2, 2, 2, 2, 2, 2, 2, 2],
        [1, 0, 2, 2, 2, 2, 32001, 32001, 32001, 32001],
    ]
    assert arrays["attention_mask"].astype(int).tolist() == [
        [1, 1, 1, 1, 1, 0, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 0, 0, 0, 0, 1, 1, 1, 1],
        [1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 1, 1, 1, 1],
    ]
    assert arrays["position_ids"].tolist() == [
        [0, 1, 2, 3, 4, 0, 5, 6, 7, 8],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [0, 1, 0, 0, 0, 0, 2, 3, 4, 5],
        [0, 1, 2, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 2, 0, 0, 0, 3, 4, 5, 6],
    ]
    assert (arrays["modality"] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]).all()
    assert arrays["labels"].tolist()[0] == [1, 5, 0, 9, 2, -100, *SHIFTED]
    assert arrays["index"].tolist() == [10, 20, 30, 40, 50]
    assert batch.counts._asdict() == {
        "samples": 5,
        "text_tokens": 5 + 6 + 2 + 3 + 3,
        "image_tokens": 16,
        "padding": 50 - 19 - 16,
        "truncated_texts": 1,
        "left_out_images": 0,
        "skipped_samples": 0,
    }


def test_dtypes_and_keys(tmp_path):
    dataset = dataset_of(tmp_path, example(made.text(5), made.image(*CODES)))
    expected = dict.fromkeys(("input_ids", "labels", "position_ids", "index"), "int64")
    expected |= {"attention_mask": "bool", "modality": "int8"}
    for layout in (T2I(), Text()):
        arrays = batch_of(dataset, layout).arrays
        assert {key: str(array.dtype) for key, array in arrays.items()} == expected
        assert all(array.flags.writeable and array.flags.c_contiguous for array in arrays.values())
        assert list(batch_of(dataset, dataclasses.replace(layout, keys=("labels",))).arrays) == ["labels"]
    with pytest.raises(UserError, match="unknown key 'label'"):
        T2I(keys=("label",)).bind(dataset.manifest)


def test_text_by_hand(tmp_path):
    dataset = dataset_of(
        tmp_path,
        example(made.text(5, 6), made.image(*CODES), made.text(7), made.text(), made.text(8, 9)),
        example(made.text(*range(100, 150))),
        example(),
        example(made.text(3)),
    )
    batch = batch_of(dataset, Text(max_length=8), [3, 0, 1, 2])
    assert batch.arrays["input_ids"].tolist() == [
        [1, 3, 2, 2, 2, 2, 2, 2],
        [1, 5, 6, 7, 8, 9, 2, 2],
        [1, 100, 101, 102, 103, 104, 105, 2],
        [1, 2, 2, 2, 2, 2, 2, 2],
    ]
    assert batch.arrays["attention_mask"].sum(axis=1).tolist() == [3, 7, 8, 2]
    assert (batch.arrays["modality"] == 0).all()
    assert (batch.counts.truncated_texts, batch.counts.left_out_images, batch.counts.image_tokens) == (1, 1, 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1, 5, 2, 2]),
        ({"add_bos": False}, [5, 2, 2, 2]),
        ({"add_eos": False}, [1, 5, 2, 2]),
        ({"add_bos": False, "add_eos": False, "pad_id": 0}, [5, 0, 0, 0]),
        ({"bos_id": 70, "eos_id": 71}, [70, 5, 71, 71]),
        ({"pad_id": 99}, [1, 5, 2, 99]),
    ],
)
def test_special_ids(tmp_path, options, expected):
    dataset = dataset_of(tmp_path, example(made.text(5)))
    assert batch_of(dataset, Text(max_length=4, **options)).arrays["input_ids"].tolist() == [expected]


def test_tokenizer_without_special_ids(tmp_path):
    identity = {**made.TEXT, "bos_id": None, "eos_id": None}
    dataset = dataset_of(tmp_path, example(made.text(5)), text=identity)
    assert batch_of(dataset, Text(max_length=3)).arrays["input_ids"].tolist() == [[5, 0, 0]]
    with pytest.raises(UserError, match="bos is wanted, but the dataset's tokenizer has no bos id"):
        Text(max_length=3, add_bos=True).bind(dataset.manifest)
    padded = dataset_of(tmp_path / "padded", example(made.text(5)), text={**identity, "pad_id": 77})
    assert batch_of(padded, Text(max_length=3)).arrays["input_ids"].tolist() == [[5, 77, 77]]


def test_ids_above_int16_and_uint16(tmp_path):
    identity, layout = {**made.TEXT, "vocab_size": 65536}, {"block_size": 4, "text_vocab_size": 65536}
    pair = example(made.text(32768, 65535), made.image(65535, 0, 32768, 1))
    dataset = dataset_of(tmp_path / "narrow", pair, text=identity, layout=layout)
    expected = [[1, 32768, 65535, 2, 131071, 65536, 98304, 65537]]
    assert batch_of(dataset, T2I()).arrays["input_ids"].tolist() == expected
    wide = dataset_of(tmp_path / "wide", example(made.text(2**31 - 1, 0)), id_dtype="int32")
    assert batch_of(wide, Text(max_length=4)).arrays["input_ids"].tolist() == [[1, 2**31 - 1, 0, 2]]


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ((made.text(5), made.text(6)), "at most one text a sample, sample 9 has 2"),
        ((made.image(*CODES), made.image(*CODES)), "at most one image a sample, sample 9 has 2"),
        ((made.image(*range(9)),), "one image grid in a batch, got 2 x 2, 3 x 3"),
        ((made.image(*CODES, height=1, width=4),), "one image grid in a batch, got 1 x 4, 2 x 2"),
    ],
)
def test_t2i_refuses_what_it_cannot_hold(tmp_path, spans, message):
    dataset = dataset_of(tmp_path, example(made.text(5), made.image(*CODES)), example(*spans, index=9))
    with pytest.raises(UserError, match=message):
        batch_of(dataset, T2I())


def test_t2i_never_cuts_an_image(tmp_path):
    dataset = dataset_of(tmp_path, example(made.text(5), made.image(*range(9)), index=3))
    with pytest.raises(UserError, match=r"4 image columns, sample 3 has an image of 9 codes.*num_image_tokens=9"):
        batch_of(dataset, T2I())
    assert batch_of(dataset, T2I(num_image_tokens=9)).arrays["input_ids"].shape == (1, 15)


def test_t2i_on_text_only_and_image_only_data(tmp_path):
    texts = dataset_of(tmp_path / "texts", example(made.text(5)), image=None)
    assert batch_of(texts, T2I()).arrays["input_ids"].shape == (1, 6)
    images = dataset_of(tmp_path / "images", example(made.image(*CODES)), text=None, layout={"resolution": 32})
    assert batch_of(images, T2I(block_size=0)).arrays["input_ids"].tolist() == [CODES]


def test_options_are_checked(tmp_path):
    manifest = dataset_of(tmp_path, example(made.text(5)), layout={}).manifest
    with pytest.raises(UserError, match=r"t2i needs block_size: the dataset was made without data\.block_size"):
        T2I().bind(manifest)
    with pytest.raises(UserError, match="text needs max_length"):
        Text().bind(manifest)
    with pytest.raises(UserError, match="block_size=2, but bos, eos and one id of text need 3"):
        T2I(block_size=2).bind(manifest)
    with pytest.raises(UserError, match="img_token_shift=100 is below the text vocabulary of 32001"):
        T2I(block_size=8, img_token_shift=100).bind(manifest)
    assert T2I(block_size=8).bind(manifest).img_token_shift == 32001
    with pytest.raises(UserError, match="expected one of t2i, liquid_t2i, caption"):
        find_layout("i2t")


def expected_row(example, width):
    """One row of `Text`, or of the text block of `T2I`, the slow way."""
    ids = [int(i) for span in example.spans if span.kind == Kind.TEXT for i in span.ids]
    ids = [1, *ids[: width - 2], 2]
    return ids + [2] * (width - len(ids)), len(ids)


@settings(max_examples=examples(25), deadline=None)
@given(st.integers(3, 24), st.integers(0, 2**32), st.lists(st.integers(0, 79), min_size=1, max_size=40))
def test_agrees_with_the_slow_way(tmp_path_factory, width, seed, rows):
    """Any rows with repetitions, over uneven parts, for both layouts."""
    examples = made.pairs(80, seed=seed)
    folder = made.make_dataset(tmp_path_factory.mktemp("pairs"), made.split(examples))
    dataset = TokenDataset(folder)
    t2i = batch_of(dataset, T2I(block_size=width), rows).arrays
    text = batch_of(dataset, Text(max_length=width), rows).arrays
    for at, row in enumerate(rows):
        ids, length = expected_row(examples[row], width)
        codes = [int(i) + 32001 for i in examples[row].spans[1].ids]
        mask = [column < length for column in range(width)]
        assert t2i["input_ids"][at].tolist() == ids + codes
        assert t2i["attention_mask"][at].tolist() == mask + [True] * 16
        assert text["input_ids"][at].tolist() == ids
        assert text["attention_mask"][at].tolist() == mask
        assert text["labels"][at].tolist() == [i if valid else -100 for i, valid in zip(ids, mask, strict=True)]
    assert set(t2i) == set(KEYS)

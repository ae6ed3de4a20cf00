"""python -m pytest tests/loading/layouts/test_widening.py"""

import dataclasses

import pytest
import torch

from hpcdata import TokenDataset, TokenLoader, widen
from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.named import KEYS, SFT, T2I, Caption, Interleaved, LiquidT2I, Text
from hpcdata.loading.replaying import batch_digest
from tests.loading import made

IMAGE = {**made.IMAGE, "codebook_size": 2**16 - 32001 - 3}
"""The greatest id is 65535: the third behind the image codes, which liquid_t2i puts in the place of a text."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    examples = made.pairs(90, vocab_size=IMAGE["codebook_size"])
    examples += [made.Example(index=1000, key="alone", spans=(made.text(31999, 3),))]
    folder = tmp_path_factory.mktemp("made")
    return TokenDataset(made.make_dataset(folder, made.split(examples), image=IMAGE))


@pytest.mark.parametrize("packing", [None, 70])
@pytest.mark.parametrize(
    "layout",
    [
        T2I(),
        T2I(pad_id=65535, add_bos=False),
        Text(max_length=9),
        Text(max_length=9, pad="batch_max"),
        Caption(max_length=70),
        LiquidT2I(max_length=70, unconditional_share=0.5),
        Interleaved(max_length=70, pad="to_8"),
        SFT(max_length=70),
    ],
    ids=lambda layout: layout.name,
)
def test_widened_batches_are_those_of_int64(dataset, layout, packing):
    """Every array, dtype and value; and the state of one resumes the other."""
    options = {"global_batch_size": 7, "packing": packing, "drop_last": False, "num_epochs": 1}
    wide = TokenLoader(dataset, layout=layout, **options)
    narrow = TokenLoader(dataset, layout=dataclasses.replace(layout, ids="uint16"), **options)
    highest = 0
    for expected, shipped in zip(wide, narrow, strict=True):
        assert shipped["input_ids"].dtype == shipped["position_ids"].dtype == torch.uint16
        assert "labels" not in shipped
        found = widen(shipped)
        assert set(found) == set(expected)
        for key, tensor in expected.items():
            assert found[key].dtype == tensor.dtype, key
            assert torch.equal(found[key], tensor), key
        assert batch_digest([found]) == batch_digest([expected])
        assert widen(expected).keys() == expected.keys()
        highest = max(highest, int(found["input_ids"].max()))
        narrow.load_state_dict(wide.state_dict())
    assert narrow.counts == wide.counts
    assert highest > 32768 or layout.name == "text"


def test_it_takes_a_fraction_of_the_bytes(dataset):
    wide, narrow = (TokenLoader(dataset, global_batch_size=8, layout=T2I(ids=ids)) for ids in ("int64", "uint16"))
    sizes = [sum(tensor.nbytes for tensor in loader.batch_at(0, 0).values()) for loader in (wide, narrow)]
    assert sizes[1] < 0.3 * sizes[0]


def test_long_rows_have_wider_positions(tmp_path):
    texts = [made.Example(index=row, key=str(row), spans=(made.text(*range(10)),)) for row in range(4)]
    dataset = TokenDataset(made.make_dataset(tmp_path, [texts]))
    for packing in (None, 2**17):
        layout = Text(max_length=2**17, ids="uint16")
        batch = TokenLoader(
            dataset, global_batch_size=1, layout=layout, packing=packing, shuffle=False, drop_last=False
        ).batch_at(0, 0)
        assert batch["position_ids"].dtype == torch.int32
        assert batch["position_ids"][0, :12].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("layout", "manifest", "message"),
    [
        (T2I(ids="int16"), {}, "ids='int16', expected int64 or uint16"),
        (T2I(ids="uint16"), {"image": {**IMAGE, "codebook_size": 2**16 - 32000}}, "go from 0 to 65536"),
        (LiquidT2I(ids="uint16"), {"image": {**IMAGE, "codebook_size": 2**16 - 32003}}, "go from 0 to 65536"),
        (T2I(ids="uint16", pad_id=-1), {}, "go from -1 to"),
        (T2I(ids="uint16", img_token_shift=60000), {}, "more than uint16 holds"),
        (Text(ids="uint16"), {"id_dtype": "int32"}, "stored as int32"),
        (T2I(ids="uint16", keys=("labels",)), {}, "labels are made of input_ids"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, layout, manifest, message):
    pair = made.Example(index=0, key="a", spans=(made.text(5), made.image(1, 2, 3, 4)))
    found = TokenDataset(made.make_dataset(tmp_path, [[pair]], **{"image": IMAGE, **manifest})).manifest
    if hasattr(layout, "max_length"):
        layout = dataclasses.replace(layout, max_length=20)
    with pytest.raises(UserError, match=message):
        layout.bind(found)
    assert dataclasses.replace(layout, ids="int64").bind(found)


def test_images_without_an_identity_are_not_trusted(tmp_path):
    pair = made.Example(index=0, key="a", spans=(made.text(5), made.image(1, 2, 3, 4)))
    manifest = TokenDataset(made.make_dataset(tmp_path, [[pair]], image=None)).manifest
    assert T2I(ids="uint16", img_token_shift=0).bind(dataclasses.replace(manifest, text=None))
    with pytest.raises(UserError, match="more than uint16"):
        T2I(ids="uint16").bind(manifest)


def test_every_key_has_its_narrow_form(dataset):
    for key in KEYS:
        batch = TokenLoader(dataset, global_batch_size=8, layout=T2I(ids="uint16", keys=(key, "input_ids"))).batch_at(
            0, 0
        )
        assert key in widen(batch)

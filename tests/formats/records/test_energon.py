"""Tars as Megatron Energon reads them.   HPCDATA_TEST_READERS=DIR pytest tests/formats/records/test_energon.py"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hpcdata.base.errors import UserError
from hpcdata.formats.records import energon
from hpcdata.formats.records.copied import Copied
from hpcdata.formats.records.sample_types import Profile, SampleType, given_type
from hpcdata.formats.records.tar_members import open_tar
from tests.formats.records.made import TARS, copied
from tests.work.test_task import make_tar, png


def chosen(folder: Path, pieces: list[tuple[str, bytes]]) -> SampleType:
    make_tar(folder / "in.tar", pieces)
    profile = Profile()
    for part in Copied(copied(folder / "run", *TARS, source=folder / "in.tar")).parts:
        with open_tar(part) as tar:
            for sample in tar:
                profile.add(tar, sample)
    return profile.sample_type()


TALK = json.dumps({"conversations": [{"from": "human", "value": "hi"}], "text": "t"}).encode()


@pytest.mark.parametrize(
    ("pieces", "name", "fields"),
    [
        ([("a.png", png()), ("a.txt", b"a")], "CaptioningSample", {"image": "png", "caption": "txt"}),
        (
            [("a.png", png()), ("a.caption", b"a"), ("b.jpg", png()), ("b.json", b'{"caption": "b"}')],
            "CaptioningSample",
            {"image": "png,jpg", "caption": "caption,json[caption]"},
        ),
        ([("a.png", png())], "ImageSample", {"image": "png"}),
        ([("a.txt", b"a"), ("b.json", b'{"text": "b"}')], "TextSample", {"text": "txt,json[text]"}),
        ([("a.png", png()), ("a.json", TALK)], "CrudeWebdataset", {}),
        ([("a.png", png()), ("a.txt", b"a"), ("b.png", png())], "CrudeWebdataset", {}),
        ([("a.0.png", png()), ("a.1.png", png()), ("a.txt", b"a")], "CrudeWebdataset", {}),
        ([("a.png", png()), ("a.txt", b"a"), ("b.txt", b"b")], "CrudeWebdataset", {}),
    ],
)
def test_what_all_samples_hold_says_what_becomes_of_them(
    tmp_path: Path, pieces: list[tuple[str, bytes]], name: str, fields: dict[str, str]
) -> None:
    assert chosen(tmp_path, pieces) == SampleType(name=name, fields=fields)


def test_a_given_type_has_fields_and_crude_none() -> None:
    found = given_type("VQASample", "image=jpg|png,context=json[question],answers=json[answer]")
    assert found.fields == {"image": "jpg,png", "context": "json[question]", "answers": "json[answer]"}
    assert given_type("Crude", None) == SampleType(name="CrudeWebdataset")
    for name, fields in (
        ("VQASample", None),
        ("Crude", "image=jpg"),
        ("VQASample", "image"),
        ("a b", "image=jpg"),
        ("VQASample", "image=jpg"),
    ):
        with pytest.raises(UserError, match=r"--(field-map|sample-type)="):
            given_type(name, fields)


def test_files_beside_tars_say_where_samples_are() -> None:
    assert np.frombuffer(energon.index_bytes(np.array([0, 1536, 3072])), "<u8").tolist() == [0, 1536, 3072]
    assert json.loads(energon.info_json({"b.tar": 2, "a.tar": 1}))["shard_counts"] == {"b.tar": 2, "a.tar": 1}
    text = energon.split_yaml({"train": ["a.tar"], "extra": ["b.tar"]}).decode()
    assert text == "split_parts:\n  train:\n  - a.tar\n  val: []\n  test: []\n  extra:\n  - b.tar\nexclude: []\n"
    assert energon.index_uuid("ab") == energon.index_uuid("ab") != energon.index_uuid("ac")


def test_the_index_is_the_same_at_any_time(tmp_path: Path) -> None:
    copies = Copied(copied(tmp_path / "run", *TARS, "data.n_train_samples=9"))
    for name in ("a", "b"):
        with open_tar(copies.parts[0]) as one, open_tar(copies.parts[1]) as other:
            energon.write_index(tmp_path / name, [iter(one), iter(other)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

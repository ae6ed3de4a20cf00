"""Records on their way from the child that decodes them.   python -m pytest tests/work/test_poisonchild.py"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from hpcdata.samples import Blob, Duplicate, ImagePart, Member, Place, Reason, Record, Reject, Role, Sample, TextPart
from hpcdata.work.poisonchild import from_values, to_values

PLACE = Place(roots=("/in", "/more"), words="data.image_root")
BLOB = Blob(path="", name="a.jpg", place=PLACE)
STORED = dataclasses.replace(BLOB, path="/in/a.tar", offset=512, size=7)
COMMON: dict[str, Any] = {"position": 3, "key": "a.tar/\ud800 \n", "offset": 512, "source": "a.tar"}
RECORDS = [
    Sample(
        **COMMON,
        id="4",
        parts=(TextPart(text="a\x85cat", role=Role.ASSISTANT, loss=False), ImagePart(blob=BLOB)),
        members=(Member(extension="0.jpg", blob=BLOB),),
        masks=(("cat", {"size": [2, 3], "counts": "06"}),),
        is_fixed=True,
        leaves_out=True,
    ),
    Reject(**COMMON, id="4", reason=Reason.TRUNCATED, message="ends"),
    Duplicate(**COMMON),
]


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_of_a_record_arrives_but_for_the_bytes_of_its_pictures(record: Record) -> None:
    for field in dataclasses.fields(record):
        assert getattr(record, field.name) not in (field.default, field.default_factory), f"say a value of {field.name}"
    assert from_values(json.loads(json.dumps(to_values(record)))) == record


@pytest.mark.parametrize("blob", [STORED, dataclasses.replace(BLOB, data=b"JPEG", offset=1)])
def test_bytes_of_pictures_stay_with_the_child(blob: Blob) -> None:
    (sample,) = (record for record in RECORDS if isinstance(record, Sample))
    told = to_values(dataclasses.replace(sample, parts=(ImagePart(blob=blob),), members=()))
    assert from_values(told).parts == (ImagePart(blob=BLOB),)  # type: ignore[union-attr]


@pytest.mark.parametrize("values", [{"Blob": {"path": "/etc/passwd"}}, {"Popen": {}}, {"Role": 2}, {"map": {}}])
def test_nothing_else_is_a_record(values: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError)):
        from_values(values)

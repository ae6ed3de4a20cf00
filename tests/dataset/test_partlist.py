"""python -m pytest tests/dataset/test_partlist.py"""

import json
import pickle

import numpy as np
import pytest

from hpcdata.base.errors import UserError
from hpcdata.dataset import partlist
from hpcdata.dataset.manifest import parse_manifest
from hpcdata.dataset.partlist import Part, Parts, parse

ODD_PATHS = ("a]b", "a}, {b", 'a"parts": [b', "a\\b\nc", "parts", "é鍵", "")


def some_parts(num_parts, seed=0):
    rng = np.random.default_rng(seed)
    names = ("samples", "spans", "tokens", "key_bytes")
    return [
        Part(
            path=f"parts/{at:05d}",
            shard=at,
            content_digest=f"{at:064x}",
            **{name: int(rng.integers(2 ** rng.integers(63))) for name in names},
        )
        for at in range(num_parts)
    ]


def body(parts, **others):
    return {"format": "hpcdata-dataset-1", **others, "parts": Parts.of(parts).stored(), "counts": {"written": 1}}


@pytest.mark.parametrize("spelling", [{}, {"indent": 1, "sort_keys": True}, {"separators": (",", ":")}, {"indent": 4}])
@pytest.mark.parametrize("num_parts", [0, 1, 2, 300])
@pytest.mark.parametrize("slice_bytes", [1, 1000, 2**16])
def test_slices_are_the_whole(monkeypatch, spelling, num_parts, slice_bytes):
    monkeypatch.setattr(partlist, "_SLICE_BYTES", slice_bytes)
    parts = some_parts(num_parts)
    found = parse(json.dumps(body(parts), **spelling).encode())
    assert isinstance(found["parts"], Parts), "not parsed in slices"
    assert list(found["parts"]) == parts
    assert {**found, "parts": None} == {**body(parts), "parts": None}


@pytest.mark.parametrize("path", ODD_PATHS)
def test_odd_paths(monkeypatch, path):
    monkeypatch.setattr(partlist, "_SLICE_BYTES", 1)
    parts = [*some_parts(2), Part(**{**vars(some_parts(1)[0]), "path": path}), *some_parts(2)]
    found = parse(json.dumps(body(parts), ensure_ascii=False).encode())
    assert list(Parts.of_values(found["parts"])) == parts


@pytest.mark.parametrize(
    "others",
    [
        {"retries": {"parts": []}},
        {"retries": {"parts": [1]}, "note": '"parts": ['},
        {"note": '"parts": [{}]'},
        {"names": ["parts", "x"]},
    ],
)
def test_what_else_is_called_parts_is_something_else(others):
    parts = some_parts(3)
    found = parse(json.dumps(body(parts, **others)).encode())
    assert list(Parts.of_values(found["parts"])) == parts
    assert {name: found[name] for name in others} == others


def test_only_what_is_called_parts_on_top_counts():
    stored = Parts.of(some_parts(3)).stored()
    values: dict = {"retries": {"parts": stored}}
    assert parse(json.dumps(values).encode()) == values
    values |= {"parts": []}
    found = parse(json.dumps(values).encode())
    assert (found["retries"], len(found["parts"])) == (values["retries"], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": True}, "a part has no path, digest or numbers of rows"),
        ({"samples": 1.0}, "a part has no path, digest or numbers of rows"),
        ({"samples": None}, "a part has no path, digest or numbers of rows"),
        ({"content_digest": 7}, "a part has no path, digest or numbers of rows"),
        ({"tokens": 2**63}, "OverflowError"),
        ({"may_grow": True}, "a part has other entries than path, shard"),
        ({"tokens": -1}, r"part 'parts/00001' has a negative number of rows"),
    ],
)
def test_a_damaged_part_is_refused(change, message):
    values = body(some_parts(3))
    values["parts"][1].update(change)
    others = {"fingerprint": "f", "id_dtype": "uint16", "content_digest": "c", "counts": {"rejected": {}}}
    with pytest.raises(UserError, match=message):
        parse_manifest(json.dumps({**values, **others}).encode())


def test_a_missing_entry_is_named():
    values = body(some_parts(3))["parts"]
    del values[2]["spans"]
    with pytest.raises(KeyError, match="spans"):
        Parts.of_values(values)


def test_rows_of_the_columns():
    parts = [*some_parts(4), Part(**{**vars(some_parts(1)[0]), "may_grow": True})]
    made = Parts.of(parts)
    assert (len(made), made[4], list(made)) == (5, parts[4], parts)
    assert made == Parts.of(made) == pickle.loads(pickle.dumps(made))
    assert made != Parts.of(parts[:4])
    assert np.array(made.samples).tolist() == [part.samples for part in parts]

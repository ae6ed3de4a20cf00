"""Paths of pictures that start with the folder of their set.   python -m pytest tests/formats/sets/test_relinking.py"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.formats.sets.editing import edited
from hpcdata.formats.sets.mapping import read_mapping
from hpcdata.formats.sets.relinking import MISSING, RelinkOptions, relink
from hpcdata.sources.json.pieces import lines, objects
from tests.sources.source_files import write

TALK = [{"from": "human", "value": '<image>\n"image": "no.jpg" {[ \\" é'}]
ODD = "ai2d(cauldron,llava_format)"


def record(image: Any, number: Any = 1) -> dict[str, Any]:
    return {"id": number, "image": image, "conversations": TALK, "image_size": {"image": "inner.jpg"}}


def some_set(folder: Path, rows: list[Any], *, indent: int | None = None, name: str = "") -> Path:
    return write(folder / (name or f"{folder.name}.json"), json.dumps(rows, indent=indent).encode())


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / "image" / name, b"picture")


def rows_of(target: Path) -> list[list[str]]:
    with open(target / MISSING, newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("indent", [None, 2])
def test_each_path_starts_with_the_folder_of_its_set_and_no_other_byte_changes(
    indent: int | None, tmp_path: Path
) -> None:
    rows = [
        record("a/1.jpg"),
        {"id": "x", "conversations": TALK},
        record(["a/1.jpg", "b 2.png"]),
        record(None),
        7,
        [[{}]],
    ]
    source = some_set(tmp_path / "in" / ODD, rows, indent=indent)
    target = tmp_path / "OneVisionData"
    pictures(target / ODD, "a/1.jpg", "b 2.png")
    (done,) = relink(RelinkOptions(source=tmp_path / "in", target=target))
    expected = source.read_text()
    for name in ("a/1.jpg", "b 2.png"):
        expected = expected.replace(f'"{name}"', f'"OneVisionData/{ODD}/image/{name}"')
    assert done.path.read_text() == expected
    assert (done.records, done.pictures, done.missing, done.is_written) == (4, 3, {}, True)
    assert rows_of(target) == [["set", "record", "id", "path", "reason"]]
    (again,) = relink(RelinkOptions(source=target, target=tmp_path / "more/OneVisionData", writes_incomplete=True))
    assert again.path.read_text() == expected, "what is relinked stays"


def test_what_is_missing_is_in_one_list_and_its_json_is_not_written(tmp_path: Path) -> None:
    some_set(
        tmp_path / "in/a", [record("1.jpg"), record("gone.jpg", "id/7"), record("../b/image/2.jpg"), record("/x.jpg")]
    )
    some_set(tmp_path / "in/b", [record("2.jpg")])
    some_set(tmp_path / "in/c", [record(["2.jpg", "", "https://h/a.jpg", "empty.jpg"])])
    target = tmp_path / "out"
    for name in "abc":
        pictures(target / name, "1.jpg", "2.jpg")
    write(target / "c/image/empty.jpg", b"")
    done = list(relink(RelinkOptions(source=tmp_path / "in", target=target)))
    assert rows_of(target)[1:] == [
        ["a", "1", "id/7", "gone.jpg", "missing_image"],
        ["a", "2", "1", "../b/image/2.jpg", "outside_root"],
        ["a", "3", "1", "/x.jpg", "outside_root"],
        ["c", "0", "1", "empty.jpg", "empty_image"],
    ]
    assert [item.is_written for item in done] == [False, True, False]
    assert [item.elsewhere for item in done] == [0, 0, 1]
    assert sorted(path.name for path in target.rglob("*.json*")) == ["b.json"], "nothing half-written is left"
    all_of_it = list(relink(RelinkOptions(source=tmp_path / "in", target=target, writes_incomplete=True, only=["a"])))
    assert [item.is_written for item in all_of_it] == [True]


def test_lines_are_relinked_as_well(tmp_path: Path) -> None:
    lines = b'\xef\xbb\xbf{"image":"1.jpg", "x": NaN}\r\n\n {"image" : "im\\u0061ge.jpg"}'
    write(tmp_path / "in/s/s.jsonl", lines)
    pictures(tmp_path / "out/s", "1.jpg", "image.jpg")
    (done,) = relink(RelinkOptions(source=tmp_path / "in/s", target=tmp_path / "out", root_name="R"))
    expected = lines.replace(b'"1.jpg', b'"R/s/image/1.jpg').replace(b'"im\\u', b'"R/s/image/im\\u')
    assert done.path.read_bytes() == expected
    assert done.records == 2


def test_a_mapping_says_which_json_belongs_to_a_set(tmp_path: Path) -> None:
    for name in ("one.json", f"{ODD}.json", "other.json"):
        some_set(tmp_path / "in" / ODD, [record(None)], name=name)
    for name in ("x.json", "y.jsonl"):
        some_set(tmp_path / "in/several", [record(None)], name=name)
    mapping = write(tmp_path / "m.csv", f'\ufefffolder_name,json_file\n"{ODD}","one.json"\n'.encode())
    found = read_mapping(mapping)
    target = tmp_path / "out"
    named = relink(RelinkOptions(source=tmp_path / "in", target=target, mapping=found))
    assert [item.path.name for item in named] == ["one.json", "x.json", "y.jsonl"]
    plain = relink(RelinkOptions(source=tmp_path / "in", target=target))
    assert [item.path.name for item in plain] == [f"{ODD}.json", "x.json", "y.jsonl"]
    for wrong, message in (({ODD: "gone.json"}, "has no gone.json"), ({"gone": "x.json"}, "has no set gone")):
        with pytest.raises(UserError, match=message):
            list(relink(RelinkOptions(source=tmp_path / "in", target=target, mapping=wrong)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\nx,y\n", "begins with a, b: expected the columns"),
        ("", "begins with nothing"),
        ("folder_name,json_file\na\n", "line 2: expected folder_name,json_file"),
        (f"folder_name,json_file\n{ODD},x.json\n", "line 2: expected .*quote a name with a comma"),
        ("folder_name,json_file\na,x.parquet\n", "line 2: a, x.parquet: expected"),
        ("folder_name,json_file\n../a,x.json\n", "line 2"),
        ("folder_name,json_file\na,x.json\na,y.json\n", "line 3: a has x.json already"),
        ('folder_name,json_file\n"a,x.json\n', "is no CSV"),
    ],
)
def test_a_mapping_that_is_none_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_mapping(write(tmp_path / "m.csv", text.encode()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'[{"image": "a.jpg"}, {"image": ]', "in/s/s.json: "),
        (b'[{"image": "a.jpg"}, {"image" "b"}]', "in/s/s.json: record 1 is no JSON"),
        (b'[{"image": "a.jpg"}', "cut short behind its record 1"),
        (b'{"data": [{"a": 1}]}', "expected an array of records"),
    ],
)
def test_what_is_no_json_of_records_is_refused_and_nothing_written(data: bytes, message: str, tmp_path: Path) -> None:
    write(tmp_path / "in/s/s.json", data)
    with pytest.raises(UserError, match=message):
        list(relink(RelinkOptions(source=tmp_path / "in", target=tmp_path / "out", writes_incomplete=True)))
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_no_json_is_written_over_itself(tmp_path: Path) -> None:
    some_set(tmp_path / "in/s", [record(None)])
    with pytest.raises(UserError, match="over itself"):
        list(relink(RelinkOptions(source=tmp_path / "in", target=tmp_path / "in")))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=5)
    | st.sampled_from(["image", "a\\", '"', "{[,:"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["image", "b", 'q"']), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=4), st.integers(1, 9), st.booleans(), st.sampled_from([None, 1]))
def test_any_json_streams_through_in_pieces_of_any_size(
    rows: list[Any], size: int, is_ascii: bool, indent: Any
) -> None:
    data = json.dumps(rows, ensure_ascii=is_ascii, indent=indent).encode()
    chunks = [data[start : start + size] for start in range(0, len(data), size)]
    found = list(objects(iter(chunks), level=1, limit=1 << 20))
    assert b"".join(piece.data for piece in found) == data
    kept = [row for row in rows if isinstance(row, dict)]
    assert [json.loads(piece.data) for piece in found if piece.is_record] == kept
    for row, piece in zip(kept, [piece for piece in found if piece.is_record], strict=True):
        value = row.get("image")
        if isinstance(value, str):
            row["image"] = "P/" + value
        elif isinstance(value, list):
            row["image"] = ["P/" + item if isinstance(item, str) else item for item in value]
        assert json.loads(edited(piece.data, ["image"], lambda text: "P/")) == row


def test_a_record_that_is_too_large_is_refused() -> None:
    for is_array, data in ((True, b'[{"a": "' + b"x" * 90 + b'"}]'), (False, b'{"a": "' + b"x" * 90 + b'"}\n')):
        chunks = [data[start : start + 10] for start in range(0, len(data), 10)]
        with pytest.raises(UserError, match="record 1 has more than 50 bytes"):
            list(objects(iter(chunks), level=1, limit=50) if is_array else lines(iter(chunks), limit=50))

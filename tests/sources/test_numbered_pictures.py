"""Records with pictures in several fields: all are read, or it is said.
python -m pytest tests/sources/test_numbered_pictures.py"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata.samples import BadSample, Reason, Reject, Sample
from hpcdata.sources import Options, scan
from hpcdata.sources.pictures import telling
from hpcdata.sources.pictures.fields import holds_media, named_pictures, unread
from hpcdata.stages.copy.forms import as_json_line
from hpcdata.stages.copy.rows import as_record
from tests.sources.source_files import images, json_lines, one_input, picture, read_all, write, write_tar

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_told", set())


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"image": "a.jpg", "image_2": "b.jpg"}, "a b"),
        ({"image_10": "c.jpg", "image_2": "b.jpg", "image_1": "a.jpg"}, "a b c"),
        ({"image_0": "a.jpg", "image_1": None, "image_2": "", "image_3": ["b.jpg", "c.jpg"]}, "a b c"),
        ({"image2": "b.jpg", "image1": "a.jpg"}, "a b"),
        ({"image_path_1": "a.jpg", "image_path_2": "b.jpg", "image": "z.jpg"}, "a b"),
        ({"img_1": {"path": "a.jpg", "bytes": None}, "img_2": {"path": None, "bytes": None}}, "a"),
        ({"file_name": "a.jpg", "file_name_2": "b.jpg", "file_name_3": "notes.pdf"}, "a b"),
        ({"image": "a.jpg", "image_512": "small.jpg", "image_id": "7", "image_2_text": "b.jpg"}, "a"),
    ],
)
def test_fields_with_numbers_are_read_as_a_list_is(record: dict[str, Any], expected: str) -> None:
    found = named_pictures(record)
    assert " ".join(item.path.removesuffix(".jpg") for item in found) == expected


def test_columns_of_bytes_with_numbers_are_read_too() -> None:
    assert [item.data for item in named_pictures({"png_2": b"2", "png": b"1", "png_3": b""})] == [b"1", b"2"]
    assert holds_media("image_2")
    assert holds_media("video_1")
    assert "video_1" in unread({"image": "a.jpg", "video_1": "b.mp4"}, (), has_pictures=True)


def talk(*said: str) -> list[dict[str, str]]:
    return [{"from": "human" if not number % 2 else "gpt", "value": text} for number, text in enumerate(said)]


def lines(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    for name in "abcd":
        write(tmp_path / f"{name}.png", picture(ord(name)))
    return write(tmp_path / "x.jsonl", json_lines(rows))


def in_columns(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    columns = {name: [row.get(name) for row in rows] for name in rows[0]}
    held = {name: pa.array(values, STRUCT) for name, values in columns.items() if name.startswith("image")}
    pq.write_table(pa.table(columns | held), tmp_path / "x.parquet")
    return tmp_path / "x.parquet"


def test_a_conversation_has_the_pictures_of_all_its_fields(tmp_path: Path) -> None:
    path = lines(tmp_path, {"image_1": "a.png", "image_2": "b.png", "conversations": talk("<image>1 <image>2", "c")})
    (found,) = read_all(one_input(path))
    assert images(found) == [picture(ord("a")), picture(ord("b"))]

    row = {f"image_{number}": {"bytes": bytes([number]), "path": None} for number in (1, 2)}
    rows = [{**row, "image_3": None, "conversations": talk("<image><image>?", "c")}]
    (found,) = read_all(one_input(in_columns(tmp_path, rows)))
    assert images(found) == [b"\1", b"\2"]


def test_a_pair_with_pictures_in_two_fields_is_refused_as_a_list_is(tmp_path: Path) -> None:
    one, other = read_all(
        one_input(
            lines(tmp_path, {"image": "a.png", "image_2": "b.png", "text": "t"}, {"images": ["a.png"], "text": "t"})
        )
    )
    assert isinstance(one, Reject)
    assert (one.reason, images(other)) == (Reason.BAD_RECORD, [picture(ord("a"))])
    assert "2 images" in one.message
    assert "data.mapping" in one.message


def test_what_is_copied_names_its_files_alone(tmp_path: Path) -> None:
    row = {"image": "a.png", "image_2": "b.png", "images": ["c.png"], "conversations": talk("<image><image>?", "c")}
    options = Options(keeps_members=True)
    (sample,) = read_all(one_input(lines(tmp_path, row)), options)
    assert isinstance(sample, Sample)
    members = {item.extension: item.blob.read(max_bytes=1 << 20) for item in sample.members}
    assert list(members) == ["json", "0.png", "1.png"]
    record = json.loads(as_json_line(sample, 0, members).data)
    assert (len(record["image"]), record["images"]) == (2, ["c.png"])
    assert "image_2" not in record
    assert json.loads(as_record(sample, 0, members).row["metadata"]) == {}  # type: ignore[attr-defined]

    whole = Options(keeps_members=True, needs_text=False, needs_image=False)
    (sample,) = read_all(
        one_input(in_columns(tmp_path, [{"image": {"bytes": b"1"}, "image_2": {"bytes": b"2"}}])), whole
    )
    assert isinstance(sample, Sample)
    assert [item.extension for item in sample.members] == ["json", "0.img", "1.img"]
    assert json.loads(sample.members[0].blob.data or b"") == {}


def test_other_fields_with_pictures_are_said_when_a_run_is_planned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"image": "a.png", "text": "t", "image_url": "https://host/a.png", "photo": None},
        {"image": "a.png", "text": "t", "images": ["b.png"], "photo": "c.png"},
        {"image": "a.png", "text": "t", "images": ["b.png"], "photo": "d.png"},
    ]
    file = one_input(lines(tmp_path, *rows))
    scan(file, every=9, options=Options(needs_image=False))
    assert not caplog.text
    scan(file, every=9, options=Options())
    read_all(file)
    assert [item.getMessage() for item in caplog.records] == [
        "pictures are read from image; what is in images, photo is left out"
    ]


def test_columns_that_are_not_read_are_said_where_tokens_are_made_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    columns = {name: pa.array([{"bytes": b"1", "path": None}], STRUCT) for name in ("image", "image_2", "left")}
    pq.write_table(pa.table({**columns, "text": ["t"]}), tmp_path / "x.parquet")
    read_all(one_input(tmp_path / "x.parquet"))
    assert [item.getMessage() for item in caplog.records] == [
        "pictures are read from image; what is in left is left out"
    ]


MEMBERS = [("0.json", json.dumps({"conversations": talk("<image><image><image>?", "c")}).encode())]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize("names", [("jpg", "0.jpg", "1.png"), ("image_0.jpg", "image_1.jpg", "image_10.jpg")])
def test_members_with_numbers_are_read_beside_one_without(tmp_path: Path, suffix: str, names: tuple[str, ...]) -> None:
    members = [*reversed([(f"0.{name}", picture(number)) for number, name in enumerate(names)]), *MEMBERS]
    (found,) = read_all(one_input(write_tar(tmp_path / f"x.{suffix}", members)))
    assert images(found) == [picture(number) for number in range(3)]


def test_members_that_are_pictures_of_other_names_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    members = [("0.jpg", b"1"), ("0.seg.png", b"2"), ("0.txt", b"t")]
    (found,) = read_all(one_input(write_tar(tmp_path / "x.tar", members)))
    assert images(found) == [b"1"]
    assert "pictures beside others are left out, those called .seg: data.image_field chooses one" in caplog.text


def test_a_number_that_names_no_picture_is_refused() -> None:
    with pytest.raises(BadSample, match="image_2 is a number, expected a path"):
        named_pictures({"image": "a.jpg", "image_2": 3})


def test_lines_with_numbered_pictures_are_known_by_their_fields(tmp_path: Path) -> None:
    assert one_input(lines(tmp_path, {"image_1": "a.png", "text": "t"})).format == "jsonl"
    assert one_input(write(tmp_path / "y.jsonl", json_lines([{"image_512": 3, "text": "t"}]))).format == "text"


@pytest.mark.parametrize("name", ["image", "photo_2", "img_path_12", "images", "png_1", "picture_url", "image_url_3"])
def test_names_of_pictures_are_known_with_and_without_a_number(name: str) -> None:
    assert holds_media(name)
    assert not holds_media(f"{name}_text")
    assert not holds_media("image_512")

"""python -m pytest tests/sources/test_folder_source.py"""

import json
import os

import pytest

from hpcdata.samples import Reason
from hpcdata.sources import Options
from hpcdata.sources.folder import list_folder
from tests.sources.source_files import images, keys, one_input, read_all, summary, write


def test_pictures_with_sidecars(tmp_path):
    for name, data in {
        "b.jpg": b"B",
        "b.txt": b"text b\n",
        "a.v2.PNG": b"A",
        "a.v2.caption": "größer".encode(),
        "sub/c.webp": b"C",
        "sub/c.json": b'{"caption": "text c"}',
        "sub/d.jpg": b"D",
        "e.txt": b"no picture",
        "two.jpg": b"1",
        "two.png": b"2",
        "two.txt": b"shared",
        "long.jpg": b"L",
        "long.txt": b"x" * 9000,
        ".hidden/h.jpg": b"H",
        "notes.pdf": b"",
    }.items():
        write(tmp_path / "set" / name, data)
    records = read_all(one_input(tmp_path / "set"), Options(max_record_bytes=8192))
    found = dict(zip(keys(records), summary(records), strict=True))
    assert found == {
        "set/a.v2": "größer",
        "set/b": "text b",
        "set/e": Reason.MISSING_IMAGE,
        "set/long": Reason.OVERSIZED_TEXT,
        "set/two.jpg": "shared",
        "set/two.png": "shared",
        "set/sub/c": "text c",
        "set/sub/d": Reason.MISSING_TEXT,
    }
    assert images(records[0]) == [b"A"]


def test_sidecar_that_vanished(tmp_path):
    write(tmp_path / "set/a.jpg", b"A")
    write(tmp_path / "set/a.txt", b"text")
    file = one_input(tmp_path / "set")
    (tmp_path / "set/a.txt").unlink()
    (record,) = read_all(file)
    assert record.reason == Reason.MISSING_TEXT
    assert str(tmp_path) not in record.message


def test_names_that_are_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path / "set")
    os.mkdir(folder)
    for name, data in (
        (b"a\xff.jpg", b"A"),
        (b"a\xff.txt", b"text"),
        ("ü.jpg".encode(), b"U"),
        ("ü.txt".encode(), b"u"),
    ):
        with open(os.path.join(folder, name), "wb") as out:
            out.write(data)
    records = read_all(one_input(tmp_path / "set"))
    assert keys(records) == ["set/a\\xff", "set/ü"]
    assert [images(record) for record in records] == [[b"A"], [b"U"]]


def test_listing_is_sorted_and_follows_links_once(tmp_path):
    """Links come last, so that what was listed before they were followed has its place still."""
    write(tmp_path / "set/z/a.jpg", b"A")
    write(tmp_path / "set/b.jpg", b"B")
    write(tmp_path / "elsewhere/deep/c.jpg", b"C")
    for name, target in (("loop", "set"), ("a", "elsewhere"), ("b", "elsewhere/deep"), ("y", "set/z")):
        (tmp_path / "set" / name).symlink_to(tmp_path / target)
    (tmp_path / "elsewhere/up").symlink_to(tmp_path)
    assert list_folder(str(tmp_path / "set"), str(tmp_path / "listing")) == 3
    entries = [json.loads(line) for line in (tmp_path / "listing").read_text().splitlines()]
    assert [entry["key"] for entry in entries] == ["b", "z/a", "a/deep/c"]
    assert entries[1] == {"key": "z/a", "image": "z/a.jpg", "text": None}


@pytest.mark.parametrize("options", [Options(needs_text=False), Options()])
def test_texts_that_are_not_needed(tmp_path, options):
    write(tmp_path / "set/a.jpg", b"A")
    assert summary(read_all(one_input(tmp_path / "set"), options)) == [
        Reason.MISSING_TEXT if options.needs_text else ""
    ]


PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)


def test_a_picture_is_told_by_its_first_bytes_where_its_name_says_nothing(tmp_path):
    pictures = ("bare", "a.img", "b.jpg_large", "22.05", "c.JXL", "d.qoi", "e.mpo")
    for name in pictures:
        write(tmp_path / "set" / name, PNG)
    for name in ("bare.txt", "a.txt", "b.txt", "22.05.txt", "c.txt", "d.txt", "e.txt"):
        write(tmp_path / "set" / name, name.encode())
    for name, data in (("MANIFEST", b"words"), ("f.bin", b"\0\1\2"), ("g.npy", PNG), ("README", PNG[:4])):
        write(tmp_path / "set" / name, data)
    list_folder(str(tmp_path / "set"), str(tmp_path / "listing"))
    rows = [json.loads(line) for line in (tmp_path / "listing").read_text().splitlines()]
    texts = {"bare": "bare.txt", "22.05": "22.05.txt"}
    expected = {name: texts.get(name, f"{name.partition('.')[0]}.txt") for name in pictures}
    assert {row["image"]: row["text"] for row in rows} == expected
    assert one_input(tmp_path / "set").format == "listing"


def test_a_folder_of_pictures_without_endings_is_one(tmp_path):
    write(tmp_path / "set/ILSVRC_1", PNG)
    assert [images(record) for record in read_all(one_input(tmp_path / "set"), Options(needs_text=False))] == [[PNG]]

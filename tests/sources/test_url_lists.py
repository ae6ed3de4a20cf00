"""Tables of URLs as JSON lines: rows of one URL side by side, whatever their format.

pytest tests/sources/test_url_lists.py
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.samples import BadSample, Reject, Sample
from hpcdata.sources import Options, find_account, list_inputs, prepare, read, scan
from hpcdata.sources.url_lists.fields import field_of, urls_in, urls_of
from hpcdata.sources.url_lists.rows import rows_of
from tests.selection import examples
from tests.sources.source_files import write

OPTIONS = Options(keeps_members=True, is_of_urls=True, needs_image=False, needs_text=False)


def listed(path: Path, url_field: str | None = None) -> list[object]:
    """The records of the listing of a table: what their JSON says, or the reason of a reject."""
    options = Options(**{**vars(OPTIONS), "url_field": url_field})
    (file,) = list_inputs(str(path), "urls")
    file = prepare(file, path.parent / "listings", options=options)
    scanned = scan(file, every=2, options=options)
    records = list(read(file, scanned, first=0, count=scanned.num_samples, options=options))
    return [_said(record) for record in records]


def _said(record: object) -> object:
    if isinstance(record, Reject):
        return str(record.reason)
    assert isinstance(record, Sample)
    (member,) = record.members
    return json.loads(member.blob.data or b"")


def urls(records: list[object]) -> list[object]:
    return sorted(record["url"] if isinstance(record, dict) else record for record in records)  # type: ignore[type-var]


CAPTIONS = b'a "quoted dog\thttp://a.org/1.jpg\n"a ""cat"""\thttp://a.org/2.jpg\r\n'


def test_conceptual_captions_have_no_header_and_odd_quotes(tmp_path: Path) -> None:
    found = listed(write(tmp_path / "Train_GCC-training.tsv", CAPTIONS + b"only one cell\n\xff\thttp://a.org/3.jpg\n"))
    rows = {row["url"]: row["caption"] for row in found if isinstance(row, dict)}
    assert rows == {"http://a.org/1.jpg": 'a "quoted dog', "http://a.org/2.jpg": 'a "cat"'}
    assert sorted(row for row in found if isinstance(row, str)) == ["bad_json", "bad_record"]
    swapped = write(tmp_path / "cc12m.tsv", b"http://a.org/1.jpg\tone\n")
    assert listed(swapped) == [{"url": "http://a.org/1.jpg", "caption": "one"}]


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_a_csv_has_a_header_quotes_and_line_breaks(tmp_path: Path, ending: str) -> None:
    data = '\ufeffURL,TEXT,id\nhttp://a.org/1.jpg,"two\nlines, ""so""",7\n\nhttp://a.org/2.jpg,grün,8,9\n'.encode()
    found = listed(write(tmp_path / f"x.csv{ending}", data))
    assert {"URL": "http://a.org/1.jpg", "TEXT": 'two\nlines, "so"', "id": "7"} in found
    assert "bad_record" in found
    assert len(found) == 2


def test_bytes_of_a_csv_that_are_no_utf8_cost_their_row_alone(tmp_path: Path) -> None:
    found = listed(write(tmp_path / "x.csv", b"url,text\nhttp://a.org/1,\xff\nhttp://a.org/2,ok\n"))
    assert sorted(map(str, found)) == ["bad_json", "{'url': 'http://a.org/2', 'text': 'ok'}"]


def test_columns_without_names_are_numbered(tmp_path: Path) -> None:
    found = listed(write(tmp_path / "x.csv", b"1,http://a.org/1,big\n"))
    assert found == [{"column_0": "1", "url": "http://a.org/1", "column_2": "big"}]


def test_parquet_rows_without_their_bytes(tmp_path: Path) -> None:
    table = pa.table(
        {
            "image_url": ["http://a.org/1", None],
            "image": pa.array([{"bytes": b"x", "path": "a.jpg"}, None]),
            "transcripts": [["a", "b"], None],
            "at": [datetime.date(2024, 1, 2), None],
        }
    )
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    found = listed(tmp_path / "train-00000-of-00001.parquet")
    assert {"image_url": "http://a.org/1", "transcripts": ["a", "b"], "at": "2024-01-02"} in found
    assert {"image_url": None, "transcripts": None, "at": None} in found


@pytest.mark.parametrize("as_array", [False, True])
def test_json_rows_are_kept_as_they_are(tmp_path: Path, as_array: bool) -> None:
    rows = ['{"url": "http://a.org/1", "n": 1.50}', '{"url": "http://a.org/2"}', "17", "oops"]
    text = f"[{','.join(rows)}]" if as_array else "\n".join(rows)
    path = write(tmp_path / "x.json", text.encode())
    (file,) = list_inputs(str(path), "urls")
    listing = Path(prepare(file, tmp_path / "listings", options=OPTIONS).path).read_text()
    assert sorted(listing.splitlines()) == sorted(rows)
    assert sorted(map(str, listed(path)))[:2] == ["bad_json", "bad_record"]


def test_rows_of_one_url_stand_side_by_side_over_all_tables_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = [f"http://h{number % 7}.org/{number}" for number in range(60)]
    write(folder / "a.csv", "".join(f"{name},a\n" for name in names).encode())
    write(folder / "deep/b.jsonl", "".join(f'{{"url": "{name}", "t": "b"}}\n' for name in reversed(names)).encode())
    write(folder / "README.md", b"about")
    found = [row["url"] for row in listed(folder) if isinstance(row, dict)]
    assert len(found) == 120
    assert found[::2] == found[1::2]
    assert found[::2] != sorted(found[::2])
    assert not list((tmp_path / "listings").glob(".table-*"))
    account, not_read = find_account(str(folder), list_inputs(str(folder), "urls"), "")
    assert (account.files, account.parts, [item.ending for item in not_read]) == (3, 2, ["(notes: README, statistics)"])


def test_the_listing_does_not_depend_on_how_rows_come_in_buckets(tmp_path: Path, monkeypatch) -> None:
    data = "".join(f"http://a.org/{number % 50}\t{number}\n" for number in range(400)).encode()
    path = write(tmp_path / "x.tsv", data)
    whole = listed(path)
    monkeypatch.setattr("hpcdata.sources.streams.CHUNK_BYTES", 64)
    assert listed(path) == whole
    texts = [row["caption"] for row in whole if row["url"] == "http://a.org/7"]  # type: ignore[index]
    assert texts == [str(number) for number in range(7, 400, 50)]  # in the order of the table


@pytest.mark.parametrize(
    ("name", "data", "field", "why"),
    [
        ("x.csv", b"a,b\n1,2\n", None, "no column one of image_url"),
        ("x.csv", b"url,b\n1,2\n", "link", "no column link, the name in fetch.url_field"),
        ("x.csv", b"url,url\n1,2\n", None, "two columns of one name"),
        ("x.csv", b"url,b\n,2\n", None, "1 rows with 'b', 'url', and no URL in the usual fields"),
        ("x.jsonl", b'{"text": "a"}\n', None, "1 rows with 'text', and no URL"),
        ("x.tar", b"", None, "is no input of data.source=urls"),
    ],
)
def test_a_table_without_urls_is_refused(tmp_path: Path, name: str, data: bytes, field: str | None, why: str) -> None:
    with pytest.raises(UserError, match=why):
        listed(write(tmp_path / name, data), field)


@pytest.mark.parametrize(
    ("record", "name", "found"),
    [
        ({"url": "http://page", "image_url": "http://a"}, "image_url", ["http://a"]),
        ({"URL": " http://a "}, "URL", ["http://a"]),
        ({"image": "http://a"}, "image", ["http://a"]),
        ({"image": "a.jpg", "coco_url": "http://a"}, "coco_url", ["http://a"]),
        ({"images": [{"url": "http://a"}, "http://b"]}, "images", ["http://a", "http://b"]),
        ({"image": {"url": "https://a"}}, "image", ["https://a"]),
    ],
)
def test_the_usual_fields(record: dict, name: str, found: list[str]) -> None:
    assert field_of(record, None) == name
    assert urls_in(record, name) == found


@pytest.mark.parametrize(
    ("record", "wanted", "found"),
    [
        ({"image_url_2": "http://b", "image_url_1": " http://a ", "image_url_3": None}, None, ["http://a", "http://b"]),
        ({"Image_URL": "http://a", "Image_URL_2": "http://b", "url": "http://page"}, None, ["http://a", "http://b"]),
        ({"url": "http://a", "url_2": "http://page"}, None, ["http://a"]),
        ({"image_url": "http://a", "image_url_2": "http://b"}, "image_url", ["http://a"]),
        ({"image_url": "http://a", "image_url_2": "n/a", "image": "a.jpg"}, None, ["http://a"]),
        ({"text": "t"}, None, None),
    ],
)
def test_fields_of_pictures_with_numbers_are_all_asked_for(
    record: dict, wanted: str | None, found: list[str] | None
) -> None:
    assert urls_of(record, wanted) == found


def test_a_named_field_counts_whatever_it_holds() -> None:
    assert field_of({"url": "http://a", "link": "ftp://b"}, "link") == "link"
    assert field_of({"url": "http://a", "link": None}, "link") is None
    with pytest.raises(BadSample, match="link is a number"):
        urls_in({"link": 7}, "link")


CELL = st.text(st.characters(exclude_characters="\t\n\r\0", exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=examples(40), deadline=None)
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=8))
def test_any_cells_come_back_from_a_tsv(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] for row in rows]
    path.write_bytes(("url\tone\ttwo\n" + "".join(f"http://a\t{a}\t{b}\n" for a, b in quoted)).encode())
    (file,) = list_inputs(str(path), "urls")
    found = [record for _, record in rows_of(file, None, str(path.parent))]
    assert found == [{"url": "http://a", "one": one, "two": two} for one, two in rows]

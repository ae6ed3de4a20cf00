"""Parquet with pictures, and metadata beside pictures.   python -m pytest tests/sources/test_picture_tables.py"""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata.base.errors import UserError
from hpcdata.samples import BadSample, Reason, Sample
from hpcdata.sources import Options, carries_images, gives_documents, list_inputs, parquet_files
from hpcdata.sources.pictures import tables
from hpcdata.sources.pictures.fields import named_pictures
from tests.sources.source_files import images, one_input, read_all, summary, texts, write

PNG = b"\x89PNG\r\n\x1a\n picture "
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A square."}]


def table(path, columns, schema=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema=schema), path, **options)
    return path


def pictures(count=5):
    return [{"bytes": PNG + bytes([number]), "path": f"{number}.png"} for number in range(count)]


def hugging_face(path, count=5, **options):
    columns = {"image": pa.array(pictures(count), STRUCT), "text": [f"cap {number}" for number in range(count)]}
    return table(path, columns, **options)


def test_the_pictures_of_hugging_face_are_read(tmp_path):
    file = one_input(hugging_face(tmp_path / "train-00000-of-00001.parquet", row_group_size=2))
    assert carries_images(file.format)
    assert not gives_documents(file.format)
    found = read_all(file)
    assert [images(record) for record in found] == [[PNG + bytes([number])] for number in range(5)]
    assert summary(found) == [f"cap {number}" for number in range(5)]
    assert found[3].key == "train-00000-of-00001.parquet#3"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [  # whole rows and what becomes of them
        ({"jpg": [PNG], "caption": ["t"]}, "t"),
        ({"image": pa.array([PNG], pa.large_binary()), "caption": ["t"], "score": [0.5]}, "t"),
        ({"images": [[{"bytes": PNG, "path": None}]], "text": ["t"]}, "t"),
        ({"image": [{"bytes": PNG, "path": None}], "conversations": [TURNS]}, "\nWhat? A square."),
        ({"images": [[PNG]], "messages": [[{"role": "user", "content": "<image>hi"}]]}, "hi"),
        ({"video": [{"bytes": b"x", "path": "a.mp4"}], "text": ["t"]}, "unsupported_media"),
        ({"scan": [PNG], "text": ["t"]}, "unsupported_media"),
        ({"image_url": ["https://host/a.png"], "text": ["t"]}, "unsupported_media"),
        ({"image": ["../a.png"], "text": ["t"]}, "outside_root"),
        ({"image": pa.array([None], STRUCT), "text": ["t"]}, "t"),
        ({"image": [PNG], "text": [None]}, "missing_text"),
    ],
)
def test_rows_are_records_as_lines_are(tmp_path, columns, expected):
    found = read_all(one_input(table(tmp_path / "a.parquet", columns)))
    assert summary(found) == [expected]
    if isinstance(found[0], Sample):
        assert images(found[0]) in ([PNG], [])


def test_a_column_of_paths_starts_from_its_folder(tmp_path):
    write(tmp_path / "x.png", PNG)
    columns = {"file_name": ["x.png"], "text": ["t"]}
    assert images(read_all(one_input(table(tmp_path / "metadata.parquet", columns)))[0]) == [PNG]
    (tmp_path / "other").mkdir()
    assert one_input(table(tmp_path / "other/code.parquet", {"file_name": ["a.py"], "text": ["t"]})).format == "parquet"


@pytest.mark.parametrize("source", ["auto", "text"])
def test_documents_stay_documents(tmp_path, source):
    columns = {"text": ["t"], "url": ["https://host/a.html"], "embedding": [[0.5, 1.0]], "id": [7]}
    assert one_input(table(tmp_path / "a.parquet", columns), source).format == "parquet"
    assert one_input(hugging_face(tmp_path / "b.parquet"), "text").format == "parquet", "the source was named"


def test_plans_of_before_read_texts(tmp_path):
    assert one_input(hugging_face(tmp_path / "b.parquet"), as_older=True).format == "parquet"


def test_a_damaged_row_group_loses_its_own_rows(tmp_path):
    path = hugging_face(tmp_path / "a.parquet", 6, row_group_size=2, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    at = data.index(PNG + bytes([2])) - 40
    data[at : at + 30] = b"\xff" * 30
    path.write_bytes(data)
    found = summary(read_all(one_input(path)))
    assert [found[index] for index in (0, 1, 4, 5)] == ["cap 0", "cap 1", "cap 4", "cap 5"]
    assert set(found[2:4]) == {Reason.DAMAGED_ARCHIVE}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            pa.array([0, -(2**53), 0], pa.timestamp("ms")),
            "a value of type timestamp[ms] cannot be read: date",
        ),
        (pa.array([[0], [2**53], []], pa.list_(pa.timestamp("ms"))), "a value of type list<"),
        (pa.array([None, 1, None], pa.timestamp("ms", tz="Nowhere/Land")), "cannot be read: "),
    ],
)
def test_a_value_that_python_has_none_for_costs_its_row_alone(tmp_path, values, told):
    """The process that read it died, and with it all rows of the file."""
    path = table(tmp_path / "a.parquet", {"image": [PNG] * 3, "text": ["a", "b", "c"], "at": values})
    found = read_all(one_input(path), Options(keeps_members=True))
    assert summary(found) == ["a", Reason.BAD_RECORD, "c"]
    assert told in found[1].message


def test_a_copy_has_the_row_and_its_pictures(tmp_path):
    columns = {"images": [[PNG, b"\xff\xd8\xff"]], "text": ["t"], "day": [datetime.date(2026, 1, 2)], "v": [[0.5]]}
    file = one_input(table(tmp_path / "a.parquet", columns))
    (record,) = read_all(file, Options(needs_image=False, needs_text=False, keeps_members=True))
    assert [member.extension for member in record.members] == ["json", "0.png", "1.jpg"]
    assert json.loads(record.members[0].blob.data) == {"text": "t", "day": "2026-01-02", "v": [0.5]}
    assert record.members[2].blob.data == b"\xff\xd8\xff"


def album(folder, names=("000", "001")):
    for name in names:
        write(folder / f"{name}.jpg", PNG)
        write(folder / f"{name}.txt", f"cap {name}".encode())


@pytest.mark.parametrize("column", ["caption", "text"])
def test_the_table_of_img2dataset_beside_its_folder_is_no_input(tmp_path, column):
    """shared/cases/img2dataset-files and img2dataset-files-textcol."""
    album(tmp_path / "data/00000")
    table(tmp_path / "data/00000.parquet", {"url": ["u"], column: ["cap"], "key": ["000"]})
    write(tmp_path / "data/00000_stats.json", b"{}")
    (file,) = list_inputs(str(tmp_path / "data"), "auto")
    assert file.format == "folder"
    assert summary(read_all(one_input(tmp_path / "data"))) == ["cap 000", "cap 001"]
    hugging_face(tmp_path / "data/00000.parquet")
    assert [item.format for item in list_inputs(str(tmp_path / "data"), "auto")] == ["parquet.records"]
    assert list_inputs(str(tmp_path / "data"), "text")[0].format == "parquet"


def test_the_csv_of_an_imagefolder_is_read(tmp_path):
    album(tmp_path / "data/train")
    rows = '\ufefffile_name,text,n\n000.jpg,"one, ""two""\nthree",1\n001.jpg,grün\n../x.jpg,out\n,no name,1,2\n'
    write(tmp_path / "data/train/metadata.csv", rows.encode())
    write(tmp_path / "data/other.csv", b"file_name,text\n000.jpg,t\n")
    write(tmp_path / "data/test/metadata.csv", b"id,text\n1,t\n")
    (file,) = list_inputs(str(tmp_path / "data"), "auto")
    assert (file.label, file.format) == ("metadata.csv", "csv")
    found = read_all(one_input(tmp_path / "data/train/metadata.csv"))
    assert summary(found) == ['one, "two"\nthree', "grün", "outside_root", "no name"]
    assert images(found[1]) == [PNG]
    assert texts(found[0]) == ['one, "two"\nthree']


@pytest.mark.parametrize("data", [b"file_name,text\n\xff,t\n", b"file_name,text\n" + b"x" * 200_000 + b",t\n"])
def test_a_csv_that_is_none_is_refused(tmp_path, data):
    path = write(tmp_path / "metadata.csv", data)
    with pytest.raises(UserError, match=r"metadata\.csv is no CSV in UTF-8 behind line"):
        one_input(path)


def test_a_picture_that_rows_repeat_is_held_a_few_times_only(tmp_path, monkeypatch):
    """A dictionary holds it once: a small file may name gigabytes."""
    monkeypatch.setattr(tables, "_BATCH_BYTES", 3 << 20)
    path = table(tmp_path / "a.parquet", {"image": [PNG * (1 << 16)] * 40, "text": ["t"] * 40})
    seen = []
    rows = tables.rows_of
    monkeypatch.setattr(tables, "rows_of", lambda batch, **how: seen.append(batch.num_rows) or rows(batch, **how))
    found = read_all(one_input(path))
    assert summary(found) == ["t"] * 40
    assert max(seen) <= 3
    monkeypatch.setattr(tables, "most_unpacked", lambda stored: stored // 2)
    assert set(summary(read_all(one_input(path)))) == {"oversized_record"}


def test_a_column_of_a_row_group_is_never_read_whole(tmp_path, monkeypatch):
    drawn = np.random.default_rng(0)
    columns = {"image": [{"bytes": PNG + drawn.bytes(4000), "path": None} for _ in range(1500)], "text": ["t"] * 1500}
    pages = {"data_page_size": 1 << 16, "write_batch_size": 16}
    file = one_input(table(tmp_path / "x.parquet", columns, row_group_size=1500, **pages))
    sizes, real = [], parquet_files.Bytes.read

    def read(data, size=-1):
        found = real(data, size)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(parquet_files.Bytes, "read", read)
    assert len(read_all(file)) == 1500
    assert sum(sizes) > 5 << 20
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"bytes": b"", "path": None}, Reason.EMPTY_IMAGE),
        ([{"bytes": b"", "path": ""}], Reason.EMPTY_IMAGE),
        ({"width": 1}, Reason.BAD_RECORD),
    ],
)
def test_a_picture_of_nothing_is_an_empty_one_in_all_stages(value, reason):
    with pytest.raises(BadSample) as caught:
        named_pictures({"image": value})
    assert caught.value.reason is reason

"""python -m pytest tests/sources/test_documents.py"""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata.base.errors import UserError
from hpcdata.samples import Reason, Reject
from hpcdata.sources import Options, base, read, read_documents, scan
from tests.sources.source_files import json_lines, keys, one_by_one, one_input, read_all, summary, write


@pytest.mark.parametrize("suffix", ["txt", "txt.gz", "txt.zst"])
def test_a_text_file_is_one_document(tmp_path, suffix):
    records = read_all(one_input(write(tmp_path / f"x.{suffix}", "\ufeffzwei\nZeilen ü\n".encode())))
    assert summary(records) == ["zwei\nZeilen ü"]
    assert keys(records) == [f"x.{suffix}#0"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", Reason.EMPTY_TEXT), (b"\xff", Reason.UNREADABLE_TEXT), (b"x" * 99, Reason.OVERSIZED_TEXT)],
)
@pytest.mark.parametrize("suffix", ["txt", "txt.gz", "txt.zst"])
def test_bad_text_files(tmp_path, suffix, data, reason):
    assert summary(read_all(one_input(write(tmp_path / f"x.{suffix}", data)), Options(max_record_bytes=50))) == [reason]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_document_in_utf_16_is_named(tmp_path, encoding):
    data = "\ufeffwords".encode(encoding)
    (record,) = read_all(one_input(write(tmp_path / "x.txt", data)))
    assert (record.reason, record.message) == (Reason.UNREADABLE_TEXT, "the document is UTF-16, expected UTF-8")


def test_json_lines_of_dclm(tmp_path):
    rows = [{"text": f"document {number}", "url": "u", "metadata": {"n": number}} for number in range(7)]
    records = read_all(one_input(write(tmp_path / "x.json.zst", json_lines(rows))))
    assert summary(records) == [f"document {number}" for number in range(7)]


def table(path, columns, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def test_parquet(tmp_path):
    values = [f"document {number}" for number in range(1000)]
    values[3], values[4] = None, " "
    path = table(tmp_path / "x.parquet", {"id": range(1000), "text": values}, row_group_size=300)
    records = read_all(one_input(path), every=130)
    assert summary(records) == [*values[:3], Reason.MISSING_TEXT, Reason.EMPTY_TEXT, *values[5:]]
    assert keys(records)[999] == "x.parquet#999"


VIEWS = [pa.array(["a", "b"], pa.string_view())] if hasattr(pa, "string_view") else []


@pytest.mark.parametrize(
    "column", [pa.array(["a", "b"], pa.large_string()), pa.array(["a", "b"]).dictionary_encode(), *VIEWS]
)
def test_parquet_string_types_and_content_column(tmp_path, column):
    assert summary(read_all(one_input(table(tmp_path / "x.parquet", {"content": column})))) == ["a", "b"]


def test_parquet_columns(tmp_path):
    file = one_input(table(tmp_path / "x.parquet", {"body": ["a"], "text": [3]}))
    assert summary(read_all(file, Options(text_field="body"))) == ["a"]
    with pytest.raises(UserError, match="column text has type int64"):
        scan(file, every=1, options=Options())
    with pytest.raises(UserError, match=r"no column title: set data.text_field to one of body, text"):
        scan(file, every=1, options=Options(text_field="title"))


def test_damaged_parquet_loses_its_row_group_only(tmp_path):
    values = [f"document {number} " * 20 for number in range(30)]
    path = table(tmp_path / "x.parquet", {"text": values}, row_group_size=10, compression="zstd", use_dictionary=False)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 60] = bytes(60)
    path.write_bytes(data)
    records = read_all(one_input(path), every=7)
    assert summary(records) == [*values[:10], *[Reason.DAMAGED_ARCHIVE] * 10, *values[20:]]


def test_damage_late_in_a_row_group(tmp_path):
    values = [f"document {number} " * 20 for number in range(2000)]
    path = table(
        tmp_path / "x.parquet", {"text": values}, compression="zstd", use_dictionary=False, data_page_size=4096
    )
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    end = chunk.data_page_offset + chunk.total_compressed_size
    data[end - 60 : end] = bytes(60)
    path.write_bytes(data)
    records = read_all(one_input(path), every=900)
    num_good = summary(records).index(Reason.DAMAGED_ARCHIVE)
    assert num_good >= 1024
    assert summary(records) == [*values[:num_good], *[Reason.DAMAGED_ARCHIVE] * (2000 - num_good)]


@pytest.mark.parametrize("size", [0, 3, 200])
def test_cut_parquet_is_one_reject(tmp_path, size):
    path = table(tmp_path / "x.parquet", {"text": ["a"]})
    path.write_bytes(path.read_bytes()[:size])
    assert summary(read_all(one_input(path))) == [Reason.DAMAGED_ARCHIVE]


@pytest.mark.parametrize("at_once", [1, 40 << 10, base.AT_ONCE])
@pytest.mark.parametrize(("first", "batch_size"), [(0, 7), (5, 10), (299, 3), (0, 400)])
def test_parquet_documents_in_bulk_are_the_records(tmp_path, monkeypatch, first, batch_size, at_once):
    monkeypatch.setattr(base, "AT_ONCE", at_once)
    of_a_batch = -(-max(at_once >> 10, 1) // batch_size) * batch_size
    values = [f"document {number}" for number in range(300)]
    values[3:9] = [None, "", " \n", "a\0b", "x" * 200, "\u3000"]
    path = table(tmp_path / "x.parquet", {"text": values}, row_group_size=70, compression="none", use_dictionary=False)
    data = path.read_bytes()
    at = data.index(b"document 120")
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])  # not UTF-8
    file, options = one_input(path), Options(max_record_bytes=100)
    found = scan(file, every=50, options=options)
    where = {"first": first, "count": 300 - first, "options": options}
    expected = list(read(file, found, **where))
    got = []
    for batch in read_documents(file, found, **where, batch_size=batch_size):
        rows = one_by_one(batch)
        assert len(rows) == min(of_a_batch, 300 - first - len(got))
        got += rows
    assert got == expected
    assert sum(isinstance(row, Reject) for row in expected) == sum(first <= bad for bad in [*range(3, 9), 120])

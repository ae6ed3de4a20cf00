"""python -m pytest tests/sources/test_contents.py: what a file holds decides, whatever its name says."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from hpcdata.base.errors import UserError
from hpcdata.sources import list_inputs
from tests.sources.source_files import json_lines, one_input, pairs, read_all, summary, tar_bytes

ROWS = json_lines([{"text": "row"}, {"text": "other"}])
TAR = tar_bytes(pairs(2))


def zipped(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "expected", "texts"),
    [
        ("gzip.tar", gzip.compress(TAR, mtime=0), "tar.gz", ["caption 0 öß", "caption 1 öß"]),
        ("plain.tar.gz", TAR, "tar", ["caption 0 öß", "caption 1 öß"]),
        ("plain.tgz", TAR, "tar", ["caption 0 öß", "caption 1 öß"]),
        ("gzip.jsonl", gzip.compress(ROWS, mtime=0), "text.gz", ["row", "other"]),
        ("zstd.jsonl", zstandard.compress(ROWS), "text.zst", ["row", "other"]),
        ("zstd.jsonl.gz", zstandard.compress(ROWS), "text.zst", ["row", "other"]),
        ("plain.jsonl.gz", ROWS, "text", ["row", "other"]),
        ("plain.json.zst", ROWS, "text", ["row", "other"]),
        ("gzip.txt", gzip.compress(b"words", mtime=0), "document.gz", ["words"]),
        ("plain.txt.zst", b"words", "document", ["words"]),
    ],
)
def test_what_can_be_read_is_read_as_what_it_is(tmp_path, caplog, name, data, expected, texts):
    (tmp_path / name).write_bytes(data)
    (file,) = list_inputs(str(tmp_path / name), "auto")
    assert file.format == expected
    assert summary(read_all(file)) == texts
    assert f"{name} is " in caplog.text
    assert "whatever its name says" in caplog.text


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.tar", bz2.compress(TAR), "bzip2"),
        ("a.tar.gz", lzma.compress(TAR), "xz"),
        ("a.tar", zstandard.compress(TAR), "zstd"),
        ("a.tar", zipped(TAR), "zip"),
        ("a.jsonl", bz2.compress(ROWS), "bzip2"),
        ("a.json", b"ARROW1" + bytes(600), "Arrow"),
        ("a.jsonl", ROWS.decode().encode("utf-16"), "UTF-16"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_content(tmp_path, name, data, what):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} holds .*{what}"):
        list_inputs(str(tmp_path / name), "auto")


def test_names_that_tell_the_truth_and_damage_are_as_before(tmp_path, caplog):
    for name, data in (("a.tar", TAR), ("b.tar.gz", gzip.compress(TAR)), ("c.tar.gz", bytes(range(256)) * 9)):
        (tmp_path / name).write_bytes(data)
    assert [file.format for file in list_inputs(str(tmp_path), "auto")] == ["tar", "tar.gz", "tar.gz"]
    assert not caplog.text


@pytest.mark.parametrize(
    "data",
    [
        b'{"data": [{"text": "a"}]}',
        b'{"id1": {"text": "a"}, "id2": {"text": "b"}}\n',
        b'{\n  "text": "a"\n}\n',
        b'{"data": [{"text": "a"}, {"te',
    ],
)
def test_one_object_is_refused_and_says_what_was_expected(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.json holds one object.*, expected an array of records"):
        list_inputs(str(tmp_path / "a.json"), "auto")


PRETTY = json.dumps({"text": "a", "tags": [{"a": 1}, {"a": 2}]}, indent=1).encode()
LONG = json.dumps({"data": [{"text": "word " * 50}] * 6000}).encode()


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.json", b'{"text": ["a", "b"], "id": [1, 2]}', r"one object with a list for each field \(text, id\)"),
        ("a.json", b'{"a": {"text": "a"}, "b": {}}', r"one object with a record for each key \(a, b\)"),
        (
            "a.json",
            b'{"info": {}, "data": [{"text": "a"}]}',
            r"one object \(info, data\), .*: write its list data alone",
        ),
        ("a.json", LONG, r"one object \(data, \.\.\.\), .*: write its list data alone"),
        ("a.jsonl", PRETTY, r"one object \(text, tags\), "),
        ("a.jsonl", PRETTY * 2, "objects that are spread over several lines, .*: write each in one line"),
        ("a.json", PRETTY * 2, "objects that are spread over several lines, .*: write each in one line"),
        ("a.ndjson", PRETTY * 9000, "objects that are spread over several lines"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16-le"), "UTF-16 text"),
        ("a.jsonl.gz", b'\0{\0"\0t\0e\0x\0t\0"\0:\0"\0a\0"\0}', "UTF-16 text"),
    ],
)
def test_other_shapes_of_json_are_named(tmp_path, name, data, found):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{name} holds {found}"):
        list_inputs(str(tmp_path / name), "auto")


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json"])
@pytest.mark.parametrize("data", [b'[\n{"text": "a"},\n{"text": "b"}\n]', b'[{"text": "a"},\n{"text": "b"}]'])
def test_an_array_is_one_under_any_name(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert summary(read_all(one_input(tmp_path / name))) == ["a", "b"]


def test_parquet_is_parquet_under_any_name(tmp_path):
    for name in ("a.jsonl", "a.txt", "a.json", "a.bin"):
        pq.write_table(pa.table({"text": ["row", "other"]}), tmp_path / name)
        assert summary(read_all(one_input(tmp_path / name))) == ["row", "other"]


@pytest.mark.parametrize(
    "data",
    [b'{"text": "a"}', b'{"conversations": []}', b'{"text": "a"}\n{"te', b'{"te\n{"text": "a"}\n', b"{}", b"[]", b""],
)
def test_records_are_no_such_object(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    assert len(list_inputs(str(tmp_path / "a.json"), "auto")) == 1


def test_a_named_file_without_a_known_ending_is_what_it_holds(tmp_path):
    files = {
        "tar": TAR,
        "rows": ROWS,
        "gz": gzip.compress(ROWS),
        "tgz.1": gzip.compress(TAR),
        "x.js": b'[{"text": "a"}]',
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    expected = {"tar": "tar", "rows": "text", "gz": "text.gz", "tgz.1": "tar.gz", "x.js": "text"}
    assert {name: one_input(tmp_path / name).format for name in files} == expected
    (tmp_path / "other").write_bytes(b"words")
    with pytest.raises(UserError, match="its name has no known ending, and its bytes no mark"):
        list_inputs(str(tmp_path / "other"), "auto")

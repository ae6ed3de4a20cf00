"""python -m pytest tests/sources/test_contents.py: what a file holds decides, whatever its name says."""

import bz2
import gzip
import io
import lzma
import zipfile

import pytest
import zstandard

from hpcdata.base.errors import UserError
from hpcdata.sources import list_inputs
from tests.sources.source_files import json_lines, pairs, read_all, summary, tar_bytes

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
        ("gzip.tar", gzip.compress(TAR), "tar.gz", ["caption 0 öß", "caption 1 öß"]),
        ("plain.tar.gz", TAR, "tar", ["caption 0 öß", "caption 1 öß"]),
        ("plain.tgz", TAR, "tar", ["caption 0 öß", "caption 1 öß"]),
        ("gzip.jsonl", gzip.compress(ROWS), "text.gz", ["row", "other"]),
        ("zstd.jsonl", zstandard.compress(ROWS), "text.zst", ["row", "other"]),
        ("zstd.jsonl.gz", zstandard.compress(ROWS), "text.zst", ["row", "other"]),
        ("plain.jsonl.gz", ROWS, "text", ["row", "other"]),
        ("plain.json.zst", ROWS, "text", ["row", "other"]),
        ("gzip.txt", gzip.compress(b"words"), "document.gz", ["words"]),
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
        ("a.jsonl", b"PAR1" + bytes(600), "Parquet"),
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

"""What a compressed input may unpack to.   pytest tests/sources/test_limits.py"""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata.base.errors import UserError
from hpcdata.samples import Reason, Reject
from hpcdata.sources import Options, limits, parquet, scan
from hpcdata.sources.folder import walk
from hpcdata.sources.tar.oddities import MOST_NAME_BYTES
from tests.sources.source_files import json_lines, keys, one_input, read_all, summary, write, write_tar


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl.zst", "x.json.gz", "x.tar.gz"])
def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused_when_it_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1 << 16)
    if name == "x.tar.gz":
        path = write_tar(tmp_path / name, [("0.txt", b" " * (1 << 22))])
    else:
        path = write(tmp_path / name, b'[{"text": "a"}' + b" " * (1 << 22) + b"]")
    with pytest.raises(UserError, match=r"x\..* unpacks to more than \d+ bytes: the limit is 100 times its size"):
        scan(one_input(path), every=1, options=Options())
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1 << 23)
    assert scan(one_input(path), every=1, options=Options()).num_samples == 1


def test_large_lines_are_refused_where_small_ones_of_the_same_bytes_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LARGE_BYTES", 1 << 20)
    many = write(tmp_path / "many.jsonl.zst", json_lines([{"text": "a" * 1000}] * 4000))
    assert scan(one_input(many), every=1, options=Options()).num_samples == 4000
    large = write(tmp_path / "large.jsonl.zst", json_lines([{"text": "a" * (2 << 20)}] * 2))
    with pytest.raises(UserError, match="texts of more than 1 MiB"):
        scan(one_input(large), every=1, options=Options())
    assert scan(one_input(large), every=1, options=Options(max_record_bytes=1 << 20)).num_samples == 2, "never read"


def test_rows_that_repeat_a_large_text_are_rejected_in_every_slice_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LARGE_BYTES", 5 * 4096)
    monkeypatch.setattr(parquet, "LARGE_TEXT_BYTES", 1 << 10)
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 1 << 14)
    texts = pa.DictionaryArray.from_arrays(pa.array(np.arange(40, dtype=np.int32) % 2), pa.array(["small", "x" * 4096]))
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": texts}), path, compression="zstd", row_group_size=20, write_statistics=False)
    stored = pq.ParquetFile(path).metadata.row_group(0).column(0).total_compressed_size
    most = (5 * 4096 + 30 * stored) // 4096
    assert most < 10
    records = read_all(one_input(path))
    rejected = [record.position for record in records if isinstance(record, Reject)]
    assert rejected == [row for group in (0, 20) for row in range(group + 2 * most + 1, group + 20, 2)]
    assert {str(Reason.OVERSIZED_TEXT), "small"} < set(summary(records))


def test_the_dictionary_of_a_column_tells_how_large_its_rows_may_be(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(300, np.int32)), pa.array(["x" * 100_000]))
    pq.write_table(pa.table({"text": texts}), tmp_path / "x.parquet", compression="zstd")
    chunk = pq.ParquetFile(tmp_path / "x.parquet").metadata.row_group(0).column(0)
    with parquet.Bytes(one_input(tmp_path / "x.parquet")) as data:
        assert parquet.dictionary_bytes(data, chunk) == 100_004


@pytest.mark.parametrize("tar_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_name_beyond_the_limit_is_one_reject_with_a_short_key(tmp_path: Path, tar_format: int) -> None:
    names = [f"{number}{'n' * MOST_NAME_BYTES}" for number in range(2)]
    members = [(f"{name}.txt", b"text") for name in names] + [("b.txt", b"good")]
    records = read_all(
        one_input(write_tar(tmp_path / "a.tar", members, tar_format=tar_format)), Options(needs_image=False)
    )
    assert summary(records) == ["bad_record", "bad_record", "good"]
    assert len({*keys(records)}) == 3
    assert max(map(len, keys(records))) < 200


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_document_of_far_more_than_its_size_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(limits, "LARGE_BYTES", 1 << 20)
    path = write(tmp_path / f"x.txt{suffix}", b"a" * (4 << 20))
    assert summary(read_all(one_input(path))) == ["oversized_text"]
    monkeypatch.setattr(limits, "LARGE_BYTES", 1 << 23)
    assert len(summary(read_all(one_input(path)))[0]) == 4 << 20


def test_folders_may_be_nested_deeper_than_the_interpreter_s_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(lambda: subprocess.run(["rm", "-rf", str(tmp_path)], check=True))  # pytest cannot, so deep
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        Path("d").mkdir()
        monkeypatch.chdir("d")
    Path("0.txt").write_text("deep")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "e/0.txt", b"flat")
    found = [(directory.count("/d"), names) for directory, names in walk(str(tmp_path)) if names]
    assert found == [(1100, ["0.txt"]), (0, ["0.txt"])]

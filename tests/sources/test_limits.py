"""What a compressed input may unpack to.   pytest tests/sources/test_limits.py"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata.base.errors import UserError
from hpcdata.samples import Reason, Reject
from hpcdata.sources import Options, limits, list_inputs, parquet, parquet_files, prepare, scan
from hpcdata.sources.custom.mapping import read_mapping
from hpcdata.sources.folder import walk
from hpcdata.sources.pictures import metadata
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
    with parquet_files.Bytes(one_input(tmp_path / "x.parquet")) as data:
        assert parquet_files.dictionary_bytes(data, chunk) == 100_004


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


@pytest.mark.parametrize(
    "name", ["x.jsonl", "x.jsonl.gz", "x.json", "metadata.csv", "x.parquet", "p.parquet", "x.tar.gz"]
)
def test_a_file_of_more_records_than_it_has_bytes_for_is_refused_when_it_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    number, path = 3000, tmp_path / name
    monkeypatch.setattr(limits, "RECORDS", number)
    monkeypatch.setattr(limits, "MEMBERS", number)
    made: dict[str, Callable[[int], object]] = {
        "jsonl": lambda n: write(path, b"1\n" * n),
        "gz": lambda n: write(path, b'{"text": "a"}\n' * n),
        "json": lambda n: write(path, b"[1" + b",1" * (n - 1) + b"]"),
        "csv": lambda n: write(path, b"file_name\n" + b"a\n" * n),
        "parquet": lambda n: pq.write_table(pa.table({"image" if name[0] == "p" else "text": ["a"] * n}), path),
    }
    make = made[name.rpartition(".")[2]]
    if name == "x.tar.gz":
        make = lambda n: write_tar(path, [(f"{row}.txt", b"") for row in range(n)])  # noqa: E731
    make(number)
    file = prepare(one_input(path), tmp_path / "inputs")
    assert scan(file, every=64, options=Options()).num_samples == number
    monkeypatch.setattr(limits, "BYTES_A_RECORD", 1 << 20)
    monkeypatch.setattr(limits, "BYTES_A_MEMBER", 1 << 20)
    make(number + 65)
    with pytest.raises(UserError, match=f"has more than {number} records, the limit for its size: .* split it"):
        scan(prepare(one_input(path), tmp_path / "inputs"), every=64, options=Options())


def test_a_table_of_very_many_columns_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "metadata.csv", b"file_name" + b",c" * 1000 + b"\na.png\n")
    with pytest.raises(UserError, match="has 1001 columns, the limit is 1000"):
        prepare(one_input(path), tmp_path / "inputs")
    write(path, b"file_name," + b",".join(b"%d" % number for number in range(900)) + b"\n" + b"a\n" * 100)
    prepare(one_input(path), tmp_path / "inputs")
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1 << 10)
    with pytest.raises(UserError, match="has rows of far fewer values than its 901 columns"):
        prepare(one_input(path), tmp_path / "inputs")


def test_a_line_of_a_table_has_a_limit_and_is_not_held_in_memory_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cell without a line break, 9 MB of gzip were 9 GB of memory."""
    monkeypatch.setattr(metadata, "MOST_OF_A_LINE", 1 << 21)
    head, line = b"image,url,text\n", b'a.png,http://a.org/1,"' + b"x" * (1 << 20) + b'"\n'
    mapping = read_mapping(str(write(tmp_path / "map.yaml", b"image: image\ntext: text")))
    for name, source in (("x.csv", ""), ("x.csv.gz", ""), ("u.csv.gz", "urls")):
        path = write(tmp_path / name, head + line * 3)
        (file,) = list_inputs(str(path), source or "auto", mapping="" if source else mapping)
        assert len(Path(prepare(file, tmp_path / "inputs").path).read_bytes().splitlines()) == 3
        write(path, head + line.replace(b"x" * (1 << 20), b"x" * (9 << 20)))
        (file,) = list_inputs(str(path), source or "auto", mapping="" if source else mapping)
        with pytest.raises(UserError, match=r"has a line of more than 2097152 bytes: is it a table\?"):
            prepare(file, tmp_path / "inputs")


def test_a_table_of_old_line_ends_is_refused_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "set/metadata.csv", b"file_name,text\ra.png,one\rb.png,two\r")
    write(tmp_path / "set/a.png", b"a")
    for given in (path, path.parent):
        (file,) = list_inputs(str(given), "auto")
        with pytest.raises(UserError, match=r"metadata.csv is no CSV in UTF-8 behind line 0: new-line character seen"):
            prepare(file, tmp_path / "inputs")


def test_lists_of_nothing_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths of lists take next to nothing in Parquet, and each item becomes an object."""
    monkeypatch.setattr(limits, "RECORDS", 1000)
    talk = pa.array([[{"from": "human", "value": "a"}] * 20_000] * 2)
    pq.write_table(pa.table({"image": ["a.png"] * 2, "conversations": talk}), tmp_path / "x.parquet")
    records = read_all(one_input(tmp_path / "x.parquet"))
    assert [record.reason for record in records if isinstance(record, Reject)] == [Reason.OVERSIZED_RECORD] * 2
    assert "row group 0 has 40000 values in" in records[0].message  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["compressed", "links"])
def test_large_texts_of_a_tar_are_as_few_as_its_bytes_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(limits, "LARGE_BYTES", 0)
    text = b"a" * (2 << 20)
    if kind == "compressed":
        path = write_tar(tmp_path / "x.tar.gz", [(f"{number}.txt", text) for number in range(3)])
    else:
        path = tmp_path / "x.tar"
        with tarfile.open(path, "w") as tar:
            first = tarfile.TarInfo("a.txt")
            first.size = len(text)
            tar.addfile(first, io.BytesIO(text))
            for number in range(60):
                link = tarfile.TarInfo(f"b{number}.txt")
                link.type, link.linkname = tarfile.LNKTYPE, "a.txt"
                tar.addfile(link)
    with pytest.raises(UserError, match="has texts of more than 1 MiB of"):
        scan(one_input(path), every=1, options=Options())
    assert scan(one_input(path), every=1, options=Options(max_record_bytes=1 << 20)).num_samples > 2, "never read"

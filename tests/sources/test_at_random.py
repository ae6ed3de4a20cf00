"""Single records in any order are those of reading one after the other.   pytest tests/sources/test_at_random.py"""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata.base.errors import UserError
from hpcdata.samples import Blob, ImagePart, Member, Record, Sample
from hpcdata.sources import InputFile, Options, at_random, list_inputs, prepare, read
from hpcdata.sources.at_random import Listed, RecordReader, places, unpacked
from tests.faulty_runs import CASES
from tests.sources.source_files import json_lines, pairs, tar_bytes, write, write_tar

OPTIONS = (Options(keep_image_marker=True), Options(needs_image=False, keeps_members=True))


def told(record: Record) -> object:
    """A record with the bytes of its pictures, wherever they are."""

    def bytes_of(blob: Blob) -> bytes:
        return blob.read(max_bytes=1 << 30, may_be_empty=True)

    if not isinstance(record, Sample):
        return record
    parts = [bytes_of(part.blob) if isinstance(part, ImagePart) else part for part in record.parts]
    members = [(item.extension, bytes_of(item.blob)) for item in record.members if isinstance(item, Member)]
    return (record.position, record.key, record.offset, parts, members)


def compared(files: list[InputFile], folder: Path, options: Options, ends_known: bool = True) -> Iterator[tuple]:
    """(what reading in order gives, what reading at random gives) of each record, by several threads."""
    for file in files:
        plain = unpacked(prepare(file, folder / "inputs"), folder / "inputs")
        scan, seeks = places(plain, options)
        stat = os.stat(plain.path)
        listed = Listed(file=plain, scan=scan, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
        reader = RecordReader([listed], options)
        expected = [told(record) for record in read(plain, scan, first=0, count=scan.num_samples, options=options)]
        ends = [*seeks[1:].tolist(), stat.st_size]
        order = random.Random(len(seeks)).sample(range(len(seeks)), len(seeks))

        def one(place: int, reader=reader, seeks=seeks, ends=ends) -> object:
            end = ends[place] if ends_known else None
            return told(reader.record(0, position=place, seek=int(seeks[place]), end=end))

        with ThreadPoolExecutor(4) as threads:
            found = dict(zip(order, threads.map(one, order), strict=True))
        yield from ((expected[place], found[place]) for place in range(len(expected)))
        assert len(expected) == len(seeks)


@pytest.mark.parametrize("name", CASES)
def test_of_every_source(name: str, tmp_path: Path) -> None:
    make, named = CASES[name]
    make(tmp_path / "in")
    for number, options in enumerate(OPTIONS):
        for ends_known in (True, False):
            files = list_inputs(str(tmp_path / "in" / named), "auto")
            found = list(compared(files, tmp_path / f"{number}", options, ends_known))
            assert len(found) == 12
            for expected, got in found:
                assert expected == got


def odd_tar() -> bytes:
    """Damage between samples, a name that comes again with the same and with other bytes, a sample that is cut."""
    some = tar_bytes(pairs(3))[:-10240] + b"\1" * 1024 + tar_bytes(pairs(2, first=3))
    again = tar_bytes([*pairs(1), *pairs(1, size=900), *pairs(2, first=8, size=9000)])
    return some.rstrip(b"\0")[: -(len(some.rstrip(b"\0")) % 512) or None] + again[:20_000]


@settings(max_examples=15, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["x.tar", "x.jsonl"]))
def test_of_files_with_bytes_that_are_not_right(tmp_path_factory: pytest.TempPathFactory, data, kind: str) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    rows = [{"caption": f"text {number}" * number} for number in range(12)]
    content = bytearray(tar_bytes(pairs(6, size=300)) if kind == "x.tar" else json_lines(rows))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        some = data.draw(st.sampled_from([b"\0", b"\n", b"\xff" * 40, b"\0" * 512, b""]))
        content[at : at + data.draw(st.integers(0, 600))] = some
    write(folder / kind, bytes(content))
    for file in [
        InputFile(path=str(folder / kind), label=kind, format=kind[2:], base=str(folder), roots=(str(folder),))
    ]:
        for ends_known in (True, False):
            found = list(compared([file], folder, OPTIONS[0], ends_known))
            assert [expected for expected, _ in found] == [got for _, got in found]


@pytest.mark.parametrize("first_bytes", [1024, 1 << 18])
def test_of_a_damaged_tar_with_names_that_come_again(tmp_path: Path, monkeypatch, first_bytes: int) -> None:
    monkeypatch.setattr(at_random, "_FIRST_BYTES", first_bytes)
    write(tmp_path / "x.tar", odd_tar())
    for ends_known in (True, False):
        found = list(compared(list_inputs(str(tmp_path / "x.tar"), "auto"), tmp_path, OPTIONS[0], ends_known))
        assert [expected for expected, _ in found] == [got for _, got in found]
        assert len({type(expected).__name__ for expected, _ in found}) > 1


def test_of_lines_that_are_blank_long_or_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_random, "_FIRST_BYTES", 16)
    rows = [
        {"caption": "a"},
        b"\n \n",
        b"no JSON\n",
        {"caption": "b" * 500},
        b"\n",
        {"text": "c" * 90},
        b'{"caption": "last"}',
    ]
    write(tmp_path / "x.jsonl", b"\xef\xbb\xbf" + json_lines(rows))
    for limit in (100, 10_000):
        for ends_known in (True, False):
            files, options = list_inputs(str(tmp_path / "x.jsonl"), "jsonl"), Options(max_record_bytes=limit)
            found = list(compared(files, tmp_path, options, ends_known))
            assert [expected for expected, _ in found] == [got for _, got in found]
            assert len(found) == 5


def test_a_sample_of_a_tar_is_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "x.tar", pairs(20, size=30_000))
    file = list_inputs(str(path), "auto")[0]
    scan, seeks = places(file, OPTIONS[0])
    stat = os.stat(path)
    reader = RecordReader([Listed(file=file, scan=scan, size=stat.st_size, mtime_ns=stat.st_mtime_ns)], OPTIONS[0])
    reads = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or pread(*args))
    for place in (13, 2, 18):
        told(reader.record(0, position=place, seek=int(seeks[place]), end=int(seeks[place + 1])))
    assert len(reads) == 3


def test_a_file_that_changed_is_refused_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", json_lines([{"caption": "a"}] * 3))
    file = list_inputs(str(path), "jsonl")[0]
    scan, seeks = places(file, OPTIONS[0])
    stat = os.stat(path)
    listed = Listed(file=file, scan=scan, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
    path.write_bytes(json_lines([{"caption": "a"}] * 4))
    with pytest.raises(UserError, match=r"x\.jsonl has changed since its records were listed"):
        RecordReader([listed], OPTIONS[0]).record(0, position=0, seek=0)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"x\.jsonl"):
        RecordReader([listed], OPTIONS[0]).record(0, position=0, seek=0)
    assert isinstance(seeks, np.ndarray)


def test_row_groups_that_are_used_again_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CASES["parquet of pictures"][0](tmp_path / "in")
    file = list_inputs(str(tmp_path / "in"), "auto")[0]
    scan, _ = places(file, OPTIONS[0])
    stat = os.stat(file.path)
    listed = Listed(file=file, scan=scan, size=stat.st_size, mtime_ns=stat.st_mtime_ns)
    reader = pickle.loads(pickle.dumps(RecordReader([listed], OPTIONS[0])))
    from hpcdata.sources import parquet_files

    opened = []
    groups = parquet_files.group_rows
    monkeypatch.setattr(parquet_files, "group_rows", lambda *args: opened.append(args[2]) or groups(*args))
    for place in (0, 11, 3, 5, 2, 9, 4):
        assert reader.record(0, position=place, seek=place).position == place  # type: ignore[attr-defined]
    assert sorted(opened) == [0, 1, 2]
    monkeypatch.setattr(at_random, "_MOST_ROWS_BYTES", 10)
    reader = RecordReader([listed], OPTIONS[0])
    assert [reader.record(0, position=place, seek=place).position for place in (7, 6)] == [7, 6]


def test_a_broken_stream_is_refused_when_it_is_unpacked(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar.gz", pairs(9))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot be unpacked: .*stage=copy writes what can be read"):
        unpacked(list_inputs(str(path), "auto")[0], tmp_path / "unpacked")
    assert list((tmp_path / "unpacked").iterdir()) == []

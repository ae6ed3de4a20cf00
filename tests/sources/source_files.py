"""Small input files for tests of the sources, and reading them whole."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import zstandard

from hpcdata.samples import Documents, Duplicate, ImagePart, Record, Reject, Sample, TextPart
from hpcdata.sources import InputFile, Options, Scan, list_inputs, prepare, read, scan

Members = Sequence[tuple[str, bytes]]


def tar_bytes(members: Members, *, tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(path: Path, members: Members, *, tar_format: int = tarfile.GNU_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = tar_bytes(members, tar_format=tar_format)
    path.write_bytes(data if path.suffix == ".tar" else gzip.compress(data, mtime=0))
    return path


def pairs(count: int, *, first: int = 0, size: int = 700) -> list[tuple[str, bytes]]:
    """Members of `count` samples, each a picture (not a real one) and a caption."""
    return [
        member
        for number in range(first, first + count)
        for member in ((f"{number:04d}.jpg", picture(number, size)), (f"{number:04d}.txt", caption(number).encode()))
    ]


def picture(number: int, size: int = 700) -> bytes:
    return bytes((number * 31 + index) % 251 + 1 for index in range(size))


def caption(number: int) -> str:
    return f"caption {number} öß"


def json_lines(rows: Iterable[Any]) -> bytes:
    return b"".join(
        row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows
    )


def write(path: Path, data: bytes) -> Path:
    """Compressed as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".zst":
        data = zstandard.ZstdCompressor().compress(data)
    path.write_bytes(data)
    return path


def one_input(path: Path, source: str = "auto", **settings: Any) -> InputFile:
    (file,) = list_inputs(str(path), source, **settings)
    return prepare(file, path.parent / "prepared")


def read_all(file: InputFile, options: Options | None = None, *, every: int = 3) -> list[Record]:
    """All records, after checking that slices from any cut give the same ones."""
    options = options or Options()
    found = scan(file, every=every, options=options)
    assert found == Scan.from_mapping(json.loads(json.dumps(dataclasses.asdict(found))))
    assert len(found.cuts) == -(-found.num_samples // every)
    whole = read_slice(file, found, 0, found.num_samples, options)
    assert [record.position for record in whole] == list(range(found.num_samples))
    for first in range(0, found.num_samples, every):
        assert read_slice(file, found, first, min(every, found.num_samples - first), options) == whole[first:][:every]
    return whole


def read_slice(file: InputFile, found: Scan, first: int, count: int, options: Options) -> list[Record]:
    return list(read(file, found, first=first, count=count, options=options))


def summary(records: Iterable[Record]) -> list[str]:
    """A word a record: its text, its reject's reason, or "duplicate"."""
    return [
        "duplicate"
        if isinstance(record, Duplicate)
        else str(record.reason)
        if isinstance(record, Reject)
        else " ".join(texts(record))
        for record in records
    ]


def texts(record: Record) -> list[str]:
    assert isinstance(record, Sample), record
    return [part.text for part in record.parts if isinstance(part, TextPart)]


def images(record: Record) -> list[bytes]:
    assert isinstance(record, Sample), record
    return [part.blob.read(max_bytes=1 << 20) for part in record.parts if isinstance(part, ImagePart)]


def keys(records: Iterable[Record]) -> list[str]:
    return [record.key for record in records]


def one_by_one(batch: Documents) -> list[Record]:
    """The records that documents in bulk stand for."""
    rows: list[Record] = [*batch.rejects]
    for position, text, offset in zip(batch.positions, batch.texts, batch.offsets, strict=True):
        key = f"{batch.key_prefix}{position}"
        rows.append(Sample(position=position, key=key, parts=(TextPart(text=text),), offset=offset))
    return sorted(rows, key=lambda row: row.position)

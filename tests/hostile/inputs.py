"""Hostile inputs of at most 10 MB, each made by a function: what they take is bounded, in time and in memory.

Each function writes its input into a folder and returns what a run reads.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from PIL import Image

from tests.sources.source_files import json_lines, tar_bytes

MOST_BYTES = 10 * 10**6


def dictionary_rows(folder: Path) -> Path:
    """Parquet: one text of 32 MB in a dictionary, and 300 rows that refer to it."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(300, np.int32)), pa.array(["x" * (32 << 20)]))
    pq.write_table(pa.table({"text": text}), folder / "x.parquet", compression="zstd")
    return folder / "x.parquet"


def plain_rows(folder: Path) -> Path:
    """Parquet: 16 row groups of a text of 100 MB, well compressed."""
    text = pa.array(["y" * (100 << 20)])
    table = pa.table({"text": text})
    with pq.ParquetWriter(folder / "x.parquet", table.schema, compression="zstd", use_dictionary=False) as writer:
        for _ in range(16):
            writer.write_table(table)
    return folder / "x.parquet"


def _pax(records: bytes) -> bytes:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = b"x", len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)


def pax_header(folder: Path) -> Path:
    """A tar whose members have PAX headers of 1 MiB of tiny records."""
    header = _pax(b"6 a=b\n" * ((1 << 20) // 6))
    data = tar_bytes([("0.txt", b"text")])
    (folder / "x.tar").write_bytes(b"".join([header + data[:1024]] * 9) + bytes(1024))
    return folder / "x.tar"


def long_keys(folder: Path) -> Path:
    """A gzipped tar of 3,000 members whose names have 1 MB."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as file:
        for number in range(3000):
            name = b"%06d" % number + b"n" * 1_000_000 + b".txt"
            record = b"path=" + name + b"\n"
            size = len(record) + 1
            size += len(str(size + len(str(size))))
            file.write(_pax(str(size).encode() + b" " + record) + tar_bytes([("0.txt", b"text")])[:1024])
        file.write(bytes(1024))
    (folder / "x.tar.gz").write_bytes(out.getvalue())
    return folder / "x.tar.gz"


def one_byte_members(folder: Path, *, times: int | None = None, width: int = 300_000) -> Path:
    """A gzip stream of 300,000 members of one byte each, several times."""
    text = json.dumps({"text": "x" * width}).encode() + b"\n"
    members = {value: gzip.compress(bytes([value]), mtime=0) for value in set(text)}
    stream = b"".join(members[value] for value in text)
    (folder / "x.jsonl.gz").write_bytes(stream * (times or MOST_BYTES // len(stream)))
    return folder / "x.jsonl.gz"


def one_byte_members_of_a_tar(folder: Path) -> Path:
    tar = tar_bytes([(f"{number}.txt", b"text " * 9000) for number in range(8)])
    stream = b"".join(gzip.compress(tar[place : place + 1], compresslevel=1, mtime=0) for place in range(len(tar)))
    (folder / "x.tar.gz").write_bytes(stream[:MOST_BYTES])
    return folder / "x.tar.gz"


def members_of_one_sample(folder: Path) -> Path:
    """A tar of 19,000 members that are one sample."""
    (folder / "x.tar").write_bytes(tar_bytes([(f"0.{number}", b"") for number in range(19_000)]))
    return folder / "x.tar"


def tiff(width: int, height: int, rows: int, bits: int, sample_format: int, data: bytes, compression: int = 1) -> bytes:
    """A gray TIFF of strips of `rows` rows that all have the same bytes."""
    count = -(-height // rows)
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, compression), (262, 3, 1, 1)]
    after = 8 + 2 + 10 * 12 + 4
    entries += [(273, 4, count, after), (277, 3, 1, 1), (278, 4, 1, rows), (279, 4, count, after + 4 * count)]
    entries += [(339, 3, 1, sample_format)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    place = after + 8 * count
    offsets, sizes = struct.pack("<I", place) * count, struct.pack("<I", len(data)) * count
    return b"II*\0" + struct.pack("<I", 8) + directory + offsets + sizes + data


def strips(folder: Path) -> Path:
    """A TIFF of 10^6 strips."""
    data = tiff(1, 1_000_000, 1, 8, 1, b"\x80")
    return _pair(folder, data, "tif")


def floats(folder: Path) -> Path:
    """A TIFF of 89 million floats."""
    data = zlib.compress(struct.pack("<f", 0.5) * 9000 * 300, 9)
    return _pair(folder, tiff(9000, 9900, 300, 32, 3, data, compression=8), "tif", count=4)


def scans(folder: Path) -> Path:
    """A JPEG of 1,000 progressive scans."""
    out = io.BytesIO()
    Image.new("L", (4000, 4000), 128).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    start = data.rindex(b"\xff\xda")
    return _pair(folder, data[:start] + data[start:-2] * 1000 + b"\xff\xd9", "jpg")


def _pair(folder: Path, data: bytes, extension: str, count: int = 1) -> Path:
    members = [member for n in range(count) for member in ((f"{n}.{extension}", data), (f"{n}.txt", b"text"))]
    (folder / "x.tar").write_bytes(tar_bytes(members))
    return folder / "x.tar"


def color_profiles(folder: Path) -> Path:
    """A PNG of 9,000 color profiles that unpack to 1 MB each."""
    profile = _chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1_000_000), 9))
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return _pair(folder, head + profile * 9000 + _chunk(b"IDAT", zlib.compress(b"\0\0")) + _chunk(b"IEND", b""), "png")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def exif_segments(folder: Path) -> Path:
    """A JPEG of 700,000 segments of Exif."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    data = out.getvalue()
    return _pair(folder, data[:2] + b"\xff\xe1\x00\x0aExif\0\0aa" * 700_000 + data[2:], "jpg")


def pictures_of_one_record(folder: Path) -> Path:
    """A line of 500,000 pictures and their markers."""
    talk = [{"from": "human", "value": "<image>" * 500_000}, {"from": "gpt", "value": "a"}]
    record = {"image": ["a.png"] * 500_000, "conversations": talk}
    (folder / "x.jsonl").write_bytes(json_lines([record]))
    return folder / "x.jsonl"


def nested_folders(folder: Path) -> Path:
    here = os.getcwd()
    os.chdir(folder)
    try:
        for _ in range(1900):
            os.mkdir("d")
            os.chdir("d")
        Image.new("L", (8, 8)).save("0.png")
        Path("0.txt").write_text("text")
    finally:
        os.chdir(here)
    Image.new("L", (8, 8)).save(folder / "0.png")
    (folder / "0.txt").write_text("text")
    return folder


def long_numbers(folder: Path) -> Path:
    rows = [b'{"id": ' + b"9" * 5000 + b', "text": "good"}\n', b'{"id": 1, "text": "good"}\n']
    (folder / "x.jsonl").write_bytes(json_lines(rows * 900))
    return folder / "x.jsonl"


def deep_json(folder: Path) -> Path:
    (folder / "x.jsonl").write_bytes(b'{"text": ' + b"[" * 4_000_000 + b"}\n" + b'{"text": "good"}\n')
    return folder / "x.jsonl"


def _zipped(path: Path, lines: int, line: bytes) -> Path:
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(lines):
            file.write(line)
    return path


def blank_lines(folder: Path) -> Path:
    """A gzip stream of 4 GB of line breaks."""
    return _zipped(folder / "x.jsonl.gz", 4000, b"\n" * (1 << 20))


def long_lines(folder: Path) -> Path:
    """24 lines of 200 MB."""
    return _zipped(folder / "x.jsonl.gz", 24, b'{"text": "' + b"a" * (200 << 20) + b'"}\n')


def webps(folder: Path) -> Path:
    """Four WebPs of 89 million pixels, of 3 KB each."""
    return _pictures(folder, "webp", Image.new("RGB", (9400, 9500)), "WEBP", lossless=True)


def webps_of_a_tar(folder: Path) -> Path:
    """4,800 of 38 bytes each: decoding all would take hours."""
    out = io.BytesIO()
    Image.new("RGB", (9400, 9500)).save(out, "WEBP", lossless=True, method=0)
    members = [(f"{row}.{end}", data) for row in range(4800) for end, data in (("webp", out.getvalue()), ("txt", b"a"))]
    (folder / "x.tar").write_bytes(tar_bytes(members))
    return folder / "x.tar"


def wavelets(folder: Path) -> Path:
    """Four JPEG 2000 of 75 million pixels in one tile: below the limit."""
    image = Image.new("RGB", (8600, 8700))
    image.paste(Image.effect_noise((100, 100), 64).convert("RGB"))  # or it has too few bytes for its pixels
    return _pictures(folder, "jp2", image, "JPEG2000")


def wavelets_with_alpha(folder: Path) -> Path:
    """Of 88 million: their decoder takes 2 GiB each."""
    image = Image.new("RGBA", (9400, 9400))
    image.paste(Image.effect_noise((100, 100), 64).convert("RGBA"))
    return _pictures(folder, "jp2", image, "JPEG2000")


def _pictures(folder: Path, extension: str, image: Image.Image, format_name: str, **options: object) -> Path:
    out = io.BytesIO()
    image.save(out, format_name, **options)
    return _pair(folder, out.getvalue(), extension, count=4)


def bitmaps_of_a_tar(folder: Path) -> Path:
    """A gzipped tar of four BMPs of 243 MB each."""
    side = 9000
    size = 54 + 3 * side * side
    header = b"BM" + struct.pack("<IHHI", size, 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 1, 1, 0, 0)
    with gzip.open(folder / "x.tar.gz", "wb", compresslevel=9) as file:
        for number in range(4):
            info = tarfile.TarInfo(f"{number}.bmp")
            info.size = size
            file.write(info.tobuf() + header)
            for _ in range(side):
                file.write(bytes(3 * side))
            file.write(bytes(-size % 512) + tar_bytes([(f"{number}.txt", b"text")])[:1024])
        file.write(bytes(1024) + np.random.default_rng(0).bytes(8_000_000))
    return folder / "x.tar.gz"


def texts_of_a_tar(folder: Path) -> Path:
    """A gzipped tar of texts of 100 MB."""
    with gzip.open(folder / "x.tar.gz", "wb", compresslevel=9) as file:
        for number in range(8):
            info = tarfile.TarInfo(f"{number}.txt")
            info.size = 100 << 20
            file.write(info.tobuf())
            for _ in range(100):
                file.write(b"a" * (1 << 20))
        file.write(bytes(1024))
    return folder / "x.tar.gz"


def links_to_a_text(folder: Path) -> Path:
    """A tar of 9,000 links to one text of 4 MB."""
    text = b"word " * 800_000
    with tarfile.open(folder / "x.tar", "w") as tar:
        first = tarfile.TarInfo("a.txt")
        first.size = len(text)
        tar.addfile(first, io.BytesIO(text))
        for number in range(9000):
            link = tarfile.TarInfo(f"b{number}.txt")
            link.type, link.linkname = tarfile.LNKTYPE, "a.txt"
            tar.addfile(link)
    return folder / "x.tar"


def text_without_spaces(folder: Path) -> Path:
    (folder / "x.txt").write_bytes(b"a" * MOST_BYTES)
    return folder / "x.txt"


def words(folder: Path) -> Path:
    (folder / "x.txt").write_bytes(b"a word or two " * (MOST_BYTES // 14))
    return folder / "x.txt"


def tiny_records(folder: Path) -> Path:
    """A million records of 8 bytes, and as many that are none."""
    (folder / "x.jsonl").write_bytes(b'{"a":1}\n' * 1_000_000 + b"1\n" * 1_000_000)
    return folder / "x.jsonl"


def tiny_frames(folder: Path) -> Path:
    """A zstd stream of a million frames of one byte."""
    text, compressor = b'{"text":"aaaa"}\n', zstandard.ZstdCompressor(level=1)
    frames = {value: compressor.compress(bytes([value])) for value in set(text)}
    stream = b"".join(frames[value] for value in text)
    (folder / "x.jsonl.zst").write_bytes(stream * (MOST_BYTES // len(stream)))
    return folder / "x.jsonl.zst"


def lines_of_nothing(folder: Path) -> Path:
    """Half a billion lines in a gzip stream of 1 MB."""
    return _zipped(folder / "x.jsonl.gz", 1000, b"1\n" * (1 << 19))


def items_of_nothing(folder: Path) -> Path:
    """An array of half a billion numbers."""
    with gzip.open(folder / "x.json.gz", "wb", compresslevel=9) as file:
        file.write(b"[")
        for _ in range(1000):
            file.write(b"1," * (1 << 19))
        file.write(b"1]")
    return folder / "x.json.gz"


def rows_of_nothing(folder: Path) -> Path:
    """Parquet of 16 million rows in 47 KB."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1 << 24, np.int32)), pa.array(["a"]))
    pq.write_table(pa.table({"text": text}), folder / "x.parquet", compression="zstd")
    return folder / "x.parquet"


def turns_of_nothing(folder: Path) -> Path:
    """Parquet of two conversations of a million turns in 1 KB, and one picture."""
    turns = pa.ListArray.from_arrays(
        pa.array([0, 1 << 20, 2 << 20], pa.int32()),
        pa.StructArray.from_arrays([pa.array(["human"] * (2 << 20)), pa.array(["a"] * (2 << 20))], ["from", "value"]),
    )
    table = pa.table({"image": ["a.png"] * 2, "conversations": turns})
    pq.write_table(table, folder / "x.parquet", compression="zstd")
    other = pa.table({"image": ["a.png"], "conversations": pa.array([[{"from": "human", "value": "a"}]])})
    pq.write_table(other, folder / "y.parquet")
    return folder


def samples_of_nothing(folder: Path) -> Path:
    """A gzipped tar of 700,000 texts of one byte."""
    info = tarfile.TarInfo("x.txt")
    info.size = 1
    with gzip.open(folder / "x.tar.gz", "wb", compresslevel=6) as file:
        for number in range(700_000):
            info.name = f"{number:x}.txt"
            file.write(info.tobuf(tarfile.USTAR_FORMAT) + b"a".ljust(512, b"\0"))
        file.write(bytes(1024))
    return folder / "x.tar.gz"


def short_rows(folder: Path) -> Path:
    """A metadata.csv of 200,000 columns, and 2 million rows that have two."""
    (folder / "metadata.csv").write_bytes(b"file_name,text" + b",c" * 200_000 + b"\n" + b"a,b\n" * 2_000_000)
    return folder / "metadata.csv"


def spaces_before_markers(folder: Path) -> Path:
    """A turn of 3,000 lines of 3,000 spaces each."""
    turn = {"from": "human", "value": ("\n" + " " * 3000) * 3000 + "<"}
    (folder / "x.jsonl").write_bytes(json_lines([{"image": "a.png", "conversations": [turn]}]))
    return folder / "x.jsonl"


INPUTS: dict[str, Callable[[Path], Path]] = {
    function.__name__: function
    for function in (
        dictionary_rows,
        plain_rows,
        pax_header,
        long_keys,
        one_byte_members,
        one_byte_members_of_a_tar,
        members_of_one_sample,
        strips,
        floats,
        scans,
        color_profiles,
        exif_segments,
        pictures_of_one_record,
        nested_folders,
        long_numbers,
        deep_json,
        blank_lines,
        long_lines,
        webps,
        webps_of_a_tar,
        wavelets,
        wavelets_with_alpha,
        bitmaps_of_a_tar,
        texts_of_a_tar,
        links_to_a_text,
        text_without_spaces,
        words,
        tiny_records,
        tiny_frames,
        lines_of_nothing,
        items_of_nothing,
        rows_of_nothing,
        turns_of_nothing,
        samples_of_nothing,
        short_rows,
        spaces_before_markers,
    )
}

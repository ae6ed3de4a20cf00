"""Hostile input from end to end: every record is written or rejected with a reason, in little memory.

pytest tests/hostile
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest
import zstandard
from PIL import Image

from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.shards.counts import Counts
from tests.evidence import BAD_INPUTS, Evidence
from tests.smallruns import small_config

MEMORY_BYTES = 2 * 2**30


def run(tmp_path: Path, source: Path, *overrides: str) -> tuple[Counts, dict[str, str]]:
    """(account, key -> reason) of a run whose task was a process of its own, after its peak memory was checked.

    VmHWM and not ru_maxrss: that one begins with the memory of the process that started this one.
    """
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.n_train_samples=null", "data.shard_size=4096", *overrides, source=source))
    code = "import sys, pathlib; from hpcdata.cluster.task import main; code = main(); "
    code += "print(pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]); sys.exit(code)"
    result = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    peak_bytes = int(result.stdout.split()[-1]) * 1024
    print(f"peak memory {peak_bytes / 2**20:.0f} MiB")
    assert peak_bytes < MEMORY_BYTES
    combine(folder, CombineOptions())
    report = verify.verify(folder)[-1]
    assert not report.problems
    return report.counts, {row.key: row.reason for row in rows_of(Path(folder))}


def png(size: tuple[int, int] = (40, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (9, 200, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def png_of(width: int, height: int, content: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def tar_with(path: Path, members: list[tuple[str | tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.slow
def test_a_tar_of_every_trick(tmp_path: Path, evidence: Evidence) -> None:
    pax = tarfile.TarInfo("pax.png")
    pax.pax_headers = {"path": "../../pax.png", "comment": "x" * 5000, "GNU.sparse.major": "1"}
    members: list[tuple[str | tarfile.TarInfo, bytes]] = [
        ("/etc/abs.png", png()), ("/etc/abs.txt", b"absolute"),
        ("../../up.png", png()), ("../../up.txt", b"dots"),
        *[(special("link.png", kind), b"") for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)],
        *[(special("link.png", kind), b"") for kind in (tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)],
        ("link.txt", b"only the text is a file"),
        ("twice.png", png()), ("twice.txt", b"first"), ("z.png", png()), ("z.txt", b"z"),
        ("twice.png", png((8, 8))), ("twice.txt", b"other"), ("y.png", png()), ("y.txt", b"y"),
        ("twice.png", png()), ("twice.txt", b"first"),
        (pax, png()), ("../../pax.txt", b"sparse"),
        ("nan.png", png()), ("nan.json", b'{"text": NaN}'),
        ("deep.png", png()), ("deep.json", b'{"text":' * 100_000),
        ("sur.png", png()), ("sur.json", b'{"text": "\\ud800"}'),
        ("nul.png", png()), ("nul.txt", b"a\0b"),
    ]  # fmt: skip
    outside = sorted(os.listdir(tmp_path.parent))
    counts, reasons = run(tmp_path, tar_with(tmp_path / "x.tar", members))
    evidence(BAD_INPUTS, counts.inputs, tmp_path / "run")
    assert (counts.written, counts.duplicate) == (6, 1)
    assert {key.removeprefix("x.tar/"): reason for key, reason in reasons.items()} == {
        "link": "bad_record", "link#2": "bad_record", "twice": "duplicate", "__/__/pax": "bad_record",
        "nan": "bad_record", "deep": "bad_json", "sur": "unreadable_text", "nul": "unreadable_text",
    }  # fmt: skip
    assert sorted(os.listdir(tmp_path.parent)) == outside


@pytest.mark.slow
def test_headers_that_promise_too_much(tmp_path: Path, evidence: Evidence) -> None:
    zeros = zlib.compress(bytes(40_000_000), 9)
    pictures = {
        "tera": png_of(2_000_000, 3_000_000, zeros),
        "giga": png_of(30_000, 30_000, zeros),
        "bomb": png_of(9_000, 9_000, zlib.compress(bytes(9_001 * 9_000), 9)),
        "text": png_of(64, 64, zlib.compress(bytes(65 * 64))).replace(
            b"IDAT", b"zTXt" + b"c\0\0" + zlib.compress(bytes(200_000_000), 9)[:60_000] + b"IDAT", 1
        ),
        "gif": b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2\0;",
        "bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 2**31 - 1, -(2**31 - 1), 1, 24, 0, 0, 1, 1, 0, 0),
        "good": png(),
    }  # fmt: skip
    members = [item for key, data in pictures.items() for item in ((f"{key}.png", data), (f"{key}.txt", b"t"))]
    counts, reasons = run(tmp_path, tar_with(tmp_path / "x.tar", list(members)))
    evidence(BAD_INPUTS, counts.inputs, tmp_path / "run")
    assert counts.inputs == len(pictures)
    assert reasons["x.tar/tera"] == reasons["x.tar/giga"] == "oversized_image"
    assert reasons.keys() >= {f"x.tar/{key}" for key in ("text", "gif", "bmp")}
    assert "x.tar/good" not in reasons
    assert "x.tar/bomb" not in reasons, "81 million pixels are below the limit, and cost no more than that"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.zst"])
def test_lines_of_every_trick(tmp_path: Path, evidence: Evidence, suffix: str) -> None:
    good = b'{"text": "good"}'
    lines = [
        good, b'{"text": "' + b"x" * 100_000_000 + b'"}', good, b'{"text": NaN}', b"[" * 1_000_000, b"null", b"3",
        b'{"text": "\\ud800"}', b'{"text": "a\\u0000b"}', b'\xff\xfe{"text": 1}', b'{"text": 1e999}', b"{" * 9,
        b'{"text": "a", "image": "../../../../etc/passwd"}', b'{"text": "a", "image": "/dev/zero"}',
        b'{"text": "a", "image": "/proc/self/mem"}', b'{"text": "a", "image": "a\\u0000b"}', b"9" * 5_000, good,
    ]  # fmt: skip
    data = b"\n".join(lines)
    path = tmp_path / f"x.{suffix}"
    if suffix.endswith("gz"):
        path.write_bytes(gzip.compress(data, 1))
    else:
        path.write_bytes(zstandard.compress(data) if suffix.endswith("zst") else data)
    counts, reasons = run(tmp_path, path, f"data.max_record_bytes={2**24}", "image.tokenizer=none")
    evidence(BAD_INPUTS, counts.inputs, tmp_path / "run")
    assert (counts.inputs, counts.written) == (len(lines), 3)
    assert reasons[f"{path.name}#1"] == "oversized_record"
    assert set(reasons.values()) <= {
        *("oversized_record", "bad_json", "bad_record", "unreadable_text", "unreadable_image", "missing_image"),
        *("missing_text", "empty_image"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_decompression_bomb_of_one_line(tmp_path: Path, evidence: Evidence, suffix: str) -> None:
    """200 MB of spaces-free line in less than 1 MB (gzip) or some KB (zstd); files of more are refused as a whole."""
    path = tmp_path / f"x.jsonl.{suffix}"
    block = bytes([ord("x")]) * 2**24
    if suffix == "gz":
        with gzip.open(path, "wb", 1) as file:
            for _ in range(12):
                file.write(block)
            file.write(b'\n{"text": "good"}\n')
    else:
        with open(path, "wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as file:
            for _ in range(12):
                file.write(block)
            file.write(b'\n{"text": "good"}\n')
    assert path.stat().st_size < 20e6
    counts, reasons = run(tmp_path, path, "image.tokenizer=none", f"data.max_record_bytes={2**24}")
    evidence(BAD_INPUTS, counts.inputs, tmp_path / "run")
    assert (counts.written, reasons) == (1, {f"{path.name}#0": "oversized_record"})


@pytest.mark.slow
def test_a_gzipped_tar_whose_member_is_a_bomb(tmp_path: Path, evidence: Evidence) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 12 * 2**24
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(info.tobuf())
        for _ in range(12):
            file.write(bytes(2**24))
        text = tarfile.TarInfo("a.txt")
        text.size = 4
        file.write(text.tobuf() + b"text".ljust(512, b"\0") + bytes(1024))
    counts, reasons = run(tmp_path, path, f"data.max_record_bytes={2**24}")
    evidence(BAD_INPUTS, counts.inputs, tmp_path / "run")
    assert (counts.inputs, reasons) == (1, {"x.tar.gz/a": "oversized_image"})

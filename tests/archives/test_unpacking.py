"""Archives, the harmless and the others, into a folder.   pytest tests/archives/test_unpacking.py"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from hpcdata import unpack as command
from hpcdata.archives import parts, zips
from hpcdata.archives.checking import check_members
from hpcdata.archives.onearchive import Limits
from hpcdata.archives.parts import find_archives
from hpcdata.archives.unpacking import unpack, unpack_found
from hpcdata.base.command import DONE, FAILED, REFUSED
from hpcdata.base.errors import Failed, UserError
from tests.archives.ledgers import results_of
from tests.stopping import kill_after, kill_when_stopped, start_stopping
from tests.trees import sha256_tree

MEMBERS = {f"images/{number:03d}.jpg": bytes([number]) * (100 + number) for number in range(40)} | {"empty": b""}


def zipped(members: dict[str, bytes] = MEMBERS, **options: object) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, **options) as archive:  # type: ignore[arg-type]
        for number, (name, data) in enumerate(members.items()):
            archive.writestr(name, data, zipfile.ZIP_STORED if number % 2 else zipfile.ZIP_DEFLATED)
    return out.getvalue()


def tarred(members: dict[str, bytes] = MEMBERS, *others: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info in others:
            archive.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


KINDS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "x.zip": zipped,
    "x.tar": tarred,
    "x.tar.gz": lambda members: gzip.compress(tarred(members)),
    "x.tgz": lambda members: gzip.compress(tarred(members)[:4096]) + gzip.compress(tarred(members)[4096:]),
    "x.tar.zst": lambda members: zstandard.ZstdCompressor().compress(tarred(members)),
    "x.tar.bz2": lambda members: bz2.compress(tarred(members)),
    "x.tar.xz": lambda members: lzma.compress(tarred(members)),
}


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def results(out: Path) -> dict[str, str]:
    return results_of(out.with_name(f"{out.name}.members.csv"))


@pytest.mark.parametrize("parts_named", ["", ".part-{:03d}", ".{}"])
@pytest.mark.parametrize("name", KINDS)
def test_the_files_are_those_that_were_packed(tmp_path: Path, name: str, parts_named: str) -> None:
    data = KINDS[name](MEMBERS)
    if parts_named:
        size = len(data) // 12 + 1
        for number, start in enumerate(range(0, len(data), size)):
            put(tmp_path / f"in/{name}{parts_named.format(number)}", data[start : start + size])
        source = f"{tmp_path}/in/{name}.*"
    else:
        source = str(put(tmp_path / "in" / name, data))
    (made,) = unpack(source, tmp_path / "out")
    assert made.describe() == f"{name}: 41 members = 41 written"
    assert held(tmp_path / "out") == MEMBERS
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "out.members.csv"}


def test_as_the_document_unzips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """unzip BLIP558K/images.zip -d BLIP558K/image"""
    archive = put(tmp_path / "BLIP558K/images.zip", zipped({"00000/000000010.jpg": b"a"}))
    assert command.main([str(archive), "-d", f"{tmp_path}/BLIP558K/image"]) == DONE
    assert capsys.readouterr().out == "images.zip: 1 members = 1 written\n"
    assert held(tmp_path / "BLIP558K/image") == {"00000/000000010.jpg": b"a"}
    assert command.main([str(archive), f"{tmp_path}/again", "--json"]) == DONE
    (told,) = json.loads(capsys.readouterr().out)
    assert told == {"archive": "images.zip", "members": 1, "results": {"written": 1}, "damage": ""}


def test_several_archives_of_a_folder_meet_in_one(tmp_path: Path) -> None:
    folder = tmp_path / "ai2d(cauldron,llava_format)"
    put(folder / "images_0.tar.gz", gzip.compress(tarred({"a/1": b"1", "same": b"s"})))
    put(folder / "images_1.zip", zipped({"a/2": b"2", "same": b"s", "a/1": b"other"}))
    put(folder / "kg.json", b"[]")
    first, second = unpack(str(folder), tmp_path / "image")
    assert first.describe() == "images_0.tar.gz: 2 members = 2 written"
    assert second.describe() == "images_1.zip: 3 members = 2 written + 1 exists"
    assert held(tmp_path / "image") == {"a/1": b"1", "a/2": b"2", "same": b"s"}


NAMES = {
    "../evil": "outside",
    "a/../../evil": "outside",
    "/etc/evil": "outside",
    "C:/evil": "outside",
    ".": "bad_name",
    ".hpcdata-unpacking/x": "bad_name",
    "n" * 300: "long_name",
    "good/./name": "written",
    "with space, (brackets)+": "written",
    "-rf": "written",
}


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    source = put(tmp_path / "in" / name, KINDS[name](dict.fromkeys(NAMES, b"x")))
    unpack(str(source), tmp_path / "deep/out")
    assert results(tmp_path / "deep/out") == NAMES
    assert not list(tmp_path.rglob("evil"))
    assert set(held(tmp_path / "deep/out")) == {"good/name", "with space, (brackets)+", "-rf"}


def test_links_and_devices_are_left_out_and_no_way(tmp_path: Path) -> None:
    others = []
    for name, kind, target in (
        ("folder", tarfile.SYMTYPE, str(tmp_path)),
        ("hard", tarfile.LNKTYPE, "/etc/passwd"),
        ("null", tarfile.CHRTYPE, ""),
        ("disk", tarfile.BLKTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        others.append(info)
    source = put(tmp_path / "x.tar", tarred({"folder/evil": b"x"}, *others))
    (made,) = unpack(str(source), tmp_path / "out")
    assert made.describe() == "x.tar: 6 members = 1 written + 3 device + 2 link"
    assert held(tmp_path / "out") == {"folder/evil": b"x"}
    assert not (tmp_path / "evil").exists()


def test_a_link_of_a_zip_is_left_out(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("folder")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, str(tmp_path))
        archive.writestr("folder/evil", b"x")
    unpack(str(put(tmp_path / "x.zip", out.getvalue())), tmp_path / "out")
    assert results(tmp_path / "out") == {"folder": "link", "folder/evil": "written"}
    assert not (tmp_path / "evil").exists()


def test_a_link_that_is_there_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out/empty").symlink_to("/etc/passwd")
    (made,) = unpack(str(put(tmp_path / "x.zip", zipped())), tmp_path / "out")
    assert made.describe() == "x.zip: 41 members = 0 written + 41 exists"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_is_there_is_not_replaced_and_names_that_come_again_are_told(tmp_path: Path) -> None:
    put(tmp_path / "out/a", b"mine")
    put(tmp_path / "out/b", b"same")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in (("a", b"other"), ("b", b"same"), ("c", b"1"), ("c", b"1"), ("c", b"2"), ("c/d", b"")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    (made,) = unpack(str(put(tmp_path / "x.tar", out.getvalue())), tmp_path / "out")
    assert made.describe() == "x.tar: 6 members = 2 written + 1 duplicate + 3 exists"
    assert held(tmp_path / "out") == {"a": b"mine", "b": b"same", "c": b"1"}


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar.zst", "x.tar.bz2", "x.tar.xz"])
def test_a_bomb_has_a_limit_by_name(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = put(tmp_path / name, KINDS[name]({"good": b"g", "bomb": bytes(3 << 20), "behind": b"b"}))
    assert command.main([str(source), f"{tmp_path}/out", "--max-bytes", f"{1 << 20}"]) == FAILED
    assert "--max-bytes allows more" in capsys.readouterr().out
    assert sum(map(len, held(tmp_path / "out").values())) <= 2 << 20
    assert command.main([str(source), f"{tmp_path}/out", "--max-members", "2"]) == FAILED
    assert "--max-members allows more" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_names_that_no_path_holds_are_told_and_what_they_took_is_short(tmp_path: Path, name: str) -> None:
    """Of 1,400 folders one in another, or 200,000 bytes: neither ends the others, or the next call."""
    long = "n" * (60_000 if name == "x.zip" else 200_000)
    source = put(tmp_path / name, KINDS[name]({"d/" * 1400 + "x": b"x", long: b"y", "good": b"g"}))
    for _ in range(2):
        (made,) = unpack(str(source), tmp_path / "out")
        assert made.describe() == f"{name}: 3 members = 1 written + 2 long_name"
    assert held(tmp_path / "out") == {"good": b"g"}
    assert (tmp_path / "out.members.csv").stat().st_size < 8000
    assert f"... ({len(long)} bytes)" in (tmp_path / "out.members.csv").read_text()


def test_folders_have_a_limit_as_members_have_one(tmp_path: Path) -> None:
    """A name of 3,000 bytes may make a hundred of them."""
    source = put(tmp_path / "x.tar", tarred({f"{number}/" + "d/" * 90 + "x": b"" for number in range(9)}))
    (made,) = unpack_found(find_archives(str(source)), tmp_path / "out", limits=Limits(members=1200))
    assert "folders, the limit is 300; hpcdata unpack --max-members allows more" in made.damage
    assert sum(path.is_dir() for path in (tmp_path / "out").rglob("*")) < 400


def test_a_pipe_in_the_place_of_a_member_is_no_member_and_nobody_waits_for_it(tmp_path: Path) -> None:
    out, journal = tmp_path / "out", tmp_path / "out.members.csv"
    unpack(str(put(tmp_path / "x.zip", zipped({"a": b"a", "b": b"b"}))), out)
    (out / "a").unlink()
    os.mkfifo(out / "a")
    found = {item.line.member: item.fault for item in check_members("x.zip", out, journal, num_threads=1)}
    assert found == {"a": "what is in its place is no file", "b": ""}


def test_members_that_overlap_are_a_bomb(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": os.urandom(1000), "b": b"x"}))
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    data[entry + 20 : entry + 24] = struct.pack("<L", 1000)
    (made,) = unpack(str(put(tmp_path / "x.zip", bytes(data))), tmp_path / "out")
    assert "overlap" in made.damage


def test_a_damaged_member_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": b"a" * 10, "b": b"b" * 1000, "c": b"c"}))
    data[data.index(b"b" * 1000) + 500] ^= 1
    source = put(tmp_path / "x.zip", bytes(data))
    assert command.main([str(source), f"{tmp_path}/out"]) == FAILED
    assert results(tmp_path / "out") == {"a": "written", "b": "damaged", "c": "written"}
    assert set(held(tmp_path / "out")) == {"a", "c"}
    was = source.stat()
    data[data.index(b"b" * 500) + 500] ^= 1
    source.write_bytes(data)
    os.utime(source, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert command.main([str(source), f"{tmp_path}/out"]) == DONE, "what was damaged is tried again"
    assert results(tmp_path / "out") == dict.fromkeys("abc", "written")


def test_methods_of_compression_are_read_and_the_others_and_locked_members_named(tmp_path: Path) -> None:
    methods = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA, "deflate64": zipfile.ZIP_DEFLATED, "locked": 0}
    text, out = os.urandom(1000) + bytes(3 << 20), io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, method in methods.items():
            archive.writestr(name, text, method)
    data, entries = bytearray(out.getvalue()), {}
    for name in methods:
        entries[name] = data.rindex(b"PK\1\2", 0, data.rindex(name.encode()))
    data[entries["deflate64"] + 10] = 9
    data[entries["locked"] + 8] |= 1
    (made,) = unpack(str(put(tmp_path / "x.zip", bytes(data))), tmp_path / "out")
    assert not made.is_good, "what is encrypted is not there, and was not left out on purpose"
    left = {"deflate64": "unknown_compression", "locked": "encrypted"}
    assert results(tmp_path / "out") == {"bzip2": "written", "lzma": "written", **left}
    assert held(tmp_path / "out") == dict.fromkeys(("bzip2", "lzma"), text)


@pytest.mark.parametrize("name", KINDS)
def test_an_archive_that_is_cut_short_says_so(tmp_path: Path, name: str) -> None:
    members = {key: os.urandom(3000) for key in MEMBERS}
    data = KINDS[name](members)
    (made,) = unpack(str(put(tmp_path / name, data[: len(data) // 2])), tmp_path / "out")
    assert made.damage
    assert not made.is_good
    found = held(tmp_path / "out")
    assert len(found) < len(members)
    assert all(members[key] == value for key, value in found.items())


def test_names_of_other_times(tmp_path: Path) -> None:
    data = zipped({"XX": b"1", "YYYYYY": b"2", "a\\b": b"3"})
    for old, new in ((b"XX", b"\x81\x84"), (b"YYYYYY", "그림".encode())):
        data = data.replace(old, new)
    data = data.replace(b"PK\1\2\x14\3", b"PK\1\2\x14\0")
    unpack(str(put(tmp_path / "x.zip", data)), tmp_path / "out")
    assert held(tmp_path / "out") == {"üä": b"1", "그림": b"2", "a/b": b"3"}


def test_a_zip_of_64_bits(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"wide")
    data = out.getvalue()
    start = data.index(b"PK\1\2")
    wide = struct.pack("<HHQQQ", 1, 24, 4, 4, 0)
    entry = data[start : start + 20] + b"\xff" * 8 + struct.pack("<5H2L", 1, len(wide), 0, 0, 0, 0, 0xFFFFFFFF)
    directory = entry + b"a" + wide
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, start + len(directory), 1)
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    unpack(str(put(tmp_path / "x.zip", data[:start] + directory + end + locator + tail)), tmp_path / "out")
    assert held(tmp_path / "out") == {"a": b"wide"}


def test_what_is_no_archive_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(put(tmp_path / "x.zip", b"<html>404</html>")), f"{tmp_path}/out"]) == REFUSED
    assert "is no archive" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds no archive"):
        unpack(str(put(tmp_path / "in/a.txt", b"").parent), tmp_path / "out")


def test_the_same_line_again_does_nothing_and_makes_again_what_is_gone(tmp_path: Path) -> None:
    source, out = put(tmp_path / "x.tar.gz", KINDS["x.tar.gz"](MEMBERS)), tmp_path / "out"
    unpack(str(source), out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    (again,) = unpack(str(source), out)
    assert again.describe() == "x.tar.gz: 41 members = 41 written"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    (out / "images/003.jpg").unlink()
    unpack(str(source), out)
    assert held(out) == MEMBERS


def test_another_archive_of_that_name_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "x.zip", zipped())
    unpack(str(source), tmp_path / "out")
    source.write_bytes(zipped({"a": b"b"}))
    with pytest.raises(UserError, match=r"x\.zip is not the archive that .*out was unpacked from"):
        unpack(str(source), tmp_path / "out")


def test_another_archive_replaces_what_the_former_one_has_written_where_that_is_meant(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    put(folder / "x.zip", zipped({"same": b"s", "new": b"1", "mine": b"1", "gone": b"g"}))
    unpack_found(parts.archives_in(folder), out, renews=True)
    put(out / "mine", b"changed by a person")
    put(folder / "x.zip", zipped({"same": b"s", "new": b"22", "mine": b"22"}))
    (made,) = unpack_found(parts.archives_in(folder), out, renews=True)
    assert made.describe() == "x.zip: 3 members = 2 written + 1 exists"
    assert held(out) == {"same": b"s", "new": b"22", "mine": b"changed by a person", "gone": b"g"}
    (again,) = unpack_found(parts.archives_in(folder), out, renews=True)
    assert again == made


def test_an_archive_larger_than_the_disk_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put(tmp_path / "a.zip", zipped({"a.txt": b"0" * 5_000_000}))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(Failed, match=r"a.zip unpacks to 4.8 MiB, and .*out has 1000 bytes: make room"):
        unpack(str(source), tmp_path / "out")


def test_a_line_of_the_account_that_a_kill_has_cut_is_cut_off(tmp_path: Path) -> None:
    source, out = put(tmp_path / "x.zip", zipped()), tmp_path / "out"
    unpack(str(source), out)
    journal = tmp_path / "out.members.csv"
    whole = journal.read_bytes()
    for size in range(len(whole) - 200, len(whole), 23):
        journal.write_bytes(whole[:size])
        unpack(str(source), out)
        assert journal.read_bytes() == whole
    assert held(out) == MEMBERS


def test_a_fault_of_reading_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, left = put(tmp_path / "x.tar", tarred()), tmp_path / "out", [1]
    real = parts.read_at

    def read_at(descriptor: int, size: int, offset: int) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, size, offset)

    monkeypatch.setattr(parts, "read_at", read_at)
    for number in range(2):
        left[0] = number
        with pytest.raises(OSError, match=r"Input/output error: .*x\.tar"):
            unpack(str(source), out)
    monkeypatch.setattr(parts, "read_at", real)
    unpack(str(source), out)
    assert held(out) == MEMBERS
    assert set(results(out).values()) == {"written"}


def test_want_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Starving:
        eof, needs_input, unused_data = False, True, b""

        def decompress(self, data: bytes, max_length: int) -> bytes:
            raise zlib.error("Error -4 while decompressing data")

    source, out = put(tmp_path / "x.zip", zipped()), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setitem(zips._DECODERS, zipfile.ZIP_DEFLATED, Starving)
        with pytest.raises(MemoryError):
            unpack(str(source), out)
    (made,) = unpack(str(source), out)
    assert made.describe() == "x.zip: 41 members = 41 written"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_killed_at_any_moment_it_goes_on_and_makes_the_same(tmp_path: Path, name: str) -> None:
    members = {f"{number % 7}/{number:05d}": os.urandom(200) * 20 for number in range(900)}
    source = put(tmp_path / name, KINDS[name](members))
    arguments = ["-m", "hpcdata.unpack", str(source), str(tmp_path / "out")]
    kill_when_stopped(start_stopping(arguments, str(tmp_path / "out.members.csv"), stdout=subprocess.DEVNULL))
    for delay_s in (0.3, 0.4):
        kill_after(delay_s, arguments)
    line = [sys.executable, *arguments]
    assert subprocess.run(line, capture_output=True, check=False).returncode == DONE
    unpack(str(source), tmp_path / "other/out")
    assert sha256_tree(tmp_path / "out") == sha256_tree(tmp_path / "other/out")
    assert results(tmp_path / "out") == results(tmp_path / "other/out")

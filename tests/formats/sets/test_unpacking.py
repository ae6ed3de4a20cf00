"""Archives of pictures in the folders of sets.   pytest tests/formats/sets/test_unpacking.py"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from hpcdata import convert
from hpcdata.base.command import DONE
from hpcdata.base.errors import Failed, UserError
from hpcdata.formats.sets import unpacking
from tests.sources.source_files import tar_bytes, write, write_tar
from tests.trees import sha256_tree

MEMBERS = [(f"a/{number}.jpg", bytes([number]) * 300) for number in range(30)]


def unpacked(archive: Path, target: Path) -> int:
    return unpacking.unpack(archive, target, "image", say=lambda text: None)


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in MEMBERS:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["images_0.tar.gz", "images.tar", "image.zip"])
def test_what_a_kill_interrupts_goes_on_at_its_member(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(tmp_path / name) if name.endswith("zip") else write_tar(tmp_path / name, MEMBERS)
    assert unpacked(archive, tmp_path / "whole") == 30
    monkeypatch.setattr(unpacking, "_SYNC_AFTER", 4)
    write_member, left = unpacking.archives.write, iter(range(11))

    def dies(*arguments: object) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write_member(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(unpacking.archives, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            unpacked(archive, tmp_path / "set")
    assert unpacked(archive, tmp_path / "set") == 22, "8 members were durable"
    assert sha256_tree(tmp_path / "set/image") == sha256_tree(tmp_path / "whole/image")
    assert unpacked(archive, tmp_path / "set") == 0
    write_tar(archive, MEMBERS[:2]) if "tar" in name else archive.touch()
    assert unpacked(archive, tmp_path / "set") > 0, "another archive of that name"


@pytest.mark.parametrize("name", ["../b.jpg", "/etc/b.jpg", "a/../../b.jpg"])
def test_no_member_leaves_the_folder(name: str, tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "images.tar", [("a.jpg", b"1"), (name, b"2")])
    with pytest.raises(UserError, match="member"):
        unpacked(archive, tmp_path / "out/set")
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == ["a.jpg"]


def test_links_and_damage_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(UserError, match="is a link"):
        unpacked(write(tmp_path / "images.tar", buffer.getvalue()), tmp_path / "set")
    whole = write_tar(tmp_path / "whole.tar.gz", MEMBERS).read_bytes()
    for data in (whole[: len(whole) // 2], tar_bytes(MEMBERS)[:600], b"no archive"):
        with pytest.raises(Failed, match="is damaged behind its member"):
            unpacked(write(tmp_path / "cut/image.tgz", data), tmp_path / "set")


def test_the_documents_second_script_unpacks_and_relinks(tmp_path: Path) -> None:
    source = tmp_path / "OneVisionMidData/ureader_tr"
    rows = [{"id": n, "image": name, "conversations": []} for n, (name, _) in enumerate(MEMBERS)]
    write(source / "ureader_tr_sft.json", json.dumps(rows).encode())
    write_tar(source / "images_part_0.tar.gz", MEMBERS[:15])
    write_tar(source / "images_part_1.tar.gz", MEMBERS[15:])
    write(source / "notes.tar.gz", b"no archive of pictures")
    target = tmp_path / "out/OneVisionMidData"
    assert convert.main(["sets", str(source.parent), str(target)]) == DONE
    found = json.loads((target / "ureader_tr/ureader_tr_sft.json").read_text())
    assert found[20]["image"] == "OneVisionMidData/ureader_tr/image/a/20.jpg"
    assert (target.parent / found[20]["image"]).read_bytes() == MEMBERS[20][1]
    assert convert.main(["sets", str(source.parent), str(target)]) == DONE

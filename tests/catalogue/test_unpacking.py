"""Archives of a set are unpacked once, whatever is killed, and never out of its folder.

pytest tests/catalogue/test_unpacking.py
"""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from hpcdata import download
from hpcdata.archives import onearchive
from hpcdata.archives.unpacking import unpack
from hpcdata.base.command import DONE, FAILED
from hpcdata.catalogue.entry import Entry, WebFile
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.registry import OWN
from hpcdata.catalogue.unpacking import working
from hpcdata.catalogue.unpacking.marks import missing_of
from hpcdata.multimodal import get_dataset
from tests.archives.ledgers import results_of
from tests.catalogue import real_sets
from tests.catalogue.hub import Hub
from tests.catalogue.sets import Once
from tests.trees import tree


def never(seconds: float) -> bool:
    return False


def packed(hub: Hub, name: str) -> Entry:
    file = WebFile(url=f"{hub.url}/files/{name}", path=name)
    return Entry(name="p", title="", folder="p", licence="", splits={}, files=(file,), unpack={"*": "out"})


def pack(path: Path, members: dict[str, bytes], *, link: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
            if link:
                item = zipfile.ZipInfo(link)
                item.create_system, item.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
                archive.writestr(item, "/etc/passwd")
        return
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)


def out(folder: Path) -> dict[str, bytes]:
    return tree(folder / "out")


def account(folder: Path) -> dict[str, str]:
    """Of its only archive."""
    (path,) = (folder / ".hpcdata/unpacked").glob("*.csv")
    return results_of(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_stop_goes_on_at_the_member_where_it_was(
    name: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"d{n % 3}/{n:03d} (x).txt": bytes([n]) * (n + 1) for n in range(20)}
    pack(hub.folder / name, members)
    entry, folder = packed(hub, name), tmp_path / "set"
    Once(hub, folder)(entry)
    monkeypatch.setattr(onearchive, "_BATCH_FILES", 4)
    asked = iter([False, False, True])
    with pytest.raises(Fault, match="stopped"):
        working.unpack_all(entry, folder, lambda _: next(asked, True))
    assert missing_of(entry, folder) == [name]
    assert list(account(folder)) == list(members)[:12]
    before = {path: path.stat().st_ino for path in (folder / "out").rglob("*.txt")}
    (made,) = working.unpack_all(entry, folder, never).archives
    assert made.describe() == f"{name}: 20 members = 20 written"
    assert {path: path.stat().st_ino for path in before} == before, "nothing is written twice"
    assert out(folder) == members
    assert working.unpack_all(entry, folder, never).archives == []
    assert missing_of(entry, folder) == []


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_it_is_as_if_a_person_had_unpacked_it(name: str, hub: Hub, tmp_path: Path) -> None:
    odd = ["../out.txt", "/etc/x", "a/../../b", ".hpcdata/record.json", "b/.hpcdata/record.json", "n" * 300, "good.txt"]
    pack(hub.folder / name, {"good.txt": b"1", **dict.fromkeys(odd, b"2")}, link="link")
    entry, folder = packed(hub, name), tmp_path / "set"
    Once(hub, folder)(entry)
    done = working.unpack_all(entry, folder, never)
    (text,) = done.left_out
    assert text.startswith(f"{name}: 8 members = 1 written + 2 bad_name + 1 link + 1 long_name + 3 outside: {folder}/")
    unpack(str(hub.folder / name), tmp_path / "by_hand")
    assert account(folder) == results_of(tmp_path / "by_hand.members.csv")
    assert out(folder) == tree(tmp_path / "by_hand") == {"good.txt": b"2"}
    assert {path.name for path in folder.iterdir()} == {".hpcdata", "out", name}


def test_of_a_damaged_archive_all_that_is_good_is_there_and_the_rest_when_it_is_fetched_anew(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"a.txt": b"words " * 1000, "b.txt": b"b"}
    pack(hub.folder / "a.zip", good)
    whole = (hub.folder / "a.zip").read_bytes()
    (hub.folder / "a.zip").write_bytes(whole[:45] + bytes([whole[45] ^ 0x55]) + whole[46:])
    text = "name: p\ntitle: t\nlicence: l\nfolder: p\nsplits: {}\nunpack: {'*': out}\n"
    (tmp_path / "own").mkdir()
    (tmp_path / "own/p.yaml").write_text(f"{text}files: [{{url: '{hub.url}/files/a.zip', path: a.zip}}]\n")
    monkeypatch.setenv("HPCDATA_CATALOGUE", str(tmp_path / "own"))
    folder = tmp_path / "data/p"
    for _ in range(2):
        assert download.main(["p"]) == FAILED
        said = capsys.readouterr().out
        assert "a.zip is not unpacked whole: a.zip: 2 members = 1 written + 1 damaged." in said
        assert "hpcdata download --check" in said
        assert out(folder) == {"b.txt": b"b"}
    assert download.main(["p", "--list", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)[0]["state"] == "partial"
    (hub.folder / "a.zip").write_bytes(whole)
    (folder / "a.zip").unlink()
    assert download.main(["p"]) == DONE
    assert out(folder) == good


def test_llava_pretrain_is_unpacked_and_opens(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real_sets.llava_pretrain(hub.folder)
    assert download.main(["llava-stage1"]) == 0
    assert "2 files = 2 fetched + 0 kept + 0 failed; 1 archive unpacked" in capsys.readouterr().out
    assert (tmp_path / "data/BLIP558K/image/00001/000000003.jpg").is_file()
    dataset = get_dataset("BLIP558K")
    assert len(dataset) == 4
    assert dataset[3]["image"].decode().shape == (43, 63, 3)
    assert download.main(["llava_pretrain"]) == 0
    assert "unpacked" not in capsys.readouterr().out


def test_a_check_finds_what_was_damaged_after_it_was_unpacked_and_the_next_run_makes_it_again(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a request, and without touching what is right or not ours."""
    real_sets.llava_pretrain(hub.folder)
    assert download.main(["llava_pretrain"]) == 0
    folder = tmp_path / "data/BLIP558K/image"
    good, asked = tree(folder), len(hub.requests)
    flipped, gone = folder / "00001/000000003.jpg", folder / "00000/000000002.jpg"
    data, times = bytearray(flipped.read_bytes()), flipped.stat()
    data[100] ^= 1
    flipped.write_bytes(data)
    os.utime(flipped, ns=(times.st_atime_ns, times.st_mtime_ns))
    gone.unlink()
    capsys.readouterr()
    assert download.main(["--check", "llava_pretrain"]) == 1
    out = capsys.readouterr().out
    assert "image/00001/000000003.jpg: damaged: sha256" in out
    assert "image/00000/000000002.jpg: missing: it was unpacked, and is gone" in out
    assert "4 of 6 files right" in out
    assert download.main(["llava_pretrain"]) == 0
    assert "1 archive unpacked" in capsys.readouterr().out
    assert tree(folder) == good
    assert len(hub.requests) == asked
    assert download.main(["--check", "llava_pretrain"]) == 0


def test_vqa2_comes_as_zips_and_opens(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_sets.vqa2(hub.folder)
    values = yaml.safe_load((OWN / "vqa2.yaml").read_text())
    there = [item for item in values["files"] if (hub.folder / Path(item["url"]).name).is_file()]
    assert len(there) == 6
    values["files"] = [{**item, "url": f"{hub.url}/files/{Path(item['url']).name}"} for item in there]
    (tmp_path / "own").mkdir()
    (tmp_path / "own/vqa2.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("HPCDATA_CATALOGUE", str(tmp_path / "own"))
    assert download.main(["vqa2", "--n_proc", "12"]) == 0
    for split in ("train", "validation"):
        dataset = get_dataset("vqa2", split=split)
        assert len(dataset) == 3
        assert dataset[2]["image"].decode().shape == (42, 62, 3)
        assert dataset[2]["style"] == "vqa2"

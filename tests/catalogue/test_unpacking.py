"""Archives of a set are unpacked once, whatever is killed, and never out of its folder.

pytest tests/catalogue/test_unpacking.py
"""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hpcdata import download
from hpcdata.base.errors import Failed, UserError
from hpcdata.catalogue.entry import Entry, WebFile
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.registry import OWN
from hpcdata.catalogue.unpacking import working
from hpcdata.multimodal import get_dataset
from tests.catalogue import real_sets
from tests.catalogue.hub import Hub
from tests.catalogue.sets import Once


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    with Hub(tmp_path / "hub") as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def never(seconds: float) -> bool:
    return False


def packed(hub: Hub, name: str) -> Entry:
    file = WebFile(url=f"{hub.url}/files/{name}", path=name)
    return Entry(name="p", title="", folder="p", licence="", splits={}, files=(file,), unpack={"*": "out"})


def pack(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def out(folder: Path) -> dict[str, bytes]:
    base = folder / "out"
    return {str(path.relative_to(base)): path.read_bytes() for path in sorted(base.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_stop_goes_on_at_the_member_where_it_was(
    name: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"d{n % 3}/{n:03d} (x).txt": bytes([n]) * (n + 1) for n in range(20)}
    pack(hub.folder / name, members)
    entry, folder = packed(hub, name), tmp_path / "set"
    Once(hub, folder)(entry)
    monkeypatch.setattr(working, "_SYNC_AFTER", 4)
    asked = iter([False, False, True])
    with pytest.raises(Fault, match="stopped"):
        working.unpack_all(entry, folder, lambda _: next(asked, True))
    assert working.missing_of(entry, folder) == [name]
    written: list[str] = []
    real = working.archives.write
    monkeypatch.setattr(
        working.archives, "write", lambda member, *rest: (written.append(member.name), real(member, *rest))
    )
    assert working.unpack_all(entry, folder, never) == 1
    assert written == list(members)[12:]
    assert out(folder) == members
    assert working.unpack_all(entry, folder, never) == 0
    assert working.missing_of(entry, folder) == []


@pytest.mark.parametrize("member", ["../out.txt", "/etc/x", "a/../../b", ".hpcdata/record.json"])
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_member_cannot_lead_out_of_the_set(member: str, name: str, hub: Hub, tmp_path: Path) -> None:
    pack(hub.folder / name, {"good.txt": b"1", member: b"2"})
    entry, folder = packed(hub, name), tmp_path / "set"
    Once(hub, folder)(entry)
    with pytest.raises(UserError, match="is no path below the folder"):
        working.unpack_all(entry, folder, never)
    assert out(folder) == {"good.txt": b"1"}


def test_links_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.folder.mkdir()
    with zipfile.ZipFile(hub.folder / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with tarfile.open(hub.folder / "a.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    for name in ("a.zip", "a.tar"):
        entry, folder = packed(hub, name), tmp_path / name
        Once(hub, folder)(entry)
        with pytest.raises(UserError, match="is a link"):
            working.unpack_all(entry, folder, never)


def test_a_damaged_archive_is_said(hub: Hub, tmp_path: Path) -> None:
    pack(hub.folder / "a.zip", {"a.txt": b"words " * 1000})
    data = bytearray((hub.folder / "a.zip").read_bytes())
    data[45] ^= 0x55
    (hub.folder / "a.zip").write_bytes(data)
    entry, folder = packed(hub, "a.zip"), tmp_path / "set"
    Once(hub, folder)(entry)
    with pytest.raises(Failed, match=r"a.zip is damaged: .*; hpcdata download --check says"):
        working.unpack_all(entry, folder, never)
    assert out(folder) == {}


def test_an_archive_larger_than_the_disk_is_not_begun(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(hub.folder / "a.zip", {"a.txt": b"0" * 5_000_000})
    entry, folder = packed(hub, "a.zip"), tmp_path / "set"
    Once(hub, folder)(entry)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(Failed, match=r"unpacks to 4.8 MiB, and .* has 1000 bytes: make room"):
        working.unpack_all(entry, folder, never)


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

"""A set comes whole and right, whatever the server does.   pytest tests/catalogue/test_fetching.py"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hpcdata.base import sealed
from hpcdata.base.errors import Failed
from hpcdata.catalogue import checking
from hpcdata.catalogue.accounts import Result, say_result
from hpcdata.catalogue.entry import HubTree, WebFile
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.record import FOLDER, Record
from hpcdata.catalogue.transfer.notes import Notes
from tests.catalogue.hub import Hub
from tests.catalogue.sets import MIB, REPO, Once, entry, fill, found

PARQUET = "ai2d(cauldron,llava_format)/train 1.parquet"


@pytest.fixture
def files(hub: Hub) -> dict[str, bytes]:
    hub.page_size = 4
    return fill(hub.folder)


@pytest.fixture
def once(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> Once:
    return Once(hub, tmp_path / "data/pairs")


def test_a_set_is_fetched_once_and_then_nothing_is_asked(once: Once, files: dict[str, bytes], hub: Hub) -> None:
    account = once()
    assert (account.num_files, account.fetched, account.kept, account.failed) == (len(files), len(files), 0, {})
    assert found(once.folder) == files
    assert account.num_bytes == sum(map(len, files.values())) == sum(request.sent for request in hub.downloads())
    assert not (once.folder / FOLDER / "parts").exists()
    asked = len(hub.requests)
    again = once()
    assert (again.fetched, again.kept, again.num_bytes) == (0, len(files), 0)
    assert len(hub.requests) == asked


def test_what_is_here_needs_no_server(once: Once, files: dict[str, bytes]) -> None:
    once()
    once.offline = True
    assert once().kept == len(files)
    (once.folder / "README.md").unlink()
    with pytest.raises(Fault, match="1 of 10 files are missing"):
        once()


def test_nothing_and_no_server_is_said(once: Once) -> None:
    once.offline = True
    with pytest.raises(Fault, match="nothing of pairs is in"):
        once()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("cut", None),
        ("flip", None),
        ("status", 503),
        ("status", 500),
        ("status", (429, {"Retry-After": "1"})),
        ("status", (429, {"RateLimit": '"resolvers";r=0;t=30'})),
        ("status", (503, {"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT"})),
        ("page", None),
        ("lie", 7),
        ("lie", 100 * MIB),
    ],
)
def test_a_fault_that_passes_leaves_no_trace(
    kind: str, value: object, once: Once, files: dict[str, bytes], hub: Hub
) -> None:
    hub.misbehave(kind, times=1, value=value, part="train%201" if kind in ("cut", "flip", "page", "lie") else "train 1")
    account = once()
    assert not account.failed
    assert found(once.folder) == files


@pytest.mark.parametrize("fixed", ["norange", "noetag", "nolength", "cdn"])
def test_servers_that_do_less_are_enough(fixed: str, once: Once, files: dict[str, bytes], hub: Hub) -> None:
    hub.misbehave(fixed)
    hub.misbehave("cut", times=2, part=".parquet")
    assert not once().failed
    assert found(once.folder) == files


def test_a_cut_body_is_continued_where_it_was_cut(once: Once, files: dict[str, bytes], hub: Hub) -> None:
    hub.misbehave("cut", times=3, part=".parquet")
    once()
    assert hub.bytes_of(".parquet") == len(files[PARQUET])
    begins = [request.begin for request in hub.downloads() if request.path.endswith(".parquet")]
    assert begins == sorted(begins)
    assert len(begins) == 4


def test_a_stop_leaves_a_part_that_the_next_process_continues(
    once: Once, files: dict[str, bytes], hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.rate = 8 * MIB
    account = once(wait=lambda _: hub.bytes_of(".parquet") > 2 * MIB, num_threads=1)
    assert account.is_stopped
    say_result(Result("pairs", account))
    assert capsys.readouterr().out.splitlines()[0].endswith(f" + {account.num_open()} not yet")
    assert account.num_open() > 0
    assert list((once.folder / FOLDER / "parts").glob("*.jsonl"))
    hub.rate = 0
    assert not once().failed
    assert found(once.folder) == files
    assert hub.bytes_of(".parquet") <= len(files[PARQUET]) + MIB


def test_a_part_that_the_disk_has_damaged_is_not_continued(once: Once, files: dict[str, bytes], hub: Hub) -> None:
    hub.misbehave("cut", times=1, part=".parquet")
    once.patience_s = 0.0
    assert once().failed == {PARQUET: "cut"}
    (part,) = [path for path in (once.folder / FOLDER / "parts").iterdir() if path.suffix == ""]
    with open(part, "r+b") as file:
        file.seek(MIB + 5)
        file.write(b"x")
    once.patience_s = 5.0
    assert not once().failed
    assert found(once.folder) == files


@pytest.mark.parametrize(
    ("status", "kind"), [(404, "http 404"), (410, "http 410"), (403, "http 403"), (451, "http 451")]
)
def test_what_is_gone_or_refused_is_counted_and_nothing_is_stored(
    status: int, kind: str, once: Once, files: dict[str, bytes], hub: Hub
) -> None:
    hub.misbehave("status", times=5, value=status, part="README")
    account = once()
    assert account.failed == {"README.md": f"http {status}"}
    assert len([request for request in hub.requests if request.path.endswith("README.md")]) == 1
    assert found(once.folder) == {name: data for name, data in files.items() if name != "README.md"}
    hub.behave()
    assert (once().fetched, once().kept) == (1, len(files))


def test_bytes_that_stay_wrong_fail_as_what_they_are(once: Once, hub: Hub) -> None:
    hub.misbehave("flip", times=100)
    account = once()
    assert set(account.reasons()) == {"sha256", "sha1"}
    assert set(found(once.folder)) == {"empty.txt"}


def test_a_page_of_words_is_never_stored(once: Once, hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "photo.jpg").write_bytes(b"\xff\xd8 a photo")
    web = WebFile(url=f"{hub.url}/files/photo.jpg", path="photo.jpg")
    hub.misbehave("page", times=5)
    account = once(entry(hub=(), files=(web,)))
    assert account.failed == {"photo.jpg": "page"}
    assert found(once.folder) == {}
    hub.behave()
    hub.misbehave("flip", times=5)
    assert once(entry(hub=(), files=(web,))).failed == {"photo.jpg": "content"}
    hub.behave()
    assert once(entry(hub=(), files=(web,))).fetched == 1


def test_a_busy_server_is_given_up_at_last_and_said(once: Once, hub: Hub) -> None:
    once.patience_s = 0.3
    hub.misbehave("status", times=10_000, value=503, part="README")
    assert once().failed == {"README.md": "http 503"}


@pytest.mark.parametrize("part", ["/api/", "images.zip"])
def test_what_is_waited_for_is_said_once(part: str, once: Once, hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.misbehave("status", times=9, part=part, value=503)
    account = once()
    assert account.fetched == account.num_files
    told = [record.getMessage() for record in caplog.records if "asked again" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("http 503: http://127.0.0.1:")
    assert told[0].endswith("s (--patience)")


def test_a_hub_that_is_busy_while_it_lists_is_asked_again(once: Once, files: dict[str, bytes], hub: Hub) -> None:
    hub.misbehave("status", times=2, value=(429, {"Retry-After": "1"}), part="/revision/")
    hub.misbehave("status", times=1, value=503, part="/tree/")
    assert once().fetched == len(files)


def test_a_token_goes_to_the_hub_and_nowhere_else(
    once: Once, hub: Hub, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.misbehave("gated")
    with pytest.raises(Fault, match=r"accept its terms at .*/datasets/lab/pairs, and export HF_TOKEN"):
        once()
    once.token = hub.token
    hub.misbehave("cdn")
    hub.rules = [rule for rule in hub.rules if rule.kind != "gated"]
    caplog.set_level("DEBUG")
    assert not once().failed
    at_cdn = [request for request in hub.downloads() if "signature" in request.path]
    assert len(at_cdn) == len([request for request in hub.downloads() if request.status == 302])
    assert at_cdn
    assert not any(request.authorized for request in at_cdn)
    assert all(request.authorized for request in hub.requests if request.status == 302)
    written = "".join(path.read_text(errors="replace") for path in once.folder.rglob("*.json*"))
    assert hub.token not in written + caplog.text + "".join(capfd.readouterr())


def test_a_link_that_has_run_out_is_asked_for_again_at_its_origin(
    once: Once, files: dict[str, bytes], hub: Hub
) -> None:
    hub.misbehave("cdn")
    once.patience_s = 20
    hub.misbehave("expired", times=1)
    hub.misbehave("cut", times=1, part=".parquet")
    assert not once().failed
    assert found(once.folder) == files


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", ".hpcdata/record.json"])
def test_a_listing_cannot_write_outside_of_the_set(name: str, once: Once, hub: Hub) -> None:
    hub.misbehave("listing", times=5, value=lambda entries: [{**entries[0], "path": name}])
    with pytest.raises(ValueError, match="is no path below the folder"):
        once()
    assert found(once.folder) == {}


def test_patterns_choose_and_brackets_are_letters(once: Once) -> None:
    tree = HubTree(repo=REPO, include=("ai2d(cauldron,llava_format)/*", "**/train-0000[01].txt"), folder="sub")
    once(entry(hub=(tree,)))
    assert set(found(once.folder)) == {f"sub/{PARQUET}"}


def test_pages_of_a_listing_are_all_read(once: Once, hub: Hub, files: dict[str, bytes]) -> None:
    assert once().num_files == len(files)
    assert len([request for request in hub.requests if "/tree/" in request.path]) == 3


def test_the_listing_is_frozen_until_an_update(once: Once, hub: Hub, files: dict[str, bytes]) -> None:
    once()
    (hub.folder / REPO / "README.md").write_bytes(b"# a newer one\n")
    hub.commit = "f" * 40
    assert once().fetched == 0
    account = once(anew=True)
    assert (account.fetched, account.kept) == (1, len(files) - 1)
    assert (once.folder / "README.md").read_bytes() == b"# a newer one\n"


def test_a_file_that_is_there_and_right_is_not_asked_for(once: Once, hub: Hub, files: dict[str, bytes]) -> None:
    target = once.folder / PARQUET
    target.parent.mkdir(parents=True)
    target.write_bytes(files[PARQUET])
    (once.folder / "README.md").write_bytes(b"something else")
    account = once()
    assert (account.kept, account.fetched) == (1, len(files) - 1)
    assert hub.bytes_of(".parquet") == 0
    assert found(once.folder) == files


def test_a_check_finds_what_was_damaged_and_the_next_run_repairs_it(once: Once, files: dict[str, bytes]) -> None:
    once()
    path = once.folder / PARQUET
    before = path.stat()
    data = bytearray(files[PARQUET])
    data[77] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    (once.folder / "images.zip").unlink()
    with open(once.folder / "README.md", "ab") as file:
        file.write(b"more")
    findings = checking.check(entry(), once.folder, num_threads=2, wait=lambda _: False)
    assert {name: fault.split(":")[0] for name, fault in findings.faults.items()} == {
        PARQUET: "damaged",
        "images.zip": "missing",
        "README.md": "damaged",
    }
    assert "sha256" in findings.faults[PARQUET]
    assert "bytes, recorded were 8" in findings.faults["README.md"]
    assert once().fetched == 3
    assert found(once.folder) == files
    assert not checking.check(entry(), once.folder, num_threads=2, wait=lambda _: False).faults


def test_a_full_disk_ends_it_in_one_line_and_what_is_here_stays(
    once: Once, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(Failed, match="is full: No space left; what is there is kept"):
        once()
    monkeypatch.setattr(os, "pwrite", real)
    assert not once().failed
    assert found(once.folder) == files


def test_a_disk_that_is_too_small_is_said_before(once: Once, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": MIB})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(Failed, match=r"pairs needs 4.5 MiB more, and .* has 1.0 MiB: make room"):
        once()
    assert found(once.folder) == {}


def test_a_damaged_record_is_said(once: Once) -> None:
    once()
    path = once.folder / FOLDER / "record.json"
    path.write_bytes(path.read_bytes().replace(b"README", b"readme"))
    with pytest.raises(Failed, match=r"record.json: its bytes are not those that were written.*; remove it"):
        once()


@pytest.mark.parametrize("values", [[], {"a": 1}, {"a": [1, 2]}, {"a": [1, 2e999, "x"]}, 7])
def test_a_record_of_other_types_that_was_sealed_again_is_said(once: Once, values: object) -> None:
    once()
    (once.folder / FOLDER / "record.json").write_bytes(sealed.to_json({"files": values}))
    with pytest.raises(Failed, match=r"record.json: .*; remove it"):
        once()


def test_notes_of_a_part_that_are_none_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    good = b'{"identity": "i"}\n{"bytes": 3, "sha256": "s", "validator": "v"}\n'
    path.write_bytes(good + b"[" * 100_000 + b'\n{"bytes": Infinity, "sha256": "s", "validator": "v"}\n7\n\xff\n')
    read = Notes(path).read("i", 10)
    assert read is not None
    assert read.marks == [(3, "s")]


def test_lines_that_were_not_durable_are_believed_after_a_look(once: Once, files: dict[str, bytes], hub: Hub) -> None:
    once()
    record = Record(once.folder)
    lines = [
        f'{{"path": "{name}", "size": {here.size}, "time": {here.time}, "sha256": "{here.sha256}", "sure": false}}'
        for name, here in record.read().here.items()
    ]
    (once.folder / FOLDER / "record.json").unlink()
    (once.folder / FOLDER / "done/1-a.jsonl").write_text("\n".join(lines) + '\n{"path": "README')
    asked = len(hub.downloads())
    assert once().kept == len(files)
    assert len(hub.downloads()) == asked
    assert record.is_sealed()

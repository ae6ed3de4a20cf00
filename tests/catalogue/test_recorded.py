"""What lies on the disk, against what was listed and recorded: strange listings, copies, deletions, other revisions.

pytest tests/catalogue/test_recorded.py
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcdata.catalogue.entry import WebFile
from hpcdata.catalogue.faults import Fault
from hpcdata.catalogue.record import Follower, Here, Journal, Record
from hpcdata.catalogue.states import PRESENT, read_state
from tests.catalogue.hub import Hub
from tests.catalogue.sets import REPO, Once, entry, fill, found

README = "README.md"


@pytest.fixture
def files(hub: Hub) -> dict[str, bytes]:
    return fill(hub.folder, num_small=2, big=1000)


@pytest.fixture
def once(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> Once:
    return Once(hub, tmp_path / "data/pairs")


def state(once: Once) -> str:
    return read_state(entry(), once.folder.parent).name


def changed(**values: Any) -> Any:
    return lambda entries: [{**entries[0], **values}, *entries[1:]]


@pytest.mark.parametrize(
    "listed",
    [
        lambda _: ["a"],
        lambda entries: [{"type": "file"}],
        changed(path=7),
        changed(path="a\ud800"),
        changed(size=-1, lfs=None),
        changed(size="12", lfs=None),
        changed(lfs="abc"),
        changed(lfs={"oid": "abc", "size": 3}),
        changed(oid=None, lfs={"oid": "../x"}),
    ],
)
def test_a_listing_that_no_hub_gives_is_said(listed: Any, once: Once, hub: Hub) -> None:
    hub.misbehave("listing", times=5, value=listed)
    with pytest.raises(Fault, match=r"/tree/.* says what no hub says") as fault:
        once()
    assert fault.value.kind == "wrong"
    assert found(once.folder) == {}


def test_pages_that_lead_in_a_circle_end(once: Once, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcdata.catalogue.listing._NEXT", _Circle())
    with pytest.raises(Fault, match="lead in a circle"):
        once()


class _Circle:
    def search(self, _: str) -> list[str]:
        return ["", "?recursive=true&expand=false"]  # the same page


def test_a_name_that_the_disk_does_not_take_is_one_file_that_failed(
    once: Once, hub: Hub, files: dict[str, bytes]
) -> None:
    long = "x" * 300
    hub.misbehave("listing", times=1, value=lambda entries: [*entries, {**entries[0], "path": long, "lfs": None}])
    (once.folder / "images.zip").mkdir(parents=True)
    assert once().failed == {long: "name", "images.zip": "name"}
    assert found(once.folder) == {name: data for name, data in files.items() if name != "images.zip"}


@pytest.mark.parametrize("has_sums", [True, False])
def test_a_copy_with_other_times_is_hashed_and_needs_no_server(has_sums: bool, once: Once, hub: Hub) -> None:
    web = WebFile(url=f"{hub.url}/files/{REPO}/{README}", path=README)
    given = entry() if has_sums else entry(hub=(), files=(web,))
    num_files = once(given).fetched
    shutil.copytree(once.folder, other := once.folder.parent / "copy/pairs", copy_function=shutil.copyfile)
    once.folder, once.offline, asked = other, True, len(hub.requests)
    state = read_state(given, other.parent)
    assert f"{num_files} of {num_files} files are others than were recorded, or copies of these" in state.remedy
    assert (once(given).kept, once(given).failed) == (num_files, {})
    assert read_state(given, other.parent).name == PRESENT
    (other / README).write_bytes(b"# parrs\n")
    assert once(given).failed == {README: "offline"}
    assert len(hub.requests) == asked


def test_a_file_that_was_deleted_is_fetched_once_and_then_the_set_is_present(once: Once) -> None:
    once()
    (once.folder / README).unlink()
    assert state(once) != PRESENT
    assert once().fetched == 1
    assert state(once) == PRESENT
    assert Record(once.folder).read().here[README].is_sure


def test_what_has_changed_while_the_others_came_is_no_success(once: Once, files: dict[str, bytes]) -> None:
    """As on a disk to which a and A are one."""

    def wait(_: float) -> bool:
        (once.folder / README).unlink(missing_ok=True)
        return False

    account = once(wait=wait, num_threads=1)
    assert account.failed == {README: "changed"}
    assert account.kept + account.fetched + len(account.failed) == account.num_files


def test_files_of_a_revision_before_go_when_the_new_one_is_here(once: Once, hub: Hub, files: dict[str, bytes]) -> None:
    """Two revisions in one folder would be read as one set. What is not ours stays."""
    once()
    (hub.folder / REPO / "data/train-00000.txt").rename(hub.folder / REPO / "data/train-00000-of-2.txt")
    (hub.folder / REPO / "data/train-00001.txt").unlink()
    (once.folder / "data/train-00001.txt").write_bytes(b"edited by hand")
    (once.folder / "data/mine.txt").write_bytes(b"mine")
    hub.commit = "f" * 40
    hub.misbehave("status", value=404, part="train-00000-of-2")
    account = once(anew=True)
    assert (account.removed, set(account.failed)) == (0, {"data/train-00000-of-2.txt"})
    assert (once.folder / "data/train-00000.txt").exists()
    account = once()
    assert (account.removed, account.failed) == (1, {})
    texts = {path.name for path in (once.folder / "data").iterdir()}
    assert texts == {"train-00000-of-2.txt", "train-00001.txt", "mine.txt"}
    assert state(once) == PRESENT


def test_what_another_process_seals_meanwhile_is_known_without_its_lines(tmp_path: Path) -> None:
    record = Record(tmp_path)
    follower = Follower(record)
    here = Here(3, 7, "0" * 64)
    with contextlib.closing(Journal(record, "1-a")) as journal:
        journal.add("a.txt", here)
    record.seal({"a.txt": here})
    assert not list((record.own / "done").glob("*"))
    assert follower.update().here == {"a.txt": here}

"""Several connections to one file: where each is slow, and only where the server gives ranges of one content.

pytest tests/catalogue/transfer/test_connections.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdata.catalogue.entry import HubTree, WebFile
from tests.catalogue.hub import Hub, Request
from tests.catalogue.sets import MIB, REPO, Once, entry, fill, found

KIB = 1 << 10
NAME = "ai2d(cauldron,llava_format)/train 1.parquet"
ONLY = entry(hub=(HubTree(repo=REPO, include=("**/*.parquet",)),))
SEVERAL = {"connections": 4, "piece": 128 * KIB, "interval": 256 * KIB, "num_threads": 1}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub", rate=8 * MIB) as running:
        yield running


@pytest.fixture
def files(hub: Hub) -> dict[str, bytes]:
    return {NAME: fill(hub.folder)[NAME]}


@pytest.fixture
def once(hub: Hub, files: dict[str, bytes], tmp_path: Path) -> Once:
    return Once(hub, tmp_path / "data/pairs")


def most_at_once(requests: list[Request]) -> int:
    """How many bodies were on their way at the same time, by when they began and how long they took at their rate."""
    spans = [(request.time, request.time + request.sent / (8 * MIB)) for request in requests if request.sent]
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


def test_a_file_on_a_slow_server_comes_by_several_and_each_byte_once(
    once: Once, files: dict[str, bytes], hub: Hub
) -> None:
    once(ONLY, **SEVERAL)
    assert found(once.folder) == files
    assert 1 < most_at_once(hub.downloads()) <= 4  # all, unless this machine is slower than the server
    assert hub.bytes_of(".parquet") == len(files[NAME])


def test_a_fast_server_and_small_rests_need_one(once: Once, files: dict[str, bytes], hub: Hub) -> None:
    hub.rate = 0
    once(ONLY, **{**SEVERAL, "piece": MIB, "interval": MIB})
    assert found(once.folder) == files
    assert len(hub.downloads()) == 1  # less than four pieces


@pytest.mark.parametrize("fixed", ["norange", "noetag", "nolength", "cdn"])
@pytest.mark.parametrize("fault", ["cut", "status"])
def test_servers_that_do_less_are_enough(fixed: str, fault: str, once: Once, files: dict[str, bytes], hub: Hub) -> None:
    hub.misbehave(fixed)
    hub.misbehave(fault, times=3, value=503, part=".parquet")
    assert not once(ONLY, **SEVERAL).failed
    assert found(once.folder) == files


def test_a_server_that_ignores_ranges_is_asked_by_one(once: Once, files: dict[str, bytes], hub: Hub) -> None:
    hub.misbehave("norange")
    once(ONLY, **SEVERAL)
    assert len(hub.downloads()) == 1
    assert hub.bytes_of(".parquet") == len(files[NAME])


def test_bytes_that_are_wrong_are_fetched_anew(once: Once, files: dict[str, bytes], hub: Hub) -> None:
    hub.misbehave("flip", times=2)
    assert not once(ONLY, **SEVERAL).failed
    assert found(once.folder) == files


@pytest.mark.parametrize("rate", [8 * MIB, 0])
def test_a_file_that_changes_meanwhile_is_never_a_mixture(rate: float, once: Once, hub: Hub) -> None:
    hub.rate = rate
    path = hub.folder / REPO / NAME
    old, new = path.read_bytes(), path.read_bytes()[::-1]
    web = entry(hub=(), files=(WebFile(url=f"{hub.url}/files/lab/pairs/file.bin", path="file.bin", size=len(old)),))
    (hub.folder / REPO / "file.bin").write_bytes(old)
    began = []

    def wait(_: float) -> bool:
        if not began and hub.bytes_of("file.bin") > MIB:
            began.append(True)
            (hub.folder / REPO / "file.bin").write_bytes(new)
            hub.misbehave("cut", times=2, part="file.bin")
        return False

    assert not once(web, wait=wait, **SEVERAL).failed
    assert (once.folder / "file.bin").read_bytes() in ([new] if rate else [old, new])


def test_a_stop_keeps_what_all_connections_have_brought(once: Once, files: dict[str, bytes], hub: Hub) -> None:
    account = once(ONLY, wait=lambda _: hub.bytes_of(".parquet") > 2 * MIB, **SEVERAL)
    assert account.is_stopped
    assert not once(ONLY, **SEVERAL).failed
    assert found(once.folder) == files
    assert hub.bytes_of(".parquet") <= len(files[NAME]) + MIB

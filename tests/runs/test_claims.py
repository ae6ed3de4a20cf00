"""Claims: exclusive, taken over only from the dead.   pytest tests/runs/test_claims.py"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpcdata.runs.claims import Claims, Owner
from tests.crashes import Crash, crash_at
from tests.evidence import CRASHES, Evidence


def owner(attempt: str, **changes: object) -> Owner:
    return dataclasses.replace(Owner.of_this_process(attempt), **changes)  # type: ignore[arg-type]


def elsewhere(attempt: str, **changes: object) -> Owner:
    """The owner of a claim on another machine: only time can tell whether it is alive."""
    return owner(attempt, machine="elsewhere", host="other", **changes)


def put(folder: Path, name: str, holder: Owner) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(dataclasses.asdict(holder)))
    return folder / name


def age(path: Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_only_one_of_many_threads_gets_a_claim(tmp_path: Path) -> None:
    won = []
    barrier = threading.Barrier(16)

    def race(number: int) -> None:
        claims = Claims(tmp_path, owner(f"t{number}"), timeout_s=60)
        barrier.wait()
        if claims.try_claim("shard"):
            won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_live_claim_is_respected_and_a_released_one_is_free(tmp_path: Path) -> None:
    with Claims(tmp_path, owner("a"), timeout_s=60) as first, Claims(tmp_path, owner("b"), timeout_s=60) as second:
        assert first.try_claim("shard")
        assert not second.try_claim("shard")
        first.release("shard")
        assert second.try_claim("shard")
    assert list(tmp_path.iterdir()) == []


def test_the_claim_of_a_killed_process_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    stat = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    put(tmp_path, "shard", owner("dead", pid=process.pid, pid_started=stat[19]))
    claims = Claims(tmp_path, owner("me"), timeout_s=3600)
    assert not claims.try_claim("shard")
    process.kill()
    process.wait()
    assert claims.try_claim("shard")


def test_claims_of_the_dead_are_removed_when_nothing_is_left_to_claim(tmp_path: Path) -> None:
    """A task that is killed between a commit and the release leaves one that nobody would take over."""
    dead = put(tmp_path, "dead", owner("dead", pid_started="1"))
    silent = put(tmp_path, "silent", elsewhere("silent"))
    age(silent, 100)
    alive = [put(tmp_path, "alive", owner("alive")), put(tmp_path, "beating", elsewhere("beating"))]
    with Claims(tmp_path, owner("me"), timeout_s=60) as claims:
        claims.release_dead()
        assert not dead.exists()
        assert not silent.exists()
        assert sorted(tmp_path.iterdir()) == sorted(alive)


def test_a_reused_pid_does_not_keep_a_claim_alive(tmp_path: Path) -> None:
    put(tmp_path, "shard", owner("dead", pid=os.getpid(), pid_started="1"))
    assert Claims(tmp_path, owner("me"), timeout_s=3600).try_claim("shard")


def test_a_requeued_slurm_task_takes_its_own_old_claims_at_once(tmp_path: Path) -> None:
    put(tmp_path, "shard", elsewhere("before", slurm_task="17_0", slurm_restart=0))
    assert not Claims(tmp_path, owner("x", slurm_task="18_0", slurm_restart=1), timeout_s=3600).try_claim("shard")
    assert Claims(tmp_path, owner("me", slurm_task="17_0", slurm_restart=1), timeout_s=3600).try_claim("shard")
    put(tmp_path, "shard", elsewhere("restarted", slurm_task="17_0", slurm_restart=2))
    zombie = owner("zombie", slurm_task="17_0", slurm_restart=1)
    assert not Claims(tmp_path, zombie, timeout_s=3600).try_claim("shard"), "nor does a zombie take the newer one's"


@pytest.mark.parametrize(("seconds", "taken"), [(30, False), (90, True)])
def test_a_claim_of_another_machine_is_taken_over_when_its_heartbeat_is_too_old(
    tmp_path: Path, seconds: float, taken: bool
) -> None:
    age(put(tmp_path, "shard", elsewhere("far")), seconds)
    assert Claims(tmp_path, owner("me"), timeout_s=60).try_claim("shard") is taken


def test_staleness_does_not_depend_on_this_hosts_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "shard", elsewhere("far"))
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert not Claims(tmp_path, owner("me"), timeout_s=60).try_claim("shard")


def test_a_heartbeat_from_before_the_clock_was_set_back_is_none(tmp_path: Path) -> None:
    """Nobody waits for hours until the clock of the file system has come to it again."""
    claim = put(tmp_path, "shard", elsewhere("far"))
    age(claim, -30)
    assert not Claims(tmp_path, owner("me"), timeout_s=60).try_claim("shard")
    age(claim, -3600)
    assert Claims(tmp_path, owner("me"), timeout_s=60).try_claim("shard")


def test_a_claim_that_was_never_filled_is_taken_over_after_a_while(tmp_path: Path) -> None:
    (tmp_path / "shard").touch()
    claims = Claims(tmp_path, owner("me"), timeout_s=60)
    assert not claims.try_claim("shard")
    age(tmp_path / "shard", 20)
    assert claims.try_claim("shard")


def test_heartbeats_keep_a_claim_alive(tmp_path: Path) -> None:
    with Claims(tmp_path, elsewhere("a"), timeout_s=0.6) as claims:
        assert claims.try_claim("shard")
        age(tmp_path / "shard", 100)
        before = claims.heartbeat("shard")
        for _ in range(50):
            if claims.heartbeat("shard") != before:
                break
            threading.Event().wait(0.05)
        assert not Claims(tmp_path, owner("b"), timeout_s=5).try_claim("shard")


def test_a_fresh_claim_that_replaced_the_stale_one_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes see the same stale claim; the slower one must not steal the faster one's new claim."""
    path = put(tmp_path, "shard", elsewhere("stale"))
    age(path, 100)
    slow = Claims(tmp_path, owner("slow"), timeout_s=60)
    real = os.rename

    def overtaken(source: Path, target: Path) -> None:
        put(tmp_path, "shard", elsewhere("fast"))
        real(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    assert not slow.try_claim("shard")
    assert json.loads(path.read_text())["attempt"] == "fast"


def test_the_former_owner_notices_a_takeover_and_does_not_remove_it(tmp_path: Path) -> None:
    first = Claims(tmp_path, owner("a"), timeout_s=60)
    assert first.try_claim("shard")
    put(tmp_path, "shard", owner("b"))
    assert not first.holds("shard")
    first.release("shard")
    assert (tmp_path / "shard").exists()


def test_an_impatient_observer_respects_the_owners_own_timeout(tmp_path: Path) -> None:
    with Claims(tmp_path, elsewhere("slow"), timeout_s=3600) as slow:
        assert slow.try_claim("shard")
        age(tmp_path / "shard", 100)
        assert not Claims(tmp_path, owner("hasty"), timeout_s=1).try_claim("shard")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", ["create", "take over", "heartbeat", "release"])
def test_a_crash_at_any_step_leaves_a_claim_that_others_get_in_time(
    tmp_path: Path, evidence: Evidence, step: str, after: bool
) -> None:
    number, finished = 0, False
    while not finished:
        number += 1
        folder = tmp_path / f"crash{number}"
        folder.mkdir()
        crashing = Claims(folder, elsewhere("crashing"), timeout_s=60)
        if step == "take over":
            age(put(folder, "shard", elsewhere("stale")), 100)
        if step in ("heartbeat", "release"):
            assert crashing.try_claim("shard")
        with crash_at(number, after=after) as counter:
            try:
                if step == "heartbeat":
                    crashing.beat()
                elif step == "release":
                    crashing.release("shard")
                else:
                    assert crashing.try_claim("shard")
                finished = counter.calls < number
            except Crash:
                pass
        if (folder / "shard").exists():
            age(folder / "shard", 100)
        assert Claims(folder, owner("next"), timeout_s=60).try_claim("shard"), f"crash at call {number}"
    assert number > 1, "the crash must have been injected"
    evidence(CRASHES, number - 1)


def test_what_a_process_killed_in_a_takeover_left_is_removed_with_the_claim(tmp_path: Path) -> None:
    (tmp_path / ".shard.killed").touch()
    claims = Claims(tmp_path, owner("me"), timeout_s=60)
    assert claims.try_claim("shard")
    claims.release("shard")
    assert not list(tmp_path.iterdir())

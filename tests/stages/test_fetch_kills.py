"""Lists of URLs under random kills: the bytes of one process that nobody disturbs, and few requests more.

pytest tests/stages/test_fetch_kills.py -s
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from hpcdata.report.status import read_status
from tests.evidence import KILLS, Evidence
from tests.net.misbehaving import Server
from tests.smallruns import small_run
from tests.stages.url_lists import FETCH, row, write_rows
from tests.test_kills import SIGNALS, submit
from tests.trees import sha256_tree

NUM_SCHEDULES = max(2, int(os.environ.get("HPCDATA_SCHEDULES", "20")) // 5)
FIRST_SEED = int(os.environ.get("HPCDATA_SEED", "0"))
NUM = 96
OPTIONS = (*FETCH, "data.shard_size=24", "data.max_rejected=1", "fetch.connections=4", "fetch.timeout_s=5")


def serve(server: Server) -> list[dict[str, object]]:
    """Rows of which two of eleven are gone or refused, and some come at the second request; all come slowly."""
    faults = {3: ("404*",), 5: ("html*",), 7: ("503",), 9: ("cut",)}
    rows = [row(server, number, *faults.get(number % 11, ()), "slow:0.05*") for number in range(NUM)]
    return [*rows, *({**item, "caption": "again"} for item in rows[:: NUM // 8])]


def disturb(tasks: list[subprocess.Popen[bytes]], server: Server, rng: random.Random) -> int:
    """Sends each task a signal after some more answers; returns how many were still alive to get it."""
    until, deadline = len(server.asked) + rng.randint(0, 60), time.monotonic() + 30
    while len(server.asked) < until and time.monotonic() < deadline and any(task.poll() is None for task in tasks):
        time.sleep(0.002)
    alive = [task for task in tasks if task.poll() is None]
    for task in alive:
        task.send_signal(rng.choice(SIGNALS))
    for task in tasks:
        task.wait(60)
    return len(alive)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + NUM_SCHEDULES))
def test_the_bytes_are_those_of_an_undisturbed_process(tmp_path: Path, evidence: Evidence, seed: int) -> None:
    rng, run = random.Random(seed), tmp_path / "run"
    options = (*OPTIONS, f"fetch.format={('webdataset', 'jsonl')[seed % 2]}")
    with Server() as server:
        source = write_rows(tmp_path / "in.jsonl", serve(server))
        small_run(tmp_path / "whole", *options, source=source)
        num_once = len(server.asked)
        del server.asked[:]
        serve(server)  # with its faults once more
        rounds = rng.randint(2, 4)
        hit = sum(disturb(submit(run, rng, options, str(source)), server, rng) for _ in range(rounds))
        last = submit(run, rng, options, str(source))
        assert [task.wait(120) for task in last] == [0] * len(last), Path(f"{run}.log").read_text()[-3000:]
        asked = len(server.asked)
    print(f"seed {seed}: {hit} processes hit, {asked} requests for {num_once}")
    evidence(KILLS, hit, run)
    assert sha256_tree(run / "shards") == sha256_tree(tmp_path / "whole/shards"), f"seed {seed}"
    counts = read_status(run).counts
    assert counts["written"] + sum(counts["rejected"].values()) == NUM + 8
    assert list((run / "claims").iterdir()) == []
    window = 24 + 4  # a shard at most is in work, and what is asked for at once
    assert asked <= num_once + hit * window

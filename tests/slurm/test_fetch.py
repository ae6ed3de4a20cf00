"""A list of URLs fetched by an array, through preemptions and a server that misbehaves.

pytest tests/slurm/test_fetch.py
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from hpcdata.dataset.verifying import verify
from hpcdata.report.status import read_status
from hpcdata.runs.rejects import rows_of
from tests.net.misbehaving import Server
from tests.slurm import acceptance
from tests.slurm.cluster import SlurmCluster
from tests.stages.url_lists import row, write_rows
from tests.trees import sha256_tree

NUM, SHARD = 240, 24
FAULTS = {
    1: ("404*",),
    2: ("410*",),
    3: ("429:1",),
    4: ("cut",),
    5: ("corrupt*",),
    6: ("html*",),
    7: ("503*",),
    8: ("drip:0.5*",),
    9: ("403*",),
    10: ("close",),
}
"""Number of a picture -> what the server does with it; all others come slowly."""
RETRYABLE = {7, 8}
OPTIONS = [
    *("fetch.allow_private=true", "fetch.host_rate=null"),
    *("data.max_rejected=1", f"data.shard_size={SHARD}", "loader.batch_size=8", "fetch.connections=2"),
    *("fetch.timeout_s=1", "fetch.tries=2", "data.save_tmp_interval=0.5"),
]


def serve(server: Server, *, is_well: bool = False) -> list[dict[str, object]]:
    return [row(server, number, *(() if is_well else FAULTS.get(number, ("slow:0.1*",)))) for number in range(NUM)]


def test_an_array_fetches_each_picture_once_and_a_retry_what_may_come(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "PREEMPT_EVERY_S", 1.0)
    run, typed = tmp_path / "run", [sys.executable, "-m", "hpcdata"]
    with Server() as server:
        source = write_rows(tmp_path / "in.jsonl", serve(server))
        line = [*typed, "launch", "+experiments=fetch", f"data.raw_data_dir={source}", *OPTIONS]
        alone = ["fetch.connections=64", "fetch.host_connections=null", f"data.token_output_dir={tmp_path}/whole"]
        acceptance.run(slurm, [*line, *alone])
        once = Counter(item.path for item in server.asked)
        del server.asked[:]
        rows = serve(server)  # with its faults once more
        started = time.monotonic()
        cluster = ["cluster=slurm", "cluster.partition=preempt", "cluster.cpus_per_task=1", "cluster.array=0-3"]
        acceptance.run(slurm, [*line, *cluster, f"data.token_output_dir={run}", "cluster.claim_timeout_s=5"])
        preempter = acceptance.Preempter(slurm)
        preempter.start()
        try:
            slurm.wait_until(lambda: preempter.num_jobs >= 3, "three jobs that take a node", 60)
        finally:
            preempter.stop()
        result = acceptance.wait_for_the_end(slurm, run, 120, started)
        hit = result.num_preemptions + result.status.preemptions + result.status.vanished
        print(result.line(), f"{len(server.asked)} requests for {once.total()}")
        assert (result.outcome.outcome, hit >= 1) == ("finished", True)
        assert any("rejects" in line and "--retry" in line for line in result.outcome.details)
        assert sha256_tree(run / "dataset/parts") == sha256_tree(tmp_path / "whole/dataset/parts")
        assert not any(report.problems for report in verify(run))
        again = Counter(item.path for item in server.asked) - once
        assert again.total() <= hit * (SHARD + 2)  # of a shard in work, and what is asked for at the time
        assert read_status(run).counts["rejected"] == {
            "sha256_differs": 1, "url_failed": 2, "url_gone": 2, "url_refused": 2
        }  # fmt: skip
        del server.asked[:]
        serve(server, is_well=True)
        retried = json.loads(acceptance.run(slurm, [*typed, "rejects", run, "--retry", "--json"]))
        assert (retried["recovered"], retried["still_rejected"]) == ({"url_failed": 2}, {})
        numbers = {str(item["image_url"]).rpartition(":")[2].partition("/")[2]: item["number"] for item in rows}
        assert {numbers[item.path[1:]] for item in server.asked} == RETRYABLE
        acceptance.run(slurm, [*typed, "combine", run])
    assert not any(report.problems for report in verify(run))
    assert Counter(item.reason for item in rows_of(run)) == {"sha256_differs": 1, "url_gone": 2, "url_refused": 2}

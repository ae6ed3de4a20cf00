"""The promise as a whole, on the real SLURM: one launch line, and whatever happens, a verified dataset or what to type.

    nice python -m tests.slurm.acceptance             2,000 real pairs, three runs, about a quarter of an hour
    nice python -m tests.slurm.acceptance --pairs 200

1. Partition `preempt`, while jobs of partition `high` take a node every few seconds and one slurmd is killed for good.
2. The same with MaxArraySize=3.
3. One of the inputs is damaged after the launch: a report with the line to type, and that line makes the dataset.

Needs openclipart-png, openclipart-svg and tuxpaint-stamps-default. Nothing is typed after the launch: what this script
does afterwards is what other users, hardware and SLURM's two minutes of waiting after a requeue would do.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcdata.dataset.verifying import verify
from hpcdata.history import submissions
from hpcdata.history.ledger import read_ledgers
from hpcdata.history.outcome import Outcome, read_outcome
from hpcdata.report import status
from hpcdata.runs.paths import RunPaths
from tests import corpora
from tests.slurm.cluster import SlurmCluster

PREEMPT_EVERY_S = 10.0
SLURM_CONF = ("SlurmdTimeout=10",)
"""Seconds after which slurmctld gives a node up that does not answer."""


@dataclass(frozen=True, kw_only=True)
class Result:
    outcome: Outcome
    status: status.Status
    seconds: float
    num_preemptions: int
    """Starts of a task after a requeue, in the ledger."""
    num_jobs: int

    def line(self) -> str:
        shown = self.status
        return (
            f"{self.outcome.outcome} in {self.seconds:.0f} s: {shown.samples_done} of {shown.num_samples} samples, "
            f"{self.num_jobs} jobs, {self.num_preemptions} restarts, {shown.preemptions} preemptions, "
            f"{shown.vanished} vanished, {shown.useful_s} s useful, {shown.lost_s} s lost, {shown.overhead_s} s "
            f"overhead (goodput {shown.goodput}), {shown.queued_s} s queued"
        )


def make_pairs(folder: Path, num_pairs: int) -> list[Path]:
    """Tars of real pairs, four files whatever their number."""
    pairs = corpora.pairs("openclipart")[:num_pairs]
    pairs += corpora.pairs("tuxpaint")[: num_pairs - len(pairs)]
    folder.mkdir()
    return corpora.write_tars(pairs, folder, "pairs", -(-len(pairs) // 4))


def launch_line(folder: Path, source: Path, *overrides: str) -> list[str]:
    return [
        *(sys.executable, "-m", "hpcdata.launch", "+experiments=[webdataset,tokenize]"),
        f"data.raw_data_dir={source}/*.tar",
        f"data.token_output_dir={folder}",
        *("text.tokenizer=embedded", "image.tokenizer=embedded", "data.resolution=256", "data.shard_size=64"),
        *(
            "loader.batch_size=8",
            "data.save_tmp_interval=1",
            "cluster=slurm",
            "cluster.partition=preempt",
            "cluster.cpus_per_task=1",
        ),
        "cluster.claim_timeout_s=10",
        *overrides,
    ]


def run(cluster: SlurmCluster, command: Sequence[str]) -> str:
    """Types a line on the login node; returns what it prints."""
    return cluster.run(*command, timeout_s=300)


def wait_for_the_end(cluster: SlurmCluster, folder: Path, timeout_s: float, started: float) -> Result:
    """Until the report is there and no job of the run is left in the queue."""
    paths = RunPaths(folder)
    outcome = cluster.wait_until(lambda: read_outcome(paths), "the report", timeout_s)
    seconds = time.monotonic() - started
    ids = {item.job_id for item in submissions.read(paths).submissions}
    cluster.wait_until(
        lambda: not ids & set(cluster.run("squeue", "--noheader", "--format=%F").split()), "an empty queue", 60
    )
    starts = [events[0] for _, events in read_ledgers(paths.ledger) if events]
    restarts = sum(int(event.get("slurm", {}).get("SLURM_RESTART_COUNT", 0) or 0) > 0 for event in starts)
    return Result(
        outcome=outcome, status=status.read_status(folder), seconds=seconds, num_preemptions=restarts, num_jobs=len(ids)
    )


def require_backed(folder: Path, shown: dict[str, Any]) -> None:
    """That what `status --json` says of preemptions and seconds is what the raw events of the ledgers add up to."""
    useful_s = lost_s = alive_s = 0.0
    preemptions = 0
    for _, events in read_ledgers(RunPaths(folder).ledger):
        kinds = {event["event"]: event for event in events}
        useful_s += sum(event["busy_s"] for event in events if event["event"] in ("checkpoint", "commit"))
        own_lost_s = sum(event["busy_s"] for event in events if event["event"] in ("lost", "conflict"))
        lost_s += own_lost_s + sum(event["lost_s"] for event in events if event["event"] == "claim")
        alive_s += events[-1]["time"] - events[0]["time"] - own_lost_s
        preemptions += kinds.get("end", {}).get("outcome") == "stopped" and "signal" in kinds
    told = (shown["preemptions"], shown["useful_s"], shown["lost_s"])
    _require(shown["preemptions"] == preemptions, f"{told}, the ledgers say {preemptions} preemptions")
    _require(abs(shown["useful_s"] - useful_s) < 1, f"{told}, the ledgers say {useful_s} useful seconds")
    _require(abs(shown["lost_s"] - lost_s) < 1, f"{told}, the ledgers say {lost_s} lost seconds")
    goodput = useful_s / (alive_s + lost_s)
    _require(abs(shown["goodput"] - goodput) < 0.01, f"goodput {shown['goodput']}, the ledgers say {goodput}")


class Preempter(threading.Thread):
    """Jobs of partition `high` that each take the node of a task for a moment, until it is stopped."""

    def __init__(self, cluster: SlurmCluster, every_s: float | None = None) -> None:
        super().__init__(daemon=True)
        self._cluster, self._stop_it = cluster, threading.Event()
        self._every_s = PREEMPT_EVERY_S if every_s is None else every_s
        self.num_jobs = 0

    def run(self) -> None:
        while not self._stop_it.wait(self._every_s):
            if nodes := nodes_of_tasks(self._cluster):
                options = ["--partition=high", "--exclusive", "--output=/dev/null", "--time=1"]
                self._cluster.sbatch(*options, f"--nodelist={nodes[self.num_jobs % len(nodes)]}", "--wrap", "sleep 1")
                self.num_jobs += 1

    def stop(self) -> None:
        self._stop_it.set()
        self.join()


def nodes_of_tasks(cluster: SlurmCluster) -> list[str]:
    options = ["--noheader", "--partition=preempt", "--states=RUNNING", "--format=%N"]
    return sorted(set(cluster.run("squeue", *options).split()))


def preempted(cluster: SlurmCluster, line: Sequence[object], folder: Path, *, num_jobs: int = 6) -> Result:
    """Types a line of hpcdata, takes nodes away from its tasks, and waits for its run in `folder` to end well."""
    started = time.monotonic()
    run(cluster, [sys.executable, "-m", "hpcdata", *map(str, line)])
    preempter = Preempter(cluster, every_s=1.0)
    preempter.start()
    try:
        cluster.wait_until(lambda: preempter.num_jobs >= num_jobs, f"{num_jobs} jobs that take a node", 300)
    finally:
        preempter.stop()
    result = wait_for_the_end(cluster, folder, 300, started)
    print(result.line(), f"{preempter.num_jobs} jobs of high")
    _require(result.outcome.outcome == "finished", str(result.outcome))
    taken = result.num_preemptions + result.status.preemptions + result.status.vanished
    _require(taken >= 1, "no task lost its node")
    _require(not any(report.problems for report in verify(folder)), "the dataset does not verify")
    return result


def survive(cluster: SlurmCluster, folder: Path, source: Path, *overrides: str, timeout_s: float = 1200) -> Result:
    """One launch line, preemptions all the time, and a node that dies once a quarter is done."""
    started = time.monotonic()
    print(run(cluster, launch_line(folder, source, *overrides)), end="", flush=True)
    preempter = Preempter(cluster)
    preempter.start()
    try:
        cluster.wait_until(lambda: _share_done(folder) > 0.25, "a quarter", timeout_s)
        node = cluster.wait_until(lambda: nodes_of_tasks(cluster), "a running task")[-1]
        cluster.kill_node(node)
        print(
            f"{preempter.num_jobs} jobs of high; slurmd of {node} killed after {time.monotonic() - started:.0f} s",
            flush=True,
        )
        cluster.wait_until(lambda: _share_done(folder) >= 0.9, "nearly all", timeout_s)
    finally:
        preempter.stop()
    result = wait_for_the_end(cluster, folder, timeout_s, started)
    _require(result.outcome.outcome == "finished", str(result.outcome))
    _require(not any(report.problems for report in verify(folder)), "the dataset does not verify")
    return result


def be_damaged(cluster: SlurmCluster, folder: Path, source: Path, *overrides: str, timeout_s: float = 1200) -> Result:
    """An input loses its end between launch and work; the report names it; repaired, the reported line finishes."""
    inputs = folder.with_name(f"{folder.name}-in")
    shutil.copytree(source, inputs)
    damaged = sorted(inputs.glob("*.tar"))[1]
    content, times = damaged.read_bytes(), damaged.stat()
    hold = "cluster.additional_parameters.begin=now+2"
    started = time.monotonic()
    print(run(cluster, launch_line(folder, inputs, hold, *overrides)), end="", flush=True)
    damaged.write_bytes(content[:-1024])
    stopped = wait_for_the_end(cluster, folder, timeout_s, started)
    print((folder / "report.txt").read_text(), end="", flush=True)
    _require(stopped.outcome.outcome == "stopped", str(stopped.outcome))
    _require(str(damaged) in stopped.outcome.reason, stopped.outcome.reason)
    damaged.write_bytes(content)
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert stopped.outcome.next_step is not None
    words = stopped.outcome.next_step.split()
    _require(words == ["python", "-m", "hpcdata.resume", str(folder)], stopped.outcome.next_step)
    print(run(cluster, [sys.executable, *words[1:]]), end="", flush=True)
    finished = wait_for_the_end(cluster, folder, timeout_s, started)
    _require(finished.outcome.outcome == "finished", str(finished.outcome))
    _require(not any(report.problems for report in verify(folder)), "the dataset does not verify")
    return dataclasses.replace(finished, outcome=stopped.outcome)


def _share_done(folder: Path) -> float:
    shown = status.read_status(folder)
    return shown.samples_done / shown.num_samples


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _without_tasks(shown: str) -> str:
    return json.dumps({name: value for name, value in json.loads(shown).items() if name != "tasks"}, indent=1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--runs", default="123", help="which of the three")
    options = parser.parse_args(arguments)
    lines = []
    with tempfile.TemporaryDirectory(prefix="hpcdata-acceptance-") as name:
        root = Path(name)
        tars = make_pairs(root / "in", options.pairs)
        print(f"{options.pairs} pairs in {len(tars)} tars", flush=True)
        for number, size in (("1", 1001), ("2", 3), ("3", 1001)):
            if number not in options.runs:
                continue
            with SlurmCluster(max_array_size=size, kill_wait_s=1, slurm_conf=SLURM_CONF) as cluster:
                print(f"---- run {number}, MaxArraySize={size}", flush=True)
                act = be_damaged if number == "3" else survive
                result = act(cluster, root / f"run{number}", root / "in", "cluster.array=0-99%3")
                shown = run(cluster, [sys.executable, "-m", "hpcdata.status", str(root / f"run{number}"), "--json"])
                require_backed(root / f"run{number}", json.loads(shown))
                _require(number == "3" or result.status.preemptions > 0, "nothing was preempted")
                lines.append(f"run {number}: {result.line()}")
                print(f"{lines[-1]}\n{_without_tasks(shown)}", flush=True)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the scheduler says of a run's jobs: squeue for those that are not over, sacct for how the others ended."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpcdata import submissions
from hpcdata.errors import UserError
from hpcdata.plan import RunPaths
from hpcdata.submissions import History, Kind

TIMEOUT_S = 60.0
BUSY = "temporarily unable to accept job"
"""What sbatch says when the whole cluster has as many jobs as it can hold (MaxJobCount)."""
_COMPLETING_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job or whole array in the queue."""

    job_id: str
    kind: Kind
    states: frozenset[str]
    """Of its elements: PENDING, RUNNING, ..."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a job or array element came to its end."""

    job_id: str
    state: str
    """COMPLETED, FAILED, CANCELLED, NODE_FAIL, PREEMPTED, TIMEOUT, OUT_OF_MEMORY ..."""
    exit_code: int


def run(*command: str, input_text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program of SLURM as if from a login node. Raises UserError when it is missing or does not answer."""
    with outside_of_any_job():
        try:
            return subprocess.run(command, input=input_text, capture_output=True, text=True, timeout=TIMEOUT_S)
        except OSError:
            raise UserError(f"{command[0]} was not found in PATH: use a login node of the cluster") from None
        except subprocess.TimeoutExpired as error:
            if BUSY in (said := (error.stderr or b"").decode(errors="replace")):  # sbatch would wait for long
                return subprocess.CompletedProcess(command, 1, "", said.splitlines()[0])
            raise UserError(f"{command[0]} did not answer for {TIMEOUT_S:.0f} s: try again later") from None


def active_jobs(paths: RunPaths, history: History) -> list[Job]:
    """The run's jobs that wait, run or are about to come back. Raises UserError without a scheduler."""
    found: dict[str, tuple[Kind, set[str]]] = {}
    for line in _squeue():
        job_id, _, rest = line.partition("|")
        state, _, comment = rest.partition("|")
        known = history.of(job_id)
        kind = known.kind if known else submissions.kind_of_mark(comment, paths.root)
        if kind:
            found.setdefault(job_id, (kind, set()))[1].add(state)
    return [Job(job_id=job_id, kind=kind, states=frozenset(states)) for job_id, (kind, states) in found.items()]


def settled_jobs(paths: RunPaths, history: History) -> list[Job]:
    """The same, once jobs that are only being cleaned up are gone, or after a while of waiting for that."""
    deadline = time.monotonic() + _COMPLETING_S
    while True:
        jobs = active_jobs(paths, history)
        waiting = [job for job in jobs if job.states != {"COMPLETING"}]
        if len(waiting) == len(jobs) or time.monotonic() > deadline:
            return waiting
        time.sleep(1.0)


def ended_jobs(job_ids: Sequence[str]) -> list[Ended]:
    """Each element of these jobs that is over, as accounting has it; empty where there is none."""
    if not job_ids or shutil.which("sacct") is None:
        return []
    result = run("sacct", "-X", "-n", "-P", "--format=JobID,State,ExitCode", "--jobs", ",".join(job_ids))
    ended = []
    for line in result.stdout.splitlines():
        if match := re.fullmatch(r"([^|]+)\|(\w+)[^|]*\|(\d+):\d+", line):
            ended.append(Ended(job_id=match[1], state=match[2], exit_code=int(match[3])))
    ended = [item for item in ended if item.job_id.partition("_")[0] in job_ids]
    return [item for item in ended if item.state not in ("PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED")]


def cancel(job_ids: Sequence[str]) -> None:
    """Raises UserError when scancel could not be asked; jobs that are over already are fine."""
    if job_ids:
        run("scancel", *job_ids)


@contextlib.contextmanager
def outside_of_any_job() -> Iterator[None]:
    """Hides a job that this process itself runs in: its SLURM_* would be inherited and limit the new job's steps."""
    hidden = {name for name in os.environ if name.startswith("SLURM_")} - {"SLURM_CONF", "SLURM_CLUSTERS"}
    saved = {name: os.environ.pop(name) for name in hidden}
    try:
        yield
    finally:
        os.environ.update(saved)


def _squeue() -> list[str]:
    """`array id|state|comment` of the user's jobs, one line for each element that runs and each array that waits."""
    result = run("squeue", "--me", "--noheader", "--format=%F|%T|%k")
    if result.returncode != 0:
        raise UserError(f"squeue failed: {result.stderr.strip() or result.returncode}")
    return result.stdout.splitlines()

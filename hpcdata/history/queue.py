"""What the scheduler says of a run's jobs: squeue for those that are not over, sacct for how the others ended."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hpcdata.base.errors import Failed, UserError
from hpcdata.history import submissions
from hpcdata.history.submissions import History, Kind
from hpcdata.runs.paths import RunPaths

TIMEOUT_S = 60.0
LOOK_S = 5.0
"""Of one that only wants to show something."""
BUSY = "temporarily unable to accept job"
"""What sbatch says when the whole cluster has as many jobs as it can hold (MaxJobCount)."""
_COMPLETING_S = 20.0
_NOT_OVER = ("PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED", "CONFIGURING", "COMPLETING", "STOPPED")
_OVER_ALREADY = ("Invalid job id", "already completing or completed")
"""What scancel says of jobs that have ended meanwhile."""


class Missing(UserError):
    """There is no such program here."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job or whole array in the queue."""

    job_id: str
    kind: Kind
    states: frozenset[str]
    """Of its elements: PENDING, RUNNING, ..."""
    user: str = ""
    """Who submitted it."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a job or array element came to its end."""

    job_id: str
    state: str
    """COMPLETED, FAILED, CANCELLED, NODE_FAIL, PREEMPTED, TIMEOUT, OUT_OF_MEMORY ..."""
    exit_code: int


@dataclass(frozen=True, kw_only=True)
class JobStates:
    """What there is to show of a run's jobs."""

    by_element: dict[str, str] = field(default_factory=dict)
    """`123_4` or `123` -> RUNNING, PENDING, PREEMPTED, NODE_FAIL, ..."""
    exit_codes: dict[str, str] = field(default_factory=dict)
    """`123_4` -> `code:signal`, of what has ended, where accounting is on."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why waiting elements wait."""
    num_waiting: int = 0

    def counts(self) -> dict[str, int]:
        """State -> array elements in it; the elements of one waiting job record count as many."""
        found = Counter(self.by_element.values())
        if self.num_waiting:
            found["PENDING"] = self.num_waiting
        return dict(sorted(found.items()))


def run(
    *command: str, input_text: str | None = None, timeout_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program of SLURM as if from a login node. Raises UserError when it is missing or does not answer."""
    timeout_s = timeout_s or TIMEOUT_S
    with outside_of_any_job():
        try:
            return subprocess.run(
                command,
                input=input_text,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                start_new_session=True,  # a signal for the job that it is in ends the question otherwise
            )
        except OSError:
            raise Missing(f"{command[0]} was not found in PATH: use a login node of the cluster") from None
        except subprocess.TimeoutExpired as error:
            if BUSY in (said := (error.stderr or b"").decode(errors="replace")):  # sbatch would wait for long
                return subprocess.CompletedProcess(command, 1, "", said.splitlines()[0])
            raise Failed(f"{command[0]} did not answer for {timeout_s:.0f} s: try again later") from None


def active_jobs(paths: RunPaths, history: History) -> list[Job]:
    """The run's jobs that wait, run or are about to come back, whoever submitted them. Raises without a scheduler."""
    found: dict[str, Job] = {}
    for line in _squeue(paths, history):
        job_id, state, comment, user = (*line.split("|"), "", "", "")[:4]
        known = history.of(job_id)
        kind = known.kind if known else submissions.kind_of_mark(comment, paths.root)
        if kind:
            states = found[job_id].states if job_id in found else frozenset()
            found[job_id] = Job(job_id=job_id, kind=kind, states=states | {state}, user=user)
    return list(found.values())


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
    """Each element of these jobs that is over: slurmctld knows it for some minutes, accounting, where it is, for long.

    Empty where neither can tell.
    """
    rows = [row for job_id in job_ids for row in _shown(job_id)]
    forgotten = sorted(set(job_ids) - {_array_of(job_id) for job_id, _, _ in rows})
    if forgotten and shutil.which("sacct") is not None:
        rows += [row for row in _rows(run(*_sacct(forgotten)).stdout) if _array_of(row[0]) in forgotten]
    return [
        Ended(job_id=job_id, state=state, exit_code=int(code.partition(":")[0]))
        for job_id, state, code in rows
        if state and state not in _NOT_OVER and re.fullmatch(r"\d+:\d+", code, re.ASCII)
    ]


def _shown(job_id: str) -> Iterator[tuple[str, str, str]]:
    """The same as `_rows` of sacct, from slurmctld; nothing when it has forgotten the job."""
    for line in run("scontrol", "show", "job", "--oneliner", job_id).stdout.splitlines():
        values = dict(re.findall(r"\b(JobId|ArrayJobId|ArrayTaskId|JobState|ExitCode)=(\S+)", line))
        if values.keys() >= {"JobId", "JobState", "ExitCode"}:
            element = f"{values.get('ArrayJobId')}_{values.get('ArrayTaskId')}"
            yield element if "ArrayTaskId" in values else values["JobId"], values["JobState"], values["ExitCode"]


def _array_of(job_id: str) -> str:
    return job_id.partition("_")[0]


def num_restarts(job_id: str) -> int | None:
    """How often slurmctld has put the job back into the queue; None when it does not know it, or does not answer soon.

    It grows in the moment of requeueing. The state would not do: both of a cancelled job and of a requeued one it is
    COMPLETING until their processes are gone.
    """
    match = re.search(r"\bRestarts=(\d+)", _look("scontrol", "show", "job", "--oneliner", job_id) or "")
    return int(match[1]) if match else None


def look(job_ids: Iterable[str]) -> JobStates | None:
    """The states of these jobs, to be shown; None when there are none, or nobody answers soon."""
    jobs = sorted({job for job in job_ids if re.fullmatch(r"\d+", job, re.ASCII)}, key=int)
    if not jobs:
        return None
    left = _look(*_sacct(jobs))
    queued = _look("squeue", "-h", "-a", "-j", ",".join(jobs), "-o", "%i|%T|%r")
    if left is None and queued is None:
        return None
    states: dict[str, str] = {}
    codes: dict[str, str] = {}
    reasons: Counter[str] = Counter()
    for element, state, code in _rows(left or ""):
        if "[" not in element:
            states[element], codes[element] = state or "UNKNOWN", code
    for element, state, reason in _rows(queued or ""):  # knows better than accounting what is there now
        if state == "PENDING":
            reasons[reason] += num_elements(element)
        if "[" not in element:
            states[element] = state
    return JobStates(by_element=states, exit_codes=codes, reasons=reasons, num_waiting=reasons.total())


def num_elements(job: str) -> int:
    """`12_[0-3,7%2]` stands for five elements, other ids for one."""
    match = re.search(r"\[([^\]%]*)", job)
    if match is None:
        return 1
    total = 0
    for part in match[1].split(","):
        numbers, _, step = part.partition(":")
        first, _, last = numbers.partition("-")
        is_range = last.isdigit() and first.isdigit()
        total += len(range(int(first), int(last) + 1, int(step or 1))) if is_range else 1
    return total


def cancel(job_ids: Sequence[str]) -> None:
    """Jobs that are over already are fine. Raises Failed with scancel's own words when others are not ended."""
    if not job_ids:
        return
    result = run("scancel", *job_ids)
    lines = [line.removeprefix("scancel: error: ").strip() for line in result.stderr.splitlines()]
    refused = [line for line in lines if line and not any(words in line for words in _OVER_ALREADY)]
    if result.returncode != 0 and (refused or not lines):
        raise Failed(f"scancel {' '.join(job_ids)} failed: {'; '.join(refused) or result.returncode}")


def user_name() -> str:
    """Of this process, as SLURM shows it: a number where the machine has no name for it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@contextlib.contextmanager
def outside_of_any_job() -> Iterator[None]:
    """Hides a job that this process itself runs in: its SLURM_* would be inherited and limit the new job's steps."""
    hidden = {name for name in os.environ if name.startswith("SLURM_")} - {"SLURM_CONF", "SLURM_CLUSTERS"}
    saved = {name: os.environ.pop(name) for name in hidden}
    try:
        yield
    finally:
        os.environ.update(saved)


def _squeue(paths: RunPaths, history: History) -> list[str]:
    """`array id|state|comment|user`, one line for each element that runs and each array that waits.

    Of this user, of all who have submitted jobs of the run, and of who made it.
    """
    users = {os.getuid(), *history.users}
    with contextlib.suppress(OSError):
        users.add(paths.root.stat().st_uid)
    names = ",".join(map(str, sorted(users)))
    result = run("squeue", "--all", f"--user={names}", "--noheader", "--format=%F|%T|%k|%u")
    if result.returncode != 0:
        raise Failed(f"squeue failed: {result.stderr.strip() or result.returncode}")
    return result.stdout.splitlines()


def _sacct(job_ids: Sequence[str]) -> tuple[str, ...]:
    return ("sacct", "-X", "-n", "-P", "--format=JobID,State,ExitCode", "--jobs", ",".join(job_ids))


def _look(*command: str) -> str | None:
    try:
        result = run(*command, timeout_s=LOOK_S)
    except UserError:
        return None
    return result.stdout if result.returncode == 0 else None


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    """id, state in one word (`CANCELLED by 0`), the rest."""
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) >= 3:
            yield fields[0], fields[1].partition(" ")[0], fields[2]

"""What the scheduler says about the jobs of a run: states by job id from squeue, and from sacct for those that left it.

Asked only where the commands exist, never longer than `TIMEOUT_S`; no answer is no error. Job ids come from the
ledgers (jobs that started) and from the records in `submissions/` (jobs that only wait so far).
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hpcdata import files

TIMEOUT_S = 5.0
_JOB_ID = re.compile(r"\d+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class JobStates:
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


def submitted_jobs(output_dir: Path) -> set[str]:
    """Job ids of all submissions of a run, waiting ones among them."""
    found: set[str] = set()
    for path in (output_dir / "submissions").glob("[0-9]*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.add(str(files.read_json(path)["job_id"]).split("_")[0])
    return found


def ask(job_ids: Iterable[str]) -> JobStates | None:
    """The states of these jobs; None when there are none or nobody answers."""
    jobs = sorted({job for job in job_ids if _JOB_ID.fullmatch(job)}, key=int)
    if not jobs:
        return None
    left = _run(["sacct", "-X", "-n", "-P", "-j", ",".join(jobs), "-o", "JobID,State,ExitCode"])
    queued = _run(["squeue", "-h", "-a", "-j", ",".join(jobs), "-o", "%i|%T|%r"])
    if left is None and queued is None:
        return None
    return _parse(left or "", queued or "")


def _parse(left: str, queued: str) -> JobStates:
    states: dict[str, str] = {}
    codes: dict[str, str] = {}
    reasons: Counter[str] = Counter()
    num_waiting = 0
    for element, state, code in _rows(left, 3):
        if "[" not in element:
            states[element], codes[element] = (state.split() or ["UNKNOWN"])[0], code
    for element, state, reason in _rows(queued, 3):  # knows better than accounting what is there now
        if state == "PENDING":
            number = _num_elements(element)
            num_waiting += number
            reasons[reason] += number
        if "[" not in element:
            states[element] = state
    return JobStates(by_element=states, exit_codes=codes, reasons=reasons, num_waiting=num_waiting)


def _rows(text: str, width: int) -> Iterable[list[str]]:
    rows = (line.split("|") for line in text.splitlines())
    return (row[:width] for row in rows if len(row) >= width)


def _num_elements(job: str) -> int:
    """`12_[0-3,7%2]` stands for five elements, other ids for one."""
    match = re.search(r"\[([^\]%]*)", job)
    if match is None:
        return 1
    total = 0
    for part in match[1].split(","):
        first, _, last = part.partition(":")[0].partition("-")
        total += int(last) - int(first) + 1 if last.isdigit() and first.isdigit() else 1
    return total


def _run(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None

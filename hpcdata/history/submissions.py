"""Which scheduler jobs a run has: `submissions/`, one small file for each thing that happened, never changed.

A run is one thing for its user, whatever number of SLURM arrays and finishing jobs it takes. A record is written
right after sbatch has answered. Jobs also carry `mark` as their comment, so that one whose submitter was killed in
between is found in the queue all the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from hpcdata.base import files, sealed
from hpcdata.base.digest import sha256_file
from hpcdata.base.typed import checked
from hpcdata.runs.paths import RunPaths

Kind = Literal["tasks", "finish"]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One job or job array that sbatch took."""

    job_id: str
    kind: Kind
    round: int
    """Arrays submitted together share it; it grows by one with each submission of the run."""
    by: Literal["user", "finish"]
    time: float
    num_tasks: int
    samples_done: int
    """Of the run, when it was submitted."""
    partition: str | None
    script_sha256: str = ""
    """Of what was given to sbatch, a file in `logs/`; empty in records of older versions."""


@dataclass(frozen=True, kw_only=True)
class History:
    """All records of a run, in their order."""

    submissions: tuple[Submission, ...] = ()
    withdrawn: frozenset[str] = frozenset()
    """Jobs and array elements that were cancelled to make room or to be replaced."""
    cancelled: float = 0.0
    """When the run was last cancelled by `hpcdata.cancel`, in seconds since 1970."""

    users: frozenset[int] = frozenset()
    """Ids of the users who have written the records."""

    @property
    def last_round(self) -> int:
        return max((item.round for item in self.submissions), default=0)

    @property
    def is_cancelled(self) -> bool:
        """Whether nothing was submitted since the run was cancelled."""
        return self.cancelled > max((item.time for item in self.submissions), default=0.0)

    def job_ids(self, kind: Kind, round_: int | None = None) -> list[str]:
        found = [item for item in self.submissions if item.kind == kind and round_ in (None, item.round)]
        return [item.job_id for item in found if item.job_id not in self.withdrawn]

    def of(self, job_id: str) -> Submission | None:
        return next((item for item in self.submissions if item.job_id == job_id), None)


def add(paths: RunPaths, submission: Submission) -> None:
    _write(paths, submission.job_id, {"event": "submitted", **dataclasses.asdict(submission)})


def add_withdrawn(paths: RunPaths, job_id: str) -> None:
    """Of a job, or one element of an array."""
    _write(paths, f"{job_id}-withdrawn", {"event": "withdrawn", "job_id": job_id, "time": time.time()})


def add_cancelled(paths: RunPaths) -> None:
    _write(paths, "cancelled", {"event": "cancelled", "time": time.time()})


def add_not_cancelled(paths: RunPaths) -> None:
    """After `add_cancelled`: no job could be ended."""
    _write(paths, "cancelled", {"event": "cancelled", "time": 0.0})


def read(paths: RunPaths) -> History:
    """Records that cannot be read (of a full disk, say), or were changed, are left out: the queue knows their jobs."""
    submissions: list[Submission] = []
    withdrawn: set[str] = set()
    users: set[int] = set()
    cancelled = 0.0
    for path in sorted(paths.submissions.glob("[0-9]*.json")):
        try:
            users.add(path.stat().st_uid)
            values = sealed.read_json(path)
            event = values.pop("event")
            if event == "submitted":
                submissions.append(checked(Submission(**values)))
            elif event == "withdrawn":
                withdrawn.add(str(values["job_id"]))
            else:
                cancelled = float(values["time"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return History(
        submissions=tuple(submissions), withdrawn=frozenset(withdrawn), cancelled=cancelled, users=frozenset(users)
    )


def mark(root: Path, kind: Kind) -> str:
    """The first word in the comments of the run's jobs."""
    return f"hpcdata:{kind}:{hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:16]}"


def kind_of_mark(comment: str, root: Path) -> Kind | None:
    """None for the comment of any job that is not one of this run."""
    found = [kind for kind in ("tasks", "finish") if mark(root, cast(Kind, kind)) in comment.split()[:1]]
    return cast(Kind, found[0]) if found else None


def script(paths: RunPaths, job_id: str) -> Path:
    """Where a copy of what was given to sbatch lies."""
    return paths.logs / f"{job_id}_submission.sh"


def sha256_of_script(paths: RunPaths, job_id: str) -> str:
    file = script(paths, job_id)
    return sha256_file(file) if file.exists() else ""


def _write(paths: RunPaths, name: str, values: dict[str, object]) -> None:
    paths.submissions.mkdir(exist_ok=True)
    files.create_exclusive(paths.submissions / f"{time.time_ns():020d}-{name}.json", sealed.to_json(values))

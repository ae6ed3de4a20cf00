"""Cancel: ends every job of a run, the finishing job first, and says what is kept.

    python -m hpcdata.cancel OUT

Tasks make a checkpoint before they end. Nothing that is written is removed; `hpcdata.resume` goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.errors import Failed
from hpcdata.history import queue, submissions
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan

MAX_LOOKS = 5
"""A finishing job may submit others while it is cancelled."""


def cancel(output_dir: Path) -> list[str]:
    """Returns the ids of the jobs. Raises UserError when this is not a run, without a scheduler, or when it refuses."""
    load_plan(output_dir)
    paths = RunPaths(output_dir.absolute())
    cancelled: list[str] = []
    for _ in range(MAX_LOOKS):
        jobs = queue.active_jobs(paths, submissions.read(paths))
        new = [job for job in jobs if job.job_id not in cancelled]
        if not new:
            break
        _end(paths, new)
        cancelled += [job.job_id for job in new]
    return cancelled


def _end(paths: RunPaths, jobs: Sequence[queue.Job]) -> None:
    """Raises Failed when a job could not be ended, after those that can be."""
    submissions.add_cancelled(paths)  # before the jobs end: a finishing job that is at work submits no more
    refused: list[queue.Job] = []
    reason = ""
    for kind in ("finish", "tasks"):
        for user in sorted({job.user for job in jobs}):
            group = [job for job in jobs if (job.kind, job.user) == (kind, user)]
            try:
                queue.cancel([job.job_id for job in group])
            except Failed as error:
                refused, reason = refused + group, str(error)
    if len(refused) == len(jobs):
        submissions.add_not_cancelled(paths)
    if refused:
        names = ", ".join(f"{job.job_id} of {job.user}" if job.user else job.job_id for job in refused)
        raise Failed(f"not cancelled: {names} ({reason}); try again, or ask who submitted them to type the same line")

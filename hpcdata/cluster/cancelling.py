"""Ends every job of a run, the finishing job first. Of a run that has had none no scheduler is asked: it needs none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.errors import Failed, UserError
from hpcdata.history import queue, submissions
from hpcdata.report.status import read_status
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan, load_runtime

MAX_LOOKS = 5
"""A finishing job may submit others while it is cancelled."""


def cancel(output_dir: Path) -> list[str]:
    """Returns the ids of the jobs. Raises UserError when this is not a run, when its scheduler does not answer or
    refuses, and when tasks are at work that are no jobs of the run.
    """
    load_plan(output_dir)
    paths = RunPaths(output_dir.absolute())
    if not _has_jobs(paths):
        _require_no_tasks(paths)
        return []
    cancelled: list[str] = []
    for _ in range(MAX_LOOKS):
        jobs = queue.active_jobs(paths, submissions.read(paths))
        new = [job for job in jobs if job.job_id not in cancelled]
        if not new:
            break
        _end(paths, new)
        cancelled += [job.job_id for job in new]
    return cancelled


def _has_jobs(paths: RunPaths) -> bool:
    """Whether it may have some: a launch that was killed has noted its settings before its jobs."""
    if submissions.read(paths).submissions:
        return True
    try:
        return load_runtime(paths.root).cluster.kind == "slurm"
    except Failed:  # nobody knows
        return True


def _require_no_tasks(paths: RunPaths) -> None:
    if read_status(paths.root, ask_scheduler=False).running:
        raise UserError(
            f"the tasks of {paths.root} are no jobs that a launch has submitted: end them where they were started, "
            "with Ctrl-C, or scancel what you have submitted by hand"
        )


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

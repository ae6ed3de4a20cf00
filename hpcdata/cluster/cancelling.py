"""Cancel: ends every job of a run, the finishing job first, and says what is kept.

    python -m hpcdata.cancel OUT

Tasks make a checkpoint before they end. Nothing that is written is removed; `hpcdata.resume` goes on from there.
"""

from __future__ import annotations

from pathlib import Path

from hpcdata.history import queue, submissions
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan

MAX_LOOKS = 5
"""A finishing job may submit others while it is cancelled."""


def cancel(output_dir: Path) -> list[str]:
    """Returns the ids of the jobs. Raises UserError when this is not a run, or without a scheduler."""
    load_plan(output_dir)
    paths = RunPaths(output_dir.absolute())
    cancelled: list[str] = []
    for _ in range(MAX_LOOKS):
        jobs = queue.active_jobs(paths, submissions.read(paths))
        new = [job for job in jobs if job.job_id not in cancelled]
        if not new:
            break
        submissions.add_cancelled(paths)
        for kind in ("finish", "tasks"):
            queue.cancel([job.job_id for job in new if job.kind == kind])
        cancelled += [job.job_id for job in new]
    return cancelled

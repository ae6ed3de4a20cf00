"""Resume: goes on with a run from what its folder remembers, with other transient settings if wanted.

    python -m hpcdata.resume OUT
    python -m hpcdata.resume OUT cluster.array=0-199%50 cluster.partition=preempt

While tasks are still in the queue, settings take their place: the new tasks are submitted first, then the old ones are
ended, which makes each of them write a checkpoint that the new ones continue. To add tasks, launch the same line again.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.errors import Failed, UserError
from hpcdata.cluster.launching import Launched, fit_to_cluster, start
from hpcdata.config.compose import override
from hpcdata.config.schema import RunConfig
from hpcdata.history import queue, submissions
from hpcdata.runs.ownership import describe_risks, require_own_settings
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_runtime

log = logging.getLogger(__name__)


def resume(output_dir: Path, overrides: Sequence[str], config_dirs: Sequence[str] = ()) -> Launched:
    """Raises UserError before anything is changed. config_dirs: folders of presets."""
    from hpcdata.runs.planning import reopen

    config = _without_old_dependency(override(load_runtime(output_dir), overrides, config_dirs), overrides)
    require_own_settings(RunPaths(output_dir), config, overrides)
    config = fit_to_cluster(config)
    for line in describe_risks(RunPaths(output_dir)):
        log.warning("%s", line)
    old: list[queue.Job] = []
    if config.cluster.kind == "slurm":
        paths = RunPaths(output_dir.absolute())
        old = queue.settled_jobs(paths, submissions.read(paths))
        _require_own(old if overrides else [])
    plan = reopen(output_dir, config)
    if config.cluster.kind == "slurm":
        return _resume_slurm(output_dir.absolute(), plan, config, old, keep=not overrides)
    return start(output_dir.absolute(), plan, config)


def _without_old_dependency(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """What an earlier submission waited for has happened, or SLURM has forgotten it, and would wait for ever."""
    typed = [item.lstrip("+").partition("=")[0] for item in overrides]
    cluster, added = config.cluster, dict(config.cluster.additional_parameters)
    if cluster.dependency and "cluster.dependency" not in typed:
        log.info("cluster.dependency=%s was for an earlier submission: give it again to wait again", cluster.dependency)
        cluster = dataclasses.replace(cluster, dependency=None)
    if not any(key.startswith("cluster.additional_parameters") for key in typed):
        added.pop("dependency", None)
    return dataclasses.replace(config, cluster=dataclasses.replace(cluster, additional_parameters=added))


def _resume_slurm(output_dir: Path, plan: Plan, config: RunConfig, old: list[queue.Job], *, keep: bool) -> Launched:
    """keep: what is in the queue stays there, as no setting differs."""
    from hpcdata.cluster import runs

    tasks = tuple(job.job_id for job in old if job.kind == "tasks")
    finishing = [job.job_id for job in old if job.kind == "finish"]
    if tasks and keep:
        return _keep(output_dir, config, tasks, finishing)
    launched = start(output_dir, plan, config)
    if not old or launched.exit_code:
        return launched
    try:
        runs.replace_jobs(RunPaths(output_dir), old)
    except Failed as error:
        log.error("the new jobs are submitted, but those that they replace are not ended: %s", error)
        return launched
    return dataclasses.replace(launched, replaced=tuple(job.job_id for job in old))


def _require_own(jobs: Sequence[queue.Job]) -> None:
    """Raises UserError when jobs that are to be replaced are those of another user, who alone may end them."""
    others = sorted({job.user for job in jobs if job.user not in ("", queue.user_name())})
    if others and os.getuid():
        names = ", ".join(job.job_id for job in jobs if job.user in others)
        raise UserError(
            f"{names} of {', '.join(others)} would be replaced, but only who has submitted a job may end it: resume "
            "without key=value leaves them at work, or let them be cancelled first"
        )


def _keep(output_dir: Path, config: RunConfig, tasks: tuple[str, ...], finishing: list[str]) -> Launched:
    from hpcdata.cluster import runs
    from hpcdata.report.status import read_status

    status, submitted = read_status(output_dir), None
    if runs.wants_finish(config) and not finishing:
        job_id = runs.submit_finish(output_dir, config, after=tasks, samples_done=status.samples_done, by="user")
        logs = RunPaths(output_dir).logs
        submitted = runs.Submitted(job_ids=(), num_tasks=0, finish_id=job_id, problem=None, logs=logs)
    return Launched(output_dir=output_dir, config=config, status=status, submitted=submitted, kept=tasks)

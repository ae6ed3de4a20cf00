"""Resume: goes on with a run from what its folder remembers, with other transient settings if wanted.

    python -m hpcdata.resume OUT
    python -m hpcdata.resume OUT cluster.array=0-199%50 cluster.partition=preempt

While tasks are still in the queue, settings take their place: the new tasks are submitted first, then the old ones are
ended, which makes each of them write a checkpoint that the new ones continue. To add tasks, launch the same line again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from hpcdata.cluster.launching import Launched, fit_to_cluster, start
from hpcdata.config.compose import override
from hpcdata.config.schema import RunConfig
from hpcdata.history import submissions
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
    plan = reopen(output_dir, config)
    if config.cluster.kind == "slurm":
        return _resume_slurm(output_dir.absolute(), plan, config, overrides)
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


def _resume_slurm(output_dir: Path, plan: Plan, config: RunConfig, overrides: Sequence[str]) -> Launched:
    from hpcdata.cluster import runs
    from hpcdata.history import queue

    paths = RunPaths(output_dir)
    old = queue.active_jobs(paths, submissions.read(paths))
    tasks = tuple(job.job_id for job in old if job.kind == "tasks")
    finishing = [job.job_id for job in old if job.kind == "finish"]
    if tasks and not overrides:
        return _keep(output_dir, config, tasks, finishing)
    launched = start(output_dir, plan, config)
    if old and launched.exit_code == 0:
        runs.replace_jobs(paths, old)
        return dataclasses.replace(launched, replaced=tuple(job.job_id for job in old))
    return launched


def _keep(output_dir: Path, config: RunConfig, tasks: tuple[str, ...], finishing: list[str]) -> Launched:
    from hpcdata.cluster import runs
    from hpcdata.report.status import read_status

    status, submitted = read_status(output_dir), None
    if runs.wants_finish(config) and not finishing:
        job_id = runs.submit_finish(output_dir, config, after=tasks, samples_done=status.samples_done, by="user")
        logs = RunPaths(output_dir).logs
        submitted = runs.Submitted(job_ids=(), num_tasks=0, finish_id=job_id, problem=None, logs=logs)
    return Launched(output_dir=output_dir, config=config, status=status, submitted=submitted, kept=tasks)

"""Resume: goes on with a run from what its folder remembers, with other transient settings if wanted.

    python -m hpcdata.resume OUT
    python -m hpcdata.resume OUT cluster.array=0-199%50 cluster.partition=preempt

While tasks are still in the queue, settings take their place: the new tasks are submitted first, then the old ones are
ended, which makes each of them write a checkpoint that the new ones continue. To add tasks, launch the same line again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcdata.config.compose import override
from hpcdata.config.schema import RunConfig
from hpcdata.run import submissions
from hpcdata.run.paths import RunPaths
from hpcdata.run.plan import Plan, load_runtime


def resume(output_dir: Path, overrides: Sequence[str]) -> int:
    """Returns an exit code. Raises UserError before anything is changed."""
    from hpcdata.cluster.launching import fit_to_cluster
    from hpcdata.run.planning import reopen

    config = fit_to_cluster(override(load_runtime(output_dir), overrides))
    plan = reopen(output_dir, config)
    return (
        _resume_slurm(output_dir, plan, config, overrides) if config.cluster.kind == "slurm" else _start(plan, config)
    )


def _resume_slurm(output_dir: Path, plan: Plan, config: RunConfig, overrides: Sequence[str]) -> int:
    from hpcdata.cluster import runs
    from hpcdata.run import queue

    paths = RunPaths(output_dir.absolute())
    old = queue.active_jobs(paths, submissions.read(paths))
    tasks = tuple(job.job_id for job in old if job.kind == "tasks")
    finishing = [job.job_id for job in old if job.kind == "finish"]
    if tasks and not overrides:
        return _keep(output_dir, config, tasks, finishing)
    code = _start(plan, config)
    if old and code == 0:
        runs.replace_jobs(paths, old)
        print(f"replaces  {', '.join(job.job_id for job in old)}: its tasks make a checkpoint and end")
    return code


def _keep(output_dir: Path, config: RunConfig, tasks: tuple[str, ...], finishing: list[str]) -> int:
    from hpcdata.cluster import runs
    from hpcdata.report.status import read_status

    print(f"{', '.join(tasks)} are still in the queue: nothing is submitted (key=value replaces them)")
    if runs.wants_finish(config) and not finishing:
        done = read_status(output_dir).samples_done
        job_id = runs.submit_finish(output_dir, config, after=tasks, samples_done=done, by="user")
        print(f"finish    job {job_id} submits again what is missing, then combines and verifies")
    return 0


def _start(plan: Plan, config: RunConfig) -> int:
    from hpcdata.cluster.launching import start

    return start(Path(config.data.token_output_dir).absolute(), plan, config)

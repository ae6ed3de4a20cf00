"""Launch: one command line -> a plan and the processes that work on it, here or on a cluster.

    python -m hpcdata.launch +experiments=quickstart
    python -m hpcdata.launch +experiments='[webdataset,tokenize,vq16_t2i]' data.raw_data_dir='/data/{000..575}.tar' \\
        data.token_output_dir=/out cluster=slurm cluster.partition=preempt cluster.array=0-100%25

Everything that can be checked is checked before anything is started. The same line again, with any array size,
continues a run that was interrupted.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from hpcdata.config.array import parse_array
from hpcdata.config.schema import RunConfig
from hpcdata.run.paths import RunPaths
from hpcdata.run.plan import Plan

if TYPE_CHECKING:
    from hpcdata.cluster.runs import Submitted

log = logging.getLogger(__name__)


def launch(config: RunConfig) -> int:
    """Plans the run and starts it; returns an exit code. Raises UserError before anything is started."""
    config = fit_to_cluster(config)
    if config.estimate:
        return _estimate(config)
    plan = _prepare(config)
    output_dir = Path(config.data.token_output_dir).absolute()
    for note in _size_notes(plan, config):
        log.info("%s", note)
    what = f"ids stored as {plan.id_dtype}" if plan.has_tokens else f"stage {config.stage}"
    log.info("%s: %d samples in %d shards, %s", output_dir, plan.num_samples, plan.num_shards, what)
    return start(output_dir, plan, config)


def _estimate(config: RunConfig) -> int:
    """Prints what the run will cost, or what is left of it; starts nothing."""
    from hpcdata.cluster.limits import read_controller
    from hpcdata.cluster.preflight import check_output
    from hpcdata.report.status import read_status
    from hpcdata.work import estimate

    output_dir = Path(config.data.token_output_dir).absolute()
    status = read_status(output_dir) if RunPaths(output_dir).plan.exists() else None
    if status and status.is_finished:
        print(f"all shards of {output_dir} are committed")
        return 0
    found = estimate.estimate(config, status.num_shards - status.done if status else None)
    size = read_controller().max_array_size if config.cluster.kind == "slurm" else None
    print(estimate.describe(found, config, max_array_size=size))
    for line in check_output(output_dir, None):
        print(line)
    return 0


def fit_to_cluster(config: RunConfig) -> RunConfig:
    """Refuses what the scheduler would never run, and says what its limits mean (see `preflight`)."""
    if config.cluster.kind != "slurm":
        return config
    from hpcdata.cluster.preflight import check_cluster
    from hpcdata.cluster.submit import require_slurm

    require_slurm()
    checked = check_cluster(config)
    for line in checked.lines:
        log.info("%s", line)
    return checked.config


def start(output_dir: Path, plan: Plan, config: RunConfig) -> int:
    """Starts what is left to do of a planned run; returns an exit code. Raises UserError."""
    if config.cluster.kind == "slurm":
        return _launch_slurm(output_dir, plan, config)
    code = _run_here(output_dir, config)
    return _finish(output_dir, plan, config) if code == 0 else code


def notes(config: RunConfig) -> list[str]:
    """Why an option that was set changes nothing here."""
    texts = []
    if not config.data.split_dataset:
        texts.append("data.split_dataset=false has no effect: tasks always divide the shards among them")
    if config.data.use_identity_collate:
        texts.append("data.use_identity_collate needs no setting: samples are never stacked before they are encoded")
    return texts


def _size_notes(plan: Plan, config: RunConfig) -> list[str]:
    num_tasks = parse_array(config.cluster.array).num_tasks
    if config.cluster.kind == "inline" or num_tasks <= plan.num_shards:
        return []
    return [
        f"{num_tasks} tasks for {plan.num_shards} shards: no more than {plan.num_shards} are of use; a smaller "
        "data.shard_size would give each one some work"
    ]


def _launch_slurm(output_dir: Path, plan: Plan, config: RunConfig) -> int:
    from hpcdata.cluster import runs
    from hpcdata.cluster.preflight import check_output
    from hpcdata.report.status import read_status
    from hpcdata.run.outcome import read_outcome

    status = read_status(output_dir)
    outcome = read_outcome(RunPaths(output_dir))
    if status.combined and outcome and outcome.outcome == "finished":
        print(f"finished  {status.combined}: {outcome.account}, {outcome.reason}")
        return 0
    if status.is_finished and not runs.wants_finish(config):
        print(f"all shards are committed\nnext      python -m hpcdata.combine {output_dir}")
        return 0
    num_open = plan.num_shards - status.done
    for line in check_output(output_dir, plan, num_open=num_open):
        log.info("%s", line)
    submitted = runs.submit_run(output_dir, config, num_open=num_open, samples_done=status.samples_done)
    print(describe_submission(submitted, output_dir, config))
    return 0


def describe_submission(submitted: Submitted, output_dir: Path, config: RunConfig) -> str:
    """What a person needs to know of a submission."""
    lines = [f"submitted {', '.join(submitted.job_ids) or 'no tasks, all shards are committed'}"]
    if submitted.job_ids:
        lines[0] += f" ({submitted.num_tasks} tasks)"
    if submitted.finish_id:
        lines.append(f"finish    job {submitted.finish_id} submits again what is missing, then combines and verifies")
    if submitted.problem:
        lines.append(f"note      {submitted.problem}")
    lines += [f"logs      {submitted.logs}", f"progress  python -m hpcdata.status {output_dir}"]
    if submitted.finish_id is None:
        lines.append(f"then      python -m hpcdata.combine {output_dir}")
    return "\n".join([*lines, f"stop      python -m hpcdata.cancel {output_dir}"])


def _run_here(output_dir: Path, config: RunConfig) -> int:
    if config.cluster.kind == "local":
        from hpcdata.cluster.local import run_local

        return run_local(output_dir, config.cluster)
    from hpcdata.cluster.task import run_array_task

    return run_array_task(output_dir)


def _finish(output_dir: Path, plan: Plan, config: RunConfig) -> int:
    from hpcdata.cluster.finish import finish
    from hpcdata.report.status import read_status
    from hpcdata.report.summary import describe

    status = read_status(output_dir)
    if not status.is_finished:
        print(describe(status, output_dir))
        print("not finished: run the same line again to continue")
        return 1
    if 2 * status.counts["written"] < status.samples_done:
        log.warning("most inputs were rejected, see: python -m hpcdata.rejects %s", output_dir)
    if config.finish.combine:
        return finish(output_dir, plan, config)
    print(describe(status, output_dir))
    print(f"next      python -m hpcdata.combine {output_dir}")
    return 0


def work_as_task(config: RunConfig) -> int:
    """Plans the run unless another process did, then works on it as one array task. Raises UserError."""
    from hpcdata.base.signals import StopFlag
    from hpcdata.cluster.task import leave, run_array_task

    with StopFlag() as stop:  # from here on a preempted task goes back to the queue
        plan = _prepare(config)
        if stop.received:
            return leave(stop)
    if config.cluster.kind != "inline":
        log.info("cluster=%s has no effect on a task that was started by hand", config.cluster.kind)
    log.info("%d samples in %d shards", plan.num_samples, plan.num_shards)
    return run_array_task(Path(config.data.token_output_dir).absolute())


def _prepare(config: RunConfig) -> Plan:
    from hpcdata.run.planning import prepare

    plan = prepare(config)
    for note in notes(config):
        log.info("%s", note)
    return plan

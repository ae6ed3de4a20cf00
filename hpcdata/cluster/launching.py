"""Launch: one command line -> a plan and the processes that work on it, here or on a cluster.

    python -m hpcdata.launch +experiments=quickstart
    python -m hpcdata.launch +experiments='[webdataset,tokenize,vq16_t2i]' data.raw_data_dir='/data/{000..575}.tar' \\
        data.token_output_dir=/out cluster=slurm cluster.partition=preempt cluster.array=0-100%25

Everything that can be checked is checked before anything is started. The same line again, with any array size,
continues a run that was interrupted. Nothing is printed here: `describing` has the words for what is returned.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpcdata.base.command import DONE, FAILED, UNFINISHED
from hpcdata.config.array import parse_array
from hpcdata.config.schema import RunConfig
from hpcdata.runs.ownership import describe_risks
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan

if TYPE_CHECKING:
    from hpcdata.cluster.finish import Finished
    from hpcdata.cluster.local import LocalEnd
    from hpcdata.cluster.runs import Submitted
    from hpcdata.history.outcome import Outcome
    from hpcdata.report.status import Status
    from hpcdata.work.estimate import Estimate

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Launched:
    """What came of a launch, or of resuming. `exit_code` is that of the command: 0 when all went well."""

    output_dir: Path
    config: RunConfig
    exit_code: int = DONE
    status: Status | None = None
    """The run afterwards; None when it was stopped, or failed here."""
    local: LocalEnd | None = None
    """Of processes of this machine."""
    finished: Finished | None = None
    """The dataset that was made here."""
    outcome: Outcome | None = None
    """Of the finishing job, when it had finished the run before."""
    submitted: Submitted | None = None
    kept: tuple[str, ...] = ()
    """Jobs of tasks that are left in the queue as they are."""
    replaced: tuple[str, ...] = ()
    """Jobs that others have taken the place of."""


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """What a run will take; `found` is None when nothing is left to do."""

    output_dir: Path
    config: RunConfig
    found: Estimate | None
    max_array_size: int | None = None
    """Of the cluster."""
    output_lines: tuple[str, ...] = ()
    """What is to be said of the output folder."""


def launch(config: RunConfig) -> Launched:
    """Plans the run and starts it. Raises UserError before anything is started."""
    config = fit_to_cluster(config)
    plan = _prepare(config, asks_queue=True)
    output_dir = Path(config.data.token_output_dir).absolute()
    for note in _size_notes(plan, config):
        log.info("%s", note)
    what = f"ids stored as {plan.id_dtype}" if plan.has_tokens else f"stage {config.stage}"
    log.info("%s: %d samples in %d shards, %s", output_dir, plan.num_samples, plan.num_shards, what)
    return start(output_dir, plan, config)


def estimate(config: RunConfig) -> Estimated:
    """What the run will cost, or what is left of it; starts nothing. Raises UserError."""
    from hpcdata.cluster.limits import read_controller
    from hpcdata.cluster.preflight import check_output
    from hpcdata.report.status import read_status
    from hpcdata.work.estimate import estimate

    config = fit_to_cluster(config)
    output_dir = Path(config.data.token_output_dir).absolute()
    status = read_status(output_dir) if RunPaths(output_dir).plan.exists() else None
    if status and status.is_finished:
        return Estimated(output_dir=output_dir, config=config, found=None)
    return Estimated(
        output_dir=output_dir,
        config=config,
        found=estimate(config, status.num_shards - status.done if status else None),
        max_array_size=read_controller().max_array_size if config.cluster.kind == "slurm" else None,
        output_lines=tuple(check_output(output_dir, None)),
    )


def fit_to_cluster(config: RunConfig) -> RunConfig:
    """Refuses what the scheduler would never run, and says what its limits mean (see `preflight`)."""
    if config.cluster.kind != "slurm":
        return config
    from hpcdata.cluster.preflight import check_cluster
    from hpcdata.cluster.sbatch import require_log_names, require_slurm

    require_slurm()
    require_log_names(Path(config.data.token_output_dir).absolute())
    checked = check_cluster(config)
    for line in checked.lines:
        log.info("%s", line)
    return checked.config


def start(output_dir: Path, plan: Plan, config: RunConfig) -> Launched:
    """Starts what is left to do of a planned run. Raises UserError."""
    if config.cluster.kind == "slurm":
        return _launch_slurm(output_dir, plan, config)
    local, code = _run_here(output_dir, config)
    if code:
        return Launched(output_dir=output_dir, config=config, exit_code=code, local=local)
    return _finish(output_dir, plan, config)


def notes(config: RunConfig) -> list[str]:
    """Why an option that was set changes nothing here, or is not what another system means by it."""
    texts = []
    if not config.data.split_dataset:
        texts.append("data.split_dataset=false has no effect: tasks always divide the shards among them")
    if config.data.use_identity_collate:
        texts.append("data.use_identity_collate needs no setting: samples are never stacked before they are encoded")
    if config.image.tokenizer == "vq16_magvit":
        texts.append(
            "image.tokenizer=vq16_magvit takes pixels in [-1, 1], as Show-o does; for the codes that UniDisc makes "
            "with this name, whose pixels are in [0, 1], use image.tokenizer=unidisc_magvit"
        )
    return texts


def _size_notes(plan: Plan, config: RunConfig) -> list[str]:
    num_tasks = parse_array(config.cluster.array).num_tasks
    if config.cluster.kind == "inline" or num_tasks <= plan.num_shards:
        return []
    return [
        f"{num_tasks} tasks for {plan.num_shards} shards: no more than {plan.num_shards} are of use; a smaller "
        "data.shard_size would give each one some work"
    ]


def _launch_slurm(output_dir: Path, plan: Plan, config: RunConfig) -> Launched:
    from hpcdata.cluster import runs
    from hpcdata.cluster.preflight import check_output
    from hpcdata.history.outcome import read_outcome
    from hpcdata.report.status import read_status

    status = read_status(output_dir)
    outcome = read_outcome(RunPaths(output_dir))
    if status.combined and outcome and outcome.outcome == "finished":
        return Launched(output_dir=output_dir, config=config, status=status, outcome=outcome)
    if status.is_finished and not runs.wants_finish(config):
        return Launched(output_dir=output_dir, config=config, status=status)
    num_open = plan.num_shards - status.done
    for line in check_output(output_dir, plan, num_open=num_open):
        log.info("%s", line)
    submitted = runs.submit_run(output_dir, config, num_open=num_open, samples_done=status.samples_done)
    return Launched(output_dir=output_dir, config=config, status=status, submitted=submitted)


def _run_here(output_dir: Path, config: RunConfig) -> tuple[LocalEnd | None, int]:
    """How the processes of this machine ended, and the exit code."""
    if config.cluster.kind == "local":
        from hpcdata.cluster.local import run_local

        ended = run_local(output_dir, config.cluster)
        return ended, ended.exit_code
    from hpcdata.cluster.task import run_array_task

    return None, run_array_task(output_dir)


def _finish(output_dir: Path, plan: Plan, config: RunConfig) -> Launched:
    from hpcdata.cluster.finish import finish
    from hpcdata.report.status import read_status
    from hpcdata.runs.reject_limit import too_many
    from hpcdata.shards.counts import Counts

    status = read_status(output_dir)
    if not status.is_finished:
        return Launched(output_dir=output_dir, config=config, exit_code=UNFINISHED, status=status)
    if not config.finish.combine:
        reason = too_many(Counts.from_mapping(status.counts), config, output_dir)
        if reason:
            log.error("%s", reason)
        return Launched(output_dir=output_dir, config=config, exit_code=FAILED if reason else DONE, status=status)
    finished = finish(output_dir, plan, config)
    code = FAILED if finished.problems else DONE
    return Launched(output_dir=output_dir, config=config, exit_code=code, status=status, finished=finished)


def work_as_task(config: RunConfig) -> int:
    """Plans the run unless another process did, then works on it as one array task. Raises UserError."""
    from hpcdata.base.signals import StopFlag
    from hpcdata.cluster.task import leave, run_array_task

    with StopFlag() as stop:  # from here on a preempted task goes back to the queue
        plan = _prepare(config, asks_queue=False)
        if stop.received:
            return leave(stop)
    if config.cluster.kind != "inline":
        log.info("cluster=%s has no effect on a task that was started by hand", config.cluster.kind)
    log.info("%d samples in %d shards", plan.num_samples, plan.num_shards)
    return run_array_task(Path(config.data.token_output_dir).absolute())


def _jobs_in_queue(paths: RunPaths) -> str | None:
    """Those of the run, named. Raises UserError when it has had jobs, and the scheduler does not answer."""
    from hpcdata.history import queue, submissions

    history = submissions.read(paths)
    jobs = queue.active_jobs(paths, history) if history.submissions else []
    return f"jobs {', '.join(job.job_id for job in jobs)} in the queue" if jobs else None


def _prepare(config: RunConfig, *, asks_queue: bool) -> Plan:
    from hpcdata.runs.planning import prepare

    paths = RunPaths(Path(config.data.token_output_dir).absolute())
    plan = prepare(config, in_use=lambda: _jobs_in_queue(paths)) if asks_queue else prepare(config)
    for note in notes(config):
        log.info("%s", note)
    for line in describe_risks(RunPaths(config.data.token_output_dir)):
        log.warning("%s", line)
    return plan

"""Submission of a run: one logical array as the SLURM arrays that the cluster allows, and the finishing job behind.

Every job is recorded in `submissions/` as soon as sbatch has taken it. Where a user may not have that many jobs, as
many are submitted as fit: tasks are interchangeable, and the finishing job submits more when shards are missing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hpcdata.base.errors import UserError
from hpcdata.cluster.limits import read_controller
from hpcdata.cluster.sbatch import ClusterFull, JobOptions, TooManyJobs, submit_job
from hpcdata.config.array import ArraySpec, Piece, parse_array, split
from hpcdata.config.schema import RunConfig
from hpcdata.history import queue, submissions
from hpcdata.history.outcome import write_notice
from hpcdata.history.submissions import Kind, Submission
from hpcdata.runs.ownership import require_own_settings
from hpcdata.runs.paths import RunPaths

log = logging.getLogger(__name__)

By = Literal["user", "finish"]


@dataclass(frozen=True, kw_only=True)
class Submitted:
    job_ids: tuple[str, ...]
    """The arrays; they are one run for status, cancel and resume."""
    num_tasks: int
    finish_id: str | None
    problem: str | None
    """Why there is no finishing job, or fewer tasks than asked for."""
    logs: Path


def submit_run(
    output_dir: Path, config: RunConfig, *, num_open: int, samples_done: int, by: By = "user", delay_min: int = 0
) -> Submitted:
    """Submits tasks for `num_open` unfinished shards and the finishing job. Raises UserError when nothing was taken."""
    submitter = _Submitter(RunPaths(output_dir.absolute()), config, by, samples_done)
    array = fitting_array(config, num_open)
    if num_open:
        submitter.submit_tasks(array, delay_min)
    if wants_finish(config):
        submitter.submit_finish(tuple(submitter.job_ids))
    return Submitted(
        job_ids=tuple(submitter.job_ids),
        num_tasks=submitter.num_tasks,
        finish_id=submitter.finish_id,
        problem=submitter.problem,
        logs=submitter.paths.logs,
    )


def submit_finish(output_dir: Path, config: RunConfig, *, after: tuple[str, ...], samples_done: int, by: By) -> str:
    """Submits only the finishing job. Raises UserError."""
    submitter = _Submitter(RunPaths(output_dir.absolute()), config, by, samples_done)
    submitter.submit_finish(after)
    if submitter.finish_id is None:
        raise UserError(submitter.problem or "the finishing job was not submitted")
    return submitter.finish_id


def wants_finish(config: RunConfig) -> bool:
    return config.finish.combine is not False


def fitting_array(config: RunConfig, num_open: int) -> ArraySpec:
    """The array that was asked for, without tasks for which no shard would be left."""
    asked = parse_array(config.cluster.array)
    useful = -(-num_open // (config.cluster.nodes * config.cluster.tasks_per_node))
    num_tasks = max(1, min(asked.num_tasks, useful))
    return ArraySpec(num_tasks=num_tasks, max_running=min(asked.max_running, num_tasks))


class _Submitter:
    """One round: what has been submitted so far."""

    def __init__(self, paths: RunPaths, config: RunConfig, by: By, samples_done: int) -> None:
        if by == "finish":  # settings are as a file of the run has them, and nobody typed them
            require_own_settings(paths, config)
        self.paths, self._config, self._by, self._samples_done = paths, config, by, samples_done
        self._round = submissions.read(paths).last_round + 1
        self.job_ids: list[str] = []
        self.num_tasks = 0
        self.finish_id: str | None = None
        self.problem: str | None = None
        self._last: Submission | None = None

    def submit_tasks(self, array: ArraySpec, delay_min: int) -> None:
        pieces = split(array, read_controller().max_array_size if array.num_tasks > 1 else 1)
        for piece in pieces:
            try:
                taken = self._submit_piece(piece, delay_min)
            except UserError as error:
                if not self.job_ids:
                    raise
                self.problem = f"{self.num_tasks} of {array.num_tasks} tasks are submitted: {error}"
                return
            if taken < piece.num_tasks:
                self.problem = f"{self.num_tasks} of {array.num_tasks} tasks fit into the limit of submitted jobs"
                return

    def _submit_piece(self, piece: Piece, delay_min: int) -> int:
        """Returns how many tasks were taken: fewer where a limit of submitted jobs is in the way."""
        after = () if piece.after is None else (self.job_ids[piece.after],)
        num_tasks = piece.num_tasks
        while num_tasks:
            running = min(piece.max_running, num_tasks)
            options = JobOptions(
                kind="tasks",
                num_tasks=num_tasks,
                max_running=running,
                after=after,
                delay_min=delay_min,
                is_again=self._by == "finish",
            )
            try:
                self._submit(options)
            except TooManyJobs as error:
                num_tasks = 0 if isinstance(error, ClusterFull) else num_tasks // 2
                if not num_tasks and not self.job_ids:
                    raise
            else:
                self.num_tasks += num_tasks
                return num_tasks
        return 0

    def submit_finish(self, after: tuple[str, ...]) -> None:
        options = JobOptions(kind="finish", after=after, is_again=self._by == "finish")
        try:
            try:
                self._submit(options)
            except TooManyJobs:
                if not self._make_room():
                    raise
                self._submit(options)
        except UserError as error:
            self.problem = str(error)
        else:
            if self._by == "finish" and self._config.finish.mail:
                _keep_mail()

    def _make_room(self) -> bool:
        """Gives up the last task for the finishing job."""
        last = self._last
        if last is None or self.num_tasks < 2:
            return False
        element = f"{last.job_id}_{last.num_tasks - 1}" if last.num_tasks > 1 else last.job_id
        submissions.add_withdrawn(self.paths, element)
        try:
            queue.cancel([element])
        except UserError as error:
            log.warning("%s", error)
            return False
        self.num_tasks -= 1
        return True

    def _submit(self, options: JobOptions) -> None:
        job_id = submit_job(self.paths.root, self._config, options)
        for old in (self.paths.report, self.paths.report.with_suffix(".txt")):  # what it says is no longer so
            old.unlink(missing_ok=True)
        finish = options.kind == "finish"
        self._last = Submission(
            job_id=job_id,
            kind=options.kind,
            round=self._round,
            by=self._by,
            time=round(time.time(), 3),
            num_tasks=options.num_tasks,
            samples_done=self._samples_done,
            partition=(self._config.finish.partition if finish else None) or self._config.cluster.partition,
            script_sha256=submissions.sha256_of_script(self.paths, job_id),
        )
        submissions.add(self.paths, self._last)
        if finish:
            self.finish_id = job_id
            tasks = ", ".join(options.after) or "no tasks"
            write_notice(self.paths, f"{tasks}, and the finishing job {job_id} behind")
        else:
            self.job_ids.append(job_id)


def _keep_mail() -> None:
    """Takes the mail off this finishing job, whose successor will send it."""
    if job_id := os.environ.get("SLURM_JOB_ID"):
        with contextlib.suppress(UserError):  # one mail more, then
            queue.run("scontrol", "update", f"JobId={job_id}", "MailType=NONE")


def replace_jobs(paths: RunPaths, old: list[queue.Job]) -> None:
    """Ends jobs whose work others go on with: tasks make a checkpoint first. Raises Failed when it cannot."""
    for job in old:
        submissions.add_withdrawn(paths, job.job_id)
    finishing: list[str] = [job.job_id for job in old if job.kind == _FINISH]
    queue.cancel(finishing)
    queue.cancel([job.job_id for job in old if job.job_id not in finishing])


_FINISH: Kind = "finish"

"""The finishing job: behind a run's arrays it submits what is missing, or combines and verifies, or says what to do.

`launch` and `resume` put it behind the arrays (`afterany`: it starts when they have ended, in whatever way). It goes by
the run's own folders, not by how the jobs ended, and does one of four things:

    tasks of the run are still in the queue   it puts its successor behind them
    shards are missing                        it submits them again, with its successor behind, while the budget lasts
    all shards are committed                  it combines and verifies
    it cannot go on                           it writes the report: why, and the line to type

Each step is found done when it is repeated, so it may be killed, preempted, requeued or doubled at any moment, and
`guard` repeats what fails.

    python -m hpcdata.cluster.supervise OUT           the same by hand, on the login node or in any job
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hpcdata.base.command import Options, Parser, to_type
from hpcdata.base.errors import UserError
from hpcdata.cluster import faults
from hpcdata.cluster.budget import Round, decide
from hpcdata.cluster.guard import Guard, Postponed
from hpcdata.cluster.runs import submit_finish, submit_run
from hpcdata.dataset.partlist import when_too_many
from hpcdata.history import queue, submissions
from hpcdata.history.outcome import Outcome, describe, read_outcome, write_outcome
from hpcdata.history.submissions import Submission
from hpcdata.report.status import read_status
from hpcdata.runs import reject_limit
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan, load_runtime
from hpcdata.runs.rejects import may_come

log = logging.getLogger(__name__)

MAX_RESTARTS = 50
"""Of one finishing job by SLURM: then something ends it each time, such as a time limit that is too short."""
NAMED_SHARDS = 10
POLL_S = 1.0
STOPPED = (138, 140, 143)
"""128 + SIGUSR1, SIGUSR2, SIGTERM: a task that was asked to stop and could not be requeued."""
_ENDED_BY_THE_CLUSTER = ("CANCELLED", "NODE_FAIL", "PREEMPTED", "TIMEOUT", "BOOT_FAIL", "DEADLINE", "REVOKED")


def supervise(output_dir: Path) -> int:
    """Brings the run one step further; returns the exit code. Raises UserError when `output_dir` is not a run."""
    paths = RunPaths(output_dir.absolute())
    if not paths.plan.exists():
        load_plan(output_dir)  # says what is wrong
    return Guard(paths, lambda *told: _Supervisor(paths).stop(*told)).run(lambda: _act(paths))


def _act(paths: RunPaths) -> int:
    owner = Owner.of_this_process(f"finish-{os.getpid()}-{time.time_ns()}")
    with Claims(paths.claims, owner, timeout_s=load_runtime(paths.root).cluster.claim_timeout_s) as claims:
        while not claims.try_claim("finish"):  # its holder may be dead: then the claim becomes free in a while
            time.sleep(POLL_S)
        return _Supervisor(paths).run()


class _Supervisor:
    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._plan, self._config = load_plan(paths.root), load_runtime(paths.root)
        self._history = submissions.read(paths)
        self._resume = to_type("resume", paths.root)

    def run(self) -> int:
        missing = self._missing()
        if not missing:
            return self._finish()
        if self._history.is_cancelled:
            log.info("the run was cancelled; %s continues it", self._resume)
            return 0
        jobs = queue.settled_jobs(self._paths, self._history)
        tasks = tuple(job.job_id for job in jobs if job.kind == "tasks")
        others = [job for job in jobs if job.kind == "finish" and job.job_id != os.environ.get("SLURM_JOB_ID")]
        if any("PENDING" in job.states for job in others):  # one that runs is about to end, or waits for our claim
            log.info("another finishing job of this run waits in the queue: it is left to that")
            return 0
        if tasks:
            return self._follow(tasks)
        missing = self._missing()  # the last task may have ended in between
        return self._submit_again(missing) if missing else self._finish()

    def stop(self, reason: str, missing: Sequence[ShardSpec], next_step: str | None) -> int:
        """The report of `guard`."""
        return self._stop(reason, missing, next_step=next_step)

    def _missing(self) -> list[ShardSpec]:
        if self._paths.complete_dataset():
            return []
        committed = self._paths.list_committed()
        return [spec for spec in self._plan.shards() if spec.name not in committed]

    def _follow(self, tasks: tuple[str, ...]) -> int:
        done = read_status(self._paths.root).samples_done
        try:
            job_id = submit_finish(self._paths.root, self._config, after=tasks, samples_done=done, by="finish")
        except UserError as error:
            raise Postponed(f"tasks are still at work, but {error}") from error
        log.info("tasks are still in the queue (%s): job %s goes on when they have ended", ", ".join(tasks), job_id)
        return 0

    def _submit_again(self, missing: list[ShardSpec]) -> int:
        if reason := reject_limit.halted(self._paths.root, self._config):
            return self._stop(reason, missing)
        done = read_status(self._paths.root).samples_done
        rounds = self._rounds(done)
        decision = decide(rounds, list(faults.hopeless(missing)), len(missing), self._config.finish)
        if decision.reason:
            return self._stop(decision.reason, missing, samples_done=done)
        try:
            submitted = submit_run(
                self._paths.root,
                self._config,
                num_open=len(missing),
                samples_done=done,
                by="finish",
                delay_min=decision.delay_min,
            )
        except UserError as error:
            reason = f"{len(missing)} shards are missing and cannot be submitted from here: {error}"
            raise Postponed(reason, missing) from error
        log.info(
            "%d of %d shards are missing: submitted %s, and %s behind",
            *(len(missing), self._plan.num_shards, ", ".join(submitted.job_ids), submitted.finish_id),
        )
        if submitted.finish_id is None:
            raise Postponed(f"the missing shards are submitted, but {submitted.problem}", missing)
        return 0

    def _rounds(self, samples_done: int) -> list[Round]:
        """What each submission since a person's last one has brought."""
        spans = self._spans(samples_done)
        since = max((items[0].round for items, _ in spans if items[0].by == "user"), default=0)
        return [self._round(items, end) for items, end in spans if items[0].round >= since]

    def _spans(self, samples_done: int) -> list[tuple[list[Submission], int]]:
        """The arrays of each submission, and how many samples were done when the next one was made, or now."""
        groups: dict[int, list[Submission]] = {}
        for item in self._history.submissions:
            if item.kind == "tasks":
                groups.setdefault(item.round, []).append(item)
        ends = [items[0].samples_done for items in list(groups.values())[1:]]
        return list(zip(groups.values(), [*ends, samples_done], strict=False))

    def _round(self, items: Sequence[Submission], samples_after: int) -> Round:
        job_ids = {item.job_id for item in items}
        failures = [*faults.failures(self._paths, job_ids)]
        ended = [item for item in queue.ended_jobs(sorted(job_ids)) if item.job_id not in self._history.withdrawn]
        bad = [item for item in ended if item.state != "COMPLETED"]
        failures += [
            f"task {item.job_id} ended with exit code {item.exit_code}, see {self._paths.logs}"
            for item in bad
            if item.state not in _ENDED_BY_THE_CLUSTER and item.exit_code not in STOPPED
        ]
        cancelled = bool(bad) and all(item.state == "CANCELLED" for item in bad)
        before = items[0].samples_done
        return Round(
            samples_before=before, samples_after=samples_after, failures=tuple(failures), was_cancelled=cancelled
        )

    def _finish(self) -> int:
        from hpcdata.cluster.finish import combine_and_verify

        old = read_outcome(self._paths)
        if old and old.outcome == "finished" and self._paths.complete_dataset():
            log.info("finished already: %s", old.dataset)
            return 0
        if int(os.environ.get("SLURM_RESTART_COUNT") or 0) > MAX_RESTARTS:
            return self._stop(f"combining was interrupted {MAX_RESTARTS} times: give it more time (finish.time_min)")
        self._wait_for_another_combine()
        try:
            manifest, report = combine_and_verify(self._paths.root)
        except OSError as error:
            raise Postponed(f"all shards are committed, but combining failed: {error}") from error
        except UserError as error:
            return self._stop(f"all shards are committed, but combining failed: {error}")
        if report.problems:
            return self._stop(f"{manifest.folder} does not verify", details=report.problems[:NAMED_SHARDS])
        if reason := reject_limit.too_many(manifest.counts, self._config, self._paths.root):
            return self._stop(f"combined and verified, but {reason}")
        why = when_too_many(len(manifest.parts), self._paths.root, is_joined=bool(manifest.joined))
        result = Outcome(
            outcome="finished",
            reason="combined and verified",
            next_step=None,
            details=[*([why] if why else []), *may_come(manifest.counts.rejected, self._paths.root)],
            dataset=str(manifest.folder),
            account=manifest.counts.describe(),
            content_digest=manifest.content_digest,
            num_shards=self._plan.num_shards,
            rounds=self._describe_rounds(self._plan.num_samples),
        )
        write_outcome(self._paths, result)
        print(describe(result, self._paths.root), flush=True)
        self._preview(manifest.counts.images)
        return 0

    def _preview(self, num_images: int) -> None:
        """The picture, when all that matters is done: what goes wrong with it changes nothing of that."""
        from hpcdata.cluster.finish import try_pictures

        name = self._config.finish.preview
        if name and num_images and self._plan.image:
            try_pictures(self._paths.root, self._plan, self._config, self._paths.root / name)

    def _wait_for_another_combine(self) -> None:
        """Until it is done, or its claim has aged: it may be of a node that is lost."""
        owner = Owner.of_this_process(f"finish-looks-{os.getpid()}")
        observer = Claims(self._paths.claims, owner, timeout_s=self._config.cluster.claim_timeout_s)
        while observer.find_alive(["combine"]):
            time.sleep(POLL_S)

    def _stop(
        self,
        reason: str,
        missing: Sequence[ShardSpec] = (),
        *,
        details: Sequence[str] = (),
        samples_done: int | None = None,
        next_step: str | None = None,
    ) -> int:
        done = read_status(self._paths.root).samples_done if samples_done is None else samples_done
        hopeless = list(faults.hopeless(missing))
        failures = [] if len(hopeless) == len(missing) else list(faults.shard_failures(self._paths, missing))
        found = dict.fromkeys([*details, *hopeless, *failures])
        result = Outcome(
            outcome="stopped",
            reason=reason,
            next_step=next_step or self._resume,
            details=list(found)[:NAMED_SHARDS],
            num_shards=self._plan.num_shards,
            num_missing=len(missing),
            missing=[spec.name for spec in missing[:NAMED_SHARDS]],
            rounds=self._describe_rounds(done),
        )
        write_outcome(self._paths, result)
        print(describe(result, self._paths.root), flush=True)
        return 1

    def _describe_rounds(self, samples_done: int) -> list[dict[str, object]]:
        return [
            {
                "round": items[0].round,
                "by": items[0].by,
                "job_ids": [item.job_id for item in items],
                "num_tasks": sum(item.num_tasks for item in items),
                "samples_before": items[0].samples_done,
                "samples_after": end,
            }
            for items, end in self._spans(samples_done)
        ]


def parser() -> Parser:
    parser = Parser("supervise", __doc__, prog="python -m hpcdata.cluster.{}")
    parser.add_run()
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """What the batch script of the finishing job starts."""
    return parser().run(arguments, _supervise)


def _supervise(options: Options) -> int:
    from hpcdata.base import logs

    logs.configure()
    return supervise(Path(options.run))


if __name__ == "__main__":
    sys.exit(main())

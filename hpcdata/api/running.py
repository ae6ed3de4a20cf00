"""`run` starts or continues a run, `Run` is one that is there: what it holds, and what can be done with it.

run = hpcdata.run(["+experiments=quickstart", "data.token_output_dir=/out"])
run.status().samples_done
loader = hpcdata.TokenLoader(run.dataset(), global_batch_size=8)

run = hpcdata.run(config, wait=False)     # the work goes on by itself, also when this Python ends
run.wait()                                # or later, elsewhere: hpcdata.Run("/out").wait()
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcdata.api.processes import Process, ask, options
from hpcdata.api.processes import overrides as words_of
from hpcdata.base.command import to_type
from hpcdata.base.errors import UserError
from hpcdata.config.schema import RunConfig
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan, load_runtime

if TYPE_CHECKING:
    from hpcdata.dataset.dataset import TokenDataset
    from hpcdata.dataset.manifest import Manifest
    from hpcdata.dataset.verifying import Report
    from hpcdata.report.status import Status
    from hpcdata.shards.reject_ledger import RejectRow
    from hpcdata.work.prove import Proof
    from hpcdata.work.retry import RetryResult

_LOOK_S = 0.05
_STOPPED = (130, 138, 140, 143)
"""Exit codes of a launcher that a signal has asked to stop."""


def run(config: RunConfig | Mapping[str, Any] | Sequence[str] | str, *, wait: bool = True) -> Run:
    """Plans a run and starts its tasks; the same call again continues it. The same as `hpcdata launch`.

    config: what the command line has, `["+experiments=quickstart", "data.resolution=128"]`; or nested values of what is
    not left as it is, `{"data": {"raw_data_dir": ..., ...}}`; or a RunConfig. The tasks run where `cluster.kind` says.

    With `wait` it returns when the run is finished, and an interrupt (Ctrl-C, the stop button of a notebook) ends tasks
    on this machine after a checkpoint. Without, it returns as soon as the tasks are started. Raises UserError for what
    cannot run, before anything is started, and when a run that was waited for could not be finished.
    """
    found = _config(config)
    paths = RunPaths(Path(found.data.token_output_dir).absolute())
    launch = _Launch(paths, "launch", "--config", "-", given=json.dumps(dataclasses.asdict(found)))
    return _started(paths.root, launch, wait=wait)


class Run:
    """A run on disk, by its output directory; a dataset's folder will not do. Raises UserError when it is not one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        load_plan(self.path)
        self._launch: _Launch | None = None

    def status(self, *, ask_scheduler: bool = True) -> Status:
        """One look: shards, account, rate, tasks. It reads no data, and the run is not disturbed."""
        from hpcdata.report.status import read_status

        return read_status(self.path, ask_scheduler=ask_scheduler)

    def wait(self, timeout_s: float | None = None, poll_s: float = 5.0) -> Status:
        """Waits until the run is finished, and returns its status; after `timeout_s` the status as it is then.

        Finished means: all shards are committed, and combined where the run does so by itself. An interrupt ends the
        waiting and not the work. `poll_s`: seconds between questions to the scheduler. Raises UserError when nobody is
        at work any more and it is not finished: with the reason, and the line that goes on.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._is_over():
            left = poll_s if until is None else min(poll_s, until - time.monotonic())
            if left <= 0:
                return self.status()
            self._pause(left)
        return self._finished()

    def rejects(self, reason: str | None = None) -> Iterator[RejectRow]:
        """What was not written and why, in the order of the plan, one row at a time.

        reason: only these, such as `unreadable_image`; `duplicate` for duplicates, which are left out otherwise.
        """
        from hpcdata.runs.rejects import rows_of
        from hpcdata.shards.reject_ledger import DUPLICATE

        return (row for row in rows_of(self.path) if (row.reason == reason if reason else row.reason != DUPLICATE))

    def retry(self, reason: str | None = None, *, accept_changed: bool = False) -> RetryResult:
        """Makes rejects again, after a path was fixed, and adds what succeeds; then combine again. Raises UserError.

        accept_changed: read inputs that changed since they were planned.
        """
        from hpcdata.work.retry import RetryResult

        words = options(json=True, retry=True, reason=reason, accept_changed=accept_changed)
        values = ask("rejects", str(self.path), *words)
        for name in ("recovered", "still_rejected"):
            values[name] = Counter(values[name])
        return RetryResult(**values)

    def combine(
        self,
        *,
        allow_tmp: bool = False,
        move_files: bool = False,
        delete_after_combining: bool = False,
        compact: bool = False,
        bake: Sequence[str] | None = None,
        output_dir: str | Path | None = None,
    ) -> Manifest:
        """Makes (or finds) the dataset of the run, by hard links. Raises UserError when shards are missing.

        allow_tmp: take checkpoints of unfinished shards too, and record the gap. move_files: remove the shards that the
        published dataset holds; delete_after_combining: the same, and claims, after all digests were computed again.
        compact: rewrite into one contiguous part, in constant memory. bake: the layouts whose rows are stored, such as
        `["t2i", "text:max_length=1024"]`, for the fastest loading; by default those that are.
        """
        from hpcdata.dataset.combining import CombineOptions, combine
        from hpcdata.loading.baking import bakings

        chosen = CombineOptions(
            allow_tmp=allow_tmp,
            move_files=move_files,
            delete_after_combining=delete_after_combining,
            compact=compact,
            bake=None if bake is None else bakings(bake),
            output_dir=str(output_dir) if output_dir else None,
        )
        return combine(self.path, chosen)

    def verify(self) -> list[Report]:
        """Reads everything back: a report for the shards, one for the dataset; `problems` are empty if all is well."""
        from hpcdata.dataset.verifying import verify

        return verify(self.path)

    def prove(self, num_samples: int, *, seed: int | None = None) -> Proof:
        """Makes that many drawn samples again from the raw inputs, and compares everything. Raises UserError."""
        from hpcdata.work.prove import Proof

        return Proof(**ask("verify", str(self.path), *options(json=True, prove=num_samples, seed=seed)))

    def dataset(self, *, allow_tmp: bool = False) -> TokenDataset:
        """The combined dataset; with `allow_tmp`, of an unfinished run what is there now. Raises UserError."""
        from hpcdata.dataset.dataset import TokenDataset

        return TokenDataset(self.path, allow_tmp=allow_tmp)

    def cancel(self) -> list[str]:
        """Ends the work after a checkpoint; nothing that is written is removed. Returns the ids of SLURM jobs.

        Raises UserError when the tasks are processes that another Python or terminal has started.
        """
        from hpcdata.cluster.cancelling import cancel

        if self._launch and self._launch.is_running:
            self._launch.stop()
            return []
        return cancel(self.path)

    def resume(self, overrides: Sequence[str] = (), *, wait: bool = True) -> Run:
        """Goes on from what the folder remembers. overrides: settings that do not change what is written.

        While SLURM tasks are in the queue, settings take their place (see `hpcdata resume --help`). Raises UserError.
        """
        if self._launch and self._launch.is_running:
            raise UserError(f"{self.path} is being worked on: wait for it, or cancel it")
        launch = _Launch(RunPaths(self.path), "resume", str(self.path), *words_of(overrides))
        self._launch = _started(self.path, launch, wait=wait)._launch
        return self

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        from hpcdata.api.showing import to_html

        return to_html(self.path, self.status(ask_scheduler=False))

    @property
    def _is_slurm(self) -> bool:
        return load_runtime(self.path).cluster.kind == "slurm"

    @property
    def _will_combine(self) -> bool:
        config = load_runtime(self.path)
        return config.finish.combine is not False if config.cluster.kind == "slurm" else bool(config.finish.combine)

    def _pause(self, seconds: float) -> None:
        if self._launch and self._launch.is_running:
            self._launch.wait(seconds)
        else:
            time.sleep(seconds)

    def _is_over(self) -> bool:
        """Whether nobody works on it any more, or nothing is left to do."""
        from hpcdata.history import queue, submissions
        from hpcdata.history.outcome import read_outcome

        paths = RunPaths(self.path)
        if self._launch and self._launch.is_running:
            return False
        if not self._is_slurm:
            return self._launch is not None or not self.status(ask_scheduler=False).running
        if read_outcome(paths) is not None:
            return True
        try:
            return not queue.active_jobs(paths, submissions.read(paths))
        except UserError:
            if shutil.which("squeue") is None:
                raise
            return False  # a scheduler that does not answer for a while is asked again

    def _finished(self) -> Status:
        """The status at the end. Raises UserError when it is not the end that was wanted."""
        status = self.status()
        line = to_type("resume", self.path)
        if self._launch and not self._is_slurm and self._launch.exit_code:
            raise UserError(f"{self._launch.reason()}\n{line} goes on")
        if status.stopped:
            raise UserError(status.stopped)
        if not status.is_finished:
            raise UserError(f"{status.done} of {status.num_shards} shards of {self.path} are done: {line} goes on")
        if self._will_combine and not status.combined:
            raise UserError(f"all shards of {self.path} are committed, but they are not combined: {line} goes on")
        return status


class _Launch(Process):
    """A launch or resume at work."""

    def __init__(self, paths: RunPaths, command: str, *arguments: str, given: str = "") -> None:
        self._paths, self._before = paths, _signature(paths.runtime)
        super().__init__(command, *arguments, "--json", given=given)

    def wait_for_plan(self) -> None:
        """Until the plan is made or confirmed, after which runtime.json is written, or the process has ended."""
        while self.is_running and _signature(self._paths.runtime) == self._before:
            self.wait(_LOOK_S)

    def reason(self) -> str:
        """Why it has not done all that it should."""
        if self.exit_code in _STOPPED:
            return f"the tasks of {self._paths.root} were stopped after a checkpoint"
        dataset = self.answer()["dataset"]
        return f"{dataset['path']} does not verify: {dataset['problems'][0]}" if dataset else self.message()


def _started(root: Path, launch: _Launch, *, wait: bool) -> Run:
    """The run, when its tasks are started or submitted, or with `wait` when it is finished."""
    try:
        launch.wait_for_plan()
        if not launch.is_running:
            launch.answer()  # raises UserError for what was refused
        run = Run(root)
        run._launch = launch
        if run._is_slurm:
            launch.wait()
            launch.answer()
        if wait:
            run.wait()
    except BaseException:
        launch.stop()
        raise
    return run


def _config(config: RunConfig | Mapping[str, Any] | Sequence[str] | str) -> RunConfig:
    from hpcdata.config.compose import compose
    from hpcdata.config.places import expand_paths
    from hpcdata.config.values import from_mapping

    if isinstance(config, RunConfig):
        config = dataclasses.asdict(config)
    if isinstance(config, Mapping):
        found = expand_paths(
            from_mapping(json.loads(json.dumps(config, default=str)))
        )  # a Path is a string from here on
    else:
        found = compose([config] if isinstance(config, str) else list(config))
    if found.estimate:
        raise UserError("estimate=true: only python -m hpcdata.launch makes estimates")
    return found


def _signature(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns

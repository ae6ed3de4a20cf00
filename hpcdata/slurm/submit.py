"""Submission of a run as one SLURM job array, through submitit.

The array holds `cluster.array`'s number of equal tasks, and each of them starts `nodes * tasks_per_node` processes
that claim shards on their own. Nothing here knows which shards are left: a resubmission, with any array size, is
just another call. submitit keeps scripts, pickles and logs in `<output_dir>/logs`.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcdata.config import ClusterConfig
from hpcdata.errors import UserError
from hpcdata.slurm.array import ArraySpec, parse_array
from hpcdata.slurm.task import ArrayTask


@dataclass(frozen=True, kw_only=True)
class Submission:
    job_ids: tuple[str, ...]
    """Ids for squeue, sacct and scancel; an array has one."""
    log_paths: str
    """A glob of the log files: one for each process, appended to whenever its task is requeued."""


_TEARDOWN = (
    "code=$?",
    "# a signal came while Python was starting: 128 + SIGUSR1, SIGUSR2, SIGTERM; see hpcdata/slurm/task.py",
    "case $code in 138 | 140 | 143)",
    "    id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}",
    '    scontrol requeue Incomplete "${id:-$SLURM_JOB_ID}" ;;',
    "# a crash, a hang or no memory (253): start once more, to find the record that did it; see hpcdata/poison.py",
    "132 | 134 | 135 | 136 | 137 | 139 | 142 | 253)",
    "    if ((${HPCDATA_RESTARTS:=0} < 10)); then",
    "        export HPCDATA_RESTARTS=$((HPCDATA_RESTARTS + 1))",
    '        exec bash "$0"',
    "    fi ;;",
    "esac",
    "exit $code",
    "",
)


def submit(output_dir: Path, cluster: ClusterConfig) -> Submission:
    """Submits the array and returns at once. Raises UserError with sbatch's own words when it refuses."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    array = parse_array(cluster.array)
    _require_slurm()
    folder = output_dir.absolute() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.SlurmExecutor(folder=folder)
    executor.update_parameters(**sbatch_parameters(cluster, array))
    tasks = [ArrayTask(output_dir.absolute())] * array.num_tasks
    try:
        with _outside_of_any_job(), _without_litter(folder), contextlib.redirect_stderr(io.StringIO()):
            jobs = executor.submit_array(tasks)
    except (FailedJobError, FailedSubmissionError) as error:
        raise _refusal(str(error), array) from None
    job_id = jobs[0].job_id.partition("_")[0]
    return Submission(job_ids=(job_id,), log_paths=f"{folder}/{job_id}_*_log.out")


def sbatch_parameters(cluster: ClusterConfig, array: ArraySpec) -> dict[str, Any]:
    """Our configuration in submitit's words."""
    additional = _additional_parameters(cluster)
    cpus_per_task = None if "cpus-per-gpu" in additional else cluster.cpus_per_task  # SLURM takes one of them
    parameters = {
        "job_name": cluster.job_name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "time": cluster.time_min,
        "mem": None if cluster.mem_gb is None else f"{round(cluster.mem_gb * 1024)}M",
        "cpus_per_task": cpus_per_task,
        "gpus_per_node": cluster.gpus_per_node or None,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "signal_delay_s": cluster.signal_delay_s,
        "array_parallelism": array.max_running,
        "stderr_to_stdout": True,
        "srun_args": _srun_args(cpus_per_task),
        "teardown": list(_TEARDOWN),
        "additional_parameters": additional,
    }
    return {name: value for name, value in parameters.items() if value is not None} | {"wckey": None}


def _srun_args(cpus_per_task: int | None) -> list[str]:
    """The processes of a task are independent: one that ends ends no other, at any distance in time."""
    independent = ["--kill-on-bad-exit=0", "--wait=0"]
    # since 22.05 a step no longer inherits the CPUs of its tasks from the job
    return independent if cpus_per_task is None else [f"--cpus-per-task={cpus_per_task}", *independent]


def _additional_parameters(cluster: ClusterConfig) -> dict[str, Any]:
    """`requeue` unless the user says otherwise; options set to false or null are left out."""
    given = {name.replace("_", "-"): value for name, value in cluster.additional_parameters.items()}
    if "array" in given:
        raise UserError("cluster.additional_parameters.array: use cluster.array, which sets the number of tasks")
    return {name: value for name, value in ({"requeue": True} | given).items() if value not in (None, False)}


def _require_slurm() -> None:
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"cluster=slurm needs {' and '.join(missing)}, not found in PATH: submit from a login node, "
            "or use cluster=local for processes of this machine"
        )


@contextlib.contextmanager
def _outside_of_any_job() -> Iterator[None]:
    """Hides a job that the launcher itself runs in: its SLURM_* would be inherited and limit the new job's steps."""
    hidden = {name for name in os.environ if name.startswith("SLURM_")} - {"SLURM_CONF", "SLURM_CLUSTERS"}
    saved = {name: os.environ.pop(name) for name in hidden}
    try:
        yield
    finally:
        os.environ.update(saved)


@contextlib.contextmanager
def _without_litter(folder: Path) -> Iterator[None]:
    """Removes the pickles and the script that submitit leaves behind when sbatch refuses."""
    before = set(folder.iterdir())
    try:
        yield
    except BaseException:
        for path in set(folder.iterdir()) - before:
            if re.fullmatch(r"[0-9a-f]{32}\.pkl|\.submission_file_[0-9a-f]{32}\.sh", path.name):
                path.unlink()
        raise


def _refusal(message: str, array: ArraySpec) -> UserError:
    reason = message.strip().replace("sbatch: error: ", "").replace("\n", "; ")
    if "Invalid job array specification" not in reason:
        return UserError(f"sbatch refused the job: {reason}")
    limit = _max_array_size()
    known = "" if limit is None else f" (MaxArraySize={limit} here, so cluster.array=0-{limit - 1} at most)"
    return UserError(
        f"sbatch refused the array {array.notation}: {reason}; the cluster's MaxArraySize limits the indices{known}. "
        "Fewer tasks do the same work, each takes more shards"
    )


def _max_array_size() -> int | None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=30).stdout
        if match := re.search(r"^MaxArraySize\s*=\s*(\d+)", shown, re.MULTILINE):
            return int(match[1])
    return None

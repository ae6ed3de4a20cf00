"""sbatch: the text of a job, and its submission.

An array holds equal tasks, and each of them starts `nodes * tasks_per_node` processes that claim shards on their own.
Nothing here knows which shards are left. submitit writes the text; there is nothing to pickle, since what a task does
stands in the run's plan. Scripts and logs are kept in `<output_dir>/logs`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.base.version import is_installed
from hpcdata.config.scheduler import check_scheduler, sbatch_options, setup_lines, without_container, words
from hpcdata.config.schema import ClusterConfig, FinishConfig, RunConfig
from hpcdata.history import queue, submissions
from hpcdata.history.submissions import Kind
from hpcdata.runs.paths import RunPaths


class TooManyJobs(UserError):
    """The user, account or QOS may not have so many jobs submitted at a time."""


class ClusterFull(TooManyJobs):
    """Nobody may submit a job now."""


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What differs between the jobs of one run."""

    kind: Kind
    num_tasks: int = 1
    max_running: int = 1
    after: tuple[str, ...] = ()
    """Jobs that must have ended, in whatever way, before this one starts."""
    delay_min: int = 0
    is_again: bool = False
    """Whether tasks of this run have been there before: what the user made them wait for is over then, or forgotten."""


_MODULES = {"tasks": "hpcdata.cluster.task", "finish": "hpcdata.cluster.supervise"}

_TOO_MANY = re.compile("(Max|Grp)Submit|job submit limit")
"""In AssocMaxSubmitJobLimit, AssocGrpSubmitJobsLimit, QOSMaxSubmitJobPerUserLimit, QOSGrpSubmitJobsLimit, ...; the last
one stands also where a size or a time is over a limit, and then no smaller array is taken either."""

MISREAD = re.compile(r"""[%\\,'"`$;\x00-\x1f\x7f\ud800-\udfff]""")
"""`%` is a pattern of SLURM, a backslash turns patterns off, others end or quote the name in one of its versions.
Bytes that are not UTF-8 are in no script that submitit writes."""

_TEARDOWN = (
    "code=$?",
    "# a signal came while Python was starting: 128 + SIGUSR1, SIGUSR2, SIGTERM; see hpcdata/cluster/task.py",
    "case $code in 138 | 140 | 143)",
    "    id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}",
    '    scontrol requeue Incomplete "${id:-$SLURM_JOB_ID}" ;;',
    "# a crash, a hang or no memory (253): start once more, to find the record that did it; see hpcdata/work/poison.py",
    "132 | 134 | 135 | 136 | 137 | 139 | 142 | 253)",
    "    if ((${HPCDATA_RESTARTS:=0} < 10)); then",
    "        export HPCDATA_RESTARTS=$((HPCDATA_RESTARTS + 1))",
    '        exec bash "$0"',
    "    fi ;;",
    "esac",
    "exit $code",
    "",
)


def submit_job(output_dir: Path, config: RunConfig, options: JobOptions) -> str:
    """Submits one job or array and returns its id. Raises TooManyJobs, or UserError with sbatch's own words."""
    require_slurm()
    folder = output_dir.absolute() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    text = job_text(output_dir.absolute(), config, options)
    result = queue.run("sbatch", input_text=text)
    job_id = re.search(r"job (\d+)", result.stdout)
    if result.returncode != 0 or job_id is None:
        raise _refusal(result.stderr or result.stdout, options)
    files.write_atomic(submissions.script(RunPaths(output_dir.absolute()), job_id[1]), text.encode())
    return job_id[1]


def job_text(output_dir: Path, config: RunConfig, options: JobOptions) -> str:
    """The batch script, as submitit writes it."""
    from submitit.slurm.slurm import _make_sbatch_string

    check_scheduler(config)
    cluster = _cluster(config, options.kind)
    parameters = sbatch_parameters(cluster, options.max_running)
    given = parameters["additional_parameters"]
    added: dict[str, Any] = {"begin": f"now+{options.delay_min}minutes"} if options.delay_min else {}
    own = [cluster.dependency, given.pop("dependency", None)]
    if dependency := _dependency(options.after, [] if options.is_again else [text for text in own if text]):
        added["kill-on-invalid-dep"] = "yes"
        given |= {"dependency": dependency}
    given |= {"comment": " ".join([submissions.mark(output_dir, options.kind), *_texts(given, "comment")])}
    parameters["additional_parameters"] = added | given
    python = [cluster.python or sys.executable, *(["-P"] if cluster.python or is_installed() else []), "-u"]
    wrapper = words("cluster.wrapper", cluster.wrapper)
    command = shlex.join([*wrapper, *python, "-m", _MODULES[options.kind], str(output_dir)])
    map_count = options.num_tasks if options.num_tasks > 1 else None
    return str(_make_sbatch_string(command, output_dir / "logs", map_count=map_count, **parameters))


def sbatch_parameters(cluster: ClusterConfig, max_running: int) -> dict[str, Any]:
    """Our configuration in submitit's words."""
    additional = _additional_parameters(cluster)
    cpus_per_task = None if "cpus-per-gpu" in additional else cluster.cpus_per_task  # SLURM takes one of them
    parameters = {
        "job_name": cluster.job_name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "nodelist": cluster.nodelist,
        "exclude": cluster.exclude,
        "time": cluster.time_min,
        "mem": None if cluster.mem_gb is None else f"{round(cluster.mem_gb * 1024)}M",
        "cpus_per_task": cpus_per_task,
        "gpus_per_node": cluster.gpus_per_node or None,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.tasks_per_node,
        "signal_delay_s": cluster.signal_delay_s,
        "array_parallelism": max_running,
        "stderr_to_stdout": True,
        "setup": _setup(cluster),
        "srun_args": [*words("cluster.srun_args", cluster.srun_args), *_srun_args(cpus_per_task)],
        "teardown": list(_TEARDOWN),
        "additional_parameters": additional,
    }
    return {name: value for name, value in parameters.items() if value is not None} | {"wckey": None}


def require_slurm() -> None:
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing:
        raise queue.Missing(
            f"cluster=slurm needs {' and '.join(missing)}, not found in PATH: submit from a login node, "
            "or use cluster=local for processes of this machine"
        )


def require_log_names(output_dir: Path) -> None:
    """Refuses a folder whose name SLURM would misread in the names of logs: its tasks would die, without a log."""
    if match := MISREAD.search(str(output_dir)):
        raise UserError(
            f"data.token_output_dir={str(output_dir)!r} has {match[0]!r} in it, which SLURM misreads in the "
            "names of logs, so that no task could start: use another folder, or a link to it with a simpler name"
        )


def finish_signal_delay_s(config: RunConfig) -> int:
    """How long before its time limit the finishing job is warned: half of a short limit at most."""
    return min(config.cluster.signal_delay_s, (config.finish.time_min or config.cluster.time_min) * 30)


def _cluster(config: RunConfig, kind: Kind) -> ClusterConfig:
    """`cluster.*` for tasks; for the finishing job what of it applies to a small job, and `finish.*`."""
    given, finish = config.cluster, config.finish
    if kind == "tasks":
        return given
    here = finish.partition is None
    is_one_node = given.nodes == 1
    srun_args = words("cluster.srun_args", given.srun_args)
    return ClusterConfig(
        partition=finish.partition or given.partition,
        account=given.account,
        qos=given.qos if here else None,
        reservation=given.reservation if here else None,
        nodelist=given.nodelist if here and is_one_node else None,
        exclude=given.exclude,
        time_min=finish.time_min or given.time_min,
        mem_gb=finish.mem_gb,
        job_name=f"{given.job_name}-finish",
        signal_delay_s=finish_signal_delay_s(config),
        setup=given.setup,
        srun_args=srun_args if finish.in_container else without_container(srun_args),
        wrapper=given.wrapper if finish.in_container else None,
        python=given.python if finish.in_container else None,
        additional_parameters=_mail(finish) | finish.additional_parameters,
    )


def _mail(finish: FinishConfig) -> dict[str, Any]:
    """One that submits again what is missing takes it back, see `runs`."""
    return {"mail_user": finish.mail, "mail_type": "END,FAIL"} if finish.mail else {}


def _srun_args(cpus_per_task: int | None) -> list[str]:
    """The processes of a task are independent: one that ends ends no other, at any distance in time."""
    independent = ["--kill-on-bad-exit=0", "--wait=0"]
    # since 22.05 a step no longer inherits the CPUs of its tasks from the job
    return independent if cpus_per_task is None else [f"--cpus-per-task={cpus_per_task}", *independent]


def _additional_parameters(cluster: ClusterConfig) -> dict[str, Any]:
    """`requeue` unless the user says otherwise; options set to false or null are left out."""
    given = {name.replace("_", "-"): value for name, value in cluster.additional_parameters.items()}
    ours = {"requeue": True, "reservation": cluster.reservation}
    return dict(sbatch_options("cluster.additional_parameters", ours | given))


def _setup(cluster: ClusterConfig) -> list[str] | None:
    """What a line `set -e` is for ends with these lines: what comes behind looks at exit codes itself."""
    lines = setup_lines(cluster.setup)
    return [*lines, "set +eu"] if lines else None


def _dependency(after: Sequence[str], texts: Sequence[str]) -> str:
    """Ours and the user's, which must all be met. Raises UserError where sbatch cannot say that."""
    ours = [f"afterany:{':'.join(after)}"] if after else []
    if len([*ours, *texts]) > 1 and "?" in "".join(texts):
        raise UserError(
            f"dependency={','.join(texts)}: hpcdata waits for jobs of its own as well, and sbatch takes only one of "
            "`,` (all) and `?` (any): use `,`"
        )
    return ",".join([*ours, *texts])


def _texts(given: Mapping[str, Any], option: str) -> list[str]:
    return [str(given[option])] if option in given else []


def _refusal(message: str, options: JobOptions) -> UserError:
    reason = message.strip().replace("sbatch: error: ", "").replace("\n", "; ")
    what = "the finishing job" if options.kind == "finish" else "the job"
    text = f"sbatch refused {what}: {reason}"
    if queue.BUSY in reason:
        return ClusterFull(text)
    if _TOO_MANY.search(reason):
        return TooManyJobs(f"{text}: no more jobs may be in the queue at a time, so go on when some have ended")
    return UserError(text)

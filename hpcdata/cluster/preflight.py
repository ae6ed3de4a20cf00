"""Preflight: what the cluster and the output folder mean for a run, a line each; refuses what cannot work.

    python -m hpcdata.preflight ...the arguments of hpcdata.launch...

The launcher does the same before each submission. It asks the scheduler a handful of questions and starts nothing.
What is not told (limits of accounts, often) is not assumed. Transient settings that make no sense on this cluster are
changed, which is said.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcdata.base.errors import UserError
from hpcdata.cluster import limits
from hpcdata.cluster.limits import Controller, Limit, NodeKind, Partition
from hpcdata.config.array import parse_array, split
from hpcdata.config.schema import ClusterConfig, RunConfig
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan
from hpcdata.runs.stage import find_stage

SHORT_WARNING_S = 10
"""A batch and a checkpoint may take longer than that."""
LONG_INTERVAL_S = 60.0
SHORTER_INTERVAL_S = 30.0
MIN_FREE_BYTES = 64 * 2**20
MIN_FREE_FILES = 1000


@dataclass(frozen=True, kw_only=True)
class Checked:
    config: RunConfig
    """What was given, or what is better here."""
    lines: list[str]


def check_cluster(config: RunConfig) -> Checked:
    """Reads the cluster's limits. Raises UserError for what it would never run."""
    controller, partitions, nodes = limits.read_controller(), limits.read_partitions(), limits.read_nodes()
    config, lines = _check_tasks(config, controller, partitions, nodes)
    if config.finish.combine is not False:
        lines += _check_finish(config, controller, partitions, nodes)
    if not controller.keeps_accounts:
        lines.append(
            f"this cluster keeps no accounts: how jobs ended is known for {controller.min_job_age_s} s only; if the "
            "finishing job starts later, it submits tasks again that scancel has ended: end a run by hpcdata cancel"
        )
    return Checked(config=config, lines=lines)


def _check_tasks(
    config: RunConfig, controller: Controller, partitions: dict[str, Partition], nodes: Sequence[NodeKind]
) -> tuple[RunConfig, list[str]]:
    cluster = config.cluster
    chosen = _choose(cluster.partition, "cluster.partition", partitions)
    allowed = _read_limits(controller, cluster.account, cluster.qos, chosen)
    waits = [
        *_require_open(chosen, "tasks wait"),
        *_require_time("cluster.time_min", cluster.time_min, chosen, allowed),
    ]
    if chosen:
        waits += _require_nodes(cluster, [partition.name for partition in chosen], nodes)
    _require_share(cluster, allowed)
    config, changes = _adapt(config, controller, chosen)
    lines = [*changes, *_array_lines(config, controller, allowed), *waits]
    for partition in chosen:
        lines += _preemption_lines(config, controller, partition)
    return config, lines


def _check_finish(
    config: RunConfig, controller: Controller, partitions: dict[str, Partition], nodes: Sequence[NodeKind]
) -> list[str]:
    """What would keep the finishing job waiting for ever, beside what keeps the tasks."""
    finish, cluster = config.finish, config.cluster
    chosen = _choose(finish.partition or cluster.partition, "finish.partition", partitions)
    allowed = _read_limits(controller, cluster.account, None if finish.partition else cluster.qos, chosen)
    time_min = finish.time_min or cluster.time_min
    lines = _require_open(chosen, "the finishing job waits") if finish.partition else []
    lines += _require_time("finish.time_min", time_min, chosen, allowed)
    small = ClusterConfig(mem_gb=finish.mem_gb, cpus_per_task=1)
    if chosen and (finish.partition or finish.mem_gb):
        lines += _require_nodes(small, [partition.name for partition in chosen], nodes, keys="finish")
    return lines


def _read_limits(
    controller: Controller, account: str | None, qos: str | None, chosen: Sequence[Partition]
) -> dict[str, Limit]:
    """By their names; empty where no job waits for them."""
    if not controller.enforces_limits:
        return {}
    partition_qos = chosen[0].qos if len(chosen) == 1 else None
    return {limit.name: limit for limit in limits.read_limits(account, qos, partition_qos)}


def check_output(output_dir: Path, plan: Plan | None, *, num_open: int | None = None) -> list[str]:
    """Free space against what is still to be written. Raises UserError when it does not fit."""
    folder = output_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"data.token_output_dir={output_dir}: {folder} is not writable")
    stats = os.statvfs(folder)
    free_bytes, free_files = stats.f_bavail * stats.f_frsize, stats.f_favail
    has_file_count = stats.f_files > 0  # some file systems have no fixed number
    need_bytes, need_files = predict(plan, num_open) if plan else (0, 0)
    if free_bytes < max(MIN_FREE_BYTES, need_bytes):
        raise UserError(f"{folder} has {_size(free_bytes)} free, the run needs about {_size(need_bytes)}: make room")
    if has_file_count and free_files < max(MIN_FREE_FILES, need_files):
        raise UserError(
            f"{folder} has room for {free_files} files, the run makes about {need_files}: make room, or use a larger "
            "data.shard_size"
        )
    needs = f", the run needs about {_size(need_bytes)} in {need_files} files" if plan else ""
    return [f"output: {_size(free_bytes)}{f' and {free_files} files' if has_file_count else ''} free{needs}"]


def predict(plan: Plan, num_open: int | None = None) -> tuple[int, int]:
    """(bytes, files) of the shards that are not there yet and of their dataset, on the safe side for short texts."""
    total, files_a_shard = find_stage(plan.config.stage).predict(plan)
    share = 1.0 if num_open is None else num_open / max(1, plan.num_shards)
    return round(total * share), round(plan.num_shards * files_a_shard * share)


def _choose(wanted: str | None, key: str, partitions: dict[str, Partition]) -> list[Partition]:
    """The partitions that jobs may go to; empty when the cluster does not tell."""
    if not partitions:
        return []
    if wanted is None:
        return [partition for partition in partitions.values() if partition.is_default]
    unknown = [name for name in wanted.split(",") if name not in partitions]
    if unknown:
        raise UserError(f"{key}={wanted}: there is no partition {unknown[0]}, only {', '.join(sorted(partitions))}")
    return [partitions[name] for name in wanted.split(",")]


def _require_open(chosen: Sequence[Partition], who: str) -> list[str]:
    """Raises UserError when no partition takes jobs; says which ones do not run them."""
    names = ",".join(partition.name for partition in chosen)
    if chosen and all(partition.state in ("DRAIN", "INACTIVE") for partition in chosen):
        raise UserError(f"partition {names} is {chosen[0].state} and takes no new jobs: choose another one")
    closed = [partition for partition in chosen if partition.state != "UP"]
    return [f"partition {partition.name} is not up: {who} until it is" for partition in closed]


def _require_time(key: str, asked_min: int, chosen: Sequence[Partition], allowed: Mapping[str, Limit]) -> list[str]:
    """Raises UserError for more time than a limit allows: SLURM takes such jobs, and never starts them."""
    most = [partition.max_time_min for partition in chosen]
    what = (
        "tasks come back by themselves and continue" if key.startswith("cluster") else "by default it is that of tasks"
    )
    if most and all(value is not None and asked_min > value for value in most):
        longest = max(value for value in most if value is not None)
        names = ",".join(partition.name for partition in chosen)
        raise UserError(
            f"{key}={asked_min} is over the limit of partition {names}: use {key}={longest} or less; {what}"
        )
    if (wall := allowed.get("MaxWall")) and asked_min > wall.most:
        raise UserError(f"{key}={asked_min} is over {wall} (in minutes): use {key}={wall.most} or less; {what}")
    return [
        f"partition {partition.name} has a limit of {partition.max_time_min} min, so it runs no job of {asked_min} min"
        for partition in chosen
        if partition.max_time_min is not None and asked_min > partition.max_time_min
    ]


def _require_nodes(
    cluster: ClusterConfig, names: Sequence[str], kinds: Sequence[NodeKind], keys: str = "cluster"
) -> list[str]:
    """Raises UserError when no node has what one task of the array asks of it; says when none is in service."""
    kinds = [kind for kind in kinds if kind.partition in names]
    if not kinds:
        return []
    where, lines = f"partition {','.join(names)}", []
    if usable := [kind for kind in kinds if kind.is_usable]:
        kinds = usable
    else:
        lines = [
            f"all {sum(kind.num_nodes for kind in kinds)} nodes of {where} are down or drained: jobs wait for them"
        ]
    asked = {
        f"{keys}.gpus_per_node": (cluster.gpus_per_node, "gpus", "GPUs"),
        f"{keys}.cpus_per_task * tasks_per_node": (_num_cpus(cluster), "cpus", "CPUs"),
        f"{keys}.mem_gb": (round((cluster.mem_gb or 0) * 1024), "memory_mb", "MB of memory"),
    }
    fitting = list(kinds)
    for key, (value, attribute, unit) in asked.items():
        most = max(getattr(kind, attribute) for kind in kinds)
        if value > most:
            raise UserError(f"{key}={value}: no node of {where} has more than {most} {unit}")
        fitting = [kind for kind in fitting if getattr(kind, attribute) >= value]
    if sum(kind.num_nodes for kind in fitting) < cluster.nodes:
        raise UserError(
            f"cluster.nodes={cluster.nodes}: {where} has {sum(kind.num_nodes for kind in fitting)} nodes with "
            f"{cluster.gpus_per_node} GPUs, {_num_cpus(cluster)} CPUs and {cluster.mem_gb or 0} GB at once"
        )
    return lines


def _num_cpus(cluster: ClusterConfig) -> int:
    """Of one node of a task."""
    per_gpu = cluster.additional_parameters.get("cpus_per_gpu", cluster.additional_parameters.get("cpus-per-gpu"))
    return cluster.gpus_per_node * int(per_gpu) if per_gpu else cluster.cpus_per_task * cluster.tasks_per_node


def _require_share(cluster: ClusterConfig, allowed: Mapping[str, Limit]) -> None:
    """Raises UserError when one task is more than an account or QOS may use at a time: it would wait for ever."""
    asked = {
        "cpu": (_num_cpus(cluster), "CPUs"),
        "node": (1, "nodes"),
        "gres/gpu": (cluster.gpus_per_node, "GPUs"),
        "mem": (round((cluster.mem_gb or 0) * 1024), "MB of memory"),
    }
    for tres, (number, unit) in asked.items():
        for name in ("MaxTRES", "MaxTRESPU", "MaxTRESPA", "GrpTRES"):
            limit = allowed.get(f"{name}={tres}")
            if limit and number * cluster.nodes > limit.most:
                raise UserError(
                    f"one task asks for {number * cluster.nodes} {unit}, over {limit}: it would wait for ever; ask for "
                    "less, or name another cluster.account or cluster.qos"
                )
    for name in ("MaxJobs", "MaxJobsPA", "GrpJobs", "MaxSubmitJobs", "MaxSubmitJobsPA", "GrpSubmitJobs"):
        if (limit := allowed.get(name)) and limit.most == 0:
            raise UserError(f"{limit}: no job may run; name another cluster.account or cluster.qos")


def _adapt(config: RunConfig, controller: Controller, chosen: Sequence[Partition]) -> tuple[RunConfig, list[str]]:
    """Changes transient settings that make no sense here; says which."""
    cluster, data, lines = config.cluster, config.data, []
    if cluster.signal_delay_s >= cluster.time_min * 60:
        delay_s = cluster.time_min * 30
        lines.append(
            f"cluster.signal_delay_s={cluster.signal_delay_s} is no less than the time limit: set to {delay_s}"
        )
        cluster = dataclasses.replace(cluster, signal_delay_s=delay_s)
    short = [partition for partition in chosen if _warning_s(controller, partition) < SHORT_WARNING_S]
    if short and controller.preempts and data.save_tmp_interval > LONG_INTERVAL_S:
        lines.append(
            f"data.save_tmp_interval={data.save_tmp_interval:g} set to {SHORTER_INTERVAL_S:g}: partition "
            f"{short[0].name} kills {_warning_s(controller, short[0])} s after its warning"
        )
        data = dataclasses.replace(data, save_tmp_interval=SHORTER_INTERVAL_S)
    return dataclasses.replace(config, cluster=cluster, data=data), lines


def _array_lines(config: RunConfig, controller: Controller, allowed: Mapping[str, Limit]) -> Iterator[str]:
    array = parse_array(config.cluster.array)
    pieces = split(array, controller.max_array_size)
    if len(pieces) > 1:
        yield (
            f"cluster.array={config.cluster.array}: {len(pieces)} arrays, as one may hold {controller.max_array_size} "
            f"tasks here; {array.max_running} tasks run at a time in all"
        )
    submitted = [allowed[name] for name in ("MaxSubmitJobs", "MaxSubmitJobsPA", "GrpSubmitJobs") if name in allowed]
    fewest = min(submitted, key=lambda limit: limit.most, default=None)
    if fewest is not None and array.num_tasks >= fewest.most:
        yield (
            f"no more than {fewest.most} jobs may be submitted at a time ({fewest}): as many tasks as fit start now, "
            "the finishing job submits again what they leave"
        )


def _preemption_lines(config: RunConfig, controller: Controller, partition: Partition) -> Iterator[str]:
    mode, interval_s = partition.preempt_mode, config.data.save_tmp_interval
    if not controller.preempts or mode == "OFF":
        yield f"partition {partition.name} does not preempt; a node that is lost costs up to {interval_s:g} s a task"
        return
    warning_s = _warning_s(controller, partition)
    may_lose = f"up to {interval_s:g} s of work a task are lost when a batch takes longer (data.save_tmp_interval)"
    yield f"partition {partition.name} preempts ({mode}) and kills {warning_s} s after SIGTERM: {may_lose}"
    if controller.warns_before_preemption:
        yield f"preempted tasks are warned by SIGUSR2 {config.cluster.signal_delay_s} s ahead (send_user_signal)"
    if mode == "CANCEL":
        brought = config.finish.combine is not False
        yield "preempted tasks do not come back by themselves" + (
            ": the finishing job submits again what they leave" if brought else ": submit again, or set finish.combine"
        )


def _warning_s(controller: Controller, partition: Partition) -> int:
    """Seconds between SIGTERM and SIGKILL of a preempted task."""
    return partition.grace_time_s or controller.kill_wait_s


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} TiB"


def check(config: RunConfig) -> list[str]:
    """Everything that can be said before a plan is made; raises UserError for what cannot work."""
    from hpcdata import sources
    from hpcdata.runs import planning
    from hpcdata.sources.sets.settings import settings_line

    planning.check(config)
    config = planning.with_mapping(config)
    listed = sources.list_inputs(
        config.data.raw_data_dir,
        config.data.source,
        without=config.data.token_output_dir,
        image_root=config.data.image_root,
        seed=config.data.seed,
        mapping=config.data.mapped_by or "",
        made=settings_line(config.data.tasks, config.data.coordinates),
    )
    total = sum(Path(item.path).stat().st_size for item in listed)
    lines = [f"inputs: {len(listed)} files, {_size(total)}"]
    output_dir = Path(config.data.token_output_dir)
    plan = load_plan(output_dir) if RunPaths(output_dir).plan.exists() else None
    lines += check_output(output_dir, plan)
    if config.cluster.kind == "slurm":
        lines += check_cluster(config).lines
    return lines

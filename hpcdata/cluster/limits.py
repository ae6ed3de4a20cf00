"""The cluster's own limits, as its programs tell them: settings of slurmctld, partitions, nodes, associations.

Reading is best effort: what a cluster does not tell is None here, and then nothing is assumed about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpcdata.base.errors import UserError
from hpcdata.history import queue

DEFAULT_MAX_ARRAY_SIZE = 1001


@dataclass(frozen=True, kw_only=True)
class Partition:
    name: str
    is_default: bool
    is_up: bool
    max_time_min: int | None
    """None: unlimited."""
    max_nodes: int | None
    grace_time_s: int
    preempt_mode: str
    """OFF, REQUEUE, CANCEL, SUSPEND ...; what happens to jobs in this partition."""


@dataclass(frozen=True, kw_only=True)
class NodeKind:
    """Nodes of one partition that are alike."""

    partition: str
    num_nodes: int
    cpus: int
    memory_mb: int
    gpus: int


@dataclass(frozen=True, kw_only=True)
class Controller:
    """`scontrol show config`."""

    settings: Mapping[str, str]

    @property
    def max_array_size(self) -> int:
        """The number of elements of one array: MaxArraySize caps the index, max_array_tasks the number."""
        size = _number(self.settings.get("MaxArraySize")) or DEFAULT_MAX_ARRAY_SIZE
        tasks = re.search(r"max_array_tasks=(\d+)", self.settings.get("SchedulerParameters", ""))
        return max(1, min(size, int(tasks[1])) if tasks else size)

    @property
    def kill_wait_s(self) -> int:
        return _number(self.settings.get("KillWait")) or 0

    @property
    def warns_before_preemption(self) -> bool:
        """Whether a preempted job gets the signal that it asked for, before the grace time."""
        return "send_user_signal" in self.settings.get("PreemptParameters", "")

    @property
    def preempts(self) -> bool:
        return self.settings.get("PreemptType", "preempt/none") not in ("preempt/none", "(null)")


def read_controller() -> Controller:
    shown = _output("scontrol", "show", "config")
    found = (re.fullmatch(r"(\w+)\s*=\s*(.*?)\s*", line) for line in shown.splitlines())
    return Controller(settings={match[1]: match[2] for match in found if match})


def read_partitions() -> dict[str, Partition]:
    shown = (dict(re.findall(r"(\w+)=(\S*)", line)) for line in _lines("scontrol", "show", "partition", "--oneliner"))
    return {values["PartitionName"]: _partition(values) for values in shown if "PartitionName" in values}


def read_nodes() -> list[NodeKind]:
    """Nodes that are not broken, by what they have."""
    kinds = []
    for line in _lines("sinfo", "--noheader", "--exact", "--format=%R|%D|%c|%m|%G|%T"):
        partition, number, cpus, memory, gres, state = line.split("|")
        if not state.startswith(("down", "drained", "fail")):
            sizes = {"num_nodes": _number(number) or 0, "cpus": _number(cpus) or 0, "memory_mb": _number(memory) or 0}
            kinds.append(NodeKind(partition=partition, **sizes, gpus=_num_gpus(gres)))
    return kinds


def read_max_submit(account: str | None, qos: str | None) -> int | None:
    """The fewest jobs that any association or QOS of this user allows to be submitted at a time, if one says so."""
    fields = "format=account,maxsubmit,qos,defaultqos"
    associations = [
        line.split("|") for line in _lines("sacctmgr", "-n", "-P", "show", "assoc", f"user={queue.user_name()}", fields)
    ]
    mine = [line for line in associations if len(line) == 4 and account in (None, line[0])]
    names = {qos} if qos else {line[3] or line[2].split(",")[0] for line in mine}
    limits = [_number(line[1]) for line in mine]
    for line in _lines("sacctmgr", "-n", "-P", "show", "qos", "format=name,maxsubmitpu") if names else []:
        name, _, limit = line.partition("|")
        limits += [_number(limit)] if name in names else []
    return min((limit for limit in limits if limit is not None), default=None)


def _partition(values: Mapping[str, str]) -> Partition:
    return Partition(
        name=values["PartitionName"],
        is_default=values.get("Default") == "YES",
        is_up=values.get("State", "UP") == "UP",
        max_time_min=minutes(values.get("MaxTime", "UNLIMITED")),
        max_nodes=_number(values.get("MaxNodes")),
        grace_time_s=_number(values.get("GraceTime")) or 0,
        preempt_mode=values.get("PreemptMode", "OFF"),
    )


def minutes(text: str) -> int | None:
    """Minutes of SLURM's `2-00:30:00` or `00:30:00`; None for UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):\d+", text)
    return None if match is None else int(match[1] or 0) * 1440 + int(match[2]) * 60 + int(match[3])


def _num_gpus(gres: str) -> int:
    return sum(int(number) for number in re.findall(r"gpu(?::[^:(,]+)?:(\d+)", gres))


def _number(text: str | None) -> int | None:
    match = re.match(r"\d+", text or "")
    return int(match[0]) if match else None


def _lines(*command: str) -> list[str]:
    return [line for line in _output(*command).splitlines() if line.strip()]


def _output(*command: str) -> str:
    """Empty when the program is missing, fails, or is not allowed here."""
    try:
        result = queue.run(*command)
    except UserError:
        return ""
    return result.stdout if result.returncode == 0 else ""

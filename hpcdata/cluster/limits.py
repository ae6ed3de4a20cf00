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
    state: str
    """UP, DOWN (jobs wait), DRAIN (no new jobs), INACTIVE (neither)."""
    max_time_min: int | None
    """None: unlimited."""
    max_nodes: int | None
    grace_time_s: int
    preempt_mode: str
    """OFF, REQUEUE, CANCEL, SUSPEND ...; what happens to jobs in this partition."""
    qos: str | None = None
    """Its own, whose limits come before those of the job's QOS."""


@dataclass(frozen=True, kw_only=True)
class NodeKind:
    """Nodes of one partition that are alike."""

    partition: str
    num_nodes: int
    cpus: int
    memory_mb: int
    gpus: int
    is_usable: bool = True
    """False: down, drained or about to be."""


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
    def keeps_accounts(self) -> bool:
        """Whether it is known for long how jobs ended; true where that is not told."""
        return self.settings.get("AccountingStorageType", "?") not in ("accounting_storage/none", "(null)")

    @property
    def min_job_age_s(self) -> int:
        """How long slurmctld itself knows of a job that is over."""
        return _number(self.settings.get("MinJobAge")) or 300

    @property
    def enforces_limits(self) -> bool:
        """Whether jobs wait for the limits of accounts and QOS; true where that is not told."""
        enforced = self.settings.get("AccountingStorageEnforce", "limits")
        return any(word in enforced for word in ("limits", "safe", "all"))

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
    kinds = []
    for line in _lines("sinfo", "--noheader", "--exact", "--format=%R|%D|%c|%m|%G|%T"):
        partition, number, cpus, memory, gres, state = line.split("|")
        sizes = {"num_nodes": _number(number) or 0, "cpus": _number(cpus) or 0, "memory_mb": _number(memory) or 0}
        usable = not state.startswith(("down", "drain", "fail", "inval", "unk"))
        kinds.append(NodeKind(partition=partition, **sizes, gpus=_num_gpus(gres), is_usable=usable))
    return kinds


@dataclass(frozen=True, kw_only=True)
class Limit:
    name: str
    """As SLURM has it, GrpTRES=cpu or MaxWall."""
    most: int
    """Of jobs, minutes, CPUs, nodes, GPUs or MB."""
    whose: str
    """account lab, QOS short"""

    def __str__(self) -> str:
        return f"{self.name}={self.most} of {self.whose}"


_ASSOCIATION = (
    "account,maxsubmit,qos,defaultqos,maxwall,maxjobs,maxtres,grpsubmit,grpjobs,grptres,partition,user,parent"
)
_QOS = "name,maxsubmitpu,maxwall,maxsubmitpa,grpsubmit,maxjobspu,maxjobspa,grpjobs,maxtres,maxtrespu,maxtrespa,grptres"
_NAMES = {
    "maxsubmit": "MaxSubmitJobs", "maxsubmitpu": "MaxSubmitJobs", "maxsubmitpa": "MaxSubmitJobsPA",
    "grpsubmit": "GrpSubmitJobs", "maxwall": "MaxWall", "maxjobs": "MaxJobs", "maxjobspu": "MaxJobs",
    "maxjobspa": "MaxJobsPA", "grpjobs": "GrpJobs", "maxtres": "MaxTRES", "maxtrespu": "MaxTRESPU",
    "maxtrespa": "MaxTRESPA", "grptres": "GrpTRES",
}  # fmt: skip
_MOST_PARENTS = 20


def read_limits(account: str | None, qos: str | None, partition_qos: str | None) -> list[Limit]:
    """What holds for jobs of this user: of each kind the first of partition QOS, QOS, association, its parents."""
    rows = _associations(account)
    names = [partition_qos] if partition_qos else []
    if rows:
        own = rows[0]["defaultqos"] or (rows[0]["qos"] if "," not in rows[0]["qos"] else "normal")
        names += [qos or own]
    elif qos:
        names.append(qos)
    found: dict[str, Limit] = {}
    of_qos = {row["name"]: row for row in _table("qos", _QOS)} if names else {}
    for name in names:
        _add(found, of_qos.get(name, {}), f"QOS {name}")
    for row in rows:
        _add(found, row, f"account {row['account']}")
    return list(found.values())


def _associations(account: str | None) -> list[dict[str, str]]:
    """The user's own, then those of the account and of the accounts above it."""
    user = queue.user_name()
    rows = [row for row in _table("assoc", _ASSOCIATION, f"user={user}") if not row["partition"]]
    if account is None and len(rows) > 1:
        account = next(iter(_lines("sacctmgr", "-n", "-P", "show", "user", user, "format=defaultaccount")), None)
    mine = [row for row in rows if account in (None, row["account"])][:1]
    above = mine[0]["account"] if mine else account
    while above and len(mine) < _MOST_PARENTS:
        group = _table("assoc", _ASSOCIATION, f"account={above}")
        found = [row for row in group if row["account"] == above and not row["user"] and row["parent"] != above]
        mine += found[:1]
        above = found[0]["parent"] if found else ""
    return mine


def _add(found: dict[str, Limit], row: Mapping[str, str], whose: str) -> None:
    for field, name in _NAMES.items():
        text = row.get(field, "")
        if field == "maxwall":
            values = {name: minutes(text)}
        elif "tres" in field:
            values = {f"{name}={tres}": _amount(number) for tres, _, number in _parts(text)}
        else:
            values = {name: _number(text)}
        for kind, most in values.items():
            if most is not None:
                found.setdefault(kind, Limit(name=kind, most=most, whose=whose))


def _parts(text: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in text.split(",") if "=" in part]


def _amount(text: str) -> int | None:
    """MB of `100G`; other numbers as they are."""
    number = _number(text)
    factors = {"G": 1024, "T": 1024**2, "P": 1024**3}
    return None if number is None else number * factors.get(text[-1], 1)


def _table(what: str, fields: str, *condition: str) -> list[dict[str, str]]:
    """Rows of sacctmgr; fields that it leaves out are empty."""
    names = fields.split(",")
    lines = _lines("sacctmgr", "-n", "-P", "show", what, *condition, f"format={fields.replace('parent', 'parentname')}")
    return [dict.fromkeys(names, "") | dict(zip(names, line.split("|"), strict=False)) for line in lines]


def _partition(values: Mapping[str, str]) -> Partition:
    return Partition(
        name=values["PartitionName"],
        is_default=values.get("Default") == "YES",
        state=values.get("State", "UP"),
        max_time_min=minutes(values.get("MaxTime", "UNLIMITED")),
        max_nodes=_number(values.get("MaxNodes")),
        grace_time_s=_number(values.get("GraceTime")) or 0,
        preempt_mode=values.get("PreemptMode", "OFF"),
        qos=values.get("QoS") if values.get("QoS") != "N/A" else None,
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

"""How much memory a process may still take: what its cgroups, SLURM and the machine leave it.

The kernel may end one process where a limit is passed, and a cgroup or SLURM may end all of a task at once. `poison`
needs a child that dies alone of a record that takes too much: so a child limits itself to a part of what is left.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

SHARE = 0.5
"""Of what is left, as others take from it, too."""


def limit_this_process(bytes_left: int | None = None) -> None:
    """From here on it may take `SHARE` of what is left; then allocations fail, in this process only."""
    left = available_bytes() if bytes_left is None else bytes_left
    if left is None:
        return
    limit = _data_bytes() + int(left * SHARE)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def available_bytes(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int | None:
    """None where nothing tells. `root`: of the file system, for tests."""
    found = [*_of_cgroups(root), *_of_the_machine(root), *_of_slurm(root, environment)]
    return max(0, min(found)) if found else None


def _of_cgroups(root: Path) -> Iterator[int]:
    """What is left to this process's cgroups and those above them. Cached files count as free."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mount, limit, usage, cached = {
            "": ("sys/fs/cgroup", "memory.max", "memory.current", "file"),
            "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
        }.get(controllers, ("", "", "", ""))
        folder = root / mount / path.lstrip("/")
        while mount and folder.is_relative_to(root / mount):
            values = [_read(folder / name).strip() for name in (limit, usage)]
            if all(value.isdigit() for value in values):
                yield int(values[0]) - int(values[1]) + _field(folder / "memory.stat", cached)
            folder = folder.parent


def _of_the_machine(root: Path) -> Iterator[int]:
    if kilobytes := _field(root / "proc/meminfo", "MemAvailable:"):
        yield kilobytes * 1024


def _of_slurm(root: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """What the job was promised, shared among the tasks of the node, less what this process and its parent have."""
    megabytes = int(environment.get("SLURM_MEM_PER_NODE", 0))
    megabytes = megabytes or int(environment.get("SLURM_MEM_PER_CPU", 0)) * int(
        environment.get("SLURM_CPUS_ON_NODE", 0)
    )
    if megabytes:
        tasks = re.match(r"\d+", environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))
        used = sum(_field(root / f"proc/{pid}/status", "VmRSS:") for pid in ("self", os.getppid()))
        yield megabytes * 2**20 // int(tasks[0] if tasks else 1) - used * 1024


def _data_bytes() -> int:
    return _field(Path("/proc/self/status"), "VmData:") * 1024


def _field(path: Path, name: str) -> int:
    """The number behind a name at the beginning of a line, 0 when there is none."""
    found = re.search(rf"^{re.escape(name)}\s+(\d+)", _read(path), re.MULTILINE)
    return int(found[1]) if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""

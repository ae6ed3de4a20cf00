"""What is left of the memory of a process.   pytest tests/base/test_memory.py"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpcdata.base import memory

GIB = 2**30


def put(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


V2 = {
    "proc/self/cgroup": "0::/job/step",
    "sys/fs/cgroup/job/memory.max": 8 * GIB,
    "sys/fs/cgroup/job/memory.current": 5 * GIB,
    "sys/fs/cgroup/job/memory.stat": f"anon {4 * GIB}\nfile {GIB}",
    "sys/fs/cgroup/job/step/memory.max": "max",
    "sys/fs/cgroup/job/step/memory.current": GIB,
}
V1 = {
    "proc/self/cgroup": "5:cpu:/\n4:memory:/job",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": 2**63 - 4096,
    "sys/fs/cgroup/memory/memory.usage_in_bytes": 9 * GIB,
    "sys/fs/cgroup/memory/job/memory.limit_in_bytes": 2 * GIB,
    "sys/fs/cgroup/memory/job/memory.usage_in_bytes": GIB,
}
MACHINE = {"proc/meminfo": f"MemTotal: {9 * GIB // 1024} kB\nMemAvailable: {6 * GIB // 1024} kB"}
RESIDENT = {"proc/self/status": f"VmPeak: 1 kB\nVmRSS: {GIB // 1024} kB"}


@pytest.mark.parametrize(
    ("files", "environment", "expected"),
    [
        ({}, {}, None),
        (MACHINE, {}, 6 * GIB),
        (V2 | MACHINE, {}, 4 * GIB),  # the limit of the job above; what it has cached is free
        (V1 | MACHINE, {}, GIB),
        (MACHINE | RESIDENT, {"SLURM_MEM_PER_NODE": "4096"}, 3 * GIB),
        (MACHINE | RESIDENT, {"SLURM_MEM_PER_NODE": "4096", "SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, GIB),
        (MACHINE, {"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "3"}, 3 * GIB),
        (MACHINE | RESIDENT, {"SLURM_MEM_PER_NODE": "512"}, 0),
    ],
)
def test_the_least_of_what_is_left(
    tmp_path: Path, files: dict[str, object], environment: dict[str, str], expected: int | None
) -> None:
    assert memory.available_bytes(put(tmp_path, files), environment) == expected


def test_a_limited_process_cannot_take_more() -> None:
    code = (
        "from hpcdata.base import memory; memory.limit_this_process(2**30); fine = bytearray(2**28); bytearray(2**30)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1] == "MemoryError"

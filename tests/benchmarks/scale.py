"""How status and claims scale: python tests/benchmarks/scale.py [--shards 100000] [--tasks 1000] [--checkpoints 12]

Makes a run without data (a minute for 100,000 shards) in a temporary folder, and times: status in a new process and
again in the same one, one listing of `shards/`, finding a shard's attempts, and picking and claiming shards.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from hpcdata.report.status import Observer
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.picking import Picker
from hpcdata.runs.plan import load_plan
from hpcdata.shards import shard
from tests import synthetic


def timed(function: Callable[[], object], repeat: int = 5) -> float:
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def show(name: str, seconds: float) -> None:
    print(f"{name:<58} {1000 * seconds:>9.1f} ms", flush=True)


def status_in_a_process(run: Path) -> None:
    subprocess.run([sys.executable, "-m", "hpcdata.status", str(run)], check=False, stdout=subprocess.DEVNULL)


def pick(run: Path, number: int) -> None:
    plan, paths = load_plan(run), RunPaths(run)
    with Claims(paths.claims, Owner.of_this_process("benchmark"), timeout_s=60) as claims:
        picker = Picker(plan, paths, claims, "benchmark")
        taken = [spec for spec, _ in zip(picker.pick(set(), lambda: False), range(number), strict=False)]
        assert len(taken) == number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--checkpoints", type=int, default=12, help="in the ledger for each shard")
    parser.add_argument("--keep", help="make the run here, and leave it")
    options = parser.parse_args()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="hpcdata-scale-"))
    run = folder / "run"
    try:
        if not run.exists():
            synthetic.write(
                run,
                synthetic.Options(num_shards=options.shards, num_tasks=options.tasks, checkpoints=options.checkpoints),
            )
        size = sum(path.stat().st_size for path in (run / "ledger").iterdir())
        num_ledgers = len(list((run / "ledger").iterdir()))
        print(f"{options.shards} shards, {num_ledgers} ledgers of {size / 2**20:.0f} MiB; {platform.processor()}")
        show("status, a new process", timed(lambda: status_in_a_process(run)))
        show("status, first look", timed(lambda: Observer(run).look(), 3))
        observer = Observer(run)
        observer.look()
        show("status, next look", timed(observer.look))
        paths = RunPaths(run)
        show("one listing of shards/", timed(paths.list_names))
        name = load_plan(run).shard_names[-1]
        show("attempts on one shard", timed(lambda: shard.list_attempts(paths.shards, name)))
        show("picking and claiming one shard, as a new process", timed(lambda: pick(run, 1)))
        number = options.shards // 20
        show(f"picking and claiming {number} shards, as a new process", timed(lambda: pick(run, number), 1))
    finally:
        if not options.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()

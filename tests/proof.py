"""The proof, as a table: what is done to runs by the tests, and how many samples are lost or there twice.

    python tests/proof.py                     20 kill schedules and all else, without SLURM: about ten minutes
    python tests/proof.py --schedules 200     the table of tests/benchmarks/README.md
    python tests/proof.py --slurm             also on a real SLURM, which is started for it
    python tests/proof.py --only read_faults  some rows again: of the tests whose path or name has these letters

It runs every test that gives evidence (`tests/evidence.py`) and adds up what these tests have counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hpcdata.base.version import code_version
from tests.evidence import KINDS, NOTHING, READS, Account


class Collector:
    """Runs the tests with the fixture `evidence` only, and adds up what they note."""

    def __init__(self, *, with_slurm: bool, only: str = "") -> None:
        self._with_slurm, self._only = with_slurm, only
        self.times = dict.fromkeys(KINDS, 0)
        self.accounts = dict.fromkeys(KINDS, NOTHING)
        self.passed, self.failed = 0, list[str]()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        names = {item: set(getattr(item, "fixturenames", ())) for item in items}
        items[:] = [item for item in items if "evidence" in names[item]]
        items[:] = [item for item in items if self._only in item.nodeid]
        if not self._with_slurm:
            items[:] = [item for item in items if "slurm" not in names[item]]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when != "call":
            return
        self.passed += report.passed
        for name, value in report.user_properties:
            if name == "evidence":
                kind, times, found = value  # type: ignore[misc]
                self.times[kind] += times
                self.accounts[kind] += found

    def table(self) -> str:
        rows = [
            "| what is done to runs | times | samples | lost | duplicated | wrongly rejected |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for kind in KINDS:
            if self.times[kind]:
                rows.append(_row(kind, self.times[kind], self.accounts[kind]))
        return "\n".join([*rows, _row("all", sum(self.times.values()), sum(self.accounts.values(), NOTHING))])


def _row(kind: str, times: int, found: Account) -> str:
    wronged = found.wronged if kind == READS else ""
    return f"| {kind} | {times:,} | {found.planned:,} | {found.lost} | {found.duplicated} | {wronged} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=20, help="random kill schedules (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule")
    parser.add_argument("--slurm", action="store_true", help="also the kills of a real SLURM")
    parser.add_argument("--only", default="", help="letters of the tests that run; all by default")
    options = parser.parse_args()
    os.environ |= {"HPCDATA_SCHEDULES": str(options.schedules), "HPCDATA_SEED": str(options.seed)}
    os.environ |= {"HPCDATA_ALL_PICTURES": "1", "HPCDATA_ALL_FAULTS": "1"}
    collector, started = Collector(with_slurm=options.slurm, only=options.only), time.monotonic()
    code = pytest.main([str(ROOT / "tests"), "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"], plugins=[collector])
    where = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(f"\n{collector.table()}\n")
    print(
        f"{options.schedules} kill schedules from seed {options.seed}; {collector.passed} tests passed, "
        f"{len(collector.failed)} failed, {time.monotonic() - started:.0f} s on {where}, hpcdata {code_version()}"
    )
    for name in collector.failed:
        print(f"FAILED {name}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

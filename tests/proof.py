"""The proof, as two tables: what runs have survived without losing a sample, and which attacks were held or answered.

    python tests/proof.py                     20 kill schedules and all else, without SLURM
    python tests/proof.py --schedules 200     the tables of tests/benchmarks/README.md
    python tests/proof.py --slurm             also on a real SLURM, which is started for it
    python tests/proof.py --attacks --names   the attacks alone, each by its name
    python tests/proof.py --only read_faults  some rows again: of the tests whose path or name has these letters

It runs every test that gives evidence (`tests/evidence.py`) and every attack (`tests/attacks.py`), and adds up.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hpcdata.base.version import code_version
from tests import attacks, evidence
from tests.attacks import ANSWERED, HELD
from tests.evidence import NOTHING, READS, Account

NOT_HELD = "not held"


class Collector:
    """Runs the tests that give evidence or are attacks, and adds up what they note."""

    def __init__(self, *, with_slurm: bool, only: str = "", only_attacks: bool = False) -> None:
        self._with_slurm, self._only, self._only_attacks = with_slurm, only, only_attacks
        self.times = dict.fromkeys(evidence.KINDS, 0)
        self.accounts = dict.fromkeys(evidence.KINDS, NOTHING)
        self.attacks = {kind: Counter[str]() for kind in attacks.KINDS}
        self.names: dict[str, Counter[str]] = {}
        """Test, or what it has tried -> how its attacks ended."""
        self.passed, self.failed = 0, list[str]()

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self._is_wanted(item)]

    def _is_wanted(self, item: pytest.Item) -> bool:
        fixtures = set(getattr(item, "fixturenames", ()))
        if self._only not in item.nodeid or ("slurm" in fixtures and not self._with_slurm):
            return False
        return attacks.find(item.nodeid) is not None or ("evidence" in fixtures and not self._only_attacks)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
            self._add_attack(report.nodeid, NOT_HELD)
        if report.when != "call":
            return
        self.passed += report.passed
        noted = dict[str, int]()
        for name, value in report.user_properties:
            if name == "evidence":
                kind, times, found = value  # type: ignore[misc]
                self.times[kind] += times
                self.accounts[kind] += Account(**found)
            elif name == "attacked":
                tried, number = value  # type: ignore[misc]
                noted[tried] = noted.get(tried, 0) + number
        attack = attacks.find(report.nodeid)
        if report.passed and attack is not None:
            for what, number in noted.items() or {"": 1}.items():
                self._add_attack(report.nodeid, attack.ends, what, number)

    def _add_attack(self, nodeid: str, ends: str, what: str = "", number: int = 1) -> None:
        attack = attacks.find(nodeid)
        if attack is not None:
            self.attacks[attack.kind][ends] += number
            name = f"{nodeid.removeprefix('tests/')}{what and f': {what}'}"
            self.names.setdefault(name, Counter())[ends] += number

    def table(self) -> str:
        rows = [
            "| what is done to runs | times | samples | lost | duplicated | wrongly rejected |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        for kind in evidence.KINDS:
            if self.times[kind]:
                rows.append(_row(kind, self.times[kind], self.accounts[kind]))
        return "\n".join([*rows, _row("all", sum(self.times.values()), sum(self.accounts.values(), NOTHING))])

    def table_of_attacks(self) -> str:
        rows = ["| attacks | number | held | answered by a reason | not held |", "|---|---:|---:|---:|---:|"]
        found = {kind: ends for kind, ends in self.attacks.items() if ends}
        for kind, ends in {**found, "all": sum(found.values(), Counter[str]())}.items():
            numbers = " | ".join(f"{ends[name]:,}" for name in (HELD, ANSWERED, NOT_HELD))
            rows.append(f"| {kind} | {ends.total():,} | {numbers} |")
        return "\n".join(rows)

    def list_of_names(self) -> str:
        return "\n".join(
            f"{ends:<8} {number:>6}  {name}" for name, found in self.names.items() for ends, number in found.items()
        )


def _row(kind: str, times: int, found: Account) -> str:
    wronged = found.wronged if kind == READS else ""
    return f"| {kind} | {times:,} | {found.planned:,} | {found.lost} | {found.duplicated} | {wronged} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=20, help="random kill schedules (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule")
    parser.add_argument("--flips", type=int, default=101, help="every so manieth bit of small runs is flipped (101)")
    parser.add_argument("--slurm", action="store_true", help="also the kills of a real SLURM")
    parser.add_argument("--attacks", action="store_true", help="only the attacks")
    parser.add_argument("--names", action="store_true", help="tell each attack by its name")
    parser.add_argument("--only", default="", help="letters of the tests that run; all by default")
    options = parser.parse_args()
    os.environ |= {"HPCDATA_SCHEDULES": str(options.schedules), "HPCDATA_SEED": str(options.seed)}
    os.environ |= {"HPCDATA_ALL_PICTURES": "1", "HPCDATA_ALL_FAULTS": "1", "HPCDATA_FLIPS": str(options.flips)}
    collector = Collector(with_slurm=options.slurm, only=options.only, only_attacks=options.attacks)
    started = time.monotonic()
    code = pytest.main([str(ROOT / "tests"), "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}"], plugins=[collector])
    where = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    if options.names:
        print(f"\n{collector.list_of_names()}")
    for table in () if options.attacks else (collector.table(),):
        print(f"\n{table}")
    print(f"\n{collector.table_of_attacks()}\n")
    print(
        f"{options.schedules} kill schedules from seed {options.seed}; {collector.passed} tests passed, "
        f"{len(collector.failed)} failed, {time.monotonic() - started:.0f} s on {where}, hpcdata {code_version()}"
    )
    for name in collector.failed:
        print(f"FAILED {name}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

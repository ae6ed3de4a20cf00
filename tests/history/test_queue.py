"""What squeue and sacct print -> states.   pytest tests/history/test_queue.py"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpcdata.history import queue


def commands(folder: Path, **scripts: str) -> None:
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


@pytest.fixture
def _only_fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/local/nothing")
    for name in ("squeue", "sacct"):
        for folder in os.environ["PATH"].split(":")[1:]:
            if Path(folder, name).exists():  # a real one: hide it
                monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.mark.usefixtures("_only_fakes")
def test_the_queue_knows_better_than_accounting(tmp_path: Path) -> None:
    commands(
        tmp_path / "bin",
        sacct="echo '12_0|NODE_FAIL|1:0\n12_1|RUNNING|0:0\n12_2|CANCELLED by 0|0:15\n12_[3-9]|PENDING|0:0'",
        squeue="echo '12_1|COMPLETING|None\n12_[3-6,9%2]|PENDING|Priority\n13|PENDING|Dependency'",
    )
    found = queue.look(["12", "13", "not a job; rm -rf /"])
    assert found is not None
    assert found.by_element == {"12_0": "NODE_FAIL", "12_1": "COMPLETING", "12_2": "CANCELLED", "13": "PENDING"}
    assert found.counts() == {"CANCELLED": 1, "COMPLETING": 1, "NODE_FAIL": 1, "PENDING": 6}
    assert found.reasons == {"Priority": 5, "Dependency": 1}
    assert found.exit_codes["12_2"] == "0:15"


@pytest.mark.usefixtures("_only_fakes")
@pytest.mark.parametrize("script", ["exit 1", "exec sleep 30"])
def test_commands_that_fail_or_hang_are_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(queue, "LOOK_S", 0.2)
    commands(
        tmp_path / "bin", sacct=script.replace("sleep", "/bin/sleep"), squeue=script.replace("sleep", "/bin/sleep")
    )
    assert queue.look(["12"]) is None


@pytest.mark.usefixtures("_only_fakes")
def test_without_commands_or_jobs_nobody_is_asked(tmp_path: Path) -> None:
    assert queue.look(["12"]) is None
    assert queue.look([]) is None


@pytest.mark.parametrize(("job", "expected"), [("12", 1), ("12_7", 1), ("12_[0-3]", 4), ("12_[0-8:4,20%3]", 4)])
def test_elements_of_one_line(job: str, expected: int) -> None:
    assert queue.num_elements(job) == expected

"""A run over a file that cannot be read for a moment: refused or left open with the file's name, and complete later.

pytest tests/test_read_faults.py

The last test takes every source, point and fault: faulty_runs.py does it.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata.config.compose import compose
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.work.task import TaskOutcome, run_task
from tests.evidence import READS, Account, Evidence, account
from tests.faulty_runs import CASES, Attack
from tests.readfaults import build, environment
from tests.smallruns import StopAfter, start_task
from tests.trees import sha256_tree

NUM_ROWS = 600


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "rows.parquet"
    pq.write_table(pa.table({"text": [f"row {number}" for number in range(NUM_ROWS)]}), path, row_group_size=100)
    return path


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    prepare(compose(arguments(source, run)))
    assert work(run) is TaskOutcome.FINISHED
    return sha256_tree(run / "shards")


def arguments(source: Path, run: Path) -> list[str]:
    return [
        "+experiments=text",
        f"data.raw_data_dir={source}",
        f"data.token_output_dir={run}",
        "text.tokenizer=embedded",
        "data.shard_size=300",
        "data.block_size=16",
        "loader.batch_size=50",
    ]


def work(run: Path) -> TaskOutcome:
    return run_task(run, StopAfter())  # type: ignore[arg-type]


def launch(run: Path, source: Path, more: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpcdata.launch", *arguments(source, run), *more]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("kind", [errno.EIO, pytest.param(errno.ENOMEM, marks=pytest.mark.slow)])
def test_while_planning_nothing_is_planned_and_the_next_launch_plans_all_rows(
    tmp_path: Path, library: Path, source: Path, kind: int
) -> None:
    run = tmp_path / "run"
    refused = launch(run, source, **environment(library, source.name, kind=kind, count=2))
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == (
        f"hpcdata: cannot read {source}: {os.strerror(kind)}; try again when it can be read"
    )
    assert "Traceback" not in refused.stderr
    assert not (run / "plan.json").exists()
    prepare(compose(arguments(source, run)))
    assert load_plan(run).num_samples == NUM_ROWS


def test_a_look_at_an_input_that_fails_is_one_line_that_names_it(tmp_path: Path, library: Path, source: Path) -> None:
    """While planning, and never as a bare OSError."""
    code = "import sys; from tests.faulty_runs import fail_each_look as f; f(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(library), str(source), *arguments(source, tmp_path / "run")]
    done = subprocess.run(
        command, env={**os.environ, **environment(library)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said) > 3
    assert [line for line in said if line and str(source) not in line] == []
    assert any(said)


def test_a_read_that_fails_once_while_planning_is_tried_again(tmp_path: Path, library: Path, source: Path) -> None:
    planned = launch(tmp_path / "run", source, **environment(library, source.name, kind=errno.EIO))
    assert planned.returncode == 0
    assert f"cannot read {source}: {os.strerror(errno.EIO)}" in planned.stderr
    assert load_plan(tmp_path / "run").num_samples == NUM_ROWS


@pytest.mark.parametrize("kind", [errno.EIO, pytest.param(errno.ESTALE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [0, 1, 4])
def test_while_reading_the_shard_is_left_open_and_the_next_task_finishes_it(
    tmp_path: Path, library: Path, source: Path, undisturbed: str, number: int, kind: int
) -> None:
    run = tmp_path / "run"
    prepare(compose(arguments(source, run)))
    task = start_task(run, **environment(library, source.name, first=number, kind=kind))
    assert task.wait(120) == 1
    log = Path(f"{run}.log").read_text()
    assert f"failed: [Errno {kind}] {os.strerror(kind)}: '{source}'" in log
    assert len(list(run.glob("shards/[0-9]*/shard.json"))) == 1, "one shard fails, the other one is made"
    assert work(run) is TaskOutcome.FINISHED
    assert sha256_tree(run / "shards") == undisturbed
    found = account(run)
    assert (found.planned, found.lost, found.duplicated) == (NUM_ROWS, 0, 0)
    assert not list(run.glob("shards/*/rejects.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_no_fault_of_reading_loses_or_rejects_a_sample(
    tmp_path: Path, library: Path, evidence: Evidence, case: str
) -> None:
    """While planning, reading and going on from a checkpoint, under either stage."""
    command = [sys.executable, "-m", "tests.faulty_runs", str(library), str(tmp_path), case]
    done = subprocess.run(
        command, env={**os.environ, **environment(library)}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    attacks = [Attack(**values) for values in json.loads(done.stdout)]
    assert {attack.point for attack in attacks} == {"planning", "reading", "going on"}
    assert [attack for attack in attacks if attack.found not in ("same", "refused")] == []
    assert any(attack.found == "refused" for attack in attacks)
    counted = [
        Account(planned=attack.planned, lost=attack.lost, duplicated=attack.duplicated, wronged=attack.wronged)
        for attack in attacks
    ]
    evidence(READS, len(attacks), counted=sum(counted, Account(planned=0, lost=0, duplicated=0)))

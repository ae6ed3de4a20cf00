"""Poison: records that kill their process are found and rejected, nothing else is.

pytest tests/work/test_poison.py
"""

from __future__ import annotations

import json
import os
import signal
import tarfile
import time
from pathlib import Path

import pytest

from hpcdata import TokenDataset, embedded
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.history.ledger import read_ledgers
from hpcdata.report.status import read_status
from hpcdata.runs.planning import prepare
from hpcdata.work import poison
from tests.evidence import POISON, Evidence
from tests.poisoned import READING, install
from tests.smallruns import small_config, small_run, start_task
from tests.stopping import kill_when_stopped
from tests.test_kills import several_inputs
from tests.trees import sha256_tree

ROOT = Path(__file__).parent.parent.parent
MESSAGE = "the process that decodes it dies"


def pictures() -> list[bytes]:
    """The image bytes of the run's 24 samples, in order."""
    return members("image")


def members(kind: str, number: int = 24) -> list[bytes]:
    with tarfile.open(embedded.path("quickstart.tar")) as tar:
        found = [member for member in tar if member.name.endswith(".txt") is (kind == "text")]
        return [tar.extractfile(member).read() for member in found[:number]]  # type: ignore[union-attr]


def rejects(folder: Path) -> list[dict]:
    paths = sorted((folder / "shards").glob("*/rejects.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def run_until_done(folder: Path, python_path: str, limit: int) -> list[int]:
    """Starts one process after another until one ends in order; returns their exit codes."""
    codes: list[int] = []
    while not codes or codes[-1] != 0:
        assert len(codes) < limit, Path(f"{folder}.log").read_text()[-3000:]
        codes.append(start_task(folder, PYTHONPATH=f"{python_path}{os.pathsep}{ROOT}").wait(120))
    return codes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"),
    [("segfault", -signal.SIGSEGV), ("kill", -signal.SIGKILL), ("memory", 0), ("malloc", -signal.SIGSEGV)],
)
def test_a_record_that_kills_its_process_is_rejected_and_its_neighbours_are_written(
    tmp_path: Path, evidence: Evidence, how: str, code: int
) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.max_crashes=2"))
    python_path = install(tmp_path / "site", how, [pictures()[9]])
    codes = run_until_done(folder, python_path, 3)
    assert codes == ([0] if code == 0 else [code, 0]), "one process dies, the next one finds the record"
    assert [(row["index"], row["reason"], row["message"]) for row in rejects(folder)] == [(9, "crash", MESSAGE)]
    assert read_status(folder).counts["written"] == 23
    assert not list((folder / "crashes").iterdir())
    evidence(POISON, 1, folder)
    combine(folder, CombineOptions())
    assert [report.problems for report in verify.verify(folder)] == [[], []]


LIMIT_MB = 1536


def run_within_a_limit(folder: Path, python_path: str) -> int:
    """A task whose processes are all killed at once when together they take too much: SLURM's OverMemoryKill."""
    path = f"{python_path}{os.pathsep}{ROOT}"
    task = start_task(folder, PYTHONPATH=path, SLURM_MEM_PER_NODE=str(LIMIT_MB))
    while task.poll() is None:
        pids = [task.pid, *children(task.pid)]
        if sum(map(resident_bytes, pids)) > LIMIT_MB * 2**20:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return task.wait()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


@pytest.mark.slow
def test_a_record_that_takes_the_memory_of_the_whole_task_is_found(tmp_path: Path, evidence: Evidence) -> None:
    """Parent and child die together of it, unless the child has less than what is left: it must die alone."""
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.max_crashes=2"))
    python_path = install(tmp_path / "site", "glutton", [pictures()[9]])
    assert [run_within_a_limit(folder, python_path) for _ in range(2)] == [-signal.SIGKILL, 0]
    assert [(row["index"], row["reason"], row["message"]) for row in rejects(folder)] == [(9, "crash", MESSAGE)]
    assert read_status(folder).counts["written"] == 23
    evidence(POISON, 1, folder)


@pytest.mark.slow
def test_records_that_kill_the_process_that_reads_them_are_rejected_too(tmp_path: Path, evidence: Evidence) -> None:
    """Two of them: the second one is met by a child, which the process that met the first leaves the reading to."""
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.max_crashes=2", "data.shard_size=24"))
    texts = members("text")
    python_path = install(tmp_path / "site", "segfault", [texts[9], texts[18]], where=READING)
    assert run_until_done(folder, python_path, 3) == [-signal.SIGSEGV, 0]
    expected = [(index, f"quickstart.tar#{index}", "the process that reads it dies") for index in (9, 18)]
    assert [(row["index"], row["key"], row["message"]) for row in rejects(folder)] == expected
    evidence(POISON, 2, folder)
    small_run(tmp_path / "good", "data.shard_size=24")
    assert written(folder) == {index: key for index, key in written(tmp_path / "good").items() if index not in (9, 18)}
    assert [report.problems for report in verify.verify(folder)] == [[], []]


@pytest.mark.slow
def test_the_killer_among_several_inputs_is_rejected_by_its_own_name(tmp_path: Path, evidence: Evidence) -> None:
    source = several_inputs(tmp_path / "in", pictures=False)
    options = ("image.tokenizer=none", "data.n_train_samples=null", "data.source=text", "data.shard_size=60")
    folder = tmp_path / "run"
    prepare(small_config(folder, *options, "data.max_crashes=2", source=source))
    victims = [(tmp_path / "in" / name).read_bytes() for name in ("b03.txt", "b29.txt")]
    python_path = install(tmp_path / "site", "segfault", victims, where=READING)
    assert run_until_done(folder, python_path, 3) == [-signal.SIGSEGV, 0]
    found = [(row["index"], row["key"], row["source"], row["reason"]) for row in rejects(folder)]
    assert found == [(5 + index, f"b{index:02d}.txt#0", f"b{index:02d}.txt", "crash") for index in (3, 29)]
    evidence(POISON, 2, folder)
    small_run(tmp_path / "good", *options, source=source)
    assert written(folder) == {index: key for index, key in written(tmp_path / "good").items() if index not in (8, 34)}
    assert [report.problems for report in verify.verify(folder)] == [[], []]


@pytest.mark.slow
def test_a_decoder_that_hangs_is_ended_and_its_record_rejected(tmp_path: Path, evidence: Evidence) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.max_crashes=2", "data.max_batch_s=5"))  # in a child, a sample has 0.25 s of it
    codes = run_until_done(folder, install(tmp_path / "site", "hang", [pictures()[9]]), 3)
    assert codes == [-signal.SIGALRM, 0]
    assert [(row["index"], row["message"]) for row in rejects(folder)] == [(9, "decoding it does not end")]
    assert read_status(folder).counts["written"] == 23
    evidence(POISON, 1, folder)
    assert "in load_images" in Path(f"{folder}.log").read_text(), "the trace says where it hung"


@pytest.mark.slow
def test_a_picture_that_takes_too_much_cpu_time_is_found_and_rejected_by_the_limit(
    tmp_path: Path, evidence: Evidence
) -> None:
    """A thread cannot be stopped: its process ends, and a child ends by the same limit, once."""
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.max_image_s=2"))
    codes = run_until_done(folder, install(tmp_path / "site", "spin", [pictures()[9]]), 3)
    assert codes == [-signal.SIGALRM, 0]
    message = "decoding it takes more CPU time than data.max_image_s"
    assert [(row["index"], row["reason"], row["message"]) for row in rejects(folder)] == [(9, "crash", message)]
    assert "data.max_image_s=2.0: this process ends" in Path(f"{folder}.log").read_text()
    assert read_status(folder).counts["written"] == 23
    crashes = [event for _, events in read_ledgers(folder / "ledger") for event in events if event["event"] == "crash"]
    assert [event["how"] for event in crashes] == ["SIGPROF"]
    evidence(POISON, 1, folder)


def written(folder: Path) -> dict[int, str]:
    """Index -> key of every written sample."""
    combine(folder, CombineOptions())
    return {example.index: example.key for example in TokenDataset(folder)}


@pytest.mark.slow
def test_bytes_do_not_depend_on_how_the_poison_was_found(tmp_path: Path, evidence: Evidence) -> None:
    """Other checkpoints, other deaths, a number of processes: the same rejects, the same codes of the neighbours."""
    victims = [pictures()[index] for index in (2, 9, 10)]
    found = []
    for name, how, interval in (("a", "segfault", "0.000001"), ("b", "abort", "3600")):
        folder = tmp_path / name
        prepare(small_config(folder, "data.max_crashes=1", f"data.save_tmp_interval={interval}"))
        run_until_done(folder, install(tmp_path / f"site-{name}", how, victims), 5)
        assert [row["index"] for row in rejects(folder)] == [2, 9, 10]
        found.append(sha256_tree(folder / "shards"))
        evidence(POISON, 3, folder)
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_local_run_goes_on_after_its_only_task_crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcdata.cluster.local import run_local

    folder = tmp_path / "run"
    config = small_config(folder, "data.max_crashes=1", "cluster=local", "cluster.array=0")
    prepare(config)
    monkeypatch.setenv("PYTHONPATH", f"{install(tmp_path / 'site', 'segfault', [pictures()[9]])}{os.pathsep}{ROOT}")
    assert run_local(folder, config.cluster).exit_code == 0
    assert [(row["index"], row["reason"]) for row in rejects(folder)] == [(9, "crash")]


@pytest.mark.slow
def test_kills_by_the_scheduler_are_never_counted_against_a_record(tmp_path: Path) -> None:
    small_run(tmp_path / "reference")
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.max_crashes=1"))
    python_path = install(tmp_path / "site", "segfault", [])
    for _ in range(3):
        python_paths = f"{python_path}{os.pathsep}{ROOT}"
        kill_when_stopped(start_task(folder, stops_at="shards/tmp_*/work", PYTHONPATH=python_paths))
    assert list((folder / "crashes").iterdir()), "the kills have left suspects"
    run_until_done(folder, python_path, 1)
    assert rejects(folder) == []
    assert sha256_tree(folder / "shards") == sha256_tree(tmp_path / "reference/shards")
    events = [event["event"] for _, events in read_ledgers(folder / "ledger") for event in events]
    assert "crash" not in events
    lost = [event["lost_s"] for _, events in read_ledgers(folder / "ledger") for event in events if "lost_s" in event]
    assert max(lost) < 5, "a checkpoint after every batch: a kill costs at most one"


@pytest.mark.slow
def test_a_machine_on_which_everything_dies_rejects_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.max_crashes=1", "data.n_train_samples=4"))
    python_path = install(tmp_path / "site", "segfault", pictures())
    codes = [start_task(folder, PYTHONPATH=f"{python_path}{os.pathsep}{ROOT}").wait(120) for _ in range(2)]
    assert codes == [-signal.SIGSEGV, 1]
    assert "give the tasks more memory" in Path(f"{folder}.log").read_text()
    assert read_status(folder).done == 0


@pytest.mark.slow
def test_many_killers_in_a_row_are_told_from_a_machine_on_which_everything_dies(
    tmp_path: Path, evidence: Evidence
) -> None:
    folder = tmp_path / "run"
    prepare(small_config(folder, "data.max_crashes=1", "data.shard_size=24"))
    killers = range(8, 8 + poison.MIN_ALL_CRASHED + 1)
    python_path = install(tmp_path / "site", "segfault", [pictures()[index] for index in killers])
    assert run_until_done(folder, python_path, 2) == [-signal.SIGSEGV, 0]
    assert [(row["index"], row["reason"]) for row in rejects(folder)] == [(index, "crash") for index in killers]
    evidence(POISON, len(killers), folder)


@pytest.mark.parametrize(
    ("resumed", "count", "suspects", "expected"),
    [
        (0, 20, set(), [(0, 20, False)]),
        (0, 40, {8}, [(0, 8, False), (8, 24, True), (24, 40, False)]),
        (12, 40, {8}, [(12, 24, True), (24, 40, False)]),
        (0, 10, {0}, [(0, 10, True)]),
        (0, 40, {0, 8}, [(0, 24, True), (24, 40, False)]),
        (20, 20, {8}, []),
    ],
)
def test_only_the_batches_that_were_in_work_are_suspected(
    resumed: int, count: int, suspects: set[int], expected: list[tuple[int, int, bool]]
) -> None:
    assert poison.split(resumed, count, suspects, batch_size=4) == expected

"""Records whose own bytes cannot be read: named, tried by several tasks, then rejected; all of a machine's are not.

pytest tests/work/test_unreadable.py
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcdata import status
from hpcdata.dataset.verifying import verify
from hpcdata.report.status import read_status
from hpcdata.runs.planning import prepare
from hpcdata.runs.rejects import rows_of
from hpcdata.work.crashnotes import CrashNotes
from hpcdata.work.retry import retry
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter, small_config
from tests.sources.source_files import json_lines, write, write_tar
from tests.trees import sha256_tree

NUM = 8
BadDisk = Callable[..., None]


@pytest.fixture
def bad_disk(monkeypatch: pytest.MonkeyPatch) -> BadDisk:
    """bad_disk(*names): reads of files of these names fail from now on; a name may end in @OFFSET of one read."""
    bad: set[str] = set()
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        if not bad.isdisjoint((name, f"{name}@{offset}")):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, size, offset)

    def set_bad(*names: str) -> None:
        bad.clear()
        bad.update(names)

    monkeypatch.setattr(os, "pread", pread)
    return set_bad


def work(run: Path) -> TaskOutcome:
    return run_task(run, StopAfter())  # type: ignore[arg-type]


def rejects(run: Path) -> list[tuple[int, str, str]]:
    return [(row.index, row.reason, row.message) for row in rows_of(run)]


def planned(run: Path, source: Path, *overrides: str) -> Path:
    options = ("stage=copy", "copy.decode=false", "data.n_train_samples=null", "data.shard_size=8")
    prepare(small_config(run, *options, *overrides, source=source))
    return run


def lines(folder: Path) -> Path:
    for number in range(NUM):
        write(folder / f"p/{number}.png", bytes([number + 1]) * 9)
    rows = [{"image": f"p/{number}.png", "text": f"text {number}"} for number in range(NUM)]
    return write(folder / "in.jsonl", json_lines(rows))


def pictures(folder: Path) -> Path:
    for number in range(NUM):
        write(folder / f"{number}.png", bytes([number + 1]) * 9)
        write(folder / f"{number}.txt", b"text")
    return folder


def sidecars(folder: Path) -> Path:
    """Their texts are read with the listing, not as members of a record."""
    return pictures(folder)


def documents(folder: Path) -> Path:
    for number in range(NUM):
        write(folder / f"{number}.txt", f"text {number}".encode())
    return folder


def archive(folder: Path) -> Path:
    members = [(f"{number}.{end}", bytes([number + 1]) * 9) for number in range(NUM) for end in ("jpg", "txt")]
    return write_tar(folder / "in.tar", members)


@pytest.mark.parametrize(
    ("make", "names", "told", "index", "message"),
    [
        (lines, ("5.png",), "5.png", 5, "p/5.png: cannot be read"),
        (lines, ("2.png", "5.png"), "2.png", 5, "p/5.png: cannot be read"),
        (pictures, ("5.txt",), "5.txt", 5, "5.txt: cannot be read"),
        (sidecars, ("5.txt",), "5.txt", 5, "cannot be read"),
        (pictures, ("5.png",), "5.png", 5, "5.png: cannot be read"),
        (documents, ("5.txt",), "5.txt", 5, "cannot be read"),
        (archive, (f"in.tar@{5 * 4 * 512 + 512}",), "in.tar", 5, "cannot be read"),
    ],
)
def test_what_three_tasks_could_not_read_is_rejected_and_taken_back_when_it_can_be_read(
    tmp_path: Path,
    bad_disk: BadDisk,
    make: Callable[[Path], Path],
    names: tuple[str, ...],
    told: str,
    index: int,
    message: str,
) -> None:
    source = make(tmp_path / "in")
    options = ("copy.needs=text",) if make is sidecars else ()
    run = planned(tmp_path / "run", source, *options)
    bad_disk(*names)
    for number in (1, 2):
        assert work(run) is TaskOutcome.FAILED
        (reason,) = read_status(run).given_up.values()
        assert reason.startswith("cannot read ")
        assert f"{told}: Input/output error" in reason
        assert f"{number} of 3 tasks could not" in reason
    assert work(run) is TaskOutcome.FINISHED
    assert (index, "unreadable_file", message) in rejects(run)
    assert len(rejects(run)) == len(names)
    assert read_status(run).counts["written"] == NUM - len(names)
    assert read_status(run).given_up == {}
    assert [report.problems for report in verify(run)] == [[]]
    assert retry(run).still_rejected == {"unreadable_file": len(names)}
    bad_disk()
    assert retry(run).recovered == {"unreadable_file": len(names)}
    assert read_status(run).counts["written"] == NUM


def test_what_can_be_read_a_second_time_is_written(tmp_path: Path, bad_disk: BadDisk) -> None:
    source = lines(tmp_path / "in")
    good, run = planned(tmp_path / "good", source), planned(tmp_path / "run", source)
    assert work(good) is TaskOutcome.FINISHED
    bad_disk("5.png")
    assert [work(run), work(run)] == [TaskOutcome.FAILED] * 2
    bad_disk()
    assert work(run) is TaskOutcome.FINISHED
    assert sha256_tree(run / "shards") == sha256_tree(good / "shards")


def test_a_machine_that_can_read_nothing_rejects_nothing(tmp_path: Path, bad_disk: BadDisk) -> None:
    source = lines(tmp_path / "in")
    run = planned(tmp_path / "run", source, "data.max_crashes=1")
    bad_disk(*(f"{number}.png" for number in range(NUM)))
    assert [work(run), work(run)] == [TaskOutcome.FAILED] * 2
    assert "none of 7 records behind it: is a file system missing" in next(iter(read_status(run).given_up.values()))
    bad_disk()
    assert work(run) is TaskOutcome.FINISHED
    assert rejects(run) == []


def test_status_names_the_file_that_a_shard_waits_for(
    tmp_path: Path, bad_disk: BadDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    source = lines(tmp_path / "in")
    run = planned(tmp_path / "run", source)
    bad_disk("5.png")
    work(run)
    status.main([str(run)])
    assert f"wait for a task, as 00000-of-00001: cannot read {tmp_path}/in/p/5.png: " in capsys.readouterr().out


def test_a_task_counts_once(tmp_path: Path) -> None:
    notes = CrashNotes.read(tmp_path, "00000-of-00001")
    for task in ("a", "a", "b"):
        notes.note_unreadable([5], task)
    assert CrashNotes.read(tmp_path, "00000-of-00001").unreadable == {5: ["a", "b"]}
    assert notes.unreadable_for("b", 3) == frozenset()
    assert notes.unreadable_for("c", 3) == {5}
    assert json.loads(notes.path.read_text())["unreadable"] == {"5": ["a", "b"]}

"""A file system that is missing on one machine: its task stops, and no record is rejected for it.

pytest tests/work/test_missing_mount.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcdata import launch
from hpcdata.base import files
from hpcdata.history.ledger import read_ledgers
from hpcdata.report.status import read_status
from hpcdata.runs.planning import prepare
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter, small_arguments, small_config
from tests.sources.source_files import json_lines, write
from tests.trees import sha256_tree

NUM = 40
OPTIONS = ("stage=copy", "copy.decode=false", "copy.needs=both", "data.n_train_samples=null", "data.shard_size=10")


def lines(folder: Path) -> Path:
    rows = [{"image": str(folder / f"mount/{number:02d}.png"), "text": "text"} for number in range(NUM)]
    for row in rows:
        write(Path(row["image"]), row["image"].encode())
    return write(folder / "in.jsonl", json_lines(rows))


def packed_lines(folder: Path) -> Path:
    return write(folder / "in.jsonl.gz", lines(folder).read_bytes())


def pictures(folder: Path) -> Path:
    for number in range(NUM):
        write(folder / f"mount/{number:02d}.png", f"{number}".encode())
        write(folder / f"mount/{number:02d}.txt", b"text")
    return folder / "mount"


class Killed(BaseException):
    pass


def work(run: Path) -> TaskOutcome:
    return run_task(run, StopAfter())  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [lines, packed_lines])
def test_a_machine_without_the_pictures_rejects_none_and_stops(
    tmp_path: Path, make: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source = make(tmp_path / "in")
    for name in ("good", "run"):
        prepare(small_config(tmp_path / name, *OPTIONS, source=source))
    assert work(tmp_path / "good") is TaskOutcome.FINISHED
    mount, run = tmp_path / "in/mount", tmp_path / "run"
    mount.rename(tmp_path / "aside")
    assert work(run) is TaskOutcome.FAILED
    events = [event for _, events in read_ledgers(run / "ledger") for event in events]
    (failed,) = [event for event in events if event["event"] == "failed"]
    assert "files that were there when the run was planned are missing on " in failed["error"]
    assert str(mount) in failed["error"]
    assert [event for event in events if event["event"] in ("checkpoint", "commit")] == []
    assert not list((run / "claims").glob("0*"))
    assert launch.main(small_arguments(run, *OPTIONS, source=source)) == 1
    (tmp_path / "aside").rename(mount)
    assert work(run) is TaskOutcome.FINISHED
    assert sha256_tree(run / "shards") == sha256_tree(tmp_path / "good/shards")


def test_where_it_goes_missing_in_the_middle_of_a_shard_its_checkpoint_holds_no_reject(tmp_path: Path) -> None:
    source, run = lines(tmp_path / "in"), tmp_path / "run"
    prepare(small_config(run, *OPTIONS, source=source))
    run_task(run, StopAfter(4))  # type: ignore[arg-type]
    (tmp_path / "in/mount").rename(tmp_path / "aside")
    assert work(run) is TaskOutcome.FAILED
    assert read_status(run).counts["rejected"] == {}
    (tmp_path / "aside").rename(tmp_path / "in/mount")
    assert work(run) is TaskOutcome.FINISHED
    assert read_status(run).counts["written"] == NUM


def test_a_launch_killed_right_behind_its_plan_has_named_its_witnesses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, run = lines(tmp_path / "in"), tmp_path / "run"
    real = files.create_exclusive

    def killed(path: Path, data: bytes) -> bool:
        real(path, data)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("hpcdata.base.files.create_exclusive", killed)
        with pytest.raises(Killed):
            prepare(small_config(run, *OPTIONS, source=source))
    (tmp_path / "in/mount").rename(tmp_path / "aside")
    prepare(small_config(run, *OPTIONS, source=source))
    assert work(run) is TaskOutcome.FAILED
    assert read_status(run).counts["rejected"] == {}


def test_texts_that_are_missing_with_their_pictures_are_not_missing_for_good(tmp_path: Path) -> None:
    """The listing is read from the run's folder."""
    source, run = pictures(tmp_path / "in"), tmp_path / "run"
    prepare(small_config(run, *OPTIONS, source=source))
    before = source.stat()
    source.rename(tmp_path / "aside")
    source.mkdir()
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert work(run) is TaskOutcome.FAILED
    assert "is a file system not mounted?" in next(iter(read_status(run).given_up.values()))
    assert read_status(run).counts["rejected"] == {}


def test_pictures_that_were_never_there_are_rejected(tmp_path: Path) -> None:
    rows = [{"image": f"gone/{number}.png", "text": "text"} for number in range(NUM)]
    source, run = write(tmp_path / "in.jsonl", json_lines(rows)), tmp_path / "run"
    prepare(small_config(run, *OPTIONS, "data.max_rejected=1", source=source))
    assert work(run) is TaskOutcome.FINISHED
    assert read_status(run).counts["rejected"] == {"missing_image": NUM}


def test_some_that_are_removed_after_planning_are_rejected(tmp_path: Path) -> None:
    source, run = lines(tmp_path / "in"), tmp_path / "run"
    prepare(small_config(run, *OPTIONS, source=source))
    assert len(json.loads((run / "plan.json").read_text())["witnesses"]) == 2
    for number in range(5, 25):
        (tmp_path / f"in/mount/{number:02d}.png").unlink()
    assert work(run) is TaskOutcome.FINISHED
    assert read_status(run).counts["rejected"] == {"missing_image": 20}


def test_all_that_are_removed_on_purpose_are_rejected_when_that_is_said(tmp_path: Path) -> None:
    source, run = lines(tmp_path / "in"), tmp_path / "run"
    prepare(small_config(run, *OPTIONS, source=source))
    for path in (tmp_path / "in/mount").iterdir():
        path.unlink()
    assert work(run) is TaskOutcome.FAILED
    more = ("data.on_changed_input=reject", "data.max_rejected=1")
    assert launch.main(small_arguments(run, *OPTIONS, *more, source=source)) == 0
    assert read_status(run).counts["rejected"] == {"missing_image": NUM}

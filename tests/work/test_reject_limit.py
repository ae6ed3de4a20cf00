"""A run whose inputs are mostly rejected is no success.   pytest tests/work/test_reject_limit.py"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from hpcdata import combine, launch, resume, status, verify
from hpcdata.config.compose import compose
from hpcdata.report.status import read_status
from hpcdata.report.summary import describe
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter, small_arguments

BAD, GOOD = {"image": "gone.jpg", "text": "a"}, {"text": "a", "caption": "a cat"}


def lines(folder: Path, *records: dict[str, str]) -> Path:
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in records))
    return path


def launched(folder: Path, source: Path, *overrides: str) -> int:
    arguments = small_arguments(folder / "out", "data.n_train_samples=null", *overrides, source=source)
    return launch.main([*arguments, "data.source=jsonl"])


def test_a_run_whose_first_shards_are_rejected_whole_stops_early_and_goes_on_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = lines(tmp_path, *[BAD] * 70), tmp_path / "out"
    assert launched(tmp_path, source) == 1
    assert "14 of 14 inputs are rejected (missing_image 14)" in capsys.readouterr().err
    assert read_status(out).done == 2
    assert "STOPPED  14 of 14 inputs are rejected" in read_text(out, capsys)
    assert resume.main([str(out)]) == 1, "nothing has changed: it stops at once"
    assert read_status(out).done == 2
    assert resume.main([str(out), "data.max_rejected=1"]) == 0
    assert read_status(out).is_finished
    assert combine.main([str(out)]) == 0


def test_tasks_that_have_one_shard_each_stop_the_run_together(tmp_path: Path) -> None:
    source, out = lines(tmp_path, *[BAD] * 70), tmp_path / "out"
    config = compose([*small_arguments(out, "data.n_train_samples=null", source=source), "data.source=jsonl"])
    prepare(config)
    for number in (1, 2):
        run_task(out, StopAfterCommits(RunPaths(out), number))  # type: ignore[arg-type]
        assert read_status(out).done == number
    assert run_task(out, StopAfter()) is TaskOutcome.FAILED  # type: ignore[arg-type]
    assert read_status(out).done == 2


class StopAfterCommits:
    """Asks a task to stop when so many shards are committed."""

    def __init__(self, paths: RunPaths, number: int) -> None:
        self._paths, self._number = paths, number

    @property
    def received(self) -> signal.Signals | None:
        return signal.SIGTERM if len(self._paths.list_committed()) >= self._number else None


def test_status_page_and_verify_say_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = lines(tmp_path, *[BAD] * 70), tmp_path / "out"
    assert launched(tmp_path, source) == 1
    assert status.main([str(out)]) == 1
    status.main([str(out), "--html", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text()
    assert 'class="badge stopped"' in page
    assert "14 of 14 inputs are rejected" in page
    note = out / "halted.json"
    note.write_bytes(note.read_bytes().replace(b"14 of 14", b"13 of 14"))
    assert verify.main([str(out)]) == 1
    assert "halted.json: its bytes are not those that were written" in capsys.readouterr().out


def test_a_finished_run_that_is_mostly_rejected_is_a_failed_one_on_its_page(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert launched(tmp_path, lines(tmp_path, *[BAD] * 6)) == 1
    assert status.main([str(out)]) == 1
    status.main([str(out), "--html", str(tmp_path / "page.html")])
    assert 'class="badge failed"' in (tmp_path / "page.html").read_text()
    assert "FAILED   6 of 6 inputs are rejected" in describe(read_status(out), out)


def read_text(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    status.main([str(out)])
    return capsys.readouterr().out


def test_one_bad_part_of_a_good_run_stops_nothing(tmp_path: Path) -> None:
    records = [BAD] * 7 + [GOOD] * 21  # one whole shard of four
    assert launched(tmp_path, lines(tmp_path, *records)) == 0


def test_a_share_that_was_set_holds_while_working_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = lines(tmp_path, *[BAD, *[GOOD] * 6] * 4)
    assert launched(tmp_path, source, "data.max_rejected=0.1") == 1
    assert read_status(tmp_path / "out").done == 2
    assert "data.max_rejected=0.1 allows fewer" in capsys.readouterr().err
    assert launched(tmp_path, source, "data.max_rejected=0.2") == 0
    assert read_status(tmp_path / "out").is_finished


def test_a_small_run_that_is_rejected_whole_fails_at_every_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = lines(tmp_path, *[BAD] * 6), tmp_path / "out"
    assert launched(tmp_path, source, "finish.combine=true") == 1
    for command in (combine, verify):
        assert command.main([str(out)]) == 1
        told = capsys.readouterr().err
        assert "6 of 6 inputs are rejected (missing_image 6)" in told
        assert told.rstrip().endswith(f"resume {out} data.max_rejected=1")
    assert launched(tmp_path, source, "data.max_rejected=1", "finish.combine=true") == 0
    assert combine.main([str(out)]) == verify.main([str(out)]) == 0


@pytest.mark.parametrize("share", ["-0.1", "1.5"])
def test_a_share_is_a_share(tmp_path: Path, share: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launched(tmp_path, lines(tmp_path, GOOD), f"data.max_rejected={share}") == 2
    assert "expected a share of the inputs, 0 to 1" in capsys.readouterr().err


def test_the_limit_is_no_part_of_what_is_written(tmp_path: Path) -> None:
    source = lines(tmp_path, GOOD, GOOD, GOOD, BAD)
    assert launched(tmp_path, source) == 0
    first = load_plan(tmp_path / "out").fingerprint
    assert launched(tmp_path, source, "data.max_rejected=0.3") == 0
    assert load_plan(tmp_path / "out").fingerprint == first

"""Rejects are listed, tried again, and added without touching shards.   pytest tests/work/test_retry.py"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from PIL import Image

from hpcdata import TokenDataset, rejects
from hpcdata.base.errors import UserError
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.plan import Plan, load_plan
from hpcdata.runs.rejects import rows_of
from hpcdata.shards.counts import Counts
from hpcdata.shards.recovered import RECOVERED
from hpcdata.shards.shard import read_summary
from hpcdata.work.prove import prove
from hpcdata.work.retry import retry
from tests.crashes import Crash, crash_at
from tests.evidence import CRASHES, Evidence
from tests.smallruns import small_run
from tests.trees import tree

MISSING = (1, 5, 6, 13)
BROKEN = (9,)


def write_picture(folder: Path, number: int) -> None:
    Image.new("RGB", (40, 32), (number * 9, 255 - number * 9, 77)).save(folder / f"{number:02d}.png")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path]:
    """(run, pictures): 16 pairs in 3 shards, four pictures missing, one broken, one caption empty."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rows = []
    for number in range(16):
        rows.append(
            {"image_path": f"pictures/{number:02d}.png", "text": "" if number == 11 else f"picture {number} " * 9}
        )
        if number in BROKEN:
            (pictures / f"{number:02d}.png").write_bytes(b"<html>not found</html>")
        elif number not in MISSING:
            write_picture(pictures, number)
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    small_run(tmp_path / "run", "data.n_train_samples=null", "data.shard_size=6", source=source)
    return tmp_path / "run", pictures


def reasons(run: Path) -> dict[int, str]:
    return {row.index: row.reason for row in rows_of(Path(run))}


def account(run: Path) -> Counts:
    (report,) = verify.verify(run)[-1:]
    assert not report.problems
    assert report.counts.is_balanced()
    return report.counts


def test_no_thread_is_left_to_the_garbage_collector(made: tuple[Path, Path]) -> None:
    """It runs in any line of any thread, also where threads start and end: to wait for one there is a deadlock."""
    run, pictures = made
    write_picture(pictures, 1)
    before = set(threading.enumerate())
    gc.disable()
    try:
        small_run(
            run.parent / "again", "data.n_train_samples=null", "data.shard_size=6", source=run.parent / "in.jsonl"
        )
        retry(run)
        prove(run, 99, 0)
        assert not set(threading.enumerate()) - before
    finally:
        gc.enable()


def test_rejects_are_listed_and_counted(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = made
    assert rejects.main([str(run), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["index"] for row in rows] == [1, 5, 6, 9, 11, 13]
    assert rows[0].keys() == {"index", "key", "source", "offset", "reason", "message"}
    assert (rows[0]["key"], rows[0]["source"], rows[0]["reason"]) == ("in.jsonl#1", "in.jsonl", "missing_image")
    assert rejects.main([str(run), "--reason", "empty_text"]) == 0
    out = capsys.readouterr().out
    assert "in.jsonl#11" in out
    assert "in.jsonl#1 " not in out
    assert "4  missing_image" in out
    assert rejects.main([str(run.parent)]) == 2
    assert "has no plan.json" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--retry"], ["--json"]])
def test_an_unknown_reason_is_refused_with_the_known_ones(
    made: tuple[Path, Path], options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert rejects.main([str(made[0]), "--reason", "emtpy_text", *options]) == 2
    told = capsys.readouterr()
    assert (
        "--reason emtpy_text: no such reason; did you mean empty_text? known are aspect_ratio, bad_example, "
        in told.err
    )
    assert told.out == ""
    assert rejects.main([str(made[0]), "--reason", "duplicate"]) == 0


def test_a_retry_adds_what_succeeds_and_leaves_shards_alone(made: tuple[Path, Path]) -> None:
    run, pictures = made
    before = tree(run / "shards")
    for number in (1, 5, 13):
        write_picture(pictures, number)
    result = retry(run)
    assert (result.tried, result.recovered, result.parts) == (6, {"missing_image": 3}, ["retry-00001"])
    assert result.still_rejected == {"missing_image": 1, "unreadable_image": 1, "empty_text": 1}
    after = tree(run / "shards")
    assert {name: data for name, data in after.items() if not name.startswith("retry-")} == before
    assert reasons(run) == {6: "missing_image", 9: "unreadable_image", 11: "empty_text"}
    counts = account(run)
    assert (counts.inputs, counts.written, counts.rejected.total()) == (16, 13, 3)
    assert retry(run).parts == [], "nothing new: nothing is published"
    manifest = combine(run, CombineOptions())
    assert manifest.counts == counts
    assert manifest.extra["retries"] == [{"part": "retry-00001", "recovered": {"missing_image": 3}}]
    dataset = TokenDataset(run)
    assert sorted(example.index for example in dataset) == [i for i in range(16) if i not in (6, 9, 11)]
    assert prove(run, 99, 0).equal == 13


def test_a_retry_writes_what_a_run_over_good_inputs_writes(made: tuple[Path, Path], tmp_path: Path) -> None:
    run, pictures = made
    for number in (*MISSING, *BROKEN):
        write_picture(pictures, number)
    retry(run, reason="unreadable_image")
    assert len(retry(run).parts) == 1
    combine(run, CombineOptions(compact=True))
    small_run(tmp_path / "good", "data.n_train_samples=null", "data.shard_size=6", source=tmp_path / "in.jsonl")
    combine(tmp_path / "good", CombineOptions())
    assert TokenDataset(run).manifest.content_digest == TokenDataset(tmp_path / "good").manifest.content_digest
    assert account(run) == account(tmp_path / "good"), "also how many texts were cut"


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"compact": True}, {"move_files": True}, {"delete_after_combining": True}])
def test_retries_and_combining_in_any_order(made: tuple[Path, Path], options: dict[str, bool]) -> None:
    run, pictures = made
    write_picture(pictures, 1)
    combine(run, CombineOptions())
    retry(run)
    assert "lacks retry-00001" in verify.verify(run)[-1].problems[0]
    assert combine(run, CombineOptions(**options)).counts.written == 11
    assert account(run).written == 11
    assert reasons(run).keys() == {5, 6, 9, 11, 13}
    assert prove(run, 99, 1).equal == 11
    write_picture(pictures, 6)
    assert retry(run).parts == ["retry-00002"]
    assert combine(run, CombineOptions(**options)).counts.written == 12
    assert account(run).written == 12


def test_nothing_can_be_added_to_a_compact_dataset_alone(made: tuple[Path, Path]) -> None:
    run, pictures = made
    write_picture(pictures, 1)
    retry(run)
    combine(run, CombineOptions(compact=True, move_files=True))
    assert reasons(run).keys() == {5, 6, 9, 11, 13}
    assert prove(run, 99, 1).equal == 11
    with pytest.raises(UserError, match="compact"):
        retry(run)
    assert account(run).written == 11


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_killed_retry_is_simply_run_again(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evidence: Evidence, after: bool
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the "killed" ones leave their temporary folders
    run, pictures = made
    for number in MISSING:
        write_picture(pictures, number)
    fresh = tmp_path / "again"
    expected = None
    for number in range(1, 200, 7):
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(run, fresh)
        with crash_at(number, after=after) as counter, contextlib.suppress(Crash):
            retry(fresh)
        shutil.rmtree(fresh / "claims", ignore_errors=True)
        retry(fresh)
        result = tree(fresh / "shards")
        expected = expected or result
        assert result == expected, f"crash at call {number}"
        assert account(fresh).written == 14
        evidence(CRASHES, int(counter.dead), fresh)
        if not counter.dead:
            return
    pytest.fail("the last crash must come after the end")


def test_one_retry_or_combine_at_a_time(made: tuple[Path, Path]) -> None:
    run, _ = made
    with Claims(run / "claims", Owner.of_this_process("other"), timeout_s=60) as claims:
        assert claims.try_claim("combine")
        with pytest.raises(UserError, match="another process"):
            retry(run)


def test_a_sample_that_its_shard_has_written_is_not_taken_twice(made: tuple[Path, Path]) -> None:
    """The shard was removed and made again after the retry."""
    run, pictures = made
    write_picture(pictures, 1)
    retry(run)
    shutil.rmtree(run / "shards/00000-of-00003")
    small_run(run, "data.n_train_samples=null", "data.shard_size=6", source=run.parent / "in.jsonl")
    with pytest.raises(UserError, match="does not reject"):
        combine(run, CombineOptions())
    assert any("no shard rejected" in problem for problem in verify.verify(run)[0].problems)
    shutil.rmtree(run / "shards/retry-00001")
    assert combine(run, CombineOptions()).counts.written == 11


def test_a_damaged_retry_is_seen(made: tuple[Path, Path]) -> None:
    run, pictures = made
    write_picture(pictures, 1)
    retry(run)
    path = run / "shards/retry-00001" / RECOVERED
    path.write_text(path.read_text().replace('"index": 1', '"index": 2'))
    assert verify.verify(run)[0].problems
    path.write_bytes(b"[1")
    with pytest.raises(UserError, match="damaged"):
        combine(run, CombineOptions())


def test_an_input_that_was_changed_on_purpose(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"")
    Image.new("RGB", (40, 32), (9, 9, 77)).save(tmp_path / "p.png")
    rows = ['{"image_path": "p.png", "text": "a"}', '{"image_path": "p.png", "text": 3}', '{"image_path": "p.png"}']
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(rows))
    run = tmp_path / "run"
    small_run(run, "data.n_train_samples=null", source=source)
    source.write_text("\n".join([rows[0], rows[1].replace("3", '"three"'), rows[2]]))
    refused = retry(run)
    assert "--accept_changed" in refused.problems[0]
    result = retry(run, accept_changed=True)
    assert (result.recovered, result.still_rejected) == ({"bad_record": 1}, {"missing_text": 1})
    assert account(run).written == 2
    assert "has changed" in prove(run, 9, 0).differences[0]
    assert prove(run, 9, 0, accept_changed=True).equal == 2
    source.write_text("\n".join(rows[:2]))
    assert "2 samples now, 3 were planned" in retry(run, accept_changed=True).problems[0]


def test_the_account_of_a_retry_corrects_that_of_the_shards(made: tuple[Path, Path]) -> None:
    run, pictures = made
    write_picture(pictures, 5)
    retry(run)
    counts = read_summary(run / "shards/retry-00001").counts
    assert (counts.inputs, counts.written, counts.rejected, counts.truncated_texts) == (0, 1, {"missing_image": -1}, 1)
    plan: Plan = load_plan(run)
    assert read_summary(run / "shards/retry-00001").header.fingerprint == plan.fingerprint


def test_the_command(made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, pictures = made
    write_picture(pictures, 5)
    assert rejects.main([str(run), "--retry", "--reason", "missing_image"]) == 0
    out = capsys.readouterr().out
    assert "tried      4\nwritten    1 (missing_image 1) in retry-00001\nrejected   3" in out


@pytest.mark.slow
def test_reading_a_long_list_takes_constant_memory(tmp_path: Path) -> None:
    import tracemalloc

    from hpcdata.shards.reject_ledger import read_rejects

    row = {"index": 1, "key": "k" * 200, "source": "s", "offset": 0, "reason": "truncated", "message": "m"}
    (tmp_path / "rejects.jsonl").write_text((json.dumps(row) + "\n") * 50_000)
    tracemalloc.start()
    with contextlib.redirect_stdout(io.StringIO()):
        assert sum(1 for _ in read_rejects(tmp_path)) == 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20

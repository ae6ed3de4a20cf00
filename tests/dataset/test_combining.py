"""Combine and verify: nothing dropped, nothing deleted too early, crashes repeatable.

pytest tests/dataset/test_combining.py
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hpcdata import TokenDataset
from hpcdata import verify as verify_command
from hpcdata.base.errors import UserError
from hpcdata.dataset import combining as combine
from hpcdata.dataset import joined
from hpcdata.dataset import verifying as verify
from hpcdata.dataset.combining import CombineOptions
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.paths import RunPaths
from tests import made
from tests.crashes import Crash, crash_at
from tests.evidence import CRASHES, Evidence
from tests.trees import tree

WRITTEN = sum(len(made.batch(index, index + 1).examples) for index in range(56))


def run_combine(run: Path, **options: object) -> combine.CombineOptions:
    return combine.combine(run, CombineOptions(**options))  # type: ignore[arg-type,return-value]


def indices(dataset: Path) -> list[int]:
    loaded = TokenDataset(dataset)
    return [loaded[row].index for row in range(len(loaded))]


def check_dataset(dataset: Path) -> str:
    """Verifies it, compares every example with what was put in; returns the content digest."""
    report = verify.verify_dataset(dataset)
    assert report.problems == []
    loaded = TokenDataset(dataset)
    assert len(loaded) == WRITTEN
    for row in range(len(loaded)):
        example, expected = loaded[row], made.example(loaded[row].index)
        assert example.key == expected.key
        for span, wanted in zip(example.spans, expected.spans, strict=True):
            assert np.array_equal(span.ids, wanted.ids)
            assert (span.kind, span.height, span.role, span.loss) == (
                *(wanted.kind, wanted.height, wanted.role, wanted.loss),
            )
    return f"{report.content_digest:x}"


def test_the_dataset_holds_every_written_example_and_links_the_shards_files(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    run_combine(tmp_path / "run")
    check_dataset(tmp_path / "run/dataset")
    name = "00001-of-00004/tokens/ids.memmap"
    assert (tmp_path / "run/shards" / name).samefile(tmp_path / "run/dataset/parts" / name)


def test_combining_twice_changes_nothing(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    run_combine(tmp_path / "run")
    before = tree(tmp_path / "run")
    run_combine(tmp_path / "run")
    assert tree(tmp_path / "run") == before


@pytest.mark.parametrize(
    "options",
    [{"move_files": True}, {"delete_after_combining": True}, {"move_files": True, "delete_after_combining": True}],
)
def test_removing_shards_leaves_the_dataset_and_a_run_that_counts_as_finished(tmp_path: Path, options: dict) -> None:
    made.run(tmp_path / "run")
    run_combine(tmp_path / "run", **options)
    check_dataset(tmp_path / "run/dataset")
    paths = RunPaths(tmp_path / "run")
    assert not paths.shards.exists() or not any(paths.shards.iterdir())
    assert paths.complete_dataset() == paths.dataset
    run_combine(tmp_path / "run", **options)
    assert [report.problems for report in verify.verify(tmp_path / "run")] == [[]]


def test_compacting_keeps_every_example_and_the_content_digest(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    run_combine(tmp_path / "run")
    parted = check_dataset(tmp_path / "run/dataset")
    run_combine(tmp_path / "run", compact=True)
    manifest = TokenDataset(tmp_path / "run").manifest
    assert len(manifest.parts) == 1
    assert check_dataset(tmp_path / "run/dataset") == parted


def test_a_moved_dataset_can_still_be_compacted(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    run_combine(tmp_path / "run", move_files=True)
    run_combine(tmp_path / "run", compact=True, move_files=True)
    check_dataset(tmp_path / "run/dataset")


def test_a_compacted_part_opens_with_tensordict(tmp_path: Path) -> None:
    tensordict = pytest.importorskip("tensordict")
    made.run(tmp_path / "run")
    run_combine(tmp_path / "run", compact=True)
    loaded = tensordict.TensorDict.load_memmap(tmp_path / "run/dataset/parts/compact")
    assert loaded["samples", "index"].tolist() == indices(tmp_path / "run")


def test_an_unfinished_run_is_refused_with_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    made.run(tmp_path / "run", unfinished={1: 8, 3: 0})
    with pytest.raises(UserError, match=r"2 of 4 shards .*00001-of-00004, 00003-of-00004.*--allow-tmp") as caught:
        run_combine(tmp_path / "run")
    assert f"python -m hpcdata.resume {tmp_path}/run finishes them" in str(caught.value)
    assert not (tmp_path / "run/dataset").exists()


@pytest.mark.parametrize("compact", [False, True])
def test_allow_tmp_takes_exactly_the_checkpointed_prefix_and_records_the_gap(tmp_path: Path, compact: bool) -> None:
    made.run(tmp_path / "run", unfinished={1: 8, 3: 0})
    run_combine(tmp_path / "run", allow_tmp=True, compact=compact)
    manifest = TokenDataset(tmp_path / "run").manifest
    assert manifest.counts.missing == 16
    assert manifest.counts.is_balanced()
    assert manifest.extra["gaps"] == [
        {"shard": "00001-of-00004", "first_missing": 24, "missing": 8},
        {"shard": "00003-of-00004", "first_missing": 48, "missing": 8},
    ]
    taken = [*range(24), *range(32, 48)]
    assert indices(tmp_path / "run") == [index for index in taken if made.batch(index, index + 1).examples]
    assert verify.verify_dataset(tmp_path / "run").problems == []


@pytest.mark.parametrize("options", [{}, {"move_files": True}, {"delete_after_combining": True}])
def test_a_dataset_with_gaps_is_replaced_when_the_run_is_finished(tmp_path: Path, options: dict) -> None:
    run = tmp_path / "run"
    made.run(run, unfinished={1: 8, 3: 0})
    run_combine(run, allow_tmp=True, **options)
    assert (run / "shards/tmp_00001-of-00004.made").exists(), "an unfinished checkpoint is never deleted"
    made.run(tmp_path / "whole")
    for name in ("00001-of-00004", "00003-of-00004"):
        shutil.copytree(tmp_path / "whole/shards" / name, run / "shards" / name)
    run_combine(run, **options)
    check_dataset(run / "dataset")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("options", "min_parts", "stride"),
    [
        ({"move_files": True}, joined.MIN_PARTS, 1),
        ({"compact": True, "delete_after_combining": True}, joined.MIN_PARTS, 4),
        ({"delete_after_combining": True}, 2, 10),
    ],
)
@pytest.mark.slow
def test_combine_killed_at_any_step_can_be_repeated_and_loses_nothing(
    tmp_path: Path,
    evidence: Evidence,
    monkeypatch: pytest.MonkeyPatch,
    options: dict,
    min_parts: int,
    stride: int,
    after: bool,
) -> None:
    monkeypatch.setattr(joined, "MIN_PARTS", min_parts)
    made.run(tmp_path / "made", num_samples=20)
    number, finished = 0, False
    while not finished:
        number += stride
        run = tmp_path / "run"
        shutil.copytree(tmp_path / "made", run)
        with crash_at(number, after=after) as counter:
            try:
                run_combine(run, **options)
                finished = counter.calls < number
            except Crash:
                pass
        (run / "claims/combine").unlink(missing_ok=True)  # a dead process would not be seen as alive
        run_combine(run, **options)
        assert verify.verify_dataset(run).problems == [], f"crash at call {number}"
        assert len(indices(run)) == sum(len(made.batch(index, index + 1).examples) for index in range(20))
        assert not list(run.glob(".dataset*")), "no half-built dataset stays"
        evidence(CRASHES, int(counter.dead), run)
        shutil.rmtree(run)
    assert number > 50


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_replacing_a_dataset_killed_between_its_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, after: bool
) -> None:
    made.run(tmp_path / "run")
    run_combine(tmp_path / "run", move_files=True)
    calls = 0

    def rename(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            raise Crash
        os.rename(source, target)
        if calls == number:
            raise Crash

    monkeypatch.setattr(Path, "rename", rename)
    with contextlib.suppress(Crash):
        run_combine(tmp_path / "run", compact=True)
    run_combine(tmp_path / "run", compact=True)
    check_dataset(tmp_path / "run/dataset")


@pytest.fixture
def other_file_system() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


def test_combining_onto_another_file_system_copies(tmp_path: Path, other_file_system: Path) -> None:
    made.run(tmp_path / "run")
    target = other_file_system / "dataset"
    run_combine(tmp_path / "run", output_dir=str(target), move_files=True)
    check_dataset(target)
    assert RunPaths(tmp_path / "run").complete_dataset() == target


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_combine_onto_another_file_system_that_was_killed_can_be_repeated(
    tmp_path: Path, other_file_system: Path, evidence: Evidence, after: bool
) -> None:
    target, number, finished = other_file_system / "dataset", 0, False
    made.run(tmp_path / "made", num_samples=20)
    while not finished:
        number += 5
        run = Path(shutil.copytree(tmp_path / "made", tmp_path / f"run{number}"))
        with crash_at(number, after=after) as counter, contextlib.suppress(Crash):
            run_combine(run, output_dir=str(target), move_files=True)
        (run / "claims/combine").unlink(missing_ok=True)  # a dead process would not be seen as alive
        run_combine(run, output_dir=str(target), move_files=True)
        finished = counter.calls < number
        assert verify.verify_dataset(target).problems == [], f"crash at call {number}"
        assert len(indices(target)) == sum(len(made.batch(index, index + 1).examples) for index in range(20))
        assert [path.name for path in other_file_system.iterdir()] == ["dataset"]
        evidence(CRASHES, int(counter.dead))
        shutil.rmtree(target)
    assert number > 30


def test_a_combine_that_was_overtaken_leaves_the_other_ones_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before it publishes, for so long that another has taken its claim, published and moved the shards."""
    made.run(tmp_path / "run")
    real = combine.publish

    def stalled(building: Path, target: Path) -> None:
        monkeypatch.undo()
        (tmp_path / "run/claims/combine").unlink()
        run_combine(tmp_path / "run", move_files=True)
        real(building, target)

    monkeypatch.setattr(combine, "publish", stalled)
    with pytest.raises(UserError, match="another process has combined"):
        run_combine(tmp_path / "run", move_files=True)
    check_dataset(tmp_path / "run/dataset")
    assert not list((tmp_path / "run").glob(".dataset*"))


def test_copies_are_read_back_before_shards_are_removed(
    tmp_path: Path, other_file_system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.run(tmp_path / "run")
    real = shutil.copyfile

    def copyfile(source: Path, target: Path) -> None:
        real(source, target)
        if Path(source).name == "ids.memmap":
            _flip(Path(target))

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    with pytest.raises(UserError, match="nothing was deleted"):
        run_combine(tmp_path / "run", output_dir=str(other_file_system / "dataset"), move_files=True)
    assert len(list((tmp_path / "run/shards").iterdir())) == 4


def test_a_foreign_folder_is_never_replaced(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(UserError, match="exists and is not a dataset"):
        run_combine(tmp_path / "run", output_dir=str(tmp_path / "mine"))
    made.run(tmp_path / "other", num_samples=20)
    run_combine(tmp_path / "other")
    with pytest.raises(UserError, match="dataset of another run"):
        run_combine(tmp_path / "run", output_dir=str(tmp_path / "other/dataset"))


def test_a_shard_whose_file_was_cut_is_refused_by_name(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    path = tmp_path / "run/shards/00002-of-00004/tokens/ids.memmap"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"shard 00002-of-00004 is damaged: tokens/ids\.memmap") as caught:
        run_combine(tmp_path / "run")
    assert f"remove {path.parent.parent} and submit the same launch line again" in str(caught.value)


def test_nothing_is_deleted_when_the_dataset_does_not_verify(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    path = tmp_path / "run/shards/00002-of-00004/tokens/ids.memmap"
    path.write_bytes(path.read_bytes()[:-2] + b"\0\7")
    with pytest.raises(UserError, match="nothing was deleted"):
        run_combine(tmp_path / "run", delete_after_combining=True)
    assert len(list((tmp_path / "run/shards").iterdir())) == 4


def test_only_one_process_combines_a_run_at_a_time(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    with Claims(tmp_path / "run/claims", Owner.of_this_process("other"), timeout_s=60) as other:
        assert other.try_claim("combine")
        with pytest.raises(UserError, match="another process is combining"):
            run_combine(tmp_path / "run", move_files=True)
    run_combine(tmp_path / "run", move_files=True)


@pytest.mark.slow
def test_combines_submitted_twice_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpcdata.combine", str(tmp_path / "run"), "--move_files"]
    made.run(tmp_path / "run", num_samples=2000)
    both = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert 0 in [process.wait(120) for process in both]
    assert verify_command.main([str(tmp_path / "run")]) == 0


def test_shards_are_not_removed_on_the_word_of_a_manifest_whose_parts_are_gone(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    run_combine(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/dataset/parts")
    with pytest.raises(UserError, match="nothing was removed"):
        run_combine(tmp_path / "run", move_files=True)
    assert len(list((tmp_path / "run/shards").iterdir())) == 4


def test_a_dataset_among_the_shards_is_refused_and_foreign_files_stay(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    with pytest.raises(UserError, match="choose another folder"):
        run_combine(tmp_path / "run", output_dir=str(tmp_path / "run/shards/dataset"), move_files=True)
    (tmp_path / "run/shards/notes.txt").write_text("mine")
    run_combine(tmp_path / "run", delete_after_combining=True)
    assert [path.name for path in (tmp_path / "run/shards").iterdir()] == ["notes.txt"]


def test_a_compact_part_with_a_gap_is_not_taken_for_a_committed_shard(tmp_path: Path) -> None:
    made.run(tmp_path / "run", num_samples=16, unfinished={0: 8})
    run_combine(tmp_path / "run", allow_tmp=True, compact=True)
    assert RunPaths(tmp_path / "run").list_committed() == set()
    assert RunPaths(tmp_path / "run").find_shard("00000-of-00001") is None


def test_allow_tmp_leaves_out_a_damaged_checkpoint_and_records_the_gap(tmp_path: Path) -> None:
    made.run(tmp_path / "run", unfinished={1: 8})
    _flip(next((tmp_path / "run/shards").glob("tmp_*")) / "tokens/ids.memmap")
    run_combine(tmp_path / "run", allow_tmp=True)
    assert TokenDataset(tmp_path / "run").manifest.counts.missing == 16
    assert verify.verify_dataset(tmp_path / "run").problems == []


def test_combining_again_finds_the_dataset_that_went_elsewhere(tmp_path: Path) -> None:
    made.run(tmp_path / "run")
    run_combine(tmp_path / "run", output_dir=str(tmp_path / "elsewhere/dataset"), move_files=True)
    run_combine(tmp_path / "run")
    check_dataset(tmp_path / "elsewhere/dataset")


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: _flip(folder / "tokens/ids.memmap"), "sha256"),
        (lambda folder: (folder / "rejects.jsonl").unlink(), "missing"),
        (lambda folder: (folder / "more").touch(), "not listed"),
        (lambda folder: shutil.rmtree(folder), "not committed"),
        (lambda folder: (folder / "shard.json").write_text("{}"), "not a hpcdata-shard-1"),
    ],
)
def test_verify_finds_damage_and_names_the_shard(tmp_path: Path, damage: object, problem: str) -> None:
    made.run(tmp_path / "run")
    assert verify_command.main([str(tmp_path / "run")]) == 0
    damage(tmp_path / "run/shards/00002-of-00004")  # type: ignore[operator]
    reports = verify.verify(tmp_path / "run")
    assert any("00002-of-00004" in text and problem in text for report in reports for text in report.problems)
    assert verify_command.main([str(tmp_path / "run"), "--json"]) == (3 if problem == "not committed" else 1)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)

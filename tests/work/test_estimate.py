"""What a run will cost, told before it.   pytest tests/work/test_estimate.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hpcdata import launch as launch_command
from hpcdata.jobs import precompute_tokens
from hpcdata.shards.counts import Counts
from hpcdata.work import estimate
from tests.smallruns import small_arguments, small_config, small_run

TOLERANCE = 0.1
"""Of bytes and files, for inputs that are as mixed at the places that are drawn as everywhere."""


def pictures(folder: Path, number: int) -> Path:
    """Small pictures of one size with texts of different lengths; one of ten is broken."""
    folder.mkdir()
    for item in range(number):
        Image.new("RGB", (40, 32), (item % 251, item // 251, 90)).save(folder / f"{item:04d}.png")
        (folder / f"{item:04d}.txt").write_text(" ".join(["word"] * (3 + item * 7 % 11)))
        if item % 10 == 4:
            (folder / f"{item:04d}.png").write_bytes(b"nothing")
    return folder


@pytest.mark.slow
def test_bytes_files_and_account_are_those_of_the_run(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", 200)
    options = ("data.n_train_samples=null", "data.shard_size=20")
    found = estimate.estimate(small_config(tmp_path / "run", *options, "estimate_s=0.001", source=source))
    assert not (tmp_path / "run").exists()
    assert (found.num_samples, found.num_shards) == (200, 10)
    assert found.num_timed < 100, "a sample"
    plan = small_run(tmp_path / "run", *options, source=source)
    written = [path for path in (tmp_path / "run/shards").rglob("*") if path.is_file()]
    assert found.num_files == pytest.approx(len(written), rel=TOLERANCE)
    assert found.num_bytes == pytest.approx(sum(path.stat().st_size for path in written), rel=TOLERANCE)
    assert found.counts.written / found.num_timed == pytest.approx(0.9, abs=0.1)
    assert plan.num_samples == found.num_samples


def test_the_same_places_are_drawn_each_time(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", "estimate_s=0.0001")
    first, second = estimate.estimate(config), estimate.estimate(config)
    assert first.counts == second.counts
    assert first.num_bytes == second.num_bytes


def test_the_command_prints_a_table_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*small_arguments(tmp_path / "run"), "estimate=true", "estimate_s=0.1", "cluster.array=0-2"]
    arguments.append("loader.batch_size=auto")
    assert launch_command.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "24 samples in 4 shards" in shown
    assert "3  " in shown
    assert "as configured" in shown
    assert "more tasks are of no use" in shown
    assert list(tmp_path.iterdir()) == []


def test_of_a_run_that_has_begun_the_rest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path / "run")
    for name in ("00000-of-00004", "00002-of-00004", "00003-of-00004"):
        (tmp_path / "run/shards" / name).rename(tmp_path / name)
    before = sorted((tmp_path / "run").rglob("*"))
    assert launch_command.main([*small_arguments(tmp_path / "run"), "estimate=true", "estimate_s=0.1"]) == 0
    assert "18 samples in 3 shards" in capsys.readouterr().out
    assert sorted((tmp_path / "run").rglob("*")) == before


def test_limits_are_named() -> None:
    found = estimate.Estimate(
        num_samples=1_000_000,
        num_shards=1000,
        num_timed=100,
        timed_s=10.0,
        rates=(9.0, 11.0),
        device="cuda:0",
        start_s=20.0,
        sample_s=0.1,
        shard_s=1.0,
        counts=Counts(inputs=100, written=100),
        num_bytes=10**9,
        num_files=17_000,
    )
    assert found.work_s == 101_000
    assert found.wall_s(1000) == 20 + 101
    assert found.wall_s(999) == 20 + 2 * 101
    config = small_config(Path("/out"), "cluster.array=0-63%16", "cluster.time_min=60", "cluster.kind=slurm")
    lines = estimate.describe(found, config, max_array_size=100).splitlines()
    assert "work      28 GPU hours" in lines
    table = {line.split()[0]: line for line in lines if line.startswith("   ")}
    assert list(table) == ["1", "4", "16", "64", "256", "1,000"]
    assert "each task starts 29 times (cluster.time_min=60)" in table["1"]
    assert "as configured; each task starts 2 times" in table["16"]
    assert table["64"].endswith("27.3 min")
    assert "as 3 SLURM arrays (MaxArraySize 100)" in table["256"]
    assert "as 10 SLURM arrays (MaxArraySize 100); more tasks are of no use" in table["1,000"]


def test_tasks_by_hand_make_no_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert precompute_tokens.main([*small_arguments(tmp_path / "run"), "estimate=true"]) == 2
    assert "only python -m hpcdata.launch makes estimates" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_no_time_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch_command.main([*small_arguments(tmp_path / "run"), "estimate=true", "estimate_s=0"]) == 2
    assert "estimate_s=0: expected" in capsys.readouterr().err

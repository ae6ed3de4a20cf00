"""loader.batch_size=auto: found once, by the first task. pytest tests/encoders/test_batching.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import read_manifest
from hpcdata.dataset.verifying import verify
from hpcdata.encoders import batching
from hpcdata.report.status import read_status
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.work.estimate import estimate
from hpcdata.work.prove import prove
from tests.smallruns import small_config, small_run
from tests.trees import sha256_tree

AUTO = "loader.batch_size=auto"


@pytest.mark.parametrize(
    ("rates", "size"),
    [
        ([100, 190, 340, 500, 505, 900], 8),  # what follows a size that is not worth it is not tried
        ([100, 190, None], 2),  # out of memory
        ([None], 1),
        ([100, 90], 1),
        ([2**number for number in range(20)], batching.LARGEST),
    ],
)
def test_the_size_doubles_as_long_as_it_helps(rates, size):
    asked = []

    def rate(tried: int) -> float | None:
        asked.append(tried)
        return rates[len(asked) - 1]

    assert batching.best_size(rate) == size
    assert asked == [2**number for number in range(len(asked))]


def test_the_first_task_finds_it_for_all(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(batching, "ON_CPU", 5)
    small_run(tmp_path / "run", AUTO)
    assert sealed.read_json(tmp_path / "run/batch_size.json") == {"batch_size": 5}
    small_run(tmp_path / "fixed", "loader.batch_size=5")
    folders = [sorted((tmp_path / name / "shards").iterdir()) for name in ("run", "fixed")]
    for automatic, fixed in zip(*folders, strict=True):
        assert sha256_tree(automatic / "tokens") == sha256_tree(fixed / "tokens")
    monkeypatch.setattr(batching, "ON_CPU", 3)  # as on another device
    plan = load_plan(tmp_path / "run")
    assert (plan.batch_size, plan.config.loader.batch_size) == (5, "auto")
    assert plan.fingerprint == prepare(small_config(tmp_path / "run", AUTO)).fingerprint
    combine(tmp_path / "run", CombineOptions())
    assert read_manifest(tmp_path / "run").extra["arithmetic"]["batch_size"] == 5
    assert [report.problems for report in verify(tmp_path / "run")] == [[], []]
    proof = prove(tmp_path / "run", 6, seed=0)
    assert (proof.drawn, proof.equal) == (6, 6)


def test_before_a_task_has_run_there_is_no_size(tmp_path: Path):
    plan = prepare(small_config(tmp_path / "run", AUTO))
    with pytest.raises(UserError, match="no task of this run has found a size yet"):
        _ = plan.batch_size
    assert read_status(tmp_path / "run").batch_s is None
    assert prepare(small_config(tmp_path / "run")).batch_size == 4, "nothing is written: other settings are taken"


@pytest.mark.parametrize("content", ["", "{}", '{"batch_size": 0}', '{"batch_size": "8"}', "[]"])
def test_a_damaged_file_is_named(tmp_path: Path, content: str):
    prepare(small_config(tmp_path / "run", AUTO))
    (tmp_path / "run/batch_size.json").write_text(content)
    with pytest.raises(UserError, match=r"batch_size\.json is damaged"):
        load_plan(tmp_path / "run")


def test_an_estimate_finds_one_too(tmp_path: Path):
    assert estimate(small_config(tmp_path / "run", AUTO, "estimate_s=0.001")).num_samples == 24
    assert not (tmp_path / "run").exists()

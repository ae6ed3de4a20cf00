"""Runs that only make something else, and go with it.   pytest tests/cluster/test_passing.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdata.cluster.passing.through import run_beside
from hpcdata.cluster.sbatch import require_log_names


@pytest.mark.parametrize(
    "name", ["out", "GeoQA+(MathV360K)", "ai2d(cauldron,llava_format)", "100%", "a'b", "x;y", "ü 名"]
)
def test_a_run_beside_any_name_has_logs_that_slurm_can_write(name: str) -> None:
    found = run_beside(Path("/data") / name)
    require_log_names(found)
    assert found.parent == Path("/data")
    assert found.name.endswith(".run")
    assert (found.name == f"{name}.run") == (name in ("out", "GeoQA+(MathV360K)", "ü 名"))


def test_two_names_have_two_runs() -> None:
    assert run_beside("/data/a,b") != run_beside("/data/a;b") != run_beside("/data/a_b")

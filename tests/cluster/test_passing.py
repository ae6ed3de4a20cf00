"""Runs that only make something else, and go with it.   pytest tests/cluster/test_passing.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcdata.cluster.passing.through import run_beside
from hpcdata.cluster.sbatch import require_log_names

PLAIN = ["out", "GeoQA+(MathV360K)", "ü 名"]


@pytest.mark.parametrize("name", [*PLAIN, "ai2d(cauldron,llava_format)", "100%", "a'b", "x;y"])
def test_a_run_beside_any_name_has_logs_that_slurm_can_write(name: str) -> None:
    found = run_beside(Path("/data") / name)
    require_log_names(found)
    assert found.parent == Path("/data")
    assert found.name.endswith(".run")
    assert (found.name == f"{name}.run") == (name in PLAIN)


def test_two_names_have_two_runs() -> None:
    assert run_beside("/data/a,b") != run_beside("/data/a;b") != run_beside("/data/a_b")

"""From a configuration to a plan.   pytest tests/runs/test_planning.py"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpcdata import embedded
from hpcdata.runs.planning import prepare
from tests.smallruns import small_config, small_run


@pytest.mark.parametrize("make", ["pictures", "tars"])
def test_an_output_folder_inside_the_input_folder_is_no_changed_input(tmp_path: Path, make: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    if make == "tars":
        shutil.copy(embedded.path("quickstart.tar"), source / "a.tar")
    else:
        shutil.unpack_archive(embedded.path("quickstart.tar"), source, "tar", filter="data")
    overrides = ("stage=copy", "text.tokenizer=null", "image.tokenizer=null", "data.n_train_samples=null")
    plan = small_run(source / "out", *overrides, source=source)
    (source / "out/preview.png").write_bytes(b"")
    again = prepare(small_config(source / "out", *overrides, source=source))
    assert again.fingerprint == plan.fingerprint
    assert plan.num_samples == 96

"""From a configuration to a plan.   pytest tests/runs/test_planning.py"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from hpcdata import embedded
from hpcdata.base.errors import Failed, UserError
from hpcdata.runs.inputs import scanning
from hpcdata.runs.planning import prepare
from tests.smallruns import small_config, small_run


@pytest.mark.parametrize("make", ["pictures", "tars"])
def test_an_output_folder_inside_the_input_folder_is_no_changed_input(tmp_path: Path, make: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    if make == "tars":
        shutil.copy(embedded.path("quickstart.tar"), source / "a.tar")
    else:
        shutil.unpack_archive(embedded.path("quickstart.tar"), source, "tar")
    overrides = ("stage=copy", "text.tokenizer=null", "image.tokenizer=null", "data.n_train_samples=null")
    plan = small_run(source / "out", *overrides, source=source)
    (source / "out/preview.png").write_bytes(b"")
    again = prepare(small_config(source / "out", *overrides, source=source))
    assert again.fingerprint == plan.fingerprint
    assert plan.num_samples == 96


def test_an_input_of_the_same_name_in_another_folder_is_told_with_both(tmp_path: Path) -> None:
    overrides = ("stage=copy", "text.tokenizer=null", "image.tokenizer=null", "data.n_train_samples=null")
    for name in "ab":
        (tmp_path / name).mkdir()
        shutil.copy(embedded.path("quickstart.tar"), tmp_path / name / "x.tar")
    small_run(tmp_path / "out", *overrides, source=tmp_path / "a")
    with pytest.raises(UserError) as caught:
        prepare(small_config(tmp_path / "out", *overrides, source=tmp_path / "b"))
    assert f"input x.tar was {tmp_path}/a/x.tar, now {tmp_path}/b/x.tar" in str(caught.value)
    assert "is gone" not in str(caught.value)


def test_a_file_that_takes_too_much_time_ends_planning_by_its_name(tmp_path, monkeypatch):
    source = tmp_path / "x.jsonl"
    source.write_text('{"text": "a"}\n')

    def hang(file, **_):
        while True:
            pass

    monkeypatch.setattr(scanning, "LEAST_S", 0.05)
    monkeypatch.setattr(scanning.sources, "scan", hang)
    with pytest.raises(UserError, match=r"x\.jsonl: planning it takes more than 0 s of CPU time"):
        prepare(small_config(tmp_path / "run", source=source))
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0
    assert signal.getsignal(signal.SIGPROF) == signal.SIG_DFL


@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_kills_the_process_which_scans_it_has_a_name(tmp_path, monkeypatch, times):
    source, marks, scan = tmp_path / "in", tmp_path / "marks", scanning.sources.scan
    for folder in (source, marks):
        folder.mkdir()
    for name in "abcd":
        (source / f"{name}.jsonl").write_text('{"text": "a"}\n' * 3)

    def deadly(file, **options):
        if file.path.endswith("b.jsonl") and len(list(marks.iterdir())) < times:
            (marks / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return scan(file, **options)

    monkeypatch.setattr(scanning, "SMALL_INPUT_BYTES", 0)
    monkeypatch.setattr(scanning.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(scanning.sources, "scan", deadly)
    monkeypatch.setattr(scanning, "_processes", lambda n: ProcessPoolExecutor(n, multiprocessing.get_context("fork")))
    config = small_config(tmp_path / "run", "image.tokenizer=none", "data.n_train_samples=null", source=source)
    if times == 1:
        assert prepare(config).num_samples == 12
    else:
        with pytest.raises(Failed, match=r"b\.jsonl: the process that scanned it was killed, by itself as well"):
            prepare(config)

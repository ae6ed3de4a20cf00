"""Small runs that have every kind of file which a run, its dataset and its jobs can have, for tests of tampering."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from hpcdata.base import sealed
from hpcdata.base.files import write_atomic
from hpcdata.config.compose import compose
from hpcdata.dataset import joined
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.history import submissions
from hpcdata.history.outcome import Outcome, write_outcome
from hpcdata.history.submissions import Submission
from hpcdata.loading.baking import bakings
from hpcdata.runs.claims import Claims, Owner
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.planning import prepare
from hpcdata.runs.reject_limit import halt
from hpcdata.work import task
from hpcdata.work.crashnotes import CrashNotes
from hpcdata.work.retry import retry
from tests.smallruns import StopAfter, small_arguments


def _pictures(folder: Path, num: int) -> Path:
    folder.mkdir()
    for number in range(num):
        Image.new("RGB", (32, 32), (9 * number, 2, 3)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


def _planned(folder: Path, num: int, *overrides: str) -> RunPaths:
    source = folder / "in" if (folder / "in").exists() else _pictures(folder / "in", num)
    given = ["data.n_train_samples=null", "data.shard_size=5", "loader.batch_size=4", *overrides]
    more = list({item.partition("=")[0]: item for item in given}.values())
    prepare(compose(small_arguments(folder / "run", *more, source=source)))
    return RunPaths(folder / "run")


def _work(paths: RunPaths, polls: int | None = None) -> None:
    task.run_task(paths.root, StopAfter(polls))  # type: ignore[arg-type]


def _note_jobs(paths: RunPaths) -> None:
    script = submissions.script(paths, "7")
    script.parent.mkdir(exist_ok=True)
    write_atomic(script, b"#!/bin/bash\n#SBATCH --array=0-3\nsrun python -m hpcdata.cluster.task\n")
    submissions.add(
        paths,
        Submission(
            job_id="7",
            kind="tasks",
            round=1,
            by="user",
            time=1.5,
            num_tasks=4,
            samples_done=0,
            partition="gpu",
            script_sha256=submissions.sha256_of_script(paths, "7"),
        ),
    )
    submissions.add_withdrawn(paths, "7_3")
    submissions.add_cancelled(paths)


def _leave_claim(paths: RunPaths, name: str) -> None:
    """As a process does that is killed."""
    claims = Claims(paths.claims, Owner.of_this_process("killed"), timeout_s=60)
    assert claims.try_claim(name)


def finished(folder: Path) -> Path:
    """A run with rejects, a retry, joined columns, baked rows, all notes and a report."""
    folder.mkdir(parents=True)
    _pictures(folder / "in", 12)
    good = (folder / "in/1.png").read_bytes()
    for number in (1, 7):
        (folder / f"in/{number}.png").write_bytes(b"no picture")
    paths = _planned(folder, 12, "loader.batch_size=auto")
    write_atomic(paths.batch_size, sealed.to_json({"batch_size": 4}))
    _work(paths)
    before = (folder / "in").stat()
    (folder / "in/1.png").write_bytes(good)
    os.utime(folder / "in", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert retry(paths.root).parts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joined, "MIN_PARTS", 1)
        combine(paths.root, CombineOptions(bake=bakings(["t2i"])))
    _note_jobs(paths)
    halt(paths.root, "too many", compose(small_arguments(paths.root)))
    write_outcome(paths, Outcome(outcome="finished", reason="all is done", next_step=None, account="12 inputs"))
    return paths.root


def in_work(folder: Path) -> Path:
    """A run with a committed shard, a checkpoint, notes of a crash and a claim of a process that was killed."""
    folder.mkdir(parents=True)
    paths = _planned(folder, 18, "data.shard_size=6", "loader.batch_size=2")
    _work(paths, 7)
    assert len(list(paths.shards.glob("tmp_*/progress.json"))) == 1
    assert len(list(paths.shards.glob("0*/shard.json"))) > 0
    notes = CrashNotes.read(paths.root, "00001-of-00003")
    notes.count(3, "SIGSEGV", in_reading=False)
    notes.suspect(4)
    _leave_claim(paths, "00002-of-00003")
    _note_jobs(paths)
    return paths.root


def raw(folder: Path) -> Path:
    """A combined run of stage=copy."""
    folder.mkdir(parents=True)
    paths = _planned(folder, 6, "stage=copy", "copy.format=jsonl", "image.tokenizer=none", "text.tokenizer=none")
    _work(paths)
    combine(paths.root, CombineOptions())
    shutil.rmtree(paths.shards)
    return paths.root


RUNS = {"finished": finished, "in work": in_work, "raw": raw}

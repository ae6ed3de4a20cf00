"""Random schedules of kills: the same bytes as one process that nobody disturbs.   pytest tests/test_kills.py -s

20 schedules here and on CI: of every four one has pictures, and one is of the stage `copy` or `measure`.
HPCDATA_SCHEDULES=200 pytest tests/test_kills.py for more, HPCDATA_SEED to repeat one.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from hpcdata import embedded
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.formats.target import problems_of
from hpcdata.formats.tokens import NAMES
from hpcdata.report.status import read_status
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.shards.appending import SMALL_BYTES
from tests import llava_tables
from tests.evidence import KILLS, Evidence
from tests.smallruns import small_config, small_run, start_task
from tests.trees import sha256_tree

NUM_SCHEDULES = int(os.environ.get("HPCDATA_SCHEDULES", "20"))
FIRST_SEED = int(os.environ.get("HPCDATA_SEED", "0"))
_HANGS_S = 300
"""A task that takes longer does not end: other processes may hold this machine for minutes."""
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
TEXT = ("image.tokenizer=none", "data.n_train_samples=null", "data.shard_size=12")
"""Such a process starts within half a second; one with pictures imports torch before it claims a shard."""
RAW = (*TEXT, "text.keep_raw=true")
PICTURES = ("data.n_train_samples=32", "data.shard_size=8")
COPIES = ("stage=copy", "copy.format=jsonl", "data.n_train_samples=null", "data.shard_size=12")
TARS = ("stage=copy", "data.n_train_samples=32", "data.shard_size=8")
ROWS = ("stage=copy", "copy.format=hf", "data.n_train_samples=null", "data.shard_size=12")
MEASURES = ("stage=measure", "data.n_train_samples=null", "data.shard_size=12")
KINDS = (TEXT, RAW, PICTURES, COPIES, TARS, ROWS, MEASURES)


def settings(seed: int) -> tuple[str, ...]:
    odd = {2: MEASURES, 4: RAW, 6: ROWS, 7: TARS}
    return odd.get(seed % 8) or (TEXT, PICTURES, TEXT, COPIES)[seed % 4]


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], str]:
    folder = tmp_path_factory.mktemp("reference")
    for number, options in enumerate(KINDS):
        small_run(folder / f"{number}", *options)
    return {options: sha256_tree(folder / f"{number}/shards") for number, options in enumerate(KINDS)}


def submit(
    folder: Path, rng: random.Random, options: tuple[str, ...], source: str | None = None
) -> list[subprocess.Popen[bytes]]:
    """The same line with another array size."""
    num_tasks = rng.randint(1, 4)
    array = (f"cluster.array=0-{num_tasks - 1}", "cluster.claim_timeout_s=2")
    prepare(small_config(folder, *options, *array, source=source))
    return [start_task(folder) for _ in range(num_tasks)]


def has_begun(folder: Path, tasks: list[subprocess.Popen[bytes]]) -> bool:
    pids = [f"-{task.pid}-" for task in tasks]
    return any(pid in path.name for path in (folder / "shards").glob("tmp_*") for pid in pids)


def disturb(folder: Path, tasks: list[subprocess.Popen[bytes]], rng: random.Random) -> int:
    """Sends each task a signal at some moment of its life; returns how many were still alive to get it."""
    deadline = time.monotonic() + 20
    while rng.random() < 0.97 and not has_begun(folder, tasks) and time.monotonic() < deadline:
        if all(task.poll() is not None for task in tasks):
            break  # nothing was left to do
        time.sleep(0.005)
    hit = 0
    for task in tasks:
        time.sleep(rng.choice([0.0, rng.uniform(0, 0.02), rng.uniform(0, 0.2)]))
        if task.poll() is None:
            task.send_signal(rng.choice(SIGNALS))
            hit += 1
    for task in tasks:
        task.wait(_HANGS_S)
    return hit


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + NUM_SCHEDULES))
def test_the_bytes_are_those_of_an_undisturbed_process(
    tmp_path: Path, references: dict[tuple[str, ...], str], evidence: Evidence, seed: int
) -> None:
    options = settings(seed)
    folder = survive(tmp_path / "run", seed, options, evidence)
    assert sha256_tree(folder / "shards") == references[options], f"seed {seed}"
    shutil.rmtree(folder)


def survive(folder: Path, seed: int, options: tuple[str, ...], evidence: Evidence, source: str | None = None) -> Path:
    """A run under a schedule of kills, all of whose samples were written in the end."""
    rng = random.Random(seed)
    hit = sum(disturb(folder, submit(folder, rng, options, source), rng) for _ in range(rng.randint(1, 3)))
    last = submit(folder, rng, options, source)
    codes = [task.wait(_HANGS_S) for task in last]
    print(f"seed {seed}: {hit} processes hit, then {len(last)} undisturbed")
    assert codes == [0] * len(last), Path(f"{folder}.log").read_text()[-3000:]
    evidence(KILLS, hit, folder)
    status = read_status(folder)
    assert (status.counts["written"], status.counts["rejected"]) == (load_plan(folder).num_samples, {})
    assert list((folder / "claims").iterdir()) == []
    return folder


def several_inputs(folder: Path, *, pictures: bool) -> str:
    """Two tars or files of lines, a folder of 30 small documents beside them: shards hold samples of several."""
    folder.mkdir()
    if pictures:
        for name in ("a", "b"):
            shutil.copy(embedded.path("quickstart.tar"), folder / f"{name}.tar")
        return f"[{folder}/a.tar,{folder}/b.tar]"
    for name, number in (("a", 5), ("c", 40)):
        lines = "".join(f'{{"text": "line {index} of {name}"}}\n' for index in range(number))
        (folder / f"{name}.jsonl").write_text(lines)
    for index in range(30):
        (folder / f"b{index:02d}.txt").write_text(f"document {index} " * (index % 7 + 1))
    return f"[{','.join(str(path) for path in sorted(folder.iterdir()))}]"


JOINED = (*TEXT[:2], "data.source=text", "data.shard_size=13")
JOINED_PICTURES = ("data.n_train_samples=104", "data.shard_size=60")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + max(4, NUM_SCHEDULES // 4)))
def test_so_are_those_of_shards_of_several_inputs(tmp_path: Path, evidence: Evidence, seed: int) -> None:
    pictures = seed % 4 == 3
    options, source = (JOINED_PICTURES if pictures else JOINED), several_inputs(tmp_path / "in", pictures=pictures)
    plan = small_run(tmp_path / "whole", *options, source=source)
    assert any(len(spec.segments) > 1 for spec in plan.shards())
    folder = survive(tmp_path / "run", 1000 + seed, options, evidence, source)
    assert sha256_tree(folder / "shards") == sha256_tree(tmp_path / "whole/shards"), f"seed {seed}"


CONVERTS = ("stage=convert", "data.source=parquet", "data.n_train_samples=null", "data.shard_size=24")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + max(2, NUM_SCHEDULES // 10)))
def test_so_is_a_folder_of_converted_tables(tmp_path: Path, evidence: Evidence, seed: int) -> None:
    """Shards, and what is arranged of them. Ids come again in other shards; half of the pictures are large."""
    pictures = [llava_tables.picture(number) + bytes(number % 2 * SMALL_BYTES) for number in range(120)]
    rows = [llava_tables.row(f"{number % 50}", data) for number, data in enumerate(pictures)]
    source = str(llava_tables.write(tmp_path / "in/x.parquet", rows, group=30))
    small_run(tmp_path / "whole", *CONVERTS, source=source)
    folder = survive(tmp_path / "run", 2000 + seed, CONVERTS, evidence, source)
    assert sha256_tree(folder / "shards") == sha256_tree(tmp_path / "whole/shards"), f"seed {seed}"
    made = [combine(run, CombineOptions()).target for run in (folder, tmp_path / "whole")]
    assert [str(path) for path in made] == [f"{folder}/llava", f"{tmp_path}/whole/llava"]
    assert sha256_tree(tmp_path / "run/llava") == sha256_tree(tmp_path / "whole/llava"), f"seed {seed}"


EXPORTS = ("stage=export", "data.n_train_samples=null", "data.shard_size=24", "export.file_bytes=2000")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "made"
    small_run(folder, "data.n_train_samples=null", "text.keep_raw=true", "data.sizes=[32x32,48x32]")
    return combine(folder, CombineOptions()).folder


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + max(len(NAMES), NUM_SCHEDULES // 4)))
def test_so_are_exports_and_what_is_arranged_of_them(
    tmp_path: Path, dataset: Path, evidence: Evidence, seed: int
) -> None:
    options = (*EXPORTS, f"export.format={NAMES[seed % len(NAMES)]}", f"export.shuffle_seed={seed}")
    small_run(tmp_path / "whole", *options, source=dataset)
    folder = survive(tmp_path / "run", 2000 + seed, options, evidence, str(dataset))
    assert sha256_tree(folder / "shards") == sha256_tree(tmp_path / "whole/shards"), f"seed {seed}"
    for run in (tmp_path / "whole", folder):
        assert combine(run, CombineOptions()).target == run / "export"
    assert sha256_tree(folder / "export") == sha256_tree(tmp_path / "whole/export"), f"seed {seed}"
    assert problems_of(folder / "export") == []

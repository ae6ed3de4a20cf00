"""Real pictures taken in and out of other systems' formats as array jobs, with preemptions.

pytest tests/slurm/test_interchange.py        needs SLURM, openclipart-png and openclipart-svg
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcdata.cluster.passing.through import run_beside
from hpcdata.dataset.verifying import verify
from hpcdata.formats.target import Target, problems_of, read_target
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.rejects import rows_of
from tests import corpora, llava_tables
from tests.corpora import Pair
from tests.formats.tokens.exports import dataset, export, mixed
from tests.slurm import acceptance
from tests.slurm.cluster import SlurmCluster
from tests.trees import tree

NUM_PICTURES = 5200
ON_CLUSTER = [
    *("cluster=slurm", "cluster.partition=preempt", "cluster.cpus_per_task=1", "cluster.array=0-3"),
    *("cluster.claim_timeout_s=10", "data.save_tmp_interval=1", "data.shard_size=100", "loader.batch_size=16"),
]
pytestmark = pytest.mark.skipif(not corpora.available("openclipart"), reason="needs openclipart-png, openclipart-svg")


@pytest.fixture(scope="module")
def cluster(slurm_programs: None) -> Iterator[SlurmCluster]:
    with SlurmCluster(kill_wait_s=1, slurm_conf=acceptance.SLURM_CONF) as found:
        yield found


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """The smallest ones: 33 MB."""
    by_size = sorted(corpora.pairs("openclipart"), key=lambda pair: pair.image.stat().st_size)
    return sorted(by_size[:NUM_PICTURES], key=lambda pair: pair.key)


def made(out: Path, num_written: int) -> Target:
    assert problems_of(out) == []
    target = read_target(out)
    assert target.counts.written == num_written
    assert target.counts.is_balanced()
    return target


def test_parquet_of_llava_becomes_pictures_and_json(cluster: SlurmCluster, pairs: list[Pair], tmp_path: Path) -> None:
    """Every picture has the bytes that it had, every record is in the JSON or in the account."""
    name = "ai2d(cauldron,llava_format)"
    for number in range(4):
        rows = [
            llava_tables.row(f"clip/{place}", pair.image.read_bytes(), llava_tables.talk(answer=pair.caption))
            for place, pair in enumerate(pairs[number::4], NUM_PICTURES * number)
        ]
        llava_tables.write(tmp_path / name / f"train-{number}.parquet", rows, group=200)
    out = tmp_path / "out" / name
    line = ["convert", "llava-parquet", tmp_path / name, out, "--name", "data.json"]
    run = run_beside(out)
    acceptance.preempted(cluster, [*line, *ON_CLUSTER], run)
    records = json.loads((out / "data.json").read_text())
    rejected = rows_of(run)
    assert len(records) + sum(1 for _ in rejected) == NUM_PICTURES
    made(out, len(records))
    wanted = Counter((pair.image.read_bytes(), pair.caption) for pair in pairs)
    found = Counter(((out / record["image"]).read_bytes(), record["conversations"][1]["value"]) for record in records)
    assert not found - wanted
    assert found.total() > 0.95 * NUM_PICTURES


def test_pairs_become_what_liquid_trains_on(cluster: SlurmCluster, pairs: list[Pair], tmp_path: Path) -> None:
    """Texts as they are and codes, as an array job, laid out in Liquid's columns by another; small pictures."""
    import datasets

    (tmp_path / "in").mkdir()
    corpora.write_tars(pairs, tmp_path / "in", "pairs", 1300)
    run, out = tmp_path / "run", tmp_path / "liquid"
    line = ["launch", "+experiments=liquid", f"data.raw_data_dir={tmp_path}/in", f"data.token_output_dir={run}"]
    sizes = "data.sizes=[32x32,64x32,32x64]"  # those of 512 pixels take half an hour here
    acceptance.preempted(cluster, [*line, "image.tokenizer=embedded", sizes, *ON_CLUSTER], run)
    num_written = verify(run)[-1].counts.written
    assert num_written > 0.7 * NUM_PICTURES  # shapes beyond 2:1 are rejects
    on_cluster = [item for item in ON_CLUSTER if item.startswith(("cluster", "data.save"))]
    started = time.monotonic()
    export = ["export", run, out, "--format", "liquid", "--num-shards", 16]
    acceptance.run(cluster, [sys.executable, "-m", "hpcdata", *map(str, export), *on_cluster])
    acceptance.wait_for_the_end(cluster, tmp_path / "liquid.run", 300, started)
    made(out, num_written)
    rows = datasets.load_from_disk(str(out))
    captions = {pair.caption for pair in pairs}
    assert len(rows) == num_written
    assert set(rows["data_type"]) == {"image_text"}
    assert set(rows["text"]) <= captions
    shapes = Counter((row["width"], row["height"], len(json.loads(row["vqcode_multi768"]))) for row in rows)
    assert {(width, height) for width, height, _ in shapes} == {("32", "32"), ("64", "32"), ("32", "64")}
    assert len({int(width) * int(height) / num_codes for width, height, num_codes in shapes}) == 1


def test_arrays_export_tokens_to_the_bytes_of_one_process(cluster: SlurmCluster, tmp_path: Path) -> None:
    """All nodes are taken away from two arrays as soon as both are at work."""
    rows, cut = mixed() * 20, ["data.shard_size=10", "export.file_bytes=20000"]
    source, runs = dataset(tmp_path / "data", rows), [tmp_path / f"{name}.run" for name in ("megatron", "mds")]
    on_cluster = [item for item in ON_CLUSTER if item.startswith(("cluster", "data.save")) and "array" not in item]
    started = time.monotonic()
    for run in runs:
        line = ["export", source, tmp_path / run.stem, "--format", run.stem, "--run", run, *cut, *on_cluster]
        acceptance.run(cluster, [sys.executable, "-m", "hpcdata", *map(str, line), "cluster.array=0-1"])
    cluster.wait_until(lambda: all(RunPaths(run).list_committed() for run in runs), "a shard of both", 120)
    with cluster.preempt():
        pass
    for run in runs:
        result = acceptance.wait_for_the_end(cluster, run, 120, started)
        print(result.line())
        assert result.outcome.outcome == "finished"
        assert result.num_preemptions + result.status.preemptions + result.status.vanished >= 1
        made(tmp_path / run.stem, len(rows))
        export(source, tmp_path / "inline" / run.stem, run.stem, *cut)
        assert tree(tmp_path / run.stem) == tree(tmp_path / "inline" / run.stem)

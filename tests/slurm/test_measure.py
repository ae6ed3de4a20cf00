"""Measuring real pictures as an array job, with preemptions.   pytest tests/slurm/test_measure.py"""

from __future__ import annotations

from pathlib import Path

import pytest

import hpcdata
from hpcdata.dataset.manifest import read_manifest
from hpcdata.multimodal.datasets.measured import MeasuredDataset
from tests import corpora
from tests.multimodal import real
from tests.slurm import acceptance
from tests.slurm.cluster import SlurmCluster

NUM_PICTURES = 5200


@pytest.mark.skipif(not corpora.available("openclipart"), reason="needs openclipart-png and openclipart-svg")
def test_five_thousand_real_pictures_are_measured_through_preemptions(slurm_programs: None, tmp_path: Path) -> None:
    """The same bytes as of one process that nothing disturbs, and every record in the account."""
    pairs = corpora.pairs("openclipart")[:NUM_PICTURES]
    source = real.write_llava(pairs, tmp_path)
    words = ["+experiments=measure", f"data.raw_data_dir={source}", "text.tokenizer=embedded", "data.shard_size=100"]
    words += [f"data.image_root={corpora.OPENCLIPART}", "loader.batch_size=16", "data.save_tmp_interval=1"]
    folder = tmp_path / "run"
    on_cluster = ["cluster=slurm", "cluster.partition=preempt", "cluster.cpus_per_task=1", "cluster.array=0-3"]
    with SlurmCluster(kill_wait_s=1, slurm_conf=acceptance.SLURM_CONF) as cluster:
        line = ["launch", *words, f"data.token_output_dir={folder}", *on_cluster, "cluster.claim_timeout_s=10"]
        result = acceptance.preempted(cluster, line, folder)
    alone = hpcdata.run([*words, f"data.token_output_dir={tmp_path / 'alone'}"])
    assert alone.status().is_finished
    ours, theirs = (read_manifest(run) for run in (folder, tmp_path / "alone"))
    assert ours.content_digest == theirs.content_digest
    counts = ours.counts
    assert len(MeasuredDataset(folder)) == counts.written
    assert counts.inputs == counts.written + counts.rejected.total() == result.status.num_samples

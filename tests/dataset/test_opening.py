"""python -m pytest tests/dataset/test_opening.py"""

import shutil

import numpy as np
import pytest
import torch

import tests.made as run_made
from hpcdata import TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.loading.layouts.named import Text
from hpcdata.runs.paths import RunPaths
from hpcdata.shards.takeover import open_shard

torch.set_num_threads(1)


def same_samples(dataset, expected_indices):
    assert [example.index for example in dataset] == expected_indices
    for example in dataset:
        expected = run_made.example(example.index)
        assert example.key == expected.key
        assert [span.ids.tolist() for span in example.spans] == [span.ids.tolist() for span in expected.spans]


def written(start, end):
    return [example.index for example in run_made.batch(start, end).examples]


def test_an_unfinished_run(tmp_path):
    """Shards of 16: one has a checkpoint at 9, one is not begun."""
    run_made.run(tmp_path, 56, unfinished={1: 9, 2: 0})
    with pytest.raises(UserError, match="allow_tmp=True"):
        TokenDataset(tmp_path)
    dataset = TokenDataset(tmp_path, allow_tmp=True)
    same_samples(dataset, [*written(0, 16), *written(16, 25), *written(48, 56)])
    assert dataset.manifest.counts.is_balanced()
    assert dataset.manifest.counts.missing == 7 + 16
    assert dataset.coverage == pytest.approx(1 - 23 / 56)
    assert [(gap["first_missing"], gap["missing"]) for gap in dataset.manifest.extra["gaps"]] == [(25, 7), (32, 16)]
    batch = next(iter(TokenLoader(dataset, global_batch_size=8, layout=Text(max_length=8))))
    assert batch["input_ids"].shape[0] == 8


def test_what_combine_makes_of_it_is_the_same(tmp_path):
    run_made.run(tmp_path, 56, unfinished={1: 9, 2: 0})
    before = TokenDataset(tmp_path, allow_tmp=True).manifest
    after = combine(tmp_path, CombineOptions(allow_tmp=True))
    assert before.counts == after.counts
    assert before.content_digest == after.content_digest
    assert before.extra["gaps"] == after.extra["gaps"]
    assert (before.text, before.image, before.layout) == (after.text, after.image, after.layout)


def test_what_is_appended_after_the_checkpoint_is_not_seen(tmp_path):
    plan = run_made.run(tmp_path, 32, unfinished={1: 9})
    shards = RunPaths(tmp_path).shards
    writer = open_shard(shards, plan.header(plan.shard(1)), "alive")
    dataset = TokenDataset(tmp_path, allow_tmp=True)
    writer.append(run_made.batch(25, 32))
    for file in writer._files.values():
        file.sync()
    expected = [*written(0, 16), *written(16, 25)]
    same_samples(dataset, expected)
    same_samples(TokenDataset(tmp_path, allow_tmp=True), expected)
    writer.checkpoint()
    assert len(TokenDataset(tmp_path, allow_tmp=True)) == len(written(0, 32))
    writer.close()


def test_a_checkpoint_that_went_away_is_named(tmp_path):
    run_made.run(tmp_path, 32, unfinished={1: 9})
    dataset = TokenDataset(tmp_path, allow_tmp=True)
    shutil.rmtree(next(RunPaths(tmp_path).shards.glob("tmp_*")))
    with pytest.raises(UserError, match=r"tmp_00001-of-00002.* is missing"):
        dataset.spans(np.array([len(dataset) - 1]))


@pytest.mark.parametrize("move_files", [False, True])
def test_one_shard(tmp_path, move_files):
    run_made.run(tmp_path, 56)
    combine(tmp_path, CombineOptions(move_files=move_files))
    folder = tmp_path / ("dataset/parts" if move_files else "shards") / "00001-of-00004"
    dataset = TokenDataset(folder)
    same_samples(dataset, written(16, 32))
    whole = TokenDataset(tmp_path).manifest
    assert (dataset.manifest.text, dataset.manifest.layout) == (whole.text, whole.layout)
    assert dataset.coverage == 1


def test_a_shard_by_itself(tmp_path):
    """Copied elsewhere, it has no tokenizer identity any more, but it can be read."""
    run_made.run(tmp_path / "run", 20)
    shutil.copytree(tmp_path / "run" / "shards" / "00000-of-00002", tmp_path / "else" / "where" / "shard")
    dataset = TokenDataset(tmp_path / "else" / "where" / "shard")
    same_samples(dataset, written(0, 16))
    assert dataset.manifest.text is None


def test_a_run_without_a_sample(tmp_path):
    run_made.run(tmp_path, 20, unfinished={0: 0, 1: 0})
    with pytest.raises(UserError, match="no shard of 2 holds a sample yet"):
        TokenDataset(tmp_path, allow_tmp=True)


def test_a_damaged_shard(tmp_path):
    run_made.run(tmp_path, 20)
    folder = tmp_path / "shards" / "00000-of-00002"
    (folder / "shard.json").write_text("{}")
    with pytest.raises(UserError, match="not a readable shard"):
        TokenDataset(folder)


def test_a_finished_run_is_opened_as_its_dataset(tmp_path):
    run_made.run(tmp_path, 20)
    combine(tmp_path, CombineOptions())
    assert TokenDataset(tmp_path, allow_tmp=True).manifest == TokenDataset(tmp_path).manifest

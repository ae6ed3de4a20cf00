"""A loader of raw examples as a file, and its replay.   pytest tests/multimodal/test_recipe.py"""

import functools
import json

import numpy as np
import pytest

from hpcdata.base.errors import UserError
from hpcdata.loading.replaying import batch_digest
from hpcdata.multimodal import DatasetBase, make_loader, register
from hpcdata.multimodal.datasets import registry
from hpcdata.replay import main


class Told(DatasetBase):
    word = "one"

    def load(self):
        picture = np.full((30, 40, 3), 90, np.uint8)
        return [{"image": picture, "messages": [f"{self.word} {n}?", "Yes. " * (n % 5 + 1)]} for n in range(24)]


class ToldOtherwise(Told):
    word = "two"


@pytest.fixture(autouse=True)
def names():
    register("told here", Told)
    register("told otherwise here", functools.partial(ToldOtherwise))
    yield
    for key in ("toldhere", "toldotherwisehere"):
        registry._ENTRIES.pop(key)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(
        """
datasets:
  - {dataset: told here, weight: 2}
  - {dataset: told otherwise here, name: other, weight: 1}
preprocessor: {tokenizer: embedded, crop_mode: resize, base_image_input_size: [28, 28]}
loader: {global_batch_size: 4, packing: {length: 128, window: 32}, max_crops: 6, seed: 7}
"""
    )
    return path


def test_a_resumed_run_saw_what_replay_says(recipe, tmp_path, capsys):
    ranks = [make_loader(recipe, rank=rank, world_size=2) for rank in range(2)]
    assert ranks[0].stream.names == ("told here", "other")
    fed = [batch_digest([next(iter(rank)) for rank in ranks]) for _ in range(2)]
    (tmp_path / "state.json").write_text(json.dumps(ranks[0].state_dict()))
    alone = make_loader(recipe, rank=0, world_size=1)
    alone.load_state_dict(ranks[0].state_dict())
    fed.append(batch_digest([next(iter(alone))]))

    assert main([str(recipe), "--state", str(tmp_path / "state.json"), "--steps", "0:3", "--world-size", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if " global " in line] == fed
    assert len(lines) == 9


def test_its_account_can_be_asked_for(recipe, tmp_path, capsys):
    loader = make_loader(recipe, rank=0, world_size=1)
    batches = [next(iter(loader)) for _ in range(2)]
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    assert main([str(recipe), "--state", str(tmp_path / "state.json"), "--account"]) == 0
    told, other, total = capsys.readouterr().out.splitlines()
    assert total.startswith("total  samples ")
    assert told.startswith("source told here  samples ")
    counts = [int(line.split("samples ")[1].split()[0]) for line in (told, other)]
    assert sum(counts) == sum(int(batch["segment_ids"].max(dim=1).values.sum()) for batch in batches)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("datasets: [told here]", "expected datasets, preprocessor, loader"),
        ("datasets: [told here]\nloader: {global_batch_size: 4}\nmodel: x", "it has model"),
        ("datasets: [told here]\nloader: {global_batch_size: 4, workers: 3}", "loader has no option workers"),
        ("datasets: [told there]\nloader: {global_batch_size: 4}", "there is no dataset told there: did you mean"),
        ("- 1", "expected a mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_is_no_recipe_is_said(tmp_path, text, words):
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        make_loader(path)

"""Datasets of raw records under the loader.   pytest tests/multimodal/datasets/test_loading.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.multimodal import (
    DeterministicDataset,
    MeasuredDataset,
    MolmoPreprocessorConfig,
    MultimodalLoader,
    SourceDataset,
)
from hpcdata.multimodal.datasets import index
from tests.media.pictures import encoded, noisy
from tests.smallruns import small_run
from tests.sources.source_files import json_lines, write

pytestmark = pytest.mark.slow
NUM = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations about no picture, one and two, some of them not to be read; measured."""
    folder = tmp_path_factory.mktemp("talks")
    rows: list[Any] = []
    for number in range(NUM):
        names = [f"p/{number}-{which}.png" for which in range(number % 3)]
        for which, name in enumerate(names):
            write(folder / name, encoded(noisy(20 + 30 * number, 40 + 50 * which)))
        if number % 11 == 5:
            names[:1] = ["p/gone.png"]
        question = f"{'<image>' * len(names)} What is {'x' * number}?"
        turns = [("human", question), ("gpt", "It is " + "y" * (number * 7 % 50)), ("human", "Sure?"), ("gpt", "Yes.")]
        talk = [{"from": role, "value": value} for role, value in turns]
        rows.append({"image": names, "conversations": talk} if names else {"conversations": talk})
    write(folder / "x.jsonl", json_lines(rows))
    options = ("stage=measure", "image.tokenizer=null", "data.n_train_samples=null", "data.shard_size=9")
    small_run(folder / "run", *options, source=folder / "x.jsonl")
    combine(folder / "run", CombineOptions())
    return folder / "run"


def loader_of(dataset: Any, **options: Any) -> MultimodalLoader:
    config = MolmoPreprocessorConfig(tokenizer="embedded", max_crops=2, system_prompt="demo_or_style")
    settings = {"global_batch_size": 2, "packing": 1500, "max_crops": 8, "seed": 3, "num_epochs": 1, "num_threads": 2}
    return MultimodalLoader(dataset, config.build_preprocessor(), **{**settings, **options})


class Unmeasured:
    """The same dataset without what was measured."""

    def __init__(self, dataset: MeasuredDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def get(self, item, rng):
        return self._dataset.get(item, rng)


def told(batches: list[Any]) -> list[Any]:
    return [{name: getattr(value, "tolist", lambda v=value: v)() for name, value in batch.items()} for batch in batches]


def test_stored_measures_plan_the_batches_that_examples_themselves_do(run: Path, monkeypatch) -> None:
    dataset = MeasuredDataset(run)
    assert 0 < dataset.manifest.counts.rejected.total() < NUM
    expected = [*loader_of(Unmeasured(dataset))]
    read = []
    get = MeasuredDataset.get
    monkeypatch.setattr(MeasuredDataset, "get", lambda self, item, rng: read.append(item) or get(self, item, rng))
    loader = loader_of(dataset)
    assert loader.steps_per_epoch == len(expected)
    assert read == []  # the plan of a whole epoch without one example
    assert told([*loader]) == told(expected)
    assert sorted(read) == [*range(len(dataset))]


def test_the_account_of_raw_records_closes(run: Path) -> None:
    loader = loader_of(SourceDataset(run.parent / "x.jsonl"), drop_last=False)
    batches = [*loader]
    assert len(batches) == len([*loader_of(MeasuredDataset(run), drop_last=False)])
    rejected = sum(loader.rejects.values())
    assert rejected == MeasuredDataset(run).manifest.counts.rejected.total()
    assert loader.num_samples + rejected == NUM


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_dataloader_give_what_one_process_does(run: Path, start: str) -> None:
    from torch.utils.data import DataLoader

    config = MolmoPreprocessorConfig(tokenizer="embedded", max_crops=1)
    preprocessor = config.build_preprocessor(is_training=True)
    for raw in (MeasuredDataset(run), SourceDataset(run, sample=5)):
        dataset = DeterministicDataset(dataset=raw, preprocessor=preprocessor, seed=42)
        loader: Any = DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=4,
            collate_fn=preprocessor.build_collator(2048, "to_128"),
            num_workers=2,
            multiprocessing_context=start,
        )
        alone: Any = DataLoader(dataset, batch_size=4, collate_fn=loader.collate_fn)  # type: ignore[arg-type]
        assert told([*loader]) == told([*alone])


def test_an_index_is_made_in_processes_as_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write(tmp_path / f"in/{number}.jsonl", json_lines([{"text": f"{number} {row}"} for row in range(5)]))
    alone = SourceDataset(tmp_path / "in", source="text")
    monkeypatch.setattr(index, "_SMALL_BYTES", 0)
    several = SourceDataset(tmp_path / "in", source="text", num_processes=2)
    assert [*several] == [*alone]
    assert [example["text"] for example in several] == [f"{number} {row}" for number in range(3) for row in range(5)]

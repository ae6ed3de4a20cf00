"""python -m pytest tests/loading/test_batches.py

Batches that are as wide as the longest sample of their step on all ranks.
"""

import numpy as np
import pytest
import torch

from hpcdata import TokenDataset, TokenLoader
from hpcdata.loading import batches
from hpcdata.loading.layouts.named import Interleaved, LiquidT2I, Text
from hpcdata.loading.token_streams import Mixture, Source
from hpcdata.samples import Example
from tests.loading import made

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Mostly short texts, a third of them with an image of 4 or, rarely, 36 codes."""
    rng = np.random.default_rng(3)
    examples = []
    for row in range(64):
        spans = [made.text(*rng.integers(0, 32000, rng.geometric(0.2)))]
        spans += [made.image(*rng.integers(0, 16384, 36 if row % 21 == 0 else 4)) for _ in range(row % 3 == 0)]
        examples.append(Example(index=row, key=str(row), spans=tuple(spans)))
    return TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(examples)))


def loaders(dataset, world_size: int, **options) -> list[TokenLoader]:
    options = {"global_batch_size": 12, "seed": 3, "world_size": world_size, **options}
    return [TokenLoader(dataset, rank=rank, **options) for rank in range(world_size)]


@pytest.mark.parametrize("ahead", [1, 10_000])
@pytest.mark.parametrize(
    "layout",
    [
        Text(max_length=30, pad="batch_max"),
        LiquidT2I(max_length=70, pad="to_8", unconditional_share=0.3),
        Interleaved(max_length=30, pad="batch_max", too_long="skip"),
    ],
    ids=lambda layout: layout.name,
)
@pytest.mark.parametrize("is_mixture", [False, True])
def test_batches_are_as_wide_on_any_number_of_ranks(dataset, monkeypatch, layout, ahead, is_mixture):
    """Over the ends of epochs, and where steps are asked for in any order."""
    monkeypatch.setattr(batches, "_LENGTHS_AHEAD", ahead)
    monkeypatch.setattr("hpcdata.order.steps._ROWS_AHEAD", ahead)
    data, options = dataset, {"layout": layout, "num_epochs": 2, "drop_last": is_mixture}
    if is_mixture:
        sources = [Source(dataset=dataset, name="a", weight=2), Source(dataset=dataset, name="b", weight=1)]
        data = Mixture(sources, policy="stop_first")
    (canonical,) = loaders(data, 1, **options)
    expected = list(canonical)
    assert len({batch["input_ids"].shape[1] for batch in expected}) > 1
    for world_size in (2, 3, 4):
        ranks = loaders(data, world_size, **options)
        for step, batches_of_step in zip(expected, zip(*ranks, strict=True), strict=True):
            for key, value in step.items():
                assert torch.equal(torch.cat([batch[key] for batch in batches_of_step]), value), key
        for epoch, step in ((1, 3), (0, 4), (0, 2), (1, 2)):
            found = torch.cat([rank.batch_at(epoch, step)["input_ids"] for rank in ranks])
            assert torch.equal(found, canonical.batch_at(epoch, step)["input_ids"])


def test_lengths_are_looked_up_for_many_steps_at_once(dataset, monkeypatch):
    looked_up = []
    spans = TokenDataset.spans
    monkeypatch.setattr(TokenDataset, "spans", lambda self, rows: looked_up.append(len(rows)) or spans(self, rows))
    loader = loaders(dataset, 2, global_batch_size=2, num_epochs=1, layout=Text(max_length=19, pad="to_4"))[0]
    assert len(list(loader)) == 32
    assert len(looked_up) < 12, looked_up

"""python -m pytest tests/loading/test_workers.py

Loaders in the worker processes of a DataLoader, and copies of loaders: no batch is there twice unseen.
"""

import copy
import itertools
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from hpcdata import BackgroundLoader, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.named import Text
from hpcdata.loading.trainers import Epochs
from tests.loading import made

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    return TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(made.pairs(24))))


def loader_of(dataset, **options) -> TokenLoader:
    return TokenLoader(dataset, global_batch_size=4, layout=Text(max_length=32), num_epochs=1, **options)


def seen(batches) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches]


class Stream(IterableDataset):
    """What people write around a loader; `make` gives it in the worker."""

    def __init__(self, make) -> None:
        self.make = make

    def __iter__(self):
        yield from self.make()


KINDS = [iter, TokenLoader.iter_epoch, BackgroundLoader]


@pytest.mark.parametrize("kind", KINDS)
def test_workers_that_would_deliver_the_same_batches_are_refused(dataset, monkeypatch, kind):
    """A loader that they were given, or one that each makes itself if nobody gives it a rank. Steps are anybody's."""
    workers = SimpleNamespace(id=0, num_workers=2)
    monkeypatch.setattr("torch.utils.data._utils.worker._worker_info", workers)
    loader, given = loader_of(dataset), loader_of(dataset, rank=0, world_size=1)
    monkeypatch.setattr(given, "_made_in", os.getppid())
    for refused in (loader, given):
        with pytest.raises(UserError, match=r"2 workers of a DataLoader loop over this loader.*StepDataset\(loader\)"):
            list(kind(refused))
    assert loader.batch_at(0, 3)["index"].tolist() == seen(kind(loader_of(dataset, rank=0, world_size=1)))[3]
    workers.num_workers = 1
    assert len(seen(kind(loader_of(dataset)))) == 6


def test_workers_with_ranks_of_their_own_share_the_batches(dataset):
    def make():
        worker = torch.utils.data.get_worker_info()
        return loader_of(dataset, rank=worker.id, world_size=worker.num_workers)

    found = seen(DataLoader(Stream(make), batch_size=None, num_workers=2))
    assert sorted(itertools.chain(*found)) == sorted(itertools.chain(*seen(loader_of(dataset))))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("wrap", [BackgroundLoader, Epochs, lambda loader: Epochs(BackgroundLoader(loader))])
def test_a_copy_that_is_made_within_a_loop_goes_on_by_itself(dataset, wrap, duplicate):
    batches = wrap(loader_of(dataset))
    begun = iter(batches)
    expected = seen(loader_of(dataset))
    assert seen([next(begun), next(begun)]) == expected[:2]
    assert seen(duplicate(batches)) == expected[2:]
    assert seen(begun) == expected[2:]

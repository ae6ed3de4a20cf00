"""python -m pytest tests/loading/test_options.py

Options that cannot be are refused where they are given, in one line that says what was expected.
"""

import json

import numpy as np
import pytest
import torch

from hpcdata import BackgroundLoader, BestFit, Buckets, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.named import Text
from hpcdata.loading.step_dataset import StepDataset
from hpcdata.loading.trainers import Epochs
from tests.loading import made

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> TokenDataset:
    return TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(made.pairs(20))))


def loader_of(dataset, **options) -> TokenLoader:
    return TokenLoader(dataset, **{"global_batch_size": 4, "layout": Text(max_length=32), **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"global_batch_size": 4.0}, "global_batch_size=4.0, expected a whole number"),
        ({"global_batch_size": True}, "global_batch_size=True, expected a whole number"),
        ({"num_epochs": 1.5}, "num_epochs=1.5, expected a whole number"),
        ({"num_epochs": float("inf")}, "num_epochs=inf, expected a whole number"),
        ({"seed": "7"}, "seed='7', expected a whole number"),
        ({"rank": "0", "world_size": "1"}, "rank='0', expected a whole number"),
        ({"packing": 32.0}, "packing=32.0, expected a whole number"),
        ({"packing": True}, "packing=True, expected a whole number"),
    ],
)
def test_numbers_are_whole(dataset, options, message):
    with pytest.raises(UserError, match=message):
        loader_of(dataset, **options)


@pytest.mark.parametrize("make", [lambda: BestFit(length=32.0), lambda: Buckets(multiple=0.5)])
def test_numbers_of_a_packing_are_whole(make):
    with pytest.raises(UserError, match=r"packing: (length=32.0|multiple=0.5), expected a whole number"):
        make()


def test_numbers_of_numpy_are_as_good(dataset):
    """A state has plain values, the same as of Python's numbers."""
    two, four = np.int64(2), np.int32(4)
    length = np.int64(32)
    options = {"global_batch_size": four, "seed": two, "num_epochs": two}
    options |= {"rank": np.int64(0), "world_size": np.int64(1)}
    for packing in (length, BestFit(length=length)):
        state = loader_of(dataset, packing=packing, **options).state_dict()
        assert json.loads(json.dumps(state)) == state
        assert state == loader_of(dataset, packing=32, seed=2).state_dict()


def test_an_epoch_behind_the_last_is_refused(dataset):
    """A loop over it would end at once, without a word."""
    loader = loader_of(dataset, num_epochs=2)
    loader.set_epoch(1)
    with pytest.raises(UserError, match=r"epoch 2 is behind the last of num_epochs=2, .*leave num_epochs out"):
        loader.set_epoch(2)
    assert (loader.epoch, len(list(loader))) == (1, 5)
    loader.set_epoch(2)  # it stands there
    with pytest.raises(UserError, match=r"epoch=0\.5, expected a whole number"):
        loader.set_epoch(0.5)


NOT_BACKGROUND = "a BackgroundLoader was given: expected a TokenLoader"


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda loader: BackgroundLoader(BackgroundLoader(loader)), NOT_BACKGROUND),
        (lambda loader: BackgroundLoader(Epochs(loader)), "a Epochs was given: expected a TokenLoader"),
        (lambda loader: BackgroundLoader(loader, num_ahead=2.5), r"num_ahead=2\.5, expected a whole number"),
        (lambda loader: StepDataset(BackgroundLoader(loader)), NOT_BACKGROUND),
        (lambda loader: Epochs(loader, num_steps=2.5), r"num_steps=2\.5, expected a whole number"),
    ],
)
def test_wrappers_that_cannot_be(dataset, wrap, message):
    with pytest.raises(UserError, match=message):
        wrap(loader_of(dataset, num_epochs=1))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("packing", [None, 32])
def test_a_dataset_without_samples_has_nothing_to_load(tmp_path, packing, drop_last):
    empty = made.make_dataset(tmp_path / "empty", [[]])
    with pytest.raises(UserError, match=r"epoch 0 of .*empty has 0 samples: there is nothing to load"):
        loader_of(empty, packing=packing, drop_last=drop_last)


def test_samples_without_ids_have_no_row(tmp_path):
    folder = made.make_dataset(tmp_path / "bare", made.split(made.pairs(3, max_text=0)))
    layout = Text(max_length=32, add_bos=False, add_eos=False)
    with pytest.raises(UserError, match="bare has 3 samples, and none has a row: each is without ids"):
        loader_of(folder, packing=32, drop_last=False, layout=layout)

"""How long a training waited for its batches.

pytest tests/loading/test_waits.py
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hpcdata import BackgroundLoader, Mixture, Source, TokenLoader
from hpcdata.loading.step_dataset import StepDataset
from hpcdata.loading.trainers import hf_dataloader
from hpcdata.order import looping
from hpcdata.order.looping import Waits
from tests.loading import made


def test_the_first_batch_is_apart_and_the_share_is_that_of_all_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(looping.time, "perf_counter", lambda: now)
    found = Waits()
    assert (found.share, found.elapsed_s) == (0, 0)
    found.add(7)
    for waited, worked in ((1, 3), (2, 4)):
        now += waited + worked
        found.add(waited)
    assert (found.first_s, found.last_s, found.longest_s, found.total_s, found.steps) == (7, 2, 2, 3, 2)
    assert found.share == 0.3
    assert "waited 3.000 s for 2 batches, 30.0 % of the time" in repr(found)


@pytest.mark.parametrize("in_background", [False, True])
def test_loaders_count_what_they_deliver(tmp_path: Path, in_background: bool) -> None:
    folder = made.make_dataset(tmp_path / "dataset", [made.pairs(24)])
    loader = TokenLoader(folder, global_batch_size=4, layout="text", num_epochs=1)
    watched = BackgroundLoader(loader) if in_background else loader
    for _ in watched:
        time.sleep(0.01)
    assert watched.waits.steps == loader.waits.steps == 5
    account = watched.account()
    assert account.total.waited_s == sum(of.waited_s for of in account.values())
    assert account.total.waited_s == pytest.approx(watched.waits.first_s + watched.waits.total_s)
    assert watched.waits.total_s < watched.waits.elapsed_s
    assert "waits" not in loader.state_dict()


def test_what_torch_and_transformers_are_given_is_counted_too(tmp_path: Path) -> None:
    folder = made.make_dataset(tmp_path / "dataset", [made.pairs(24)])
    for make in (lambda loader: StepDataset(loader).dataloader(), hf_dataloader):
        loader = TokenLoader(folder, global_batch_size=4, layout="text", num_epochs=1)
        assert len(list(make(loader))) == 6
        assert loader.waits.steps == 5


def test_what_was_waited_is_shared_out_by_samples(tmp_path: Path) -> None:
    folder = made.make_dataset(tmp_path / "dataset", [made.pairs(24)])
    sources = [Source(dataset=folder, name=name, weight=weight) for name, weight in (("a", 3), ("b", 1))]
    loader = TokenLoader(Mixture(sources), global_batch_size=4, layout="text")
    assert loader.account().total.waited_s == 0
    for _ in range(4):
        next(iter(loader))
    account = loader.account()
    assert account["a"].waited_s == pytest.approx(3 * account["b"].waited_s)
    assert account.total.waited_s == pytest.approx(loader.waits.first_s + loader.waits.total_s)
    assert account.total.samples == 16
    assert account.total.epochs == 16 / 48

"""python -m pytest tests/loading/test_background.py"""

import gc
import itertools
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from hpcdata import TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.background import BackgroundLoader
from hpcdata.loading.layouts.fixed_batches import FixedRows
from hpcdata.loading.layouts.named import Caption
from hpcdata.loading.step_dataset import StepDataset
from hpcdata.loading.token_streams import Mixture, Source
from hpcdata.native import recycled
from hpcdata.native.recycled import empty
from tests.loading import made

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(made.pairs(100))))


def make(dataset, **options) -> TokenLoader:
    return TokenLoader(dataset, **{"global_batch_size": 8, "seed": 2, "num_epochs": 3, **options})


def indices(batches) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("options", [{}, {"packing": 60, "layout": Caption(), "global_batch_size": 2}])
def test_the_same_batches_and_states(dataset, num_threads, options):
    plain = make(dataset, **options)
    ahead = BackgroundLoader(make(dataset, **options), num_ahead=3, num_threads=num_threads)
    assert len(ahead) == len(plain) > 30
    for expected, found in zip(plain, ahead, strict=True):
        assert all(torch.equal(expected[key], found[key]) for key in expected)
        assert ahead.state_dict() == plain.state_dict()
    assert ahead.loader.counts == plain.counts


@pytest.mark.parametrize("step", [0, 1, 7])
def test_an_error_in_a_thread_arrives_in_its_place(dataset, monkeypatch, step):
    loader = make(dataset)
    batch = FixedRows.batch

    def fail(self, first, stop, later=None, width=None):
        if self._table.index[first] == bad:
            raise ZeroDivisionError
        return batch(self, first, stop, later, width)

    bad = make(dataset).batch_at(0, step)["index"][0]
    monkeypatch.setattr(FixedRows, "batch", fail)
    ahead = BackgroundLoader(loader, num_ahead=3, num_threads=3)
    with pytest.raises(ZeroDivisionError):
        list(ahead)
    assert ahead.state_dict()["step"] == step
    monkeypatch.undo()
    assert indices(ahead) == indices(make(dataset))[step:]


def test_an_error_in_the_state_arrives_as_well(dataset, monkeypatch):
    ahead = BackgroundLoader(make(dataset))
    monkeypatch.setattr(TokenLoader, "state_dict", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(iter(ahead))


def test_only_what_was_delivered_counts(dataset):
    """Threads are ahead, the loop is rewound and begun again: counts and account do not show it."""
    plain = make(dataset)
    ahead = BackgroundLoader(make(dataset), num_ahead=6)
    for _ in range(3):
        for _ in zip(range(5), plain, strict=False):
            pass
        assert len(list(itertools.islice(ahead, 5))) == 5
        time.sleep(0.02)
        assert ahead.account() == plain.account()
        assert ahead.loader.counts == plain.counts


@pytest.mark.parametrize(
    "options", [{}, {"packing": 60, "layout": Caption(), "global_batch_size": 2}, {"order": "blocks:16x2"}]
)
@pytest.mark.parametrize("is_mixture", [False, True])
def test_whoever_is_asked_answers_for_what_was_delivered(dataset, options, is_mixture):
    """The loader that was wrapped as well: a state of it, at any step, loses and repeats nothing."""
    data = dataset
    if is_mixture:
        options = {name: value for name, value in options.items() if name != "order"}
        data = Mixture([Source(dataset=dataset, name=name, weight=1) for name in "ab"], policy="stop_all")
    plain, loader = make(data, **options), make(data, **options)
    ahead = BackgroundLoader(loader, num_ahead=6)
    everything, seen = indices(make(data, **options)), []
    for at, batch in enumerate(ahead):
        next(iter(plain))
        seen.append(batch["index"].tolist())
        assert loader.state_dict() == ahead.state_dict() == plain.state_dict()
        assert (loader.epoch, loader.step, loader.counts) == (plain.epoch, plain.step, plain.counts)
        if at % 17 == 3:
            assert loader.account() == plain.account()
            resumed = make(data, **options)
            resumed.load_state_dict(loader.state_dict())
            assert seen + indices(resumed) == everything
    assert seen == everything


@pytest.mark.parametrize("options", [{}, {"packing": 60, "layout": Caption(), "global_batch_size": 2}])
@pytest.mark.parametrize("is_asked", ["loader", "ahead"])
def test_a_running_loop_follows_weights_and_states(dataset, options, is_asked):
    """Also those that the wrapped loader is given, and batches that are taken from it."""
    mixture = Mixture([Source(dataset=dataset, name=name, weight=1) for name in "ab"])
    plain, loader = make(mixture, **options), make(mixture, **options)
    ahead = BackgroundLoader(loader, num_ahead=5)
    start = plain.state_dict()

    def five(loader, batches):
        seen = indices(itertools.islice(batches, 5))
        loader.set_weights({"a": 0, "b": 1})
        seen += indices(itertools.islice(batches, 5))
        state = loader.state_dict()
        loader.load_state_dict(start)
        return seen + indices(itertools.islice(batches, 5)), state

    assert five({"loader": loader, "ahead": ahead}[is_asked], iter(ahead)) == five(plain, iter(plain))
    batches = iter(ahead)
    taken = [next(batches), next(iter(loader)), next(batches)]
    assert indices(taken) == indices(itertools.islice(plain, 3))


def test_what_was_only_prepared_is_prepared_again(dataset):
    ahead = BackgroundLoader(make(dataset), num_ahead=4)
    seen = indices(itertools.islice(ahead, 5))
    time.sleep(0.05)
    resumed = make(dataset)
    resumed.load_state_dict(ahead.state_dict())
    assert seen + indices(resumed) == indices(make(dataset))
    assert seen + indices(ahead) == indices(make(dataset))  # a second iterator goes on as well
    ahead.load_state_dict(make(dataset).state_dict())
    assert indices(ahead) == indices(make(dataset))


def threads_of(iterator) -> list[threading.Thread]:
    """Begins the iterator; those that it starts."""
    before = threading.enumerate()
    next(iterator)
    return [thread for thread in threading.enumerate() if thread not in before]


def have_ended(threads: list[threading.Thread]) -> bool:
    for thread in threads:
        thread.join(10)
    return not any(thread.is_alive() for thread in threads)


def test_errors_arrive_and_threads_end(dataset, monkeypatch):
    batches = iter(BackgroundLoader(make(dataset)))
    threads = threads_of(batches)
    assert len(threads) == 2
    del batches
    gc.collect()
    assert have_ended(threads)
    loader = make(dataset)
    monkeypatch.setattr(loader, "_plan", lambda epoch, step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(iter(BackgroundLoader(loader)))
    with pytest.raises(UserError, match="num_ahead=0"):
        BackgroundLoader(make(dataset), num_ahead=0)


@pytest.mark.parametrize("call", [3, 11])
def test_an_iterator_that_one_of_its_own_threads_collects_ends(dataset, monkeypatch, call):
    """The thread has the turn that the other one waits for; at the later call there is no room for its batches."""
    loader, may_drop, calls = make(dataset), threading.Event(), itertools.count()
    take, iterators = loader.take, []

    def dropping():
        if next(calls) == call:
            may_drop.wait(10)
            iterators.clear()
        return take()

    monkeypatch.setattr(loader, "take", dropping)
    iterators.append(iter(BackgroundLoader(loader)))
    threads = threads_of(iterators[0])
    may_drop.set()
    assert len(threads) == 2
    assert have_ended(threads)
    assert not iterators


@pytest.mark.timeout(60)
def test_an_iterator_is_closed_without_waiting(dataset):
    """The garbage collector may close it in a line that holds a lock that its threads wait for."""
    batches = iter(BackgroundLoader(make(dataset, layout=Caption(max_length=2000), num_epochs=100)))
    next(batches)
    time.sleep(0.1)  # until there is no room for more
    with recycled._lock:
        batches.close()


@pytest.mark.slow
def test_a_process_ends_with_batches_left(dataset):
    program = """
import sys
from hpcdata import TokenLoader
from hpcdata.loading.background import BackgroundLoader
batches = iter(BackgroundLoader(TokenLoader(sys.argv[1], global_batch_size=8)))
next(batches)
raise SystemExit(3)
"""
    done = subprocess.run([sys.executable, "-c", program, str(dataset.path)], timeout=60)
    assert done.returncode == 3


def test_memory_is_recycled_only_when_nobody_holds_it():
    arrays = [empty((300, 300), "i8") for _ in range(5)]
    tensor = torch.from_numpy(arrays[0])[5:7]
    for number, array in enumerate(arrays):
        array[:] = number
    assert [int(array[0, 0]) for array in arrays] == list(range(5))
    address = arrays[3].ctypes.data
    del array, arrays[3]
    again = empty((300, 300), "i8")
    assert again.ctypes.data == address
    arrays.clear()
    for _ in range(20):
        empty((300, 300), "i8")[:] = 99
    assert tensor.eq(0).all()


def test_batches_that_are_kept_do_not_change(dataset):
    """Batches of many recycled arrays, all held at once."""
    wide = [batch["input_ids"] for batch in make(dataset, global_batch_size=100, num_epochs=30, seed=1)]
    again = make(dataset, global_batch_size=100, num_epochs=30, seed=1)
    for kept, fresh in zip(wide, again, strict=True):
        assert torch.equal(kept, fresh["input_ids"])


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_steps_in_a_torch_dataloader(dataset, num_workers):
    from torch.utils.data import DataLoader

    loader = make(dataset, num_epochs=1)
    next(iter(loader))
    steps = StepDataset(loader)
    found = indices(DataLoader(steps, batch_size=None, num_workers=num_workers))
    assert found == indices(make(dataset, num_epochs=1))[1:]
    assert indices(DataLoader(steps, batch_size=None)) == found  # nothing has moved


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("options", [{}, {"packing": 60, "layout": Caption(), "global_batch_size": 2}])
def test_the_loader_of_steps_answers_for_what_their_dataloader_delivered(dataset, num_workers, options):
    """Workers are ahead; the loader is not. It began in the middle."""
    plain, loader = make(dataset, **options), make(dataset, **options)
    for each in (plain, loader):
        next(iter(each))
    steps = StepDataset(loader)
    assert len(list(steps.dataloader())) == len(steps)
    assert (loader.epoch, loader.step) == (3, 0)
    seen = []
    for at, batch in enumerate(steps.dataloader(num_workers=num_workers, prefetch_factor=4 if num_workers else None)):
        expected = next(iter(plain))
        assert torch.equal(batch["index"], expected["index"])
        seen.append(batch["index"].tolist())
        assert (loader.epoch, loader.step) == (plain.epoch, plain.step)
        if at in (0, 20):
            assert loader.state_dict() == plain.state_dict()
            resumed = make(dataset, **options)
            resumed.load_state_dict(loader.state_dict())
            assert indices(make(dataset, **options))[1:] == seen + indices(resumed)
    assert len(seen) == len(steps)


def test_steps_know_their_states(dataset):
    steps = StepDataset(make(dataset))
    for step in (0, 11, 12, 30):
        loader = make(dataset)
        loader.load_state_dict(steps.state_dict_at(step))
        assert torch.equal(next(iter(loader))["index"], steps[step]["index"])
    with pytest.raises(IndexError):
        steps[36]
    with pytest.raises(UserError, match="num_epochs"):
        StepDataset(make(dataset, num_epochs=None))


def moved(dataset) -> TokenLoader:
    loader = make(dataset)
    next(iter(loader))
    return loader


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_steps_in_a_stateful_dataloader(dataset, num_workers):
    """Workers that are refused a state are waited for when they are collected, for 5 s each."""
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")

    def start():
        steps = StepDataset(make(dataset))
        return torchdata.StatefulDataLoader(steps, batch_size=None, num_workers=num_workers)

    loader = start()
    batches = iter(loader)
    seen = indices(itertools.islice(batches, 7))
    state = loader.state_dict()
    del batches
    resumed = start()
    resumed.load_state_dict(state)
    assert seen + indices(resumed) == indices(make(dataset))
    for other, message in ((make(dataset, seed=3), "saved with seed=2"), (moved(dataset), "counted from step 0")):
        refusing = torchdata.StatefulDataLoader(StepDataset(other), batch_size=None, num_workers=num_workers)
        refusing.load_state_dict(state)
        with pytest.raises(UserError, match=message):
            next(iter(refusing))


@pytest.mark.slow
def test_accelerate_leaves_the_loader_as_it_is(dataset):
    """In one process here: the sharding of several is the loader's own, from the process group."""
    program = """
import sys, torch
from accelerate import Accelerator
from hpcdata import TokenLoader
accelerator = Accelerator(cpu=True)
loader = TokenLoader(sys.argv[1], global_batch_size=8, num_epochs=1)
model, prepared = accelerator.prepare(torch.nn.Linear(2, 2), loader)
assert len(list(prepared)) == 12
print(prepared.rank, prepared.world_size)
"""
    command = [sys.executable, "-c", program, str(dataset.path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.stdout.split() == ["0", "1"], done.stderr
    assert not [name for name in os.listdir("/dev/shm") if "hpcdata" in name]

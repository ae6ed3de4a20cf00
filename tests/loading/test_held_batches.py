"""python -m pytest tests/loading/test_held_batches.py

Batches are made in memory of earlier ones. What is left of a batch, in whatever form, must never change.
"""

import itertools
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import BackgroundLoader, TokenDataset, TokenLoader
from hpcdata.loading.layouts.named import T2I, Caption, Text
from hpcdata.native import recycled
from tests.loading import made
from tests.native.test_forks import in_child

FORMS = {
    "tensor": lambda t: t,
    "detached": lambda t: t.detach(),
    "row": lambda t: t[1],
    "last row of all": lambda t: list(t.unbind())[-1],
    "element": lambda t: t[0, 0],
    "columns": lambda t: t[:, 3:5],
    "transposed": lambda t: t.T,
    "bytes": lambda t: t.view(torch.uint8),
    "through its storage": lambda t: torch.tensor([], dtype=t.dtype).set_(t.untyped_storage()),
    "parameter": lambda t: torch.nn.Parameter(t, requires_grad=False),
    "array": lambda t: t.numpy(),
    "view of an array": lambda t: t.numpy()[2:, ::2],
    "memoryview": lambda t: memoryview(t.numpy()),
    "dlpack to numpy": lambda t: np.from_dlpack(t),
    "dlpack to torch": lambda t: torch.from_dlpack(t.numpy()[1:]),
    "in a closure": lambda t: lambda: t,
}
"""Ways to keep some of a tensor, or all of it."""
LOADERS = {
    "ids alone": {"layout": Text(max_length=256, keys=("input_ids",), add_bos=False, add_eos=False)},
    "whole rows": {"layout": Text(max_length=256, add_bos=False, add_eos=False)},
    "16 bits": {"layout": Text(max_length=1024, ids="uint16", add_bos=False, add_eos=False)},
    "bos and eos": {"layout": Text(max_length=256)},
    "images": {"layout": T2I(num_image_tokens=256)},
    "packed": {"layout": Caption(), "packing": 1024, "global_batch_size": 20},
}
NUM_STEPS = 6


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Large enough that the arrays of a batch of 80 rows are recycled."""
    return TokenDataset(made.make_dataset(tmp_path_factory.mktemp("made"), made.split(made.pairs(200, grid=16))))


def values(kept: object) -> np.ndarray:
    """A copy."""
    kept = kept() if callable(kept) else kept
    return np.array(kept)


@given(st.data())
@settings(max_examples=10, deadline=None)
def test_what_is_kept_of_a_batch_never_changes(dataset, data):
    options = LOADERS[data.draw(st.sampled_from(sorted(LOADERS)))]
    loader = TokenLoader(dataset, **{"global_batch_size": 80, **options})
    num_ahead = data.draw(st.sampled_from([0, 2]))
    batches = iter(BackgroundLoader(loader, num_ahead=num_ahead) if num_ahead else loader)
    kept: list[tuple[object, np.ndarray]] = []
    for _ in range(NUM_STEPS):
        batch = next(batches)
        for key in sorted(key for key in batch if isinstance(batch[key], torch.Tensor) and batch[key].dim() == 2):
            for form in data.draw(st.lists(st.sampled_from(sorted(FORMS)), max_size=2)):
                some = FORMS[form](batch[key])
                kept.append((some, values(some)))
        del batch
        for _ in range(data.draw(st.integers(0, 3))):
            next(batches)
        if kept and data.draw(st.booleans()):
            del kept[data.draw(st.integers(0, len(kept) - 1))]
    for some, as_it_was in kept:
        np.testing.assert_array_equal(values(some), as_it_was)


def test_large_arrays_are_apart_and_recycled():
    """Of those that begin with a page of 2 MiB, too."""
    shape = (300, 1000)
    held = [recycled.empty(shape, np.int64) for _ in range(4)]
    begins = sorted(array.ctypes.data for array in held)
    assert all(begin % 2**21 == 0 for begin in begins)
    assert all(stop - start >= 8 * 300 * 1000 for start, stop in itertools.pairwise(begins))
    row = held[1][3]
    row[:] = 7
    del held
    again = [recycled.empty(shape, np.int64) for _ in range(6)]
    assert {array.ctypes.data for array in again} & set(begins)
    for array in again:
        array[:] = 8
    assert (row == 7).all()


def test_whether_memory_is_held_is_known_in_this_python():
    buffer = recycled.Buffer(100)
    assert recycled.first_free([buffer]) is not None
    array = np.ndarray((100,), np.uint8, buffer.memory, buffer.offset)
    for held in (array, array[3:5], torch.from_numpy(array), memoryview(array)):
        del array
        assert recycled.first_free([buffer]) is None
        array = held
    del array, held
    assert recycled.first_free([buffer]) is not None


def test_threads_never_share_memory():
    def work(number: int) -> int:
        wrong = 0
        for _ in range(300):
            array = recycled.empty((2**16,), np.uint8)
            array[::4096] = number
            time.sleep(0)
            wrong += int((array[::4096] != number).sum())
        return wrong

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(work, range(4))) == 0
    finally:
        sys.setswitchinterval(before)


def test_addresses_are_those_of_the_arrays():
    for shape in ((3,), (300, 300), (300, 1000), (0, 4)):
        for _ in range(2):
            array, address = recycled.empty_at(shape, np.int64)
            assert address == array.ctypes.data
            assert array.flags.writeable
            assert array.flags.aligned


def test_memory_is_bounded_and_what_is_held_is_kept(monkeypatch):
    monkeypatch.setattr(recycled, "_MAX_TOTAL_BYTES", 2**22)
    monkeypatch.setattr(recycled, "_MAX_BUFFERS", 7)
    held = [recycled.empty((size,), np.uint8) for size in range(2**17, 2**21, 2**16)]
    for number, array in enumerate(held):
        array[:] = number
    buffers = [buffer for of_size in recycled._buffers.values() for buffer in of_size]
    assert 1 < len(buffers) <= 7
    assert sum(buffer.size for buffer in buffers) <= 2**22
    assert any(buffer.memory is held[-1].base for buffer in buffers)  # what was wanted last stays
    for number, array in enumerate(held):
        assert (array == number).all()


def test_a_child_makes_its_own_memory(dataset):
    loader = TokenLoader(dataset, global_batch_size=80, layout=Text(max_length=256))
    batches = iter(loader)
    batch = next(batches)
    was = {key: tensor.clone() for key, tensor in batch.items()}

    def work() -> None:
        assert not recycled._buffers
        for _ in range(3):
            next(batches)
        assert all(torch.equal(tensor, was[key]) for key, tensor in batch.items())

    assert in_child(work) == 0
    assert all(torch.equal(tensor, was[key]) for key, tensor in batch.items())

"""python -m pytest tests/native/test_threads.py"""

import contextlib
import copy
import dataclasses
import gc
import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import BackgroundLoader, Mixture, Source, TokenDataset, TokenLoader
from hpcdata.base.errors import UserError
from hpcdata.loading.layouts.named import Caption, Text
from hpcdata.native import recycled, threads
from hpcdata.samples import Example
from tests.loading import made
from tests.native.test_forks import in_child

ROOT = Path(__file__).parent.parent.parent
UNTOUCHED = 77


@pytest.fixture(autouse=True)
def _small_batches_are_shared(loops) -> Iterator[None]:
    before, num_threads = loops.set_min_bytes_each(1), torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(num_threads)
    loops.set_min_bytes_each(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return made.make_dataset(tmp_path_factory.mktemp("dataset"), made.split(made.pairs(300)))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """In one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ids_of(loader: TokenLoader, num_steps: int) -> list[np.ndarray]:
    """Of the next batches: copies, as the memory is used again."""
    return [batch["input_ids"].numpy().copy() for batch in itertools.islice(loader, num_steps)]


def expected(dataset: object, num_steps: int, **options: object) -> list[np.ndarray]:
    with alone():
        return ids_of(TokenLoader(dataset, **options), num_steps)  # type: ignore[arg-type]


def helpers() -> list[Path]:
    """The kernel's folders of the threads that help to copy."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "comm").read_text() == "hpcdata-copy\n":
                found.append(task)
    return found


TEXT = Text(max_length=20, add_bos=False, add_eos=False)
LOADERS = {
    "text": {"layout": TEXT},
    "bos and eos": {"layout": Text(max_length=20)},
    "16 bits": {"layout": dataclasses.replace(TEXT, ids="uint16")},
    "no masks": {"layout": dataclasses.replace(TEXT, keys=("input_ids",))},
    "t2i": {"layout": "t2i"},
    "caption": {"layout": Caption(max_length=60)},
    "packed": {"layout": Caption(), "packing": 60},
}
OPTIONS = {"global_batch_size": 8, "seed": 3}


@pytest.mark.parametrize("name", LOADERS)
def test_batches_are_those_of_one_thread(folder, name):
    options = {**OPTIONS, **LOADERS[name]}
    with alone():
        one = TokenLoader(folder, **options)
        wanted = [({k: v.clone() for k, v in batch.items()}, one.counts) for batch in itertools.islice(one, 60)]
    loader = TokenLoader(folder, **options)
    for batch, (tensors, counts) in zip(itertools.islice(loader, 60), wanted, strict=True):
        assert batch.keys() == tensors.keys()
        assert all(torch.equal(tensor, tensors[key]) for key, tensor in batch.items())
        assert loader.counts == counts


@pytest.mark.parametrize("has_frame", [False, True])
def test_a_batch_is_whole_when_it_is_delivered(folder, has_frame):
    """A large one, looked at from its end at once."""
    options = {
        "global_batch_size": 150,
        "layout": Text(max_length=8192, add_bos=has_frame, add_eos=has_frame, pad_id=7),
    }
    with alone():
        wanted = [batch["input_ids"].clone() for batch in itertools.islice(TokenLoader(folder, **options), 12)]
    for batch, ids in zip(itertools.islice(TokenLoader(folder, **options), 12), wanted, strict=True):
        assert torch.equal(batch["input_ids"][-20:], ids[-20:])
        assert torch.equal(batch["input_ids"], ids)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_rows_and_runs_are_those_of_one_thread(loops, data):
    """Also where there are more threads than rows, empty rows, and rows that are left out."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    num_rows, width = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 40))
    dtype, out_dtype = data.draw(
        st.sampled_from([("u2", "u2"), ("u2", "i4"), ("u2", "i8"), ("i4", "i4"), ("i4", "i8")])
    )
    ids = rng.integers(0, 30_000, 500).astype(dtype)
    length = rng.integers(0, width + 1, num_rows)
    start = rng.integers(0, 500 - length + 1)
    rows = rng.permutation(num_rows + 5)[:num_rows] if data.draw(st.booleans()) else None
    dest = np.cumsum(rng.integers(0, 5, num_rows) + length) - length
    value = rng.integers(0, 100, num_rows)
    source = np.where(rng.random(num_rows) < 0.3, -1, start)
    size = int((dest + length).max(initial=0)) + data.draw(st.integers(0, 5))

    def made_by(num_threads: int) -> list[np.ndarray]:
        torch.set_num_threads(num_threads)
        outs = [np.full((num_rows + 5, width), UNTOUCHED, out_dtype)]
        loops.place_rows(ids, start, length)(outs[0], 0, num_rows, rows, 3, 9)
        for write in (
            loops.place_runs(ids, source, value, dest, length),
            loops.fill_runs(value, dest, length),
            loops.count_runs(value, dest, length),
        ):
            outs.append(np.full(size, UNTOUCHED, out_dtype))
            write(outs[-1], 0, num_rows, 0, 9)
        return outs

    several = made_by(data.draw(st.integers(2, 9)))
    for found, wanted in zip(several, made_by(1), strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(st.integers(1, 400), st.integers(2, 9), st.integers(0, 2**20))
@settings(max_examples=40, deadline=None)
def test_lookups_are_those_of_one_thread(folder, num_rows, num_threads, seed):
    dataset = TokenDataset(folder)
    rows = np.random.default_rng(seed).integers(0, len(dataset), num_rows)
    torch.set_num_threads(num_threads)
    found = dataset.spans(rows)
    with alone():
        wanted = dataset.spans(rows)
    for name in ("index", "row", "kind", "length", "part", "first_token", "place"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))


def test_damage_is_found_by_any_thread(tmp_path):
    """Of 300 samples one points outside of its part: whichever thread looks it up."""
    folder = made.make_dataset(tmp_path, [made.pairs(300)])
    column = folder / "parts/00000-of-00001/spans/length.memmap"
    for damaged in (0, 299, 598):
        lengths = np.fromfile(column, "<i4")
        (lengths + np.where(np.arange(600) == damaged, 10**6, 0).astype("<i4")).tofile(column)
        with pytest.raises(IndexError, match="damaged"):
            TokenDataset(folder).spans(np.arange(300))
        lengths.tofile(column)


def test_the_next_batch_is_begun_and_the_last_is_not(folder):
    loader = TokenLoader(folder, layout=TEXT, num_epochs=1, **OPTIONS)
    batches = iter(loader)
    next(batches)
    assert loader._begun is None  # the first is waited for
    next(batches)
    assert loader._begun is not None
    assert loader._begun.place == (0, 2)
    for _ in batches:
        pass
    assert loader._begun is None
    assert (loader.epoch, loader.step, loader.counts.samples) == (1, 0, 296)


@pytest.mark.parametrize("name", ["text", "packed"])
def test_what_was_begun_is_not_delivered_elsewhere(folder, name):
    """A state that is loaded, a step that is set, a copy of the loader: all go on where they say."""
    options = {**OPTIONS, **LOADERS[name]}
    wanted, loader = expected(folder, 25, **options), TokenLoader(folder, **options)
    ids_of(loader, 9)
    state = loader.state_dict()
    assert loader._begun is not None
    for other in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader)):
        np.testing.assert_equal(ids_of(other, 3), wanted[9:12])
    loader.load_state_dict({**state, "step": 3, "mark": None})
    np.testing.assert_equal(ids_of(loader, 4), wanted[3:7])
    loader.step = 15
    np.testing.assert_equal(ids_of(loader, 4), wanted[15:19])
    loader.load_state_dict(state)
    np.testing.assert_equal(ids_of(loader, 16), wanted[9:25])


def test_new_weights_hold_from_the_next_batch_on(folder):
    def sources(**weights: float) -> TokenLoader:
        mixture = Mixture([Source(dataset=folder, name=name, weight=weight) for name, weight in weights.items()])
        return TokenLoader(mixture, layout=TEXT, **OPTIONS)

    loader, other = sources(a=1, b=1), sources(a=1, b=1)
    ids_of(other, 10)
    for batch in itertools.islice(loader, 5):
        assert set(batch["source"].tolist()) == {0, 1}
    assert loader._begun is not None
    loader.set_weights({"a": 1, "b": 0})
    for batch in itertools.islice(loader, 5):
        assert set(batch["source"].tolist()) == {0}
    assert loader._begun is not None
    loader.load_state_dict(other.state_dict())  # of the same place, without the change
    np.testing.assert_equal(ids_of(loader, 5), ids_of(other, 5))


def test_an_error_is_that_of_its_own_batch(tmp_path):
    """The one that is begun ahead does not take the one before it away."""
    examples = made.pairs(80, max_text=4)
    examples[41] = Example(index=123, key="x", spans=(made.image(*range(36)),))
    folder = made.make_dataset(tmp_path, [examples])
    options = {"global_batch_size": 8, "shuffle": False, "layout": Caption(max_length=30, too_long="raise")}
    loader = TokenLoader(folder, **options)
    assert len(ids_of(loader, 5)) == 5
    for _ in range(2):
        assert loader.step == 5
        with pytest.raises(UserError, match="does not fit"):
            next(iter(loader))


@pytest.mark.parametrize("name", ["text", "packed"])
def test_a_child_finishes_what_was_begun(folder, name):
    """It has none of the threads that are at it: half of the rows may be there."""
    options = {**OPTIONS, **LOADERS[name]}
    wanted, loader = expected(folder, 40, **options), TokenLoader(folder, **options)
    for step in range(30):
        np.testing.assert_equal(ids_of(loader, 1), wanted[step : step + 1])
        if step % 3 == 2:
            assert in_child(lambda at=step: np.testing.assert_equal(ids_of(loader, 9), wanted[at + 1 : at + 10])) == 0
    np.testing.assert_equal(ids_of(loader, 10), wanted[30:40])


@pytest.mark.slow
@pytest.mark.parametrize("who", ["helpers", "a thread that ends it"])
def test_a_fork_in_the_middle_of_a_copy(loops, who):
    """Those who are at it are not there in the child, which does it again, with helpers of its own.

    A large one: it goes on while the process forks.
    """
    num_rows, width = 2500, 8192
    ids = np.arange(num_rows * width, dtype="i4")
    place = loops.place_rows(ids, np.arange(num_rows) * width, np.full(num_rows, width))
    out, wanted = np.empty((num_rows, width), np.int64), ids.reshape(num_rows, width)

    def finish() -> None:
        last.finish()
        np.testing.assert_array_equal(out, wanted)

    def in_the_child() -> None:
        finish()
        assert not helpers()
        place(out, 0, num_rows, None, 0, 0)
        assert len(helpers()) == 2

    for _ in range(3):
        out[:] = UNTOUCHED
        last = threads.Later()
        place(out, 0, num_rows, None, 0, 0, later=last)
        assert last.is_used
        ending = threading.Thread(target=last.finish)
        if who != "helpers":
            ending.start()
        begun = time.monotonic()
        while (out[:, 0] == UNTOUCHED).all() and time.monotonic() < begun + 10:
            pass
        assert in_child(in_the_child) == 0
        if who != "helpers":
            ending.join()
        finish()


@pytest.mark.slow
def test_a_fork_while_others_copy(folder):
    """Threads of the parent are anywhere in a copy, and not there in the child."""
    wanted = expected(folder, 36, **OPTIONS, layout=TEXT)
    is_over = threading.Event()

    def iterate() -> None:
        while not is_over.is_set():
            ids_of(TokenLoader(folder, **OPTIONS, layout=TEXT), 36)

    def work() -> None:
        np.testing.assert_equal(ids_of(TokenLoader(folder, **OPTIONS, layout=TEXT), 36), wanted)

    others = [threading.Thread(target=iterate) for _ in range(2)]
    for thread in others:
        thread.start()
    try:
        assert [in_child(work) for _ in range(20)] == [0] * 20
    finally:
        is_over.set()
        for thread in others:
            thread.join()


def test_loaders_in_several_threads(folder):
    """They share the helpers; a batch that one thread began is finished by another."""
    options = {**OPTIONS, "layout": Text(max_length=20)}
    wanted = expected(folder, 30, **options)
    loaders = [TokenLoader(folder, **options) for _ in range(4)]
    found: list[list[np.ndarray]] = [[] for _ in loaders]

    def iterate(first: int) -> None:
        for at in range(len(loaders)):
            which = (first + at) % len(loaders)
            with locks[which]:
                found[which] += ids_of(loaders[which], 7 + (first == 0 and 2))

    locks = [threading.Lock() for _ in loaders]
    running = [threading.Thread(target=iterate, args=(first,)) for first in range(4)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for of_loader in found:
        assert len(of_loader) == 30
        np.testing.assert_equal(of_loader, wanted)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("name", ["text", "caption", "packed"])
def test_a_lookup_that_failed_is_done_again(folder, name, num_threads, monkeypatch):
    """As of a file system that comes back: an error leaves the loader where it was, also one that was met ahead."""
    options = {**OPTIONS, **LOADERS[name]}
    wanted, look_up = expected(folder, 60, **options), TokenDataset.spans
    torch.set_num_threads(num_threads)

    def fail_sometimes(dataset: TokenDataset, rows: np.ndarray) -> object:
        num_calls[0] += 1
        if num_calls[0] % 2:
            raise OSError("the disk is away")
        return look_up(dataset, rows)

    num_calls, num_errors, found = [0], 0, []
    loader = TokenLoader(folder, **options)
    monkeypatch.setattr(TokenDataset, "spans", fail_sometimes)
    while len(found) < 60:
        try:
            found += ids_of(loader, 1)
        except OSError:
            num_errors += 1
    np.testing.assert_equal(found, wanted)
    assert num_errors or num_threads > 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", [pytest.param("text", marks=pytest.mark.slow), "packed"])
def test_interrupts_anywhere(folder, name):
    """As by Ctrl-C: the batch that was asked for is delivered the next time, whole."""
    options = {**OPTIONS, **LOADERS[name], "num_epochs": 1}
    wanted = [batch.tolist() for batch in expected(folder, 100, **options)]

    def interrupt(number: int, frame: object) -> None:
        raise InterruptedError

    rng, num_interrupts, before = random.Random(0), 0, signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(25):
            loader, found, longest_s = TokenLoader(folder, **options), [], 3e-4
            while len(found) < len(wanted):
                at = loader.step
                with contextlib.suppress(InterruptedError):
                    try:
                        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, longest_s))
                        batch = loader._next()
                        signal.setitimer(signal.ITIMER_REAL, 0)
                        found.append(batch["input_ids"].tolist())
                        longest_s = 3e-4
                        continue
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                num_interrupts += 1
                longest_s *= 1.05  # on a slow machine nothing is ever done in time
                if len(found) < loader.step or loader.epoch:  # the interrupt came when it had moved on
                    loader = TokenLoader(folder, **options)
                    loader.step = at
            assert found == wanted
    finally:
        signal.signal(signal.SIGALRM, before)
    assert num_interrupts > 20
    with ThreadPoolExecutor(1) as pool:  # another thread, for which a lock that was left taken is shut
        assert pool.submit(recycled._lock.acquire, timeout=5).result()
        pool.submit(recycled._lock.release).result()
    gc.collect()


def test_a_batch_that_a_signal_handler_makes_is_whole(folder):
    """In the middle of a `next` of another loader: what that may leave, this may not."""
    options = {"global_batch_size": 150, "layout": Text(max_length=8192, add_bos=False, add_eos=False, pad_id=7)}
    options["layout"] = dataclasses.replace(options["layout"], keys=("input_ids",))
    other, loader = TokenLoader(folder, **options), TokenLoader(folder, **options)
    with alone():
        wanted = other.batch_at(0, 1)["input_ids"].clone()
    found = []

    def handle(number: int, frame: object) -> None:
        batch = other.batch_at(0, 1)["input_ids"]
        found.append(torch.equal(batch[-20:], wanted[-20:]))

    rng, before = random.Random(0), signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(300):
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
            next(iter(loader))
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(found) > 10
    assert all(found)


def test_another_thread_may_be_importing_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", type(sys)("torch"))
    assert threads.num_threads() == 1


def test_nothing_is_kept_of_a_loader_that_is_gone(folder):
    before = set(threads._kept)
    loader = TokenLoader(folder, **OPTIONS, layout=TEXT)
    ids_of(loader, 5)
    assert loader._begun is not None
    assert set(threads._kept) > before
    del loader
    gc.collect()
    assert set(threads._kept) == before


def test_helpers_take_no_signals_and_sleep(folder):
    ids_of(TokenLoader(folder, **OPTIONS, layout=TEXT), 5)
    found = helpers()
    assert 2 <= len(found) <= 7
    for task in found:
        status = dict(line.split(":\t") for line in (task / "status").read_text().splitlines() if ":\t" in line)
        blocked = {number for number in signal.Signals if int(status["SigBlk"], 16) >> (number - 1) & 1}
        assert blocked >= {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD}
        assert not blocked & {signal.SIGSEGV, signal.SIGBUS}
    deadline = time.monotonic() + 10
    while any(state(task)[0] != "S" for task in found) and time.monotonic() < deadline:
        time.sleep(0.01)
    before = [state(task) for task in found]
    time.sleep(0.2)
    assert [state(task) for task in found] == before
    loader = TokenLoader(folder, **OPTIONS, layout=TEXT)
    for batch in itertools.islice(loader, 30):  # as of a training whose steps take a while
        assert len(batch["index"]) == 8
        time.sleep(0.01)
    used = sum(int(ticks) for task in found for ticks in state(task)[1:]) - sum(
        int(ticks) for ticks in itertools.chain.from_iterable(of_task[1:] for of_task in before)
    )
    assert used <= 3, "hundredths of a second in 30 batches: they look out for more only where these come quickly"


def state(task: Path) -> tuple[str, ...]:
    """Of a thread: its state, and its time of the processor."""
    fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
    return fields[0], *fields[11:13]


def test_as_many_threads_as_torch_has(folder):
    with alone():
        assert threads.num_threads() == 1
        loader = TokenLoader(folder, **OPTIONS, layout=TEXT)
        ids_of(loader, 5)
        assert loader._begun is None
    assert threads.num_threads() == 3


def test_threads_that_make_batches_ahead_copy_alone(folder):
    """Each of them is one of several that copy at the same time."""
    numbers: list[int] = []

    class Noting(TokenLoader):
        def take(self):
            make = super().take()

            def noted():
                numbers.append(threads.num_threads())
                return make()

            return make and noted

    ahead = iter(BackgroundLoader(Noting(folder, **OPTIONS)))
    next(ahead)
    ahead.close()
    assert set(numbers) == {1}


def test_workers_of_a_dataloader_copy_alone(folder):
    class Numbers(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> int:
            return threads.num_threads()

    assert [int(n) for n in torch.utils.data.DataLoader(Numbers(), num_workers=2)] == [1] * 4


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sys.exit(0)", "pass", "os._exit(0)", "raise KeyboardInterrupt"])
def test_the_process_ends_while_they_copy(folder, how):
    code = f"""
import os, sys, torch
from hpcdata import TokenLoader
from hpcdata.native.compiled import kernels
from hpcdata.loading.layouts.named import Text
kernels().set_min_bytes_each(1)
torch.set_num_threads(3)
loader = TokenLoader({str(folder)!r}, global_batch_size=60, layout=Text(max_length=4096, add_bos=False, add_eos=False))
for _ in range(3):
    next(iter(loader))
assert loader._begun is not None
{how}
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=100)
    if "Keyboard" in how:
        assert done.stderr.rstrip().endswith("KeyboardInterrupt")
        assert done.returncode in (130, -signal.SIGINT)
    else:
        assert (done.returncode, done.stderr) == (0, "")

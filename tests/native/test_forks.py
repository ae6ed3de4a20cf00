"""python -m pytest tests/native/test_forks.py"""

import os
import pickle
import threading
import time
from pathlib import Path

from hpcdata import BackgroundLoader, TokenDataset, TokenLoader
from hpcdata.loading.layouts.named import Caption
from hpcdata.native import recycled
from hpcdata.native.forks import ForkLock, Lazy
from tests.loading import made


def in_child(work) -> int:
    """Exit status of a forked child that does `work`; 99 when it hangs."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return 99


def test_a_child_has_the_locks_free():
    """A thread holds them when the process forks, and is not there in the child."""
    locks = [ForkLock(), recycled._lock]
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with locks[0], locks[1]:
            held.set()
            release.wait(20)

    def work() -> None:
        with locks[0]:
            recycled.empty((2**17,), bool)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert in_child(work) == 0
    finally:
        release.set()
        thread.join()


def test_cached_values_have_no_lock_of_python():
    """`functools.cached_property` has one for all instances, and a child can find it held."""
    for path in Path(recycled.__file__).parent.glob("*.py"):
        assert "import cached_property" not in path.read_text(), path


def test_a_copy_is_another_lock():
    lock = ForkLock()
    with lock, lock, pickle.loads(pickle.dumps(lock)):
        pass


def test_lazy_is_computed_once():
    class Thing:
        calls = 0

        @Lazy
        def value(self) -> int:
            self.calls += 1
            return 7

    thing = Thing()
    assert (thing.value, thing.value, thing.calls) == (7, 7, 1)


def test_workers_are_forked_while_threads_run(tmp_path):
    """As for a DataLoader of validation data that is begun in the middle of training."""
    dataset = TokenDataset(made.make_dataset(tmp_path, made.split(made.pairs(100))))
    options = {"global_batch_size": 4, "packing": 60, "layout": Caption()}
    ahead = BackgroundLoader(TokenLoader(dataset, **options), num_threads=3)
    batches = iter(ahead)
    for _ in range(20):
        next(batches)
        assert in_child(lambda: TokenLoader(dataset, **options).batch_at(1, 2)) == 0
    batches.close()

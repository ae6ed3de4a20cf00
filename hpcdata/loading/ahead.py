"""BackgroundLoader: the batches of a loader, prepared ahead by threads.

    loader = BackgroundLoader(TokenLoader("/out", global_batch_size=256), num_ahead=4, pin_memory=True)
    for batch in loader:
        ...
        state = loader.state_dict()       # of the batches that were delivered, not of those that were prepared

The threads take turns to decide what is in the next batch, and copy it at the same time, outside of the interpreter's
lock; batches arrive in their order. They are stopped when the iterator is closed or collected; they never outlive the
process, and nothing is shared with other processes.
"""

from __future__ import annotations

import atexit
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from hpcdata.errors import UserError

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


class ResumableLoader(Protocol):
    """What TokenLoader is, and whatever else makes batches and knows where it stands."""

    def take(self) -> Callable[[], Tensors] | None:
        """Moves on by one batch and returns what makes it, in whichever thread it is called; None at the end."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class BackgroundLoader:
    """Iterates over the same batches as `loader`, which belongs to this object from then on."""

    def __init__(
        self, loader: ResumableLoader, *, num_ahead: int = 4, num_threads: int = 2, pin_memory: bool = False
    ) -> None:
        """`num_ahead`: batches that are ready or in work. `pin_memory`: copies them to page-locked memory, for
        `.to(device, non_blocking=True)`.
        """
        if min(num_ahead, num_threads) < 1:
            raise UserError(f"num_ahead={num_ahead}, num_threads={num_threads}: expected at least 1 each")
        self.loader = loader
        self._num_ahead, self._num_threads, self._pin_memory = num_ahead, num_threads, pin_memory
        self._state = loader.state_dict()
        self._workers: _Workers | None = None

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Tensors]:
        """From where the last delivered batch left off; an iterator that was begun before is closed."""
        self._stop()
        self.loader.load_state_dict(self._state)
        workers = self._workers = _Workers(self.loader, self._num_ahead, self._num_threads, self._pin_memory)
        try:
            for batch, state in workers.batches():
                self._state = state
                yield batch
        finally:
            workers.stop()

    def state_dict(self) -> dict[str, Any]:
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state` with the next iterator. Raises UserError as the loader does."""
        self._stop()
        self.loader.load_state_dict(state)
        self._state = self.loader.state_dict()

    def _stop(self) -> None:
        if self._workers is not None:
            self._workers.stop()
            self._workers = None


_running: weakref.WeakSet[_Workers] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """A thread that is copying when the interpreter goes away would take the process down with it."""
    for workers in list(_running):
        workers.stop()


class _Workers:
    """The threads, and the batches that they have ready or in work."""

    def __init__(self, loader: ResumableLoader, num_ahead: int, num_threads: int, pin_memory: bool) -> None:
        self._loader, self._pin_memory = loader, pin_memory
        self._ready: queue.Queue[tuple[Future[Tensors | None], dict[str, Any]]] = queue.Queue(num_ahead)
        self._turn = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="hpcdata-ahead", daemon=True) for _ in range(num_threads)
        ]
        _running.add(self)
        for thread in self._threads:
            thread.start()

    def batches(self) -> Iterator[tuple[Tensors, dict[str, Any]]]:
        while not self._stopped.is_set():
            slot, state = self._ready.get()
            batch = slot.result()
            del slot  # it would hold the batch as well
            if batch is None:
                return
            yield batch, state

    def stop(self) -> None:
        """Returns when the threads have left the loader alone."""
        self._stopped.set()
        for thread in self._threads:
            while thread.is_alive() and not sys.is_finalizing():  # daemons never end in an interpreter that does
                try:
                    self._ready.get(timeout=0.01)
                except queue.Empty:
                    thread.join(0.01)

    def _run(self) -> None:
        while (work := self._take()) is not None:
            slot, make = work
            self._fill(slot, make)
            del slot, make, work  # they would hold the batch, and its memory

    def _fill(self, slot: Future[Tensors | None], make: Callable[[], Tensors]) -> None:
        try:
            batch = make()
            if self._pin_memory:
                batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
            slot.set_result(batch)
        except BaseException as error:  # handed to the thread that iterates
            slot.set_exception(error)

    def _take(self) -> tuple[Future[Tensors | None], Callable[[], Tensors]] | None:
        """The next batch to make, with its place in the order; None when there is nothing left to do."""
        with self._turn:
            if self._stopped.is_set():
                return None
            slot: Future[Tensors | None] = Future()
            make = None
            try:
                make = self._loader.take()
                if make is None:
                    slot.set_result(None)
            except BaseException as error:  # as above
                slot.set_exception(error)
            self._ready.put((slot, self._loader.state_dict()))
            return None if make is None else (slot, make)

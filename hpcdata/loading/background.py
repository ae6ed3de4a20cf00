"""BackgroundLoader: the batches of a loader, prepared ahead by threads.

    loader = TokenLoader("/out", global_batch_size=256)
    for batch in BackgroundLoader(loader, num_ahead=4, pin_memory=True):
        ...
        state = loader.state_dict()       # of the batches that were delivered, not of those that were prepared

The threads take turns to decide what is in the next batch, and copy it at the same time, outside of the interpreter's
lock; batches arrive in their order, and so does an error. They use a fork of the loader; the loader itself moves when a
batch is delivered. So state, counts and account are of the delivered batches, whoever is asked, the loader or the
BackgroundLoader. New weights hold from the next batch on, and a loop follows a state that either of them is given. The
threads end when the iterator is closed or collected, soon after: nobody waits for them there, as the garbage collector
may close it in any line, also in one that they wait for. They never outlive the process, and nothing is shared with
other processes.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from hpcdata.base.errors import UserError
from hpcdata.native.threads import copy_alone
from hpcdata.order.checking import whole
from hpcdata.order.looping import Waits

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]
    Made = tuple[Tensors, Any]
    _Work = tuple[Callable[[], Made] | BaseException | None, dict[str, Any]]
    _Result = tuple[Made | BaseException | None, dict[str, Any]]


_LOOK_EVERY_S = 0.1


class ResumableLoader(Protocol):
    """What TokenLoader is, and whatever else makes batches and knows where it stands."""

    waits: Waits

    @property
    def place(self) -> object:
        """Another value once it goes on elsewhere, or by other weights."""
        ...

    def fork(self) -> ResumableLoader:
        """Another loader at the same place, for other threads: neither moves the other."""
        ...

    def follow(self, state: dict[str, Any]) -> None:
        """Goes where its fork stood when that returned `state`."""
        ...

    def take(self) -> Callable[[], Made] | None:
        """Moves on by one batch and returns what makes it, in whichever thread it is called; None at the end."""
        ...

    def count(self, counts: Any) -> None:
        """Called when the batch is delivered."""
        ...

    def end(self) -> None:
        """Called where there is no further batch."""
        ...

    def set_epoch(self, epoch: int) -> None: ...

    def set_weights(self, weights: Mapping[str, float]) -> None: ...

    def account(self) -> dict[str, Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class BackgroundLoader:
    """Iterates over the same batches as `loader`, and moves it with each of them: the two always stand at one place."""

    def __init__(
        self, loader: ResumableLoader, *, num_ahead: int = 8, num_threads: int = 2, pin_memory: bool = False
    ) -> None:
        """`num_ahead`: batches that are ready or in work; a thread makes a few of them at a time, as handing them over
        costs time, too. `pin_memory`: copies them to page-locked memory, for `.to(device, non_blocking=True)`.
        """
        if not hasattr(loader, "fork"):
            raise UserError(f"a {type(loader).__name__} was given: expected a TokenLoader or a MultimodalLoader")
        num_ahead, num_threads = whole("num_ahead", num_ahead), whole("num_threads", num_threads)
        if min(num_ahead, num_threads) < 1:
            raise UserError(f"num_ahead={num_ahead}, num_threads={num_threads}: expected at least 1 each")
        self.loader = loader
        self._num_ahead, self._num_threads, self._pin_memory = num_ahead, num_threads, pin_memory
        self.waits = loader.waits
        """For batches of the two together."""
        self._workers: _Workers | None = None
        self._iteration: object = None

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Tensors]:
        """From where the loader stands; an iterator that was begun before is closed."""
        self._stop()
        mine = self._iteration = object()
        while self._iteration is mine:
            workers = self._workers = _Workers(self.loader.fork(), self._num_ahead, self._num_threads, self._pin_memory)
            place = self.loader.place
            try:
                while workers is self._workers and self.loader.place == place:  # else it was moved, or weighted anew
                    asked = time.perf_counter()
                    made, state = workers.next()
                    if made is None:
                        self.loader.end()
                        return
                    self.waits.add(time.perf_counter() - asked)
                    self.loader.follow(state)
                    self.loader.count(made[1])
                    place = self.loader.place
                    batch = made[0]
                    del made
                    yield batch
                    del batch  # it would keep the memory of the last batch from the next ones
            finally:
                workers.is_wanted = False

    def __getstate__(self) -> dict[str, Any]:
        """The threads belong to this process, and what they have ready to its loop."""
        return {**vars(self), "_workers": None, "_iteration": None}

    def state_dict(self) -> dict[str, Any]:
        """As the loader does: of the batches that were delivered."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state` with the next batch. Raises UserError as the loader does."""
        self.loader.load_state_dict(state)

    def set_epoch(self, epoch: int) -> None:
        """As the loader does: to the first batch of an epoch, if it does not stand in it."""
        self.loader.set_epoch(epoch)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """As the loader does: from the next batch on, as what was prepared is made anew."""
        self.loader.set_weights(weights)

    def account(self) -> dict[str, Any]:
        """As the loader does, up to the last batch that was delivered."""
        return self.loader.account()

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
        self._at_a_time = max(1, num_ahead // (2 * num_threads))
        self._ready: queue.Queue[Future[deque[_Result]]] = queue.Queue(num_ahead // self._at_a_time)
        self._results: deque[_Result] = deque()
        self._turn = threading.Lock()
        self.is_wanted = True
        """Once this is false the threads end, the next time that one of them looks."""
        self._threads = [
            threading.Thread(target=self._run, name="hpcdata-ahead", daemon=True) for _ in range(num_threads)
        ]
        _running.add(self)
        for thread in self._threads:
            thread.start()

    def next(self) -> tuple[Made | None, dict[str, Any]]:
        """The next batch, None behind the last, with the state after it. Raises what its thread raised."""
        if not self._results:
            self._results = self._ready.get().result()
        made, state = self._results.popleft()
        if isinstance(made, BaseException):
            raise made
        return made, state

    def stop(self) -> None:
        """Returns when the threads have left."""
        self.is_wanted = False
        for thread in self._threads:
            while thread.is_alive() and not sys.is_finalizing():  # daemons never end in an interpreter that does
                try:
                    self._ready.get(timeout=0.01)
                except queue.Empty:
                    thread.join(0.01)

    def _run(self) -> None:
        copy_alone()
        while (work := self._take()) is not None:
            slot, makes = work
            slot.set_result(deque((self._made(make), state) for make, state in makes))
            del slot, makes, work  # they would hold the batches, and their memory

    def _made(self, make: Callable[[], Made] | BaseException | None) -> Made | BaseException | None:
        if not callable(make):
            return make
        try:
            batch, counts = make()
            if self._pin_memory:
                batch = {k: v.pin_memory() if hasattr(v, "pin_memory") else v for k, v in batch.items()}
            return batch, counts
        except BaseException as error:  # handed to the thread that iterates
            return error

    def _take(self) -> tuple[Future[deque[_Result]], list[_Work]] | None:
        """The next batches to make, with their place in the order; None when there is nothing left to do."""
        with self._turn:
            if not self.is_wanted:
                return None
            slot: Future[deque[_Result]] = Future()
            makes: list[_Work] = []
            while len(makes) < self._at_a_time and (not makes or callable(makes[-1][0])):
                makes.append(self._take_one())
            if not self._put(slot):
                return None
            if not callable(makes[-1][0]):  # nothing comes behind it
                self.is_wanted = False
            return slot, makes

    def _put(self, slot: Future[deque[_Result]]) -> bool:
        """Waits for room behind the others; False when it is not wanted any more."""
        while self.is_wanted:
            with contextlib.suppress(queue.Full):
                self._ready.put(slot, timeout=_LOOK_EVERY_S)
                return True
        return False

    def _take_one(self) -> _Work:
        """What makes the next batch and the state after it: None behind the last, or what was raised."""
        try:
            make = self._loader.take()
            return make, self._loader.state_dict()
        except BaseException as error:  # as above
            return error, {}

"""BackgroundLoader: the batches of a loader, prepared ahead by a thread.

    loader = BackgroundLoader(TokenLoader("/out", global_batch_size=256), num_ahead=4, pin_memory=True)
    for batch in loader:
        ...
        state = loader.state_dict()       # of the batches that were delivered, not of those that were prepared

One thread is enough: batches are copied outside of the interpreter's lock. It is stopped when the iterator is closed or
collected; it never outlives the process, and nothing is shared with other processes.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from hpcdata.errors import UserError

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]


class ResumableLoader(Protocol):
    """What TokenLoader is, and whatever else yields batches and knows where it stands."""

    def __iter__(self) -> Iterator[Tensors]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class BackgroundLoader:
    """Iterates over the same batches as `loader`, which belongs to this object from then on."""

    def __init__(self, loader: ResumableLoader, *, num_ahead: int = 2, pin_memory: bool = False) -> None:
        """`pin_memory`: copies batches to page-locked memory, for `.to(device, non_blocking=True)`."""
        if num_ahead < 1:
            raise UserError(f"num_ahead={num_ahead}: expected at least 1")
        self.loader = loader
        self._num_ahead, self._pin_memory = num_ahead, pin_memory
        self._state = loader.state_dict()
        self._worker: _Worker | None = None

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Tensors]:
        """From where the last delivered batch left off; an iterator that was begun before is closed."""
        self._stop()
        self.loader.load_state_dict(self._state)
        worker = self._worker = _Worker(self.loader, self._num_ahead, self._pin_memory)
        try:
            for batch, state in worker.batches():
                self._state = state
                yield batch
        finally:
            worker.stop()

    def state_dict(self) -> dict[str, Any]:
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state` with the next iterator. Raises UserError as the loader does."""
        self._stop()
        self.loader.load_state_dict(state)
        self._state = self.loader.state_dict()

    def _stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


class _Worker:
    """The thread, and the batches that it has ready."""

    def __init__(self, loader: ResumableLoader, num_ahead: int, pin_memory: bool) -> None:
        self._loader, self._pin_memory = loader, pin_memory
        self._ready: queue.Queue[tuple[Tensors, dict[str, Any]] | BaseException | None] = queue.Queue(num_ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hpcdata-ahead", daemon=True)
        self._thread.start()

    def batches(self) -> Iterator[tuple[Tensors, dict[str, Any]]]:
        while not self._stopped.is_set():
            item = self._ready.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def stop(self) -> None:
        """Returns when the thread has left the loader alone."""
        self._stopped.set()
        while self._thread.is_alive() and not sys.is_finalizing():  # daemons never end in an interpreter that does
            try:
                self._ready.get(timeout=0.01)
            except queue.Empty:
                self._thread.join(0.01)

    def _run(self) -> None:
        try:
            for batch in self._loader:
                if self._pin_memory:
                    batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
                self._ready.put((batch, self._loader.state_dict()))
                if self._stopped.is_set():
                    return
            self._ready.put(None)
        except BaseException as error:  # handed to the thread that iterates
            self._ready.put(error)

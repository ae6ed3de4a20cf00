"""python -m pytest tests/loading/test_block_prefetch.py"""

import pickle
import threading

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.loading.block_prefetch import BlocksAhead
from hpcdata.order.order import BlockOrder, ShuffledOrder

ORDER = BlockOrder(num_samples=120, block_rows=10, window_blocks=4)


class Slow:
    """A dataset that answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer, self.num_rows = threading.Event(), 0

    def will_read(self, ranges: np.ndarray) -> None:
        self.may_answer.wait(10)
        self.num_rows += int(ranges[:, 1].sum())


def test_a_window_is_waited_for_and_the_next_one_is_not():
    dataset, ahead = Slow(), BlocksAhead()
    first = threading.Thread(target=ahead.reach, args=(dataset, 0, ORDER, 0, 0, 20))
    first.start()
    first.join(0.05)
    assert first.is_alive()
    dataset.may_answer.set()
    first.join()
    assert dataset.num_rows >= 40
    dataset.may_answer.clear()
    assert ahead.reach(dataset, 0, ORDER, 0, 20, 40)  # returns, though nobody answers
    dataset.may_answer.set()
    assert ahead.reach(dataset, 0, ORDER, 0, 40, 80)
    assert dataset.num_rows >= 80


def test_other_orders_ask_for_nothing():
    assert not BlocksAhead().reach(Slow(), 0, ShuffledOrder(num_samples=9), 0, 0, 9)


def test_what_cannot_be_opened_is_an_error_elsewhere():
    class Damaged:
        def will_read(self, ranges: np.ndarray) -> None:
            raise UserError("missing")

    assert BlocksAhead().reach(Damaged(), 0, ORDER, 0, 0, 20)


def test_a_copy_begins_anew():
    ahead, dataset = BlocksAhead(), Slow()
    dataset.may_answer.set()
    ahead.reach(dataset, 0, ORDER, 0, 0, 20)
    copy = pickle.loads(pickle.dumps(ahead))
    before = dataset.num_rows
    copy.reach(dataset, 0, ORDER, 0, 0, 20)
    assert dataset.num_rows >= before + 40

"""Records are read and prepared ahead, the bytes of few large ones are held.   pytest tests/work/test_preparing.py"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hpcdata.samples import BadSample, Blob, ImagePart, Member, Reason, Record, Reject, Sample, TextPart
from hpcdata.work import preparing
from hpcdata.work.preparing import decoding_threads, prepare_batches


def sample(position: int, size: int) -> Sample:
    blob = Blob(path="x", data=bytes([position]) * size)
    parts = (TextPart(text=f"text {position}"), ImagePart(blob=blob))
    return Sample(position=position, key=str(position), parts=parts, members=(Member(extension="png", blob=blob),))


def test_large_records_wait_until_others_are_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "MOST_HELD_BYTES", 1000)
    monkeypatch.setattr(preparing, "_LARGE_BYTES", 150)
    sizes = [10, 200, 200, 10, 200, 900, 200, 10, 200] * 5
    lock, prepared = threading.Lock(), set[int]()

    def records() -> Iterator[Record]:
        for position, size in enumerate(sizes):
            with lock:
                held = [2 * sizes[other] for other in range(position) if other not in prepared and sizes[other] > 75]
            assert sum(held) <= max([1000, *held])
            yield (
                sample(position, size)
                if position != 3
                else Reject(position=3, key="3", reason=Reason.BAD_JSON, message="")
            )

    def prepare(record: Record) -> list[np.ndarray]:
        with lock:
            prepared.add(record.position)
        if record.position == 5:
            raise BadSample(Reason.TRUNCATED, "cut")
        return [np.full(3, record.position, np.uint8)]

    with decoding_threads(2) as threads:
        batches = list(prepare_batches(records(), batch_size=7, threads=threads, prepare=prepare))
    assert [len(batch.records) for batch in batches] == [7] * 6 + [3]
    found = [pair for batch in batches for pair in zip(batch.records, batch.prepared, strict=True)]
    for position, (record, arrays) in enumerate(found):
        assert record.position == position
        assert isinstance(arrays, BadSample) == (position == 5)
        if position not in (3, 5):
            assert arrays[0].tolist() == [position] * 3
        if isinstance(record, Sample):
            text, picture = record.parts
            assert text == TextPart(text=f"text {position}")
            assert isinstance(picture, ImagePart)
            assert picture.blob.data == (None if sizes[position] > 75 else bytes([position]) * sizes[position])
            assert [member.extension for member in record.members] == ["png"]


def test_what_is_prepared_and_not_taken_is_bounded_and_the_first_batch_never_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preparing, "MOST_PREPARED_BYTES", 1000)
    begun, taken = set[int](), [0]
    num_threads = 3

    def prepare(record: Record) -> list[np.ndarray]:
        begun.add(record.position)
        held = 300 * len([position for position in begun if position >= 4 * taken[0]])
        first = 4 * 300  # of the batch that is waited for
        assert held <= first + 1000 + num_threads * 300
        return [np.zeros(300, np.uint8)]

    records = (Sample(position=position, key=str(position), parts=()) for position in range(80))
    with decoding_threads(num_threads) as threads:
        for batch in prepare_batches(records, batch_size=4, threads=threads, prepare=prepare, ahead=10):
            assert [record.position for record in batch.records] == list(range(4 * taken[0], 4 * taken[0] + 4))
            taken[0] += 1
    assert begun == set(range(80))


def test_threads_that_wait_for_room_end_with_their_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "MOST_PREPARED_BYTES", 1)
    records = (Sample(position=position, key=str(position), parts=()) for position in range(20))
    with decoding_threads(4) as threads:
        batches = prepare_batches(
            records, batch_size=1, threads=threads, prepare=lambda record: [np.zeros(9, np.uint8)], ahead=10
        )
        assert next(batches).records[0].position == 0  # and nobody takes or closes the rest
    assert threads.is_ending


class Many:
    """Prepares two at a time: each ends when the next one begins, by its position or an error."""

    def __init__(self, fails_at: int = -1) -> None:
        self.most, self.over = 2, lambda key, number: None
        self.begun = list[int]()
        self._fails_at = fails_at

    def __call__(self, record: Record) -> list[np.ndarray]:
        raise NotImplementedError

    def begin(self, record: Record, done: Callable[[Callable[[], list[np.ndarray]]], None]) -> None:
        self.begun.append(record.position)

        def end() -> list[np.ndarray]:
            if record.position == self._fails_at:
                raise OSError("lost")
            return [np.full(1, record.position, np.uint8)]

        threading.Timer(0.001 * (1 + 3 * (record.position % 2)), lambda: done(end)).start()

    def close(self) -> None:
        """Its timers end by themselves."""


def test_records_that_are_prepared_at_once_come_in_their_order_and_end_with_an_error() -> None:
    def found(many: Many) -> list[int]:
        records = (Sample(position=position, key=str(position), parts=()) for position in range(50))
        with decoding_threads(1) as threads:
            batches = prepare_batches(records, batch_size=4, threads=threads, prepare=many, ahead=3)
            return [int(arrays[0][0]) for batch in batches for arrays in batch.prepared if isinstance(arrays, list)]

    assert found(Many()) == list(range(50))
    many = Many(fails_at=21)
    with pytest.raises(OSError, match="lost"):
        found(many)
    assert len(many.begun) < 50

"""CPU time of decoding threads.   pytest tests/work/test_watchdog.py"""

from __future__ import annotations

import threading
import time

from hpcdata.work.watchdog import PictureWatch

LIMIT_S = 0.02


def test_only_cpu_time_of_one_record_counts_and_more_for_more_pictures() -> None:
    ended: list[str] = []
    watch = PictureWatch(LIMIT_S, None)
    watch._end = lambda: ended.append("ended")  # no thread looks: only this test does
    with watch.over("a", 1):
        time.sleep(3 * LIMIT_S)
        watch.check()
    assert ended == []
    with watch.over("a", 1000):
        burn(3 * LIMIT_S)
        watch.check()
    assert ended == []
    watch.check()
    assert ended == [], "nothing is decoded"
    with watch.over("a", 1):
        burn(1.5 * LIMIT_S)
        watch.check()
    assert ended == ["ended"]


def test_a_thread_that_takes_too_much_is_ended_by_the_watch_itself() -> None:
    ended = threading.Event()
    watch = PictureWatch(LIMIT_S, ended.set)

    def decode() -> None:
        with watch.over("a", 1):
            while not ended.is_set():
                pass

    thread = threading.Thread(target=decode)
    thread.start()
    thread.join()
    watch.close()


def burn(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass

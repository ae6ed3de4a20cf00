"""python -m pytest tests/net/test_limits.py"""

from email.utils import formatdate

import pytest

from hpcdata.net import limits
from hpcdata.net.limits import HostLimits, retry_after
from hpcdata.net.loop import drive
from tests.net.loops import ran


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(limits, "time", self)

    def monotonic(self):
        return self.now

    def time(self):
        return self.now

    async def sleep(self, seconds):
        """As the loop's."""
        self.now += seconds


def began(found, clock, host):
    drive(found.begin(host))
    found.end(host)
    return clock.now - 1000


def test_each_host_has_its_own_rate(monkeypatch):
    clock = Clock(monkeypatch)
    found = HostLimits(clock, per_second=4)
    times = [(host, began(found, clock, host)) for host in "aabab"]
    assert times == [("a", 0), ("a", 0.25), ("b", 0.25), ("a", 0.5), ("b", 0.5)]


def test_a_host_that_asks_for_it_is_left_alone(monkeypatch):
    clock = Clock(monkeypatch)
    found = HostLimits(clock)
    found.pause("a", 30)
    found.pause("a", 10)
    assert [began(found, clock, host) for host in "ba"] == [0, 30]


def test_a_pause_holds_for_those_who_wait_already(monkeypatch):
    clock = Clock(monkeypatch)
    found = HostLimits(clock, per_second=1)
    began(found, clock, "a")
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 1:
            found.pause("a", 5)
        clock.now += seconds

    clock.sleep = sleep
    assert began(found, clock, "a") == 5
    assert slept == [1, 4]


def test_no_more_than_so_many_ask_at_once_and_who_waits_longest_is_next(loop):
    found, order, most, asking = HostLimits(loop, at_once=2), [], [0], [0]

    async def ask(number):
        await found.begin("a")
        asking[0] += 1
        most[0] = max(most[0], asking[0])
        await loop.sleep(0.001)
        order.append(number)
        asking[0] -= 1
        found.end("a")

    ran(loop, *map(ask, range(9)))
    assert (most, sorted(order)) == ([2], order)


def test_hosts_that_are_done_with_are_forgotten(monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(limits, "_MOST_HOSTS", 3)
    found = HostLimits(clock, per_second=1)
    for host in "abcdefgh":
        began(found, clock, host)
        clock.now += 2
    assert len(found._hosts) <= 4


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("0", 0), ("9999", 60), ("", None), ("soon", None), ("-5", None), ("9" * 400, 60), ("٣", None)],
)
def test_seconds_to_wait(text, seconds):
    assert retry_after({"retry-after": text}, most_s=60) == seconds


def test_a_date_to_wait_for(monkeypatch):
    Clock(monkeypatch)
    assert retry_after({"retry-after": formatdate(1030, usegmt=True)}, most_s=60) == 30
    assert retry_after({"retry-after": formatdate(970, usegmt=True)}, most_s=60) == 0
    assert retry_after({"retry-after": "Fri, 99 Foo"}, most_s=60) is None
    assert retry_after({}, most_s=60) is None

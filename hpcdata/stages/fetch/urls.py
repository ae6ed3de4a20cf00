"""URL -> picture: each is asked for once by a task, and again where its host was busy.

A listing has rows of one URL side by side, so what came of the last few hundred URLs is enough to ask for none twice.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpcdata.base.version import code_version
from hpcdata.config.array import parse_array
from hpcdata.config.schema import RunConfig
from hpcdata.net import Client, Cut, HostLimits, Loop, Refused, Settings, Turn, Unreachable, retry_after
from hpcdata.net.addresses import parse, shown
from hpcdata.runs.plan import Plan
from hpcdata.samples import BadSample, Reason
from hpcdata.stages.fetch.hosts import Hosts
from hpcdata.stages.fetch.network import Network, witnesses_of
from hpcdata.stages.fetch.outcomes import Busy, Rules, body_of, sha256_of

_LAST, _LAST_BYTES = 512, 1 << 27
"""URLs whose outcome is remembered, and bytes of their pictures."""
_FIRST_WAIT_S = 0.5
_DAY_S = 86_400.0


@dataclass(kw_only=True, slots=True)
class Body:
    """What a host gave."""

    data: bytes
    sha256: str
    kind: str
    """Its Content-Type."""


@dataclass(kw_only=True, slots=True)
class Got:
    """What came of a URL, for all its rows."""

    data: bytes = b""
    sha256: str = ""
    is_picture: bool = False
    """By its first bytes."""
    bad: BadSample | None = None


LookAt = Callable[[Body], Awaitable[None]]
"""Raises BadSample for what is no picture, or one that nobody can open."""


class _Asking:
    """A URL that somebody asks for, or has asked for."""

    __slots__ = ("error", "got", "waiting")

    def __init__(self) -> None:
        self.got: Got | None = None
        self.error: BaseException | None = None
        self.waiting: list[Turn] = []


class Urls:
    """For any number of coroutines of a loop."""

    def __init__(self, config: RunConfig, rules: Rules, plan: Plan, loop: Loop) -> None:
        self._config, self._rules, self._loop = config.fetch, rules, loop
        contact = f" (+{config.fetch.contact})" if config.fetch.contact else ""
        settings = Settings(
            agent=f"hpcdata/{code_version()}{contact}",
            connect_s=min(10.0, config.fetch.timeout_s),
            read_s=config.fetch.timeout_s,
            allows_private=config.fetch.allow_private,
        )
        self._client = Client(settings, loop, most_connecting=config.fetch.connections)
        share = 1 / tasks_at_once(config)
        rate, at_once = config.fetch.host_rate, config.fetch.host_connections
        self._limits = HostLimits(
            loop, per_second=rate and rate * share, at_once=max(1, int(at_once * share)) if at_once else None
        )
        self._probes = Client(settings)
        self._network = Network(self._probes, witnesses_of(plan, Path(config.data.token_output_dir)))
        self._probing = ThreadPoolExecutor(config.fetch.connections, thread_name_prefix="network")
        self._hosts = Hosts()
        self._last: OrderedDict[str, _Asking] = OrderedDict()
        self._last_bytes = 0

    def close(self) -> None:
        """Ends its loop and closes its connections."""
        self._loop.close()
        self._client.close()
        self._probes.close()
        self._probing.shutdown(wait=False)

    async def got(self, url: str, sha256: str, look_at: LookAt) -> Got:
        """Raises BadSample: what came of the URL, for whichever of its rows asked first."""
        asking = self._last.get(url)
        if asking is None:
            asking = self._last[url] = _Asking()
            await self._fill(asking, url, sha256, look_at)
        else:
            self._last.move_to_end(url)
            if asking.got is None and asking.error is None:
                turn = Turn(self._loop)
                asking.waiting.append(turn)
                await turn
        if asking.error is not None:
            raise asking.error
        got = asking.got
        assert got is not None
        bad = got.bad
        if sha256 and got.is_picture and got.sha256 != sha256:
            bad = BadSample(Reason.SHA256_DIFFERS, f"sha256 {got.sha256}, expected {_as_shown(sha256)}")
        if bad is not None:
            raise BadSample(bad.reason, f"{shown(url)}: {bad.message}")
        return got

    async def _fill(self, asking: _Asking, url: str, sha256: str, look_at: LookAt) -> None:
        try:
            asking.got = await self._came(url, sha256, look_at)
            self._last_bytes += len(asking.got.data)
        except BaseException as error:
            self._last.pop(url, None)
            asking.error = error
        for turn in asking.waiting:
            turn.wake()
        asking.waiting = []
        while len(self._last) > _LAST or self._last_bytes > _LAST_BYTES:
            oldest = next((name for name, item in self._last.items() if item.got is not None), None)
            if oldest is None or oldest == url:
                break
            found = self._last.pop(oldest).got
            self._last_bytes -= len(found.data) if found is not None else 0

    async def _came(self, url: str, sha256: str, look_at: LookAt) -> Got:
        try:
            body = await self._body(url, sha256)
        except BadSample as bad:
            return Got(bad=BadSample(bad.reason, bad.message))  # without its traceback
        try:
            await look_at(body)
        except BadSample as bad:
            is_picture = bad.reason not in (Reason.URL_REFUSED, Reason.EMPTY_IMAGE)
            return Got(sha256=body.sha256, is_picture=is_picture, bad=BadSample(bad.reason, bad.message))
        return Got(data=body.data, sha256=body.sha256, is_picture=True)

    async def _body(self, url: str, sha256: str) -> Body:
        """Bytes of another sha256 are asked for once more: a bit may have flipped on the way."""
        try:
            name = parse(url).name
        except Refused as error:
            raise BadSample(Reason.URL_REFUSED, str(error)) from None
        self._hosts.require_open(name)
        waited, why, other = 0.0, "", None
        for attempt in range(self._config.tries):
            if attempt:
                await self._loop.sleep(min(_FIRST_WAIT_S * 2 ** (attempt - 1), self._config.max_wait_s))
            asked = _Asked()
            await self._limits.begin(name)
            since = time.monotonic()
            try:
                found = await self._ask(url, name, since, asked)
            except Refused as error:
                raise BadSample(Reason.URL_REFUSED, str(error)) from None
            except (Busy, Cut) as error:
                why = str(error)
            except Unreachable as error:
                why = str(error)
                self._hosts.failed(name)
            else:
                if not sha256 or found.sha256 == sha256 or other is not None:
                    return found
                other = found
            finally:
                self._limits.end(name)
            if asked.wait_s and waited + asked.wait_s > self._config.max_wait_s:
                self._hosts.close(name, asked.wait_s, why)
                break
            waited += asked.wait_s
            self._limits.pause(name, asked.wait_s)
        if other is not None and not why:
            return other
        if self._config.on_unreachable == "stop":
            await self._loop.in_thread(partial(self._network.require, since), self._probing)
        self._hosts.close_if_down(name, why)
        raise BadSample(Reason.URL_FAILED, why)

    async def _ask(self, url: str, name: str, now: float, asked: _Asked) -> Body:
        with await self._client.ask(url, until=now + self._config.timeout_s) as answer:
            self._network.hear()
            self._hosts.reached(name)
            asked.wait_s = retry_after(answer.headers, most_s=_DAY_S) or 0.0
            data, kind = await body_of(answer, self._rules), answer.headers.get("content-type", "")
        return Body(data=data, sha256=sha256_of(data), kind=kind)


@dataclass(slots=True)
class _Asked:
    """What a host has said beside its answer."""

    wait_s: float = 0.0


def tasks_at_once(config: RunConfig) -> int:
    """How many tasks of the run fetch at a time, as far as its settings say."""
    if config.cluster.kind == "inline":
        return 1
    return max(1, parse_array(config.cluster.array).max_running * config.cluster.nodes * config.cluster.tasks_per_node)


def _as_shown(sha256: str) -> str:
    return "".join(char for char in sha256[:64] if char.isalnum()) or "another"

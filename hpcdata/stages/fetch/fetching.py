"""The pictures of a record by their URLs: each is asked for once by a task, and again where its host was busy.

A listing has rows of one URL side by side, so what came of the last few hundred URLs is enough to ask for none twice.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.base.version import code_version
from hpcdata.config.array import parse_array
from hpcdata.config.schema import FetchConfig, RunConfig
from hpcdata.net import Client, Cut, HostLimits, Refused, Settings, Unreachable, retry_after
from hpcdata.net.addresses import parse, shown
from hpcdata.runs.plan import Plan
from hpcdata.samples import BadSample, Reason, Record, Sample
from hpcdata.sources.base import TEXT_FIELDS, is_plain
from hpcdata.sources.pictures.fields import IMAGE_FIELDS
from hpcdata.sources.records import load
from hpcdata.sources.url_lists.fields import field_of, urls_in
from hpcdata.stages.copy.members import Limits, read_members
from hpcdata.stages.fetch.network import Network, witnesses_of
from hpcdata.stages.fetch.outcomes import Busy, Rules, body_of, require_picture, sha256_of

_REPLACED = {*IMAGE_FIELDS, "url", "sha256"} - {"file_name"}
"""Fields of a row that named its pictures, or said what those said that are here now."""
SHA256_FIELDS = ("image_sha256", "sha256")
_LAST, _LAST_BYTES = 512, 1 << 27
"""URLs whose outcome is remembered, and bytes of their pictures."""
_FIRST_WAIT_S = 0.5
_DOWN_AFTER, _DOWN_S, _DAY_S = 9, 60.0, 86_400.0
"""A host that could not be reached so often in a row is not asked for so long."""


class Fetcher:
    """What threads do to a record: its members as they are, then its pictures. Raises BadSample or MachineFault."""

    def __init__(self, plan: Plan) -> None:
        """plan: with the settings of the latest launch."""
        config = plan.config
        self._config, self._rules = config.fetch, Rules.of(config)
        self._own = Limits(max_bytes=config.data.max_record_bytes, max_pixels=None)
        self._urls = _Urls(config, self._rules, plan)
        self._texts = (config.data.text_field,) if config.data.text_field else TEXT_FIELDS

    def __call__(self, record: Record) -> list[np.ndarray]:
        """The record as JSON with what came, its text or nothing, its pictures; its members where it has no JSON."""
        if not isinstance(record, Sample):
            return []
        members = read_members(record, self._own)
        if not has_fields(record):
            return members
        fields = load(members[0].tobytes())
        assert isinstance(fields, dict)  # or its source had rejected it
        urls, sums = wanted(fields, self._config)
        got = [self._urls.got(url, digest) for url, digest in zip(urls, sums, strict=True)]
        kept = {name: value for name, value in fields.items() if name not in _REPLACED}
        found = [item.sha256 for item in got]
        kept |= {"url": urls[0] if len(urls) == 1 else urls, "sha256": found[0] if len(found) == 1 else found}
        text = next((fields[name] for name in self._texts if is_plain(fields.get(name))), "")
        pieces = [json.dumps(kept, ensure_ascii=False).encode(), text.encode(), *(item.data for item in got)]
        return [np.frombuffer(piece, np.uint8) for piece in pieces]


def has_fields(record: Sample) -> bool:
    return bool(record.members) and record.members[0].extension == "json"


def wanted(fields: Mapping[str, Any], config: FetchConfig) -> tuple[list[str], list[str]]:
    """The URLs of a record, and the sha256 of each or nothing. Raises BadSample."""
    name = field_of(fields, config.url_field)
    if name is None:
        raise BadSample(Reason.MISSING_IMAGE, f"no URL in {config.url_field or 'the record'}")
    urls = urls_in(fields, name)
    if not urls:
        raise BadSample(Reason.MISSING_IMAGE, f"{name} is empty")
    names = (config.sha256_field,) if config.sha256_field else SHA256_FIELDS
    value = next((fields[name] for name in names if fields.get(name)), None) if config.check_sha256 else None
    sums = value if isinstance(value, list) else [value]
    if value is None or len(sums) != len(urls):
        return urls, [""] * len(urls)
    return urls, [item.strip().lower() if isinstance(item, str) else "" for item in sums]


@dataclass(frozen=True, kw_only=True)
class _Got:
    """What came of a URL, for all its rows."""

    data: bytes = b""
    sha256: str = ""
    is_picture: bool = False
    """By its first bytes."""
    bad: BadSample | None = None


class _Urls:
    """URL -> picture, for any number of threads."""

    def __init__(self, config: RunConfig, rules: Rules, plan: Plan) -> None:
        self._config, self._rules = config.fetch, rules
        contact = f" (+{config.fetch.contact})" if config.fetch.contact else ""
        self._client = Client(
            Settings(
                agent=f"hpcdata/{code_version()}{contact}",
                connect_s=min(10.0, config.fetch.timeout_s),
                read_s=config.fetch.timeout_s,
                allows_private=config.fetch.allow_private,
            )
        )
        share = 1 / tasks_at_once(config)
        rate, at_once = config.fetch.host_rate, config.fetch.host_connections
        self._limits = HostLimits(
            per_second=rate and rate * share, at_once=max(1, int(at_once * share)) if at_once else None
        )
        self._network = Network(self._client, witnesses_of(plan, Path(config.data.token_output_dir)))
        self._hosts = _Hosts()
        self._last: OrderedDict[str, Future[_Got]] = OrderedDict()
        self._last_bytes, self._lock = 0, threading.Lock()

    def got(self, url: str, sha256: str) -> _Got:
        """Raises BadSample: what came of the URL, for whichever of its rows asked first."""
        with self._lock:
            future = self._last.get(url)
            is_first = future is None
            if future is None:
                future = self._last[url] = Future()
            else:
                self._last.move_to_end(url)
        if is_first:
            self._fill(url, sha256, future)
        got = future.result()
        bad = got.bad
        if sha256 and got.is_picture and got.sha256 != sha256:
            bad = BadSample(Reason.SHA256_DIFFERS, f"sha256 {got.sha256}, expected {_as_shown(sha256)}")
        if bad is not None:
            raise BadSample(bad.reason, f"{shown(url)}: {bad.message}")
        return got

    def _fill(self, url: str, sha256: str, future: Future[_Got]) -> None:
        try:
            future.set_result(self._came(url, sha256))
        except BaseException as error:
            with self._lock:
                self._last.pop(url, None)
            future.set_exception(error)
            return
        with self._lock:
            self._last_bytes += _size(future)
            while len(self._last) > _LAST or self._last_bytes > _LAST_BYTES:
                done = next((name for name, item in self._last.items() if item.done()), None)
                if done is None or done == url:
                    break
                self._last_bytes -= _size(self._last.pop(done))

    def _came(self, url: str, sha256: str) -> _Got:
        try:
            body = self._body(url, sha256)
        except BadSample as bad:
            return _Got(bad=BadSample(bad.reason, bad.message))  # without its traceback
        try:
            require_picture(body.data, body.kind, self._rules)
        except BadSample as bad:
            is_picture = bad.reason not in (Reason.URL_REFUSED, Reason.EMPTY_IMAGE)
            return _Got(sha256=body.sha256, is_picture=is_picture, bad=BadSample(bad.reason, bad.message))
        return _Got(data=body.data, sha256=body.sha256, is_picture=True)

    def _body(self, url: str, sha256: str) -> _Body:
        """Bytes of another sha256 are asked for once more: a bit may have flipped on the way."""
        try:
            name = parse(url).name
        except Refused as error:
            raise BadSample(Reason.URL_REFUSED, str(error)) from None
        self._hosts.require_open(name)
        waited, why, other = 0.0, "", None
        for attempt in range(self._config.tries):
            if attempt:
                time.sleep(min(_FIRST_WAIT_S * 2 ** (attempt - 1), self._config.max_wait_s))
            asked = _Asked()
            with self._limits.turn(name):
                since = time.monotonic()
                try:
                    found = self._ask(url, name, since, asked)
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
            if asked.wait_s and waited + asked.wait_s > self._config.max_wait_s:
                self._hosts.close(name, asked.wait_s, why)
                break
            waited += asked.wait_s
            self._limits.pause(name, asked.wait_s)
        if other is not None and not why:
            return other
        if self._config.on_unreachable == "stop":
            self._network.require(since)
        self._hosts.close_if_down(name, why)
        raise BadSample(Reason.URL_FAILED, why)

    def _ask(self, url: str, name: str, now: float, asked: _Asked) -> _Body:
        with self._client.get(url, until=now + self._config.timeout_s) as answer:
            self._network.hear()
            self._hosts.reached(name)
            asked.wait_s = retry_after(answer.headers, most_s=_DAY_S) or 0.0
            data, kind = body_of(answer, self._rules), answer.headers.get("content-type", "")
        return _Body(data=data, sha256=sha256_of(data), kind=kind)


@dataclass(frozen=True, kw_only=True)
class _Body:
    data: bytes
    sha256: str
    kind: str
    """Its Content-Type."""


@dataclass
class _Asked:
    """What a host has said beside its answer."""

    wait_s: float = 0.0


class _Hosts:
    """Hosts that are not asked for a while."""

    def __init__(self) -> None:
        self._closed: dict[str, tuple[float, str]] = {}
        self._failures: dict[str, int] = {}
        self._lock = threading.Lock()

    def require_open(self, host: str) -> None:
        """Raises BadSample."""
        with self._lock:
            until, why = self._closed.get(host, (0.0, ""))
            if until and until <= time.monotonic():
                del self._closed[host]
            elif until:
                raise BadSample(Reason.URL_FAILED, why)

    def close(self, host: str, seconds: float, why: str) -> None:
        with self._lock:
            self._closed[host] = time.monotonic() + seconds, why

    def reached(self, host: str) -> None:
        with self._lock:
            self._failures.pop(host, None)

    def failed(self, host: str) -> None:
        with self._lock:
            self._failures[host] = self._failures.get(host, 0) + 1

    def close_if_down(self, host: str, why: str) -> None:
        with self._lock:
            if self._failures.get(host, 0) >= _DOWN_AFTER:
                self._closed[host] = time.monotonic() + _DOWN_S, why


def tasks_at_once(config: RunConfig) -> int:
    """How many tasks of the run fetch at a time, as far as its settings say."""
    if config.cluster.kind == "inline":
        return 1
    return max(1, parse_array(config.cluster.array).max_running * config.cluster.nodes * config.cluster.tasks_per_node)


def _size(future: Future[_Got]) -> int:
    return len(future.result().data)


def _as_shown(sha256: str) -> str:
    return "".join(char for char in sha256[:64] if char.isalnum()) or "another"

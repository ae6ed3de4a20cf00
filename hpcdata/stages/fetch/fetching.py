"""A record with URLs -> its JSON, its text and its pictures, many records at once in one thread."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from hpcdata.config.schema import FetchConfig
from hpcdata.net import Loop
from hpcdata.runs.plan import Plan
from hpcdata.samples import BadSample, Reason, Record, Sample
from hpcdata.sources.base import TEXT_FIELDS, is_plain
from hpcdata.sources.parsing import load
from hpcdata.sources.pictures.fields import IMAGE_FIELDS
from hpcdata.sources.pictures.numbered import base_of, numbered
from hpcdata.sources.url_lists.fields import urls_of
from hpcdata.stages.copy.members import Limits, read_members
from hpcdata.stages.fetch.outcomes import Rules, is_plain_jpeg, require_decodable, require_picture
from hpcdata.stages.fetch.urls import Body, Got, Urls

_PICTURES = {*IMAGE_FIELDS} - {"file_name"}
_REPLACED = {*_PICTURES, "url", "sha256"}
"""Fields of a row that named its pictures, or said what those said that are here now."""
SHA256_FIELDS = ("image_sha256", "sha256")
Arrays = list[np.ndarray]
_as_json = json.JSONEncoder(ensure_ascii=False).encode
"""One for all: `json.dumps` makes one for each."""


class Fetcher:
    """What is done to a record before its batch is made: see `hpcdata.runs.stage.PreparesAtOnce`."""

    def __init__(self, plan: Plan) -> None:
        """plan: with the settings of the latest launch."""
        config = plan.config
        self.most = config.fetch.connections
        self.over: Callable[[str, int], AbstractContextManager[None]] = lambda key, number: contextlib.nullcontext()
        self._config, self._rules = config.fetch, Rules.of(config)
        self._own = Limits(max_bytes=config.data.max_record_bytes, max_pixels=None)
        self._loop = Loop("fetching")
        self._urls = Urls(config, self._rules, plan, self._loop)
        self.close = weakref.finalize(self, self._urls.close)
        self.close.atexit = False
        self._texts = (config.data.text_field,) if config.data.text_field else TEXT_FIELDS
        self._decoders = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="decode")

    def __call__(self, record: Record) -> Arrays:
        """The record as JSON with what came, its text or nothing, its pictures; its members where it has no JSON.

        Raises BadSample or MachineFault.
        """
        ends: queue.SimpleQueue[Callable[[], Arrays]] = queue.SimpleQueue()
        self.begin(record, ends.put)
        return ends.get()()

    def begin(self, record: Record, done: Callable[[Callable[[], Arrays]], None]) -> None:
        """The same, without waiting: `done` gets, in the loop's thread, what returns or raises it."""

        def end(found: Arrays | None, error: BaseException | None) -> None:
            done(lambda: _found(found, error))

        self._loop.start(self._prepared(record), end)

    async def _prepared(self, record: Record) -> Arrays:
        if not isinstance(record, Sample):
            return []
        members = read_members(record, self._own)
        if not has_fields(record):
            return members
        fields = load(members[0].tobytes())
        assert isinstance(fields, dict)  # or its source had rejected it
        urls, sums = wanted(fields, self._config)

        async def looked_at(body: Body) -> None:
            await self._look_at(body, record.key)

        got = [await self._urls.got(url, digest, looked_at) for url, digest in zip(urls, sums, strict=True)]
        return self._written(fields, urls, got)

    async def _look_at(self, body: Body, key: str) -> None:
        """Raises BadSample. Decoding may take long: threads do it, but for what takes less than to change to one."""
        require_picture(body.data, body.kind)
        if self._rules.max_pixels is None or is_plain_jpeg(body.data, self._rules):
            return

        def decode() -> None:
            with self.over(key, 1):
                require_decodable(body.data, self._rules)

        await self._loop.in_thread(decode, self._decoders)

    def _written(self, fields: Mapping[str, Any], urls: list[str], got: list[Got]) -> Arrays:
        kept = {name: value for name, value in fields.items() if not self._is_replaced(name)}
        found = [item.sha256 for item in got]
        kept |= {"url": urls[0] if len(urls) == 1 else urls, "sha256": found[0] if len(found) == 1 else found}
        text = next((fields[name] for name in self._texts if is_plain(fields.get(name))), "")
        pieces = [_as_json(kept).encode(), text.encode(), *(item.data for item in got)]
        return [np.frombuffer(piece, np.uint8) for piece in pieces]

    def _is_replaced(self, name: str) -> bool:
        """Fields with numbers are, where they are fetched."""
        return name in _REPLACED or (not self._config.url_field and base_of(name) in _PICTURES)


def _found(found: Arrays | None, error: BaseException | None) -> Arrays:
    if error is not None:
        raise error
    assert found is not None
    return found


def has_fields(record: Sample) -> bool:
    return bool(record.members) and record.members[0].extension == "json"


def wanted(fields: Mapping[str, Any], config: FetchConfig) -> tuple[list[str], list[str]]:
    """The URLs of a record, and the sha256 of each or nothing. Raises BadSample."""
    urls = urls_of(fields, config.url_field)
    if not urls:
        raise BadSample(Reason.MISSING_IMAGE, f"no URL in {config.url_field or 'the record'}")
    names = (config.sha256_field,) if config.sha256_field else SHA256_FIELDS
    sums = next(filter(None, (_sums(fields, name) for name in names)), []) if config.check_sha256 else []
    if len(sums) != len(urls):
        return urls, [""] * len(urls)
    return urls, [item.strip().lower() if isinstance(item, str) else "" for item in sums]


def _sums(fields: Mapping[str, Any], name: str) -> list[Any]:
    """The values of a field and of those of its name with a number."""
    found = [fields[field] for field in (name, *numbered(fields).get(name, ())) if fields.get(field)]
    return [item for value in found for item in (value if isinstance(value, list) else [value])]

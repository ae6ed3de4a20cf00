"""The index format of wids: which tars belong to a dataset, and how many samples each holds."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of, read_beginning
from hpcdata.sources.base import refusing_faults
from hpcdata.sources.patterns import is_remote, remote_error

INDEX_NAMES = ("index.json", "shardindex.json")
KIND = "wids-shard-index-v1"
_SNIFF_BYTES = 4096
_LIMIT_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class IndexedShard:
    path: str
    num_samples: int


def is_index(path: str) -> bool:
    """Whether the beginning of a JSON file says that it is an index."""
    with refusing_faults(path):
        beginning = read_beginning(path, _SNIFF_BYTES)
    return beginning.lstrip()[:1] == b"{" and any(
        mark in beginning for mark in (b'"wids_version"', KIND.encode(), b'"shardlist"')
    )


def read_index(path: str) -> list[IndexedShard]:
    """The tars that an index lists, relative to its folder (or its `base`). Raises UserError if one is missing."""
    index = _loaded(path)
    entries = index.get("shardlist")
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} has no shardlist: make the index again with python -m hpcdata.index")
    base = os.path.join(os.path.dirname(path), _local(index.get("base") or ""))
    shards = [_shard(path, base, number, entry) for number, entry in enumerate(entries)]
    with refusing_faults(path):
        missing = [shard.path for shard in shards if kind_of(shard.path) != "file"]
    if missing:
        raise UserError(f"{path}: {len(missing)} of {len(shards)} listed tars do not exist, the first is {missing[0]}")
    return shards


def _loaded(path: str) -> dict[str, Any]:
    with refusing_faults(path):
        data = read_beginning(path, _LIMIT_BYTES + 1)
    if len(data) > _LIMIT_BYTES:
        raise UserError(f"{path} has more than {_LIMIT_BYTES} bytes: no index is that long")
    try:
        index = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a readable index: {type(error).__name__}") from None
    if not isinstance(index, dict):
        raise UserError(f"{path} is not an index: expected an object with a shardlist")
    return index


def _shard(path: str, base: str, number: int, entry: object) -> IndexedShard:
    url, num_samples = (entry.get("url"), entry.get("nsamples")) if isinstance(entry, dict) else (None, None)
    if not isinstance(url, str) or not isinstance(num_samples, int) or isinstance(num_samples, bool):
        raise UserError(f"{path}: entry {number} of the shardlist has no url or no nsamples")
    return IndexedShard(path=os.path.abspath(os.path.join(base, _local(url))), num_samples=num_samples)


def _local(url: str) -> str:
    if url.startswith("file:"):
        return urlparse(url).path
    if is_remote(url):
        raise remote_error(url)
    return url

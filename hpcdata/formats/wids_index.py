"""Index tars for wids: `python -m hpcdata.index '/data/*.tar'` writes shardindex.json, as `widsindex create` does.

    {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": ...,
     "shardlist": [{"url": ..., "nsamples": ..., "filesize": ...}, ...]}

Only headers are read, in parallel over the files; `--checksums` adds the md5sum of every tar, which reads them whole.
Urls that were given as relative paths are relative to the index, absolute ones stay so. Samples are counted as wids
itself counts them when it opens a tar, so that every index is one that it can read.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of, read_at
from hpcdata.sources.base import InputFile, refusing_faults
from hpcdata.sources.patterns import expand_paths
from hpcdata.sources.streams import open_input
from hpcdata.sources.tar.headers import Damage, FileSource, members
from hpcdata.sources.tar.wids import KIND

_KEY = re.compile(rb"((?:.*/)?.*?)\.", re.DOTALL)
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_]+")
_PIECE_BYTES = 1 << 22
_ODD = frozenset("%#?")


@dataclass(frozen=True, kw_only=True)
class IndexedTar:
    path: str
    num_samples: int
    size_bytes: int
    md5sum: str | None
    damages: tuple[int, ...]
    """Offsets of damaged regions: wids stops reading at the first."""


def make_index(patterns: Sequence[str], output: str, *, num_workers: int, has_checksums: bool) -> list[IndexedTar]:
    """Writes the index of all tars that the patterns name. Raises UserError."""
    paths = sorted(set(expand_paths(patterns)))
    others = [path for path in paths if not path.lower().endswith(".tar") or _kind(path) != "file"]
    if others:
        raise UserError(f"{others[0]} is no plain tar: wids reads nothing else")
    folder = os.path.dirname(os.path.abspath(output))
    if _kind(folder) != "folder":
        raise UserError(f"--output={output}: the folder {folder} does not exist")
    tars = list(_indexed(paths, num_workers, has_checksums))
    is_relative = not any(os.path.isabs(os.path.expanduser(pattern)) for pattern in patterns)
    entries = [_entry(tar, os.path.relpath(tar.path, folder) if is_relative else tar.path) for tar in tars]
    entries.sort(key=lambda entry: str(entry["url"]))
    name = _name(os.path.splitext(patterns[0])[0])
    index = {"__kind__": KIND, "wids_version": 1, "shardlist": entries, "name": name}
    files.write_atomic(Path(output), json.dumps(index, indent=2).encode())
    return tars


def _kind(path: str) -> str:
    with refusing_faults(path):
        return kind_of(path)


def problems(tars: Sequence[IndexedTar]) -> list[str]:
    """What of an index wids does not read as it is meant, a sentence each."""
    odd = [tar.path for tar in tars if not _ODD.isdisjoint(os.path.basename(tar.path))]
    names = Counter(os.path.basename(tar.path) for tar in tars)
    equal = [name for name, count in names.items() if count > 1]
    found = [f"{odd[0]}: wids takes %, # and ? for parts of an address, and does not find such a file"] if odd else []
    if equal:
        found.append(f"{equal[0]} is in several folders: with cache_dir, wids takes one for the other")
    return found


def index_tar(path: str, *, has_checksum: bool) -> IndexedTar:
    """Counts the samples of one tar from its headers. Raises UserError for what is no tar at all."""
    descriptor = open_input(InputFile(path=path, label=path, format="tar"))
    try:
        damages: list[int] = []
        num_samples = count_samples(FileSource(descriptor), damages)
        md5sum = _md5sum(descriptor) if has_checksum else None
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    if damages[:1] == [0] and not num_samples:
        raise UserError(f"{path} is no plain tar, whatever its name says: it begins with no tar header")
    return IndexedTar(path=path, num_samples=num_samples, size_bytes=size, md5sum=md5sum, damages=tuple(damages))


def count_samples(source: FileSource, damages: list[int]) -> int:
    """Runs of members with the same key, of the members whose name is new and has a dot; notes damage."""
    seen: set[bytes] = set()
    num_samples, key = 0, b""
    for member in members(source):
        if isinstance(member, Damage):
            damages.append(member.start)
            continue
        match = _KEY.match(member.name)
        if match is None or member.name in seen:
            continue
        seen.add(member.name)
        if not num_samples or match[1] != key:
            num_samples, key = num_samples + 1, match[1]
    return num_samples


def _indexed(paths: list[str], num_workers: int, has_checksums: bool) -> Iterator[IndexedTar]:
    work = partial(index_tar, has_checksum=has_checksums)
    num_workers = min(num_workers, len(paths))
    if num_workers < 2:
        yield from map(work, paths)
        return
    with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
        yield from pool.imap(work, paths, chunksize=max(1, min(16, len(paths) // (4 * num_workers))))


def _entry(tar: IndexedTar, url: str) -> dict[str, str | int]:
    entry: dict[str, str | int] = {"url": url, "nsamples": tar.num_samples, "filesize": tar.size_bytes}
    return entry if tar.md5sum is None else entry | {"md5sum": tar.md5sum}


def _md5sum(descriptor: int) -> str:
    hasher = hashlib.md5(usedforsecurity=False)
    offset = 0
    while piece := read_at(descriptor, _PIECE_BYTES, offset):
        hasher.update(piece)
        offset += len(piece)
    return hasher.hexdigest()


def _name(path: str) -> str:
    """The words of a path that are no numbers, each once."""
    words = [word for word in _NOT_IN_NAME.split(path) if not re.fullmatch(r"\d*", word)]
    return "-".join(dict.fromkeys(words))

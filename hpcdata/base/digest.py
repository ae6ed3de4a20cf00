"""Digests: sha256 of files, and a content digest of examples that does not depend on how they are stored.

The content digest of a set of examples is the sum, modulo 2^256, of the BLAKE2b-256 hashes of the examples (a
multiset hash in the manner of AdHash: Bellare and Micciancio, 1997). It is the same for any order, any cut into
shards, compacted or not, and sums of shards add up to that of the dataset. It detects accidents, not forgers.

An example is hashed as: int32 number of spans; per span int32 kind, flags, height, width, length; then all ids as
int32; everything little-endian. Behind them come its raw texts, where it has some (`shards.raw_texts`).
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

_MODULUS = 2**256
_CHUNK_BYTES = 4 * 2**20
_FEW_FILES, _MOST_THREADS = 64, 4
_FILES_AT_ONCE = 8
"""That a thread is given: to give it one takes as long as to hash a small one."""
_WITH_THE_LOCK, _FEW_BYTES = 2048, 2**14
"""From so many bytes on hashlib lets other threads run."""


def sum_examples(
    *,
    num_spans: np.ndarray,
    spans: np.ndarray,
    num_ids: np.ndarray,
    ids: np.ndarray,
    behind: Sequence[bytes] | None = None,
) -> int:
    """The content digest of examples that lie end to end.

    num_spans: [num_examples], spans: [total spans, 5] int32 (kind, flags, height, width, length),
    num_ids: [num_examples], ids: [total ids] any integer dtype. behind: of each example, bytes to hash behind its ids.
    """
    import numpy as np  # what only looks at a run starts faster without

    counts = np.asarray(num_spans, np.int64)
    first_spans = np.cumsum(counts) - counts
    heads = memoryview(np.insert(np.asarray(spans, "<i4").ravel(), 5 * first_spans, counts).tobytes())
    id_bytes = memoryview(np.ascontiguousarray(ids, "<i4").view("u1").data)
    head_at = id_at = total = 0
    sizes = zip((20 * counts + 4).tolist(), (4 * num_ids).tolist(), behind or repeat(b"", len(counts)), strict=True)
    for head_size, id_size, more in sizes:
        hasher = hashlib.blake2b(heads[head_at : head_at + head_size], digest_size=32)
        hasher.update(id_bytes[id_at : id_at + id_size])
        hasher.update(more)
        total += int.from_bytes(hasher.digest(), "little")
        head_at, id_at = head_at + head_size, id_at + id_size
    return total % _MODULUS


class Hasher(Protocol):
    def update(self, data: Any, /) -> None: ...


def feed(hasher: Hasher, data: bytes | memoryview) -> None:
    """`hasher.update(data)`; of few bytes without letting other threads run: changing to one takes longer than they."""
    if len(data) < _WITH_THE_LOCK or len(data) > _FEW_BYTES:
        hasher.update(data)
        return
    for start in range(0, len(data), _WITH_THE_LOCK - 1):
        hasher.update(data[start : start + _WITH_THE_LOCK - 1])


def add(*digests: int) -> int:
    return sum(digests) % _MODULUS


def to_hex(digest: int) -> str:
    return f"{digest:064x}"


def from_hex(text: str) -> int:
    return int(text, 16)


def sha256_file(path: Path | str, *, size: int | None = None) -> str:
    """sha256 of a file or of its first `size` bytes."""
    hasher = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        remaining = os.fstat(file.fileno()).st_size if size is None else size
        while remaining and (chunk := file.read(min(_CHUNK_BYTES, remaining))):
            hasher.update(chunk)
            remaining -= len(chunk)
    if size is None and remaining:
        raise OSError(errno.EIO, f"it has {remaining} bytes less than it should", str(path))
    return hasher.hexdigest()


def sha256_files(paths: Sequence[Path | str]) -> list[str]:
    """`sha256_file` of each: of many in threads, as reading and hashing leave the interpreter's lock."""
    number = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    if len(paths) <= _FEW_FILES or number == 1:
        return [sha256_file(path) for path in paths]
    with ThreadPoolExecutor(number, thread_name_prefix="hash") as threads:
        pieces = [paths[start : start + _FILES_AT_ONCE] for start in range(0, len(paths), _FILES_AT_ONCE)]
        return list(chain.from_iterable(threads.map(_sha256_of_each, pieces)))


def _sha256_of_each(paths: Sequence[Path | str]) -> list[str]:
    return [sha256_file(path) for path in paths]

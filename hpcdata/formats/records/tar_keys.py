"""Names of samples in tars: which ones another reader would not take, and tars with other names for these.

A reader of several tars as one set asks that a name comes once in all of them (Energon refuses the set, others take
one sample for the other), and takes names that begin with two underscores for notes. Tars without such names stay as
they are; the others are written again, sample by sample: headers with a new name, contents as they were.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Mapping, Sequence

import numpy as np

from hpcdata.formats.records.copied import CopiedPart
from hpcdata.formats.records.tar_members import OpenTar, TarMember, TarSample, open_tar
from hpcdata.shards.appending import AppendFile

_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_NOTE = re.compile("__")
Names = dict[int, str]
"""Row of a part -> the name that its sample gets."""


def key_hashes(part: CopiedPart) -> np.ndarray:
    """[num_samples] uint64: a hash of each sample's name, all ones for one that no reader takes."""
    with open_tar(part) as tar:
        return np.array([_hash(sample.key) for sample in tar], np.uint64)


_REFUSED = np.uint64(2**64 - 1)


def _hash(key: str) -> int:
    if _NOTE.match(key):
        return int(_REFUSED)
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") >> 1


class Renames:
    """Which samples need another name: of those with equal names all but the first, and those that no reader takes.

    hashes: of each part. Two names with the same hash, one pair in 10^19, count as equal. Of all samples 8 bytes are
    held, of names those of the part that is asked for.
    """

    def __init__(self, parts: Sequence[CopiedPart], hashes: Sequence[np.ndarray]) -> None:
        every = np.concatenate([np.empty(0, np.uint64), *hashes])
        self._known, firsts = np.unique(every, return_index=True)
        is_kept = np.zeros(len(every), bool)
        is_kept[firsts] = True
        is_kept &= every != _REFUSED
        self._rows, first = dict[str, np.ndarray](), 0
        for part in parts:
            self._rows[part.name] = np.flatnonzero(~is_kept[first : first + len(part)])
            first += len(part)

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def of(self, part: CopiedPart) -> Names:
        """Row -> the old name and the number in the plan behind it, and `-2` where a sample has that name already."""
        rows = set(self._rows[part.name].tolist()) if part.name in self._rows else set()
        names = Names()
        if not rows:
            return names
        with open_tar(part) as tar:
            for sample in tar:
                if sample.row in rows:
                    name = f"{sample.key.lstrip('_') or 'sample'}-{int(part.index[sample.row]):09d}"
                    while self._is_taken(name):
                        name += "-2"
                    names[sample.row] = name
        return names

    def _is_taken(self, name: str) -> bool:
        """By a sample that was there; names that are given differ in their numbers."""
        found = np.uint64(_hash(name))
        place = int(np.searchsorted(self._known, found))
        return place < len(self._known) and bool(self._known[place] == found)


def write_renamed(part: CopiedPart, names: Mapping[int, str], out: AppendFile) -> np.ndarray:
    """Appends the tar with other names; returns [num_samples + 1] int64: where its samples begin, and the last ends."""
    begins = []
    with open_tar(part) as tar:
        for sample in tar:
            begins.append(out.size)
            name = names.get(sample.row)
            _copy(tar, sample.start, sample.end, out) if name is None else _rename(tar, sample, name, out)
    begins.append(out.size)
    out.append(bytes(-(-(out.size + 2 * _BLOCK) // _RECORD) * _RECORD - out.size))
    return np.array(begins, np.int64)


def _rename(tar: OpenTar, sample: TarSample, name: str, out: AppendFile) -> None:
    for member in sample.members:
        out.append(_header(tar, member, f"{name}.{member.extension}"))
        _copy(tar, member.offset, member.offset + member.size, out)
        out.append(bytes(-member.size % _BLOCK))


def _header(tar: OpenTar, member: TarMember, name: str) -> bytes:
    """The headers of a member with another name and all else as it was."""
    block = tar.read(member.offset - _BLOCK, _BLOCK)
    if member.offset - member.start == _BLOCK and name.isascii() and len(name) <= _NAME:
        return _with_checksum(
            name.encode().ljust(_NAME, b"\0") + block[_NAME:_PREFIX] + bytes(_END - _PREFIX) + block[_END:]
        )
    info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    info.name, info.size = name, member.size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


_NAME, _CHECKSUM, _PREFIX, _END = 100, 148, 345, 500
"""Where in a header (POSIX pax(1)): its name ends, its sum begins, what stands before the name begins and ends."""


def _with_checksum(block: bytes) -> bytes:
    total = sum(block[:_CHECKSUM]) + sum(block[_CHECKSUM + 8 :]) + 8 * ord(" ")
    return block[:_CHECKSUM] + b"%06o\0 " % total + block[_CHECKSUM + 8 :]


_PIECE = 1 << 22


def _copy(tar: OpenTar, start: int, end: int, out: AppendFile) -> None:
    for offset in range(start, end, _PIECE):
        out.append(tar.read(offset, min(_PIECE, end - offset)))

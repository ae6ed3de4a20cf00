"""The members of a tar gathered into samples, from a plain file or from a gzip stream that only goes forward."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hpcdata.base.reads import read_at
from hpcdata.samples import BadSample, Blob, Reason
from hpcdata.sources.base import InputFile, Scan
from hpcdata.sources.limits import LARGE_TEXT_BYTES, bounded
from hpcdata.sources.streams import BrokenStream, chunks, open_input
from hpcdata.sources.tar.headers import ByteSource, Damage, FileSource, Links, Member, members

_META_FOLDER = re.compile(rb"__[^/]*__/")
_PIECE_BYTES = 1 << 20
_HEAD_BYTES = 64
_JSON = b".json"
"""What a scan looks into, where it is not large."""


@dataclass(slots=True)
class Content:
    """A member's bytes: whether they are all there, and for a stream what is held of them and their digest."""

    member: Member
    is_complete: bool
    data: bytes | None = None
    digest: bytes = b""
    head: bytes = b""
    """Of a stream: its first bytes, at least 64 where there are so many."""
    end: int = 0
    """Where the member's own bytes end, also if it is a link and its content is elsewhere."""


@dataclass(slots=True)
class Group:
    """The members of one sample by extension, in order. `start` is where a walk finds it again."""

    start: int
    prefix: bytes
    contents: dict[bytes, Content] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return all(content.is_complete for content in self.contents.values())


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a scan found that an archive needs; by default it is read as all plans read it that say nothing."""

    last_dot: bool = False
    """A sample's name ends at its last dot, not at its first."""
    with_links: bool = False
    """Members that are stored as links are members."""
    pictures: bool = False
    """Pictures are all that `media.kinds` knows, by first bytes too, where a sample has none of the usual endings."""
    talks: bool = False
    """A `json` member with a conversation is one, see `tar.talks`."""
    several: bool = False
    """A sample without a conversation may have more pictures than one: they are all taken, or none."""
    links: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Where the link that starts at an offset leads: (offset, size) of the content."""

    @classmethod
    def of(cls, scan: Scan) -> Rules:
        links = {start: (offset, size) for start, offset, size in scan.links}
        return cls(links=links, **dict.fromkeys(scan.rules, True))

    def names(self) -> tuple[str, ...]:
        return tuple(name for name in ("last_dot", "with_links", "pictures", "talks", "several") if getattr(self, name))


class TarSource(ByteSource, Protocol):
    """An open archive. Contents are good until the next group is asked for."""

    rules: Rules

    def __enter__(self) -> TarSource: ...

    def __exit__(self, *error: object) -> None: ...

    def begin(self) -> None:
        """A new group begins with the next member."""
        ...

    def take(self, member: Member) -> Content: ...

    def head(self, content: Content, size: int) -> bytes:
        """The first bytes of a member."""
        ...

    def blob(self, content: Content, *, limit_bytes: int) -> Blob: ...

    def bytes_of(self, content: Content) -> bytes: ...

    def mark(self, group: Group) -> int | bytes:
        """What `digest` needs to know of a group, now or later."""
        ...

    def digest(self, mark: int | bytes) -> bytes: ...


def open_tar(file: InputFile, rules: Rules, *, limit_bytes: int, is_hashing: bool) -> TarSource:
    """`limit_bytes` bounds what a stream holds of one sample; `is_hashing` lets it answer `digest`."""
    if file.format == "tar":
        return _PlainTar(file, rules)
    return _GzipTar(file, rules, limit_bytes, is_hashing)


def groups(source: TarSource, start: int) -> Iterator[Group | Damage]:
    """Samples and damaged regions in order, from one that an earlier walk reported at `start`."""
    group: Group | None = None
    rules = source.rules
    for member in members(source, start, with_links=rules.with_links):
        if isinstance(member, Damage):
            if group is not None:
                yield group
                group = None
            yield member
            continue
        names = split_name(member.name, last_dot=rules.last_dot)
        if names is None or (member.target == member.name and not member.is_symbolic):  # packed twice
            continue
        prefix, extension = names
        if group is None or group.prefix != prefix or extension in group.contents:
            if group is not None:
                yield group
            group = Group(member.start, prefix)
            source.begin()
        end = member.offset + member.size
        if member.start in rules.links:
            offset, size = rules.links[member.start]
            member = Member(member.start, member.name, offset, size, False)
        content = source.take(member)
        content.end = end
        group.contents[extension] = content
        if not content.is_complete:
            break
    if group is not None:
        yield group


def split_name(name: bytes, *, last_dot: bool = False) -> tuple[bytes, bytes] | None:
    """(prefix, extension in lower case) of a member, or None if it belongs to no sample."""
    name = name.removeprefix(b"./")
    folder, slash, base = name.rpartition(b"/")
    stem, dot, extension = base.rpartition(b".") if last_dot else base.partition(b".")
    if not dot or not stem or (name.startswith(b"__") and _META_FOLDER.match(name)):
        return None
    return folder + slash + stem, extension.lower()


def tar_of_sample(descriptor: int, path: str, rules: Rules, start: int, data: bytes) -> TarSource:
    """A plain tar that is open, whose bytes from `start` on were read: what lies in them is not read again."""
    return _SampleOfTar(descriptor, path, rules, start, data)


class _PlainTar(FileSource):
    """An uncompressed tar: bytes stay where they are until they are asked for."""

    def __init__(self, file: InputFile, rules: Rules) -> None:
        super().__init__(open_input(file))
        self._path, self.rules = file.path, rules

    def __enter__(self) -> _PlainTar:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.descriptor)

    def begin(self) -> None:
        pass

    def take(self, member: Member) -> Content:
        return Content(member, member.offset + member.size <= self.length())

    def head(self, content: Content, size: int) -> bytes:
        return read_at(self.descriptor, min(size, content.member.size), content.member.offset)

    def blob(self, content: Content, *, limit_bytes: int) -> Blob:
        del limit_bytes  # checked when the blob is read
        return Blob(path=self._path, offset=content.member.offset, size=content.member.size)

    def bytes_of(self, content: Content) -> bytes:
        data = read_at(self.descriptor, content.member.size, content.member.offset)
        if len(data) != content.member.size:
            raise BadSample(Reason.TRUNCATED, "the archive became shorter while it was read")
        return data

    def mark(self, group: Group) -> int:
        return group.start

    def digest(self, mark: int | bytes) -> bytes:
        assert isinstance(mark, int)
        group = next(groups(self, mark))
        assert isinstance(group, Group)
        digests = {name: self._digest(content.member) for name, content in group.contents.items()}
        return _combined(digests)

    def _digest(self, member: Member) -> bytes:
        hasher = hashlib.blake2b(member.target, digest_size=16)
        offset, end = member.offset, member.offset + member.size
        while offset < end and (piece := read_at(self.descriptor, min(_PIECE_BYTES, end - offset), offset)):
            hasher.update(piece)
            offset += len(piece)
        return hasher.digest()


class _SampleOfTar(_PlainTar):
    """A part of an uncompressed tar that is in memory, pictures too. The descriptor is the caller's."""

    def __init__(self, descriptor: int, path: str, rules: Rules, start: int, data: bytes) -> None:
        FileSource.__init__(self, descriptor)
        self._path, self.rules = path, rules
        self._buffer, self._start = data, start
        self._held, self._first = data, start

    def __exit__(self, *error: object) -> None:
        pass

    def _data_of(self, member: Member) -> bytes | None:
        begin = member.offset - self._first
        return None if begin < 0 or begin + member.size > len(self._held) else self._held[begin : begin + member.size]

    def blob(self, content: Content, *, limit_bytes: int) -> Blob:
        data = self._data_of(content.member)
        if data is None:
            return super().blob(content, limit_bytes=limit_bytes)
        return Blob(path=self._path, offset=content.member.offset, size=content.member.size, data=data)

    def bytes_of(self, content: Content) -> bytes:
        data = self._data_of(content.member)
        return super().bytes_of(content) if data is None else data


class _GzipTar:
    """A gzipped tar: one pass forward. Members of a sample are held as long as they fit the limit together."""

    def __init__(self, file: InputFile, rules: Rules, limit_bytes: int, is_hashing: bool) -> None:
        self._file, self.rules, self.links = file, rules, Links()
        self._chunks: Generator[bytes, None, None] | None = None
        self._limit_bytes = self._left_bytes = limit_bytes
        self._is_hashing = is_hashing
        self._window, self._start = b"", 0
        self._problem: BrokenStream | None = None

    def __enter__(self) -> _GzipTar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._chunks is not None:
            self._chunks.close()

    def view(self, offset: int, size: int) -> bytes:
        if self._chunks is None:  # now it is known where reading begins
            pieces = chunks(self._file, seek=offset)
            self._chunks, self._start = (bounded(self._file, pieces) if self._is_hashing else pieces), offset
        while self.length() < offset + size and (chunk := self._next_chunk()):
            window = self._window + chunk
            passed = min(offset - self._start, len(window))
            self._window, self._start = window[passed:], self._start + passed
        begin = offset - self._start
        return self._window[begin : begin + size]

    def length(self) -> int:
        return self._start + len(self._window)

    def problem(self) -> tuple[Reason, str] | None:
        return None if self._problem is None else (self._problem.reason, self._problem.message)

    def begin(self) -> None:
        self._left_bytes = self._limit_bytes

    def take(self, member: Member) -> Content:
        is_read = self._is_hashing and member.name.endswith(_JSON) and member.size <= LARGE_TEXT_BYTES
        is_held = is_read or member.size <= self._left_bytes
        hasher = hashlib.blake2b(member.target, digest_size=16)
        held: list[bytes] = []
        head = b""
        offset, end = member.offset, member.offset + member.size
        while offset < end and (piece := self.view(offset, min(_PIECE_BYTES, end - offset))):
            head = head or piece[:_HEAD_BYTES]
            if is_held:
                held.append(piece)
            if self._is_hashing:
                hasher.update(piece)
            offset += len(piece)
        self._left_bytes -= member.size if is_held else 0
        data = b"".join(held) if is_held else None
        return Content(member, offset == end, data, hasher.digest(), head=head)

    def head(self, content: Content, size: int) -> bytes:
        return content.head[:size]

    def blob(self, content: Content, *, limit_bytes: int) -> Blob:
        if content.data is None:
            raise BadSample(Reason.OVERSIZED_IMAGE, self._too_much(content, limit_bytes))
        return Blob(path=self._file.path, data=content.data)

    def bytes_of(self, content: Content) -> bytes:
        if content.data is None:
            raise BadSample(Reason.OVERSIZED_TEXT, self._too_much(content, self._limit_bytes))
        return content.data

    def mark(self, group: Group) -> bytes:
        return _combined({name: content.digest for name, content in group.contents.items()})

    def digest(self, mark: int | bytes) -> bytes:
        assert isinstance(mark, bytes)
        return mark

    def _next_chunk(self) -> bytes:
        assert self._chunks is not None
        try:
            return next(self._chunks, b"")
        except BrokenStream as problem:
            self._problem = problem
            return b""

    @staticmethod
    def _too_much(content: Content, limit_bytes: int) -> str:
        return f"{content.member.size} bytes with the members before it, the limit is {limit_bytes}"


def _combined(digests: dict[bytes, bytes]) -> bytes:
    hasher = hashlib.blake2b(digest_size=16)
    for name, digest in sorted(digests.items()):
        hasher.update(len(name).to_bytes(8, "little") + name + digest)
    return hasher.digest()

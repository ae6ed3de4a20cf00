"""The values that travel from a source to the writer: Sample -> Example, or Reject.

A source yields, for every position of an input file, exactly one `Sample` or `Reject`. Encoders turn a sample
into an `Example`, an ordered list of `Span`s of ids. Nothing else crosses these walls.
"""

from __future__ import annotations

import enum
import errno
import functools
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcdata.base import reads

if TYPE_CHECKING:
    import numpy as np


class Kind(enum.IntEnum):
    """What the ids of a span are. Stored on disk as uint8: never renumber."""

    TEXT = 0
    IMAGE = 1
    BYTES = 2


class Role(enum.IntEnum):
    """Who speaks in a text span of a conversation. Stored in the low three bits of a span's flags."""

    NONE = 0
    SYSTEM = 1
    USER = 2
    ASSISTANT = 3


ROLE_MASK = 0b0111
LOSS_FLAG = 0b1000
"""Set on a span that a training objective should predict (captions, assistant turns)."""


class Reason(enum.StrEnum):
    """Why a sample was rejected. Names are stable: they appear in ledgers, manifests and scripts."""

    ASPECT_RATIO = "aspect_ratio"
    BAD_EXAMPLE = "bad_example"
    BAD_RECORD = "bad_record"
    BAD_JSON = "bad_json"
    CHANGED_INPUT = "changed_input"
    CRASH = "crash"
    DAMAGED_ARCHIVE = "damaged_archive"
    EMPTY_IMAGE = "empty_image"
    EMPTY_SEQUENCE = "empty_sequence"
    EMPTY_TEXT = "empty_text"
    IMAGE_WITHOUT_MARKER = "image_without_marker"
    MARKER_WITHOUT_IMAGE = "marker_without_image"
    MISSING_IMAGE = "missing_image"
    MISSING_TEXT = "missing_text"
    NOTHING_TO_LEARN = "nothing_to_learn"
    OUTSIDE_ROOT = "outside_root"
    OVERSIZED_IMAGE = "oversized_image"
    OVERSIZED_RECORD = "oversized_record"
    OVERSIZED_TEXT = "oversized_text"
    SHA256_DIFFERS = "sha256_differs"
    TOO_LONG = "too_long"
    TOO_MANY_IMAGES = "too_many_images"
    TRUNCATED = "truncated"
    UNREADABLE_FILE = "unreadable_file"
    UNREADABLE_IMAGE = "unreadable_image"
    UNREADABLE_TEXT = "unreadable_text"
    UNSUPPORTED_MEDIA = "unsupported_media"
    URL_FAILED = "url_failed"
    URL_GONE = "url_gone"
    URL_REFUSED = "url_refused"


class BadSample(Exception):
    """Raised while reading, decoding or encoding one sample: it becomes a `Reject`, the run goes on."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


_OF_THE_SAMPLE = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.EACCES: "may not be read",
    errno.ENAMETOOLONG: "its path is too long",
    errno.ELOOP: "its path is a loop of links",
    errno.ENXIO: "is not a regular file",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where files may lie that a record names, whatever its paths and the links on the way say."""

    roots: tuple[str, ...]
    """Absolute paths of folders; `/` allows all."""
    words: str
    """What they are, for messages, which are the same on every machine."""

    def holds(self, path: str) -> bool:
        """Whether an absolute path without `..` lies in one of the roots, by its name alone."""
        return any(path == root or path.startswith(root.rstrip("/") + "/") for root in self.roots)

    def require(self, descriptor: int) -> None:
        """Raises BadSample (OUTSIDE_ROOT) for an open file that links have led out of all roots."""
        if "/" in self.roots:
            return
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not Place(roots=tuple(map(_real_path, self.roots)), words="").holds(path):
            raise BadSample(Reason.OUTSIDE_ROOT, f"a link leads out of {self.words}")


@functools.cache
def _real_path(folder: str) -> str:
    return os.path.realpath(folder, strict=True)


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Bytes that are read when they are needed: a slice of a file, or bytes already in memory.

    `size=None` means the whole file. `read` is called from decoding threads. `name` is what the record calls a file of
    its own, for messages; `place` is where such a file must lie, None where that is not asked.
    """

    path: str
    offset: int = 0
    size: int | None = None
    data: bytes | None = field(default=None, repr=False)
    name: str = ""
    place: Place | None = None

    def read(self, *, max_bytes: int, may_be_empty: bool = False) -> bytes:
        """Raises BadSample: MISSING_IMAGE, EMPTY_IMAGE, OVERSIZED_IMAGE, TRUNCATED (blobs are images, mostly) or
        OUTSIDE_ROOT.

        What is no property of the sample is an OSError that names the file: a stale file handle, an input file that is
        gone, a disk that does not give what is there, memory that is not there.
        """
        if self.data is not None:
            data, size = self.data, len(self.data)
        else:
            data, size = self._pread(max_bytes)
        if size > max_bytes:
            raise BadSample(Reason.OVERSIZED_IMAGE, f"{size} bytes, the limit is {max_bytes}")
        if size == 0 and not may_be_empty:
            raise BadSample(Reason.EMPTY_IMAGE, "0 bytes")
        if len(data) != size:
            raise BadSample(Reason.TRUNCATED, f"the file ends after {len(data)} of {size} bytes")
        return data

    def beginning(self, size: int, *, max_bytes: int) -> bytes:
        """At most `size` bytes from its start, fewer only where it ends. Raises what `read` raises, for all of it."""
        if self.data is not None:
            return self.read(max_bytes=max_bytes)[:size]
        data, whole = self._pread(max_bytes, size)
        if whole > max_bytes:
            raise BadSample(Reason.OVERSIZED_IMAGE, f"{whole} bytes, the limit is {max_bytes}")
        if whole == 0:
            raise BadSample(Reason.EMPTY_IMAGE, "0 bytes")
        if len(data) < min(size, whole):
            raise BadSample(Reason.TRUNCATED, f"the file ends after {len(data)} of {whole} bytes")
        return data

    def _pread(self, max_bytes: int, most: int | None = None) -> tuple[bytes, int]:
        """(its bytes, or the first `most` of them, its size); no bytes of one that is larger than it may be."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except ValueError as error:
            what = "a lone surrogate" if isinstance(error, UnicodeError) else "a NUL character"
            raise BadSample(Reason.MISSING_IMAGE, f"its path has {what}") from None
        except OSError as error:
            if self.size is not None or error.errno not in _OF_THE_SAMPLE:
                raise
            raise BadSample(Reason.MISSING_IMAGE, _OF_THE_SAMPLE[error.errno]) from None
        try:
            if self.place is not None:
                self.place.require(descriptor)
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise BadSample(Reason.MISSING_IMAGE, "is not a regular file")
            size = status.st_size if self.size is None else self.size
            if size > max_bytes:
                return b"", size
            with reads.naming(self.path):
                return reads.read_at(descriptor, size if most is None else min(size, most), self.offset), size
        finally:
            os.close(descriptor)


@dataclass(frozen=True, kw_only=True)
class TextPart:
    """A piece of text of a sample, with the speaker's role in conversations."""

    text: str
    role: Role = Role.NONE
    loss: bool = True


@dataclass(frozen=True, kw_only=True)
class ImagePart:
    """An image of a sample, not yet decoded."""

    blob: Blob


@dataclass(frozen=True, kw_only=True)
class Member:
    """A piece of a record as it is: a member of a tar, a line of JSON, a picture that is a file of its own."""

    extension: str
    """In lower case, without a leading dot: `jpg`, `json`, `txt`."""
    blob: Blob


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One raw record of a source. `position` counts records of its input file from 0, `key` is unique in the plan."""

    position: int
    key: str
    parts: tuple[TextPart | ImagePart, ...]
    offset: int = 0
    """Byte offset in the (uncompressed) input file, or the row for parquet: for the reject ledger."""
    members: tuple[Member, ...] = ()
    """All that the record consists of, where a stage asks for it (`Options.keeps_members`)."""
    source: str = ""
    """Label of its input, where a batch holds records of several."""
    id: str = ""
    """What the record calls itself, where a stage asks for it (`Options.notes_ids`)."""
    masks: tuple[tuple[str, Any], ...] = ()
    """Category and runs of each object of its picture, see `sources.sets.masks`, where a run keeps them."""
    leaves_out: bool = False
    """It has bytes that are none of its members, where `Options.notes_ids` asks for it."""
    is_fixed: bool = False
    """Markers of its pictures were put into it, as `data.placeholders=fix` says."""


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A record that cannot become an example, with the reason."""

    position: int
    key: str
    reason: Reason
    message: str
    offset: int = 0
    source: str = ""
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """A record with the same key and the same bytes as an earlier one of its input file: counted, not written."""

    position: int
    key: str
    offset: int = 0
    source: str = ""


Record = Sample | Reject | Duplicate


@dataclass(frozen=True, kw_only=True, eq=False)
class Documents:
    """Consecutive records of a file of documents in bulk: what `Sample`s of one `TextPart` and `Reject`s would say.

    positions, texts, offsets: of the records that are documents, in order. A document's key is `key_prefix` and its
    position. The texts are Unicode: they have no halves of surrogate pairs. In a shard of several inputs `shift` is to
    be added to positions, and `source` is the label of their own; both are for documents and rejects.
    """

    key_prefix: str
    positions: list[int]
    texts: list[str]
    offsets: list[int]
    rejects: list[Reject]
    shift: int = 0
    source: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedBatch:
    """Consecutive records, and for each the uint8 arrays that its stage made of it ahead, or why there are none."""

    records: Sequence[Record]
    prepared: Sequence[list[np.ndarray] | BadSample]


@dataclass(frozen=True, kw_only=True, eq=False)
class RowRange:
    """Consecutive rows of a dataset in bulk: positions `first` to `first + count - 1`. A key is `label#position`."""

    first: int
    count: int
    label: str
    shift: int = 0
    source: str = ""


Batch = PreparedBatch | Documents | RowRange


def refusal(record: Record, prepared: object) -> BadSample | None:
    """Why a record does not become an example, as far as its source and its preparation tell."""
    match record:
        case Reject():
            return BadSample(record.reason, record.message)
        case Duplicate():
            return BadSample(Reason.BAD_RECORD, "same key and same bytes as an earlier record of this file")
    return prepared if isinstance(prepared, BadSample) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """A run of ids of one kind.

    ids: [num_ids], any integer dtype; unshifted (0 is a valid code). Images are flattened row by row and carry
    their grid in codes: height * width == num_ids. Text has height = width = 0.
    """

    kind: Kind
    ids: np.ndarray
    height: int = 0
    width: int = 0
    role: Role = Role.NONE
    loss: bool = True

    @property
    def flags(self) -> int:
        return int(self.role) | (LOSS_FLAG if self.loss else 0)


@dataclass(frozen=True, kw_only=True)
class RawText:
    """A text as it was before it became ids, where `text.keep_raw` keeps it."""

    data: bytes = field(repr=False)
    """UTF-8, exactly what the source gave."""
    place: int = 0
    """Before which span of its example it stands: that of its own ids, where it has some."""
    role: Role = Role.NONE
    loss: bool = True

    @property
    def text(self) -> str:
        return self.data.decode()

    @property
    def flags(self) -> int:
        """As those of spans."""
        return int(self.role) | (LOSS_FLAG if self.loss else 0)


class Around(NamedTuple):
    """Ids that a conversation template puts around one turn."""

    before: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    """Behind it, to what a model must say to end the turn: trained on where the turn is."""
    behind: tuple[int, ...] = ()
    """Behind that."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One encoded sample: an ordered list of spans. `index` is the sample's index in the plan."""

    index: int
    key: str
    spans: tuple[Span, ...]
    texts: tuple[RawText, ...] = ()
    """All its texts in their order, where the run keeps them (`text.keep_raw`)."""

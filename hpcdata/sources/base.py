"""What every source agrees on: the file to read, the options, what a scan learns, and the rules for texts and keys.

A source has two sides. `scan` counts the records of one input file when a run is planned and notes where reading
may start; `read` yields the records of any slice of it, in order, exactly one `Sample`, `Reject` or `Duplicate` for
every position. Both walk the file with the same code, so they agree on positions whatever the bytes are.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeGuard

from hpcdata.base.errors import Failed, UserError
from hpcdata.base.reads import naming
from hpcdata.samples import BadSample, Documents, Reason, Record, Reject, Sample, TextPart

_COMMON_IMAGES = {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff"}
_RARE_IMAGES = {"jp2", "j2k", "avif", "heic", "heif", "ppm", "pgm", "pbm", "pnm", "ico", "tga"}
OLDER_EXTENSIONS = frozenset(_COMMON_IMAGES | _RARE_IMAGES)
"""Those of `media.kinds.IMAGE_EXTENSIONS` that tars of older plans are read by."""
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
TEXT_EXTENSIONS = ("txt", "text", "caption")
"""Members and sidecars that hold the text itself, in order of preference; `json` comes after them."""
TEXT_FIELDS = ("text_prompt", "text", "caption")
"""Fields of a JSON record that hold the text of a pair, in order of preference."""
DOCUMENT_FIELDS = ("text", "content")
"""Fields or columns that hold the text of a document, in order of preference."""


Each = Callable[[int], object]
AT_ONCE, _SMALLEST = 1 << 20, 1 << 10
"""Characters of documents that are worth a batch; the shortest counts as so many."""
MOST_AT_ONCE = AT_ONCE // _SMALLEST
"""Documents of a batch of several `batch_size`."""
RECORDS = "parquet.records"
"""The format of Parquet whose rows are records with pictures or conversations; `parquet` holds documents."""


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One input of a run. `label` is unique and free of machine paths: keys and messages start with it."""

    path: str
    label: str
    format: str
    base: str = ""
    """Folder that relative image paths start from."""
    roots: tuple[str, ...] = ()
    """Folders that the pictures of its records must lie in. Empty in older plans: their records are read by the rules
    of then, which know no other fields than `image_path` and `image`, and look nowhere for media that are not read."""
    num_declared: int | None = None
    """Samples that a wids index promises."""
    take: str = ""
    """Of an entry of a mix, which part of its records is read, see `order.sampling`; nothing for any other file."""
    take_seed: int = 0
    """What `random:N` draws by."""
    settings: str = ""
    """How its records are made, as a line of JSON, where its format does not say it all."""

    def to_mapping(self) -> dict[str, Any]:
        """Of plain values; what only some inputs have is left out of all others."""
        later = ("take", "take_seed", "settings")
        return {name: value for name, value in vars(self).items() if value or name not in later}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What of a record is read. A side that is not needed is left out and never missed."""

    max_record_bytes: int = 256 * 2**20
    text_field: str | None = None
    image_field: str | None = None
    """Extension of the member of a tar that is the picture, or what stands before its last dot."""
    needs_image: bool = True
    needs_text: bool = True
    keep_image_marker: bool = False
    """Leave the literal `<image>` of conversations in the text, before its image."""
    only_users_show: bool = False
    """In conversations a marker is the place of a picture where a user writes it, and text where others do. Markers
    and pictures that do not fit have reasons of their own."""
    placeholders: str = "keep"
    """Markers that are not as many as the pictures of a record, see `pictures.placeholders`."""
    mapping: str = ""
    """What of records of any fields is what, as a line of JSON, see `custom.mapping`."""
    rejects_changed: bool = False
    """A document of a listing that is no longer as listed is a reject; else reading it raises UserError."""
    is_of_urls: bool = False
    """Pictures are what URLs of records lead to: nothing else that a record names is looked at, and nothing read."""
    url_field: str | None = None
    """The field of a table's rows that holds URLs; None for the first of the usual names that does."""
    takes_rows: bool = False
    """Records are rows of a dataset of ours."""
    keeps_members: bool = False
    """Give each sample all that its record consists of (`Sample.members`), also where neither side is needed."""
    notes_ids: bool = False
    """Of tables: say the `id` of each record and reject; one that is no UTF-8 is escaped, and no fault. A picture
    without a byte is an empty member and no fault either, for a stage that knows whether one is asked for."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What planning learns of one input file.

    `cuts[i]` is the seek position (an offset or a row) of sample `i * every`. `repeats` are (position, n) of samples
    whose key occurred before in this file with other bytes: their keys end in `#n`. `duplicates` are the positions
    of samples that repeat an earlier key and its bytes.
    """

    num_samples: int
    every: int
    cuts: tuple[int, ...]
    repeats: tuple[tuple[int, int], ...] = ()
    duplicates: tuple[int, ...] = ()
    rules: tuple[str, ...] = ()
    """By which rules an odd archive is read, see `tar.groups.Rules`; nothing for any other file."""
    links: tuple[tuple[int, int, int], ...] = ()
    """(start, offset, size): where the content of a member is that is stored as a link."""
    num_records: int = 0
    """Of a file of which a part is taken, all that it holds."""
    numbers: tuple[int, ...] = ()
    """And which of them, from 0, begins at each cut. Nothing: the record at the cut is the one that is asked for."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Scan:
        """The inverse of `dataclasses.asdict` after a round trip through JSON."""
        return cls(
            num_samples=values["num_samples"],
            every=values["every"],
            cuts=tuple(values["cuts"]),
            repeats=tuple((position, number) for position, number in values["repeats"]),
            duplicates=tuple(values["duplicates"]),
            rules=tuple(values.get("rules", ())),
            links=tuple((start, offset, size) for start, offset, size in values.get("links", ())),
            num_records=values.get("num_records", 0),
            numbers=tuple(values.get("numbers", ())),
        )

    def identity(self) -> dict[str, Any]:
        """What the fingerprint of a plan covers; what only some files have is left out of all others."""
        return {name: value for name, value in vars(self).items() if value or name not in _OF_SOME}

    def at(self, position: int, seek: int) -> Scan:
        """The same for reading that one sample, which stands at `seek`."""
        return dataclasses.replace(
            self,
            every=max(position, 1),
            cuts=(0, seek) if position else (seek,),
            numbers=(),
            repeats=tuple(pair for pair in self.repeats if pair[0] == position),
            duplicates=tuple(place for place in self.duplicates if place == position),
        )

    def cut(self, position: int) -> tuple[int, int]:
        """The nearest (position, seek) at or before `position`."""
        if not self.cuts:
            return 0, 0
        nearest = min(position // self.every, len(self.cuts) - 1)
        return nearest * self.every, self.cuts[nearest]


LATER = ("num_records", "numbers")
"""What plans of before do not say of a scan."""
_OF_SOME = ("rules", "links", *LATER)


class CannotRead(Failed):
    """The machine did not let us read a file, which says nothing about the file."""


@contextlib.contextmanager
def refusing_faults(path: str) -> Iterator[None]:
    """While planning: what goes wrong with the machine is a UserError that names the file."""
    try:
        with naming(path):
            yield
    except MemoryError:
        raise Failed(f"cannot read {path}: out of memory; try again with more of it") from None
    except OSError as error:
        raise CannotRead(f"cannot read {error.filename}: {error.strerror}; try again when it can be read") from None


def changed_since_planned(file: InputFile, *, got: int, expected: int) -> UserError:
    return UserError(
        f"{file.label} ended after {got} samples, the plan expects at least {expected}: the file changed since it "
        "was planned; restore it or plan again into a new output directory"
    )


def gathered(
    file: InputFile, rows: Iterable[tuple[int, str | Record]], *, first: int, count: int, batch_size: int
) -> Iterator[Documents]:
    """Rows `first` to `first + count - 1` as documents. rows: (offset, text, or the record where it is not plain).

    A batch ends behind a multiple of `batch_size` rows, as soon as it is large enough to make its own cost small.
    Raises UserError where rows are missing.
    """
    batch, size, position = _no_documents(file), 0, first
    for position, (offset, found) in enumerate(islice(rows, count), first):
        if size >= AT_ONCE and not (position - first) % batch_size:
            yield batch
            batch, size = _no_documents(file), 0
        if isinstance(found, Reject):
            batch.rejects.append(found)
            size += _SMALLEST
            continue
        text = found if isinstance(found, str) else _only_text(found)
        batch.positions.append(position)
        batch.texts.append(text)
        batch.offsets.append(offset)
        size += max(len(text), _SMALLEST)
    if count and position + bool(size) != first + count:
        raise changed_since_planned(file, got=position + bool(size), expected=first + count)
    if size:
        yield batch


def _no_documents(file: InputFile) -> Documents:
    return Documents(key_prefix=f"{file.label}#", positions=[], texts=[], offsets=[], rejects=[])


def is_plain(text: object) -> TypeGuard[str]:
    """Whether `checked_text` has nothing against it."""
    return isinstance(text, str) and bool(text) and not text.isspace() and "\0" not in text


def clean_name(name: bytes) -> str:
    """A name from an archive as a printable label: bytes that are not UTF-8 and control characters are escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(map(_escaped, text))


def checked_text(text: object, *, what: str) -> str:
    """Raises BadSample for what is no text, has nothing in it, or cannot be stored as UTF-8."""
    if not isinstance(text, str):
        raise BadSample(Reason.BAD_RECORD, f"{what} is {json_type(text)}, expected a string")
    if not text or text.isspace():
        raise BadSample(Reason.EMPTY_TEXT, f"{what} is empty")
    if "\0" in text:
        raise BadSample(Reason.UNREADABLE_TEXT, f"{what} has a NUL character at {text.index(chr(0))}")
    return text


def decoded_text(data: bytes, *, what: str) -> str:
    """The text of a UTF-8 file, without byte order mark and final line breaks. Raises BadSample."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = "is UTF-16, expected UTF-8" if data[:2] in _WIDE_MARKS else f"is not UTF-8 at byte {error.start}"
        raise BadSample(Reason.UNREADABLE_TEXT, f"{what} {found}") from None
    return checked_text(text.rstrip("\r\n"), what=what)


def json_type(value: object) -> str:
    """The name of a parsed JSON value's type, for messages."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _only_text(document: Record) -> str:
    assert isinstance(document, Sample)
    (part,) = document.parts
    assert isinstance(part, TextPart)
    return part.text


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")

"""WebDataset tars, plain or gzipped: consecutive members that share a prefix are one sample.

The prefix is the folder and the file name up to its first dot, the rest is the extension; hidden files, names without
a dot and `__meta__/` folders are no samples. Image: the first member with an image extension. Text: a `txt`, `text` or
`caption` member, else a field of `json`. Images of a plain tar are read later, from their place in the archive.
A damaged region is one reject, and so is a sample that the end of the file cuts. What a whole archive has against it
(no end mark, links, members that are not adjacent, dots in stems) is said when it is scanned.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from hpcdata.samples import BadSample, Duplicate, ImagePart, Member, Reason, Record, Reject, Sample, TextPart
from hpcdata.sources import records
from hpcdata.sources.base import (
    OLDER_EXTENSIONS,
    TEXT_EXTENSIONS,
    InputFile,
    Options,
    Scan,
    changed_since_planned,
    clean_name,
    decoded_text,
)
from hpcdata.sources.tar.groups import Content, Group, TarSource, groups, open_tar
from hpcdata.sources.tar.headers import BLOCK, Damage

logger = logging.getLogger(__name__)

_IMAGE_EXTENSIONS = frozenset(extension.encode() for extension in OLDER_EXTENSIONS)
_TEXTS = frozenset(extension.encode() for extension in (*TEXT_EXTENSIONS, "json"))
_MOST_NAMES = 8


def scan(file: InputFile, *, every: int, options: Options) -> Scan:
    """Reads headers, and the bytes of samples whose key comes again (a gzipped tar is read whole)."""
    del options
    cuts: list[int] = []
    num_samples = 0
    last: Group | Damage | None = None
    with open_tar(file, limit_bytes=0, is_hashing=True) as source:
        keys, oddities = _Keys(source), _Oddities()
        for position, item in enumerate(groups(source, 0)):
            if position % every == 0:
                cuts.append(item.start)
            if isinstance(item, Group):
                is_repeated = keys.add(position, item)
                oddities.add(item, is_repeated)
            num_samples, last = position + 1, item
        oddities.warn(file, source, last, num_samples)
    repeats, duplicates = tuple(keys.repeats), tuple(keys.duplicates)
    return Scan(num_samples=num_samples, every=every, cuts=tuple(cuts), repeats=repeats, duplicates=duplicates)


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    start, seek = scan.cut(first)
    repeats, duplicates = dict(scan.repeats), set(scan.duplicates)
    position = start
    with open_tar(file, limit_bytes=options.max_record_bytes, is_hashing=False) as source:
        for item in groups(source, seek) if count else ():
            if position >= first:
                if isinstance(item, Damage):
                    yield _damaged(file, position, item)
                else:
                    key = f"{file.label}/{_name(item)}"
                    key += f"#{repeats[position]}" if position in repeats else ""
                    if position in duplicates:
                        yield Duplicate(position=position, key=key, offset=item.start)
                    else:
                        yield _record(source, position, key, item, options)
            position += 1
            if position >= first + count:
                return
    if count:
        raise changed_since_planned(file, got=position, expected=first + count)


class _Keys:
    """The keys of one archive so far: which samples repeat an earlier key, and which its bytes too."""

    def __init__(self, source: TarSource) -> None:
        self.repeats: list[tuple[int, int]] = []
        self.duplicates: list[int] = []
        self._source = source
        self._marks: dict[str, int | bytes] = {}
        self._digests: dict[str, set[bytes]] = {}

    def add(self, position: int, group: Group) -> bool:
        """Whether the key has occurred before."""
        key = _name(group)
        mark = self._source.mark(group)
        if key not in self._marks:
            self._marks[key] = mark
            return False
        digests = self._digests.setdefault(key, {self._source.digest(self._marks[key])})
        digest = self._source.digest(mark)
        if group.is_complete and digest in digests:
            self.duplicates.append(position)
            return True
        digests.add(digest)
        number = max(len(digests), 2)
        while f"{key}#{number}" in self._marks:
            number += 1
        self._marks[f"{key}#{number}"] = mark
        self.repeats.append((position, number))
        return True


class _Oddities:
    """What makes good pictures and texts into rejects by the hundred: one warning for each kind and archive."""

    def __init__(self) -> None:
        self._num_apart = self._num_fused = 0
        self._apart = self._fused = ""
        self._alone = set[bool]()

    def add(self, group: Group, is_repeated: bool) -> None:
        extensions = group.contents.keys()
        has_image = not _IMAGE_EXTENSIONS.isdisjoint(extensions)
        is_alone = has_image == _TEXTS.isdisjoint(extensions)  # a picture without text, or a text without picture
        if is_alone:
            self._alone.add(has_image)
        if is_alone and is_repeated:
            self._num_apart, self._apart = self._num_apart + 1, self._apart or _name(group)
        if not has_image and len(stems := _dotted_stems(extensions)) > 1:
            self._num_fused = self._num_fused + 1
            self._fused = self._fused or ", ".join(f"{_name(group)}.{clean_name(stem)}" for stem in stems[:2])

    def warn(self, file: InputFile, source: TarSource, last: Group | Damage | None, num_samples: int) -> None:
        if self._num_apart and len(self._alone) == 2:
            logger.warning(
                "%s: members of %d samples are not adjacent, as of %s: they cannot be paired; pack it again with "
                "tar --sort=name",
                file.label,
                self._num_apart,
                self._apart,
            )
        if self._num_fused:
            logger.warning(
                "%s: %d samples are several with dots in their names, such as %s: a name ends at its first dot; "
                "rename the members",
                file.label,
                self._num_fused,
                self._fused,
            )
        if source.links.count:
            logger.warning(
                "%s: %d members are stored as links, which are not followed: pack it again with tar --dereference "
                "--hard-dereference",
                file.label,
                source.links.count,
            )
        if isinstance(last, Group) and last.is_complete and _end(last) >= source.length():
            logger.warning(
                "%s has no end mark: its writer was stopped, and samples may be missing behind the %d that it holds",
                file.label,
                num_samples,
            )


def _dotted_stems(extensions: Iterable[bytes]) -> list[bytes]:
    """What stands before the last dot of pictures and texts: of `05.png`, `05.txt`, `06.png` it is 05 and 06."""
    parts = [extension.rpartition(b".") for extension in extensions]
    kinds: dict[bytes, set[bytes]] = {}
    for stem, dot, kind in parts:
        if dot and (kind in _IMAGE_EXTENSIONS or kind in _TEXTS):
            kinds.setdefault(stem, set()).add(kind)
    return [stem for stem, found in kinds.items() if len(found) > 1]


def _end(group: Group) -> int:
    """Where the next header stands, or the end mark."""
    end = max(content.member.offset + content.member.size for content in group.contents.values())
    return end + -end % BLOCK


def _name(group: Group) -> str:
    """The sample's name as a label: it cannot lead out of a folder, whatever the archive says."""
    name = clean_name(group.prefix.lstrip(b"/"))
    if ".." in name:
        name = "/".join("__" if part == ".." else part for part in name.split("/"))
    return name


def _damaged(file: InputFile, position: int, damage: Damage) -> Reject:
    return Reject(
        position=position,
        key=f"{file.label}@{damage.start}",
        reason=damage.reason,
        message=damage.message,
        offset=damage.start,
    )


def _record(source: TarSource, position: int, key: str, group: Group, options: Options) -> Record:
    try:
        parts, members = _parts(source, group, options), _members(source, group, options)
        return Sample(position=position, key=key, parts=parts, offset=group.start, members=members)
    except BadSample as bad:
        return Reject(position=position, key=key, reason=bad.reason, message=bad.message, offset=group.start)


def _parts(source: TarSource, group: Group, options: Options) -> records.Parts:
    """Text, then image. Raises BadSample."""
    if not group.is_complete:
        raise BadSample(Reason.TRUNCATED, "the archive ends inside this sample")
    if any(content.member.is_sparse for content in group.contents.values()):
        raise BadSample(Reason.BAD_RECORD, "a member is stored as a sparse file")
    parts: list[TextPart | ImagePart] = []
    if options.needs_image:
        images = [content for extension, content in group.contents.items() if extension in _IMAGE_EXTENSIONS]
        if not images:
            raise BadSample(Reason.MISSING_IMAGE, f"no image among {_extensions(group)}")
        parts.append(ImagePart(blob=source.blob(images[0], limit_bytes=options.max_record_bytes)))
    if options.needs_text:
        parts.insert(0, TextPart(text=_text(source, group, options)))
    return records.selected(parts, options)


def _members(source: TarSource, group: Group, options: Options) -> tuple[Member, ...]:
    if not options.keeps_members:
        return ()
    limit = options.max_record_bytes
    return tuple(
        Member(extension=clean_name(extension), blob=source.blob(content, limit_bytes=limit))
        for extension, content in group.contents.items()
    )


def _text(source: TarSource, group: Group, options: Options) -> str:
    for extension in (options.text_field.lower(),) if options.text_field else TEXT_EXTENSIONS:
        if (content := group.contents.get(extension.encode())) is not None:
            return decoded_text(_bytes(source, content, options), what=f".{extension}")
    if (content := group.contents.get(b"json")) is not None:
        return records.text_of_json(_bytes(source, content, options), options)
    raise BadSample(Reason.MISSING_TEXT, f"no text among {_extensions(group)}")


def _bytes(source: TarSource, content: Content, options: Options) -> bytes:
    size = content.member.size
    if size > options.max_record_bytes:
        raise BadSample(Reason.OVERSIZED_TEXT, f"{size} bytes, the limit is {options.max_record_bytes}")
    return source.bytes_of(content)


def _extensions(group: Group) -> str:
    names = [f".{clean_name(extension)}" for extension in group.contents]
    return ", ".join(name[:32] for name in names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")

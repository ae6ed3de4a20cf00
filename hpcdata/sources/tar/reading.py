"""WebDataset tars, plain or gzipped: consecutive members that share a prefix are one sample.

The prefix is the folder and the file name up to its first dot, the rest is the extension; hidden files, names without
a dot and `__meta__/` folders are no samples. Image: the member with an image extension; of several (`0.jpg`, `1.jpg`)
all, which only a conversation or a run without texts takes. Text: a `txt`, `text` or `caption` member, else a field of
`json`, or its conversation (`talks`). Images of a plain tar are read later, from their place in the archive.
A damaged region is one reject, and so is a sample that the end of the file cuts. What a whole archive has against it
(`oddities`: no end mark, links, dots in stems, members that are not adjacent) is mended or said when it is scanned.
"""

from __future__ import annotations

import dataclasses
import os
from array import array
from collections.abc import Iterator

from hpcdata.samples import BadSample, Blob, Duplicate, ImagePart, Member, Reason, Record, Reject, Sample, TextPart
from hpcdata.sources import records
from hpcdata.sources.base import (
    TEXT_EXTENSIONS,
    Each,
    InputFile,
    Options,
    Scan,
    changed_since_planned,
    clean_name,
    decoded_text,
)
from hpcdata.sources.limits import LARGE_TEXT_BYTES, most_records, require_few_large, require_few_records
from hpcdata.sources.tar import talks
from hpcdata.sources.tar.groups import Content, Group, Rules, TarSource, groups, open_tar
from hpcdata.sources.tar.headers import Damage, FileSource
from hpcdata.sources.tar.oddities import MOST_NAME_BYTES, PICTURES, Oddities, find_picture, name_of

_MOST_NAMES = 8
_TEXTS = frozenset(name.encode() for name in (*TEXT_EXTENSIONS, "json"))


def scan(file: InputFile, *, every: int, options: Options, each: Each | None = None) -> Scan:
    """Reads headers, and the bytes of samples whose key comes again (a gzipped tar is read whole).

    An archive that needs other rules than the usual ones is walked again by them.
    """
    with open_tar(file, Rules(), limit_bytes=0, is_hashing=True) as source:
        found, oddities, last, starts = _scan(file, source, every, options, each is not None)
        rules = oddities.rules(file)
        if dataclasses.replace(rules, talks=False, several=False) == source.rules:
            oddities.warn(file, last, found.num_samples)
            return _told(dataclasses.replace(found, rules=rules.names()), starts, each)
    with open_tar(file, rules, limit_bytes=0, is_hashing=True) as source:
        found, oddities, last, starts = _scan(file, source, every, options, each is not None)
        oddities.warn(file, last, found.num_samples)
    links = tuple((start, offset, size) for start, (offset, size) in sorted(rules.links.items()))
    rules = dataclasses.replace(rules, talks=oddities.has_talk, several=oddities.has_several)
    return _told(dataclasses.replace(found, rules=rules.names(), links=links), starts, each)


def _told(found: Scan, starts: array[int], each: Each | None) -> Scan:
    for start in starts:
        each(start)  # type: ignore[misc]
    return found


def _scan(
    file: InputFile, source: TarSource, every: int, options: Options, keeps_starts: bool
) -> tuple[Scan, Oddities, Group | Damage | None, array[int]]:
    cuts: list[int] = []
    starts = array("q")
    num_samples = 0
    last: Group | Damage | None = None
    keys, oddities = _Keys(source), Oddities(source, options)
    most, large = most_records(os.stat(file.path).st_size, is_tar=True), 0
    for position, item in enumerate(groups(source, 0)):
        if position % every == 0:
            cuts.append(item.start)
            require_few_records(file.path, position, most)
        if keeps_starts:
            starts.append(item.start)
        if isinstance(item, Group):
            if size := _large_texts(item, options):
                large += size
                require_few_large(file, large)
            oddities.add(item, keys.add(position, item))
            oddities.has_talk = oddities.has_talk or _holds_talk(source, item, options)
            oddities.has_several = oddities.has_several or _has_several(source, item, options)
        num_samples, last = position + 1, item
    repeats, duplicates = tuple(keys.repeats), tuple(keys.duplicates)
    found = Scan(num_samples=num_samples, every=every, cuts=tuple(cuts), repeats=repeats, duplicates=duplicates)
    return found, oddities, last, starts


def _holds_talk(source: TarSource, group: Group, options: Options) -> bool:
    if not talks.are_wanted(options) or not talks.may_hold(group):
        return False
    content = group.contents[talks.JSON]
    is_small = content.is_complete and 0 < content.member.size <= LARGE_TEXT_BYTES
    return is_small and talks.holds(source.bytes_of(content))


def _has_several(source: TarSource, group: Group, options: Options) -> bool:
    is_asked = options.needs_image and options.image_field is None
    return is_asked and len(group.contents) > 1 and len(talks.pictures(source, group)) > 1


def _large_texts(group: Group, options: Options) -> int:
    """Bytes of large texts of a sample, whatever they take in the archive: it may be compressed, or have links."""
    sizes = (content.member.size for name, content in group.contents.items() if name in _TEXTS)
    return sum(size for size in sizes if LARGE_TEXT_BYTES < size <= options.max_record_bytes)


def read(file: InputFile, scan: Scan, *, first: int, count: int, options: Options) -> Iterator[Record]:
    with open_tar(file, Rules.of(scan), limit_bytes=options.max_record_bytes, is_hashing=False) as source:
        yield from read_open(source, file, scan, first=first, count=count, options=options)


def read_open(
    source: TarSource, file: InputFile, scan: Scan, *, first: int, count: int, options: Options
) -> Iterator[Record]:
    """The same of an archive that is open."""
    start, seek = scan.cut(first)
    repeats, duplicates = dict(scan.repeats), set(scan.duplicates)
    position = start
    if count:
        for item in groups(source, seek):
            if position >= first:
                if isinstance(item, Damage):
                    yield _damaged(file, position, item)
                else:
                    key = f"{file.label}/{name_of(item)}"
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
        key = name_of(group)
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
        talk = _talk(source, group, options)
        parts, line = (_parts(source, group, options), None) if talk is None else talk
        members = _members(source, group, options, line)
        is_fixed = line is not None
        return Sample(position=position, key=key, parts=parts, offset=group.start, members=members, is_fixed=is_fixed)
    except BadSample as bad:
        return Reject(position=position, key=key, reason=bad.reason, message=bad.message, offset=group.start)


def _talk(source: TarSource, group: Group, options: Options) -> tuple[records.Parts, bytes | None] | None:
    """The parts of a conversation, and its JSON where that got markers; None for a sample without one."""
    is_asked_for = source.rules.talks and talks.are_wanted(options) and talks.may_hold(group)
    if not is_asked_for or not group.contents[talks.JSON].is_complete:
        return None
    _require_whole(group)
    data = _bytes(source, group.contents[talks.JSON], options)
    if not talks.holds(data):
        return None
    chosen = None if options.image_field is None else [_image(source, group, options)]
    found = chosen or talks.pictures(source, group)
    return talks.parts_of(data, [_image_part(source, content, options) for content in found], options)


def _image_part(source: TarSource, content: Content, options: Options) -> ImagePart:
    """A picture; one without bytes where none is needed."""
    if not options.needs_image:
        return ImagePart(blob=Blob(path="", data=b""))
    return ImagePart(blob=source.blob(_followed(source, content), limit_bytes=options.max_record_bytes))


def _parts(source: TarSource, group: Group, options: Options) -> records.Parts:
    """Text, then image. Raises BadSample."""
    _require_whole(group)
    parts: list[TextPart | ImagePart] = []
    if options.needs_image:
        parts += [_image_part(source, content, options) for content in _images(source, group, options)]
    if options.needs_text:
        parts.insert(0, TextPart(text=_text(source, group, options)))
    return records.selected(parts, options)


def _require_whole(group: Group) -> None:
    if not group.is_complete:
        raise BadSample(Reason.TRUNCATED, "the archive ends inside this sample")
    longest = max(len(content.member.name) for content in group.contents.values())
    if longest > MOST_NAME_BYTES:
        raise BadSample(Reason.BAD_RECORD, f"a name of {longest} bytes, the limit is {MOST_NAME_BYTES}")
    if any(content.member.is_sparse for content in group.contents.values()):
        raise BadSample(Reason.BAD_RECORD, "a member is stored as a sparse file")


def _images(source: TarSource, group: Group, options: Options) -> list[Content]:
    """All pictures of a sample, or the one that is asked for. Raises BadSample, as other sources do for several."""
    several = talks.pictures(source, group) if source.rules.several and options.image_field is None else []
    if len(several) < 2:
        return [_image(source, group, options)]
    if options.needs_text:
        message = f"{len(several)} pictures in a sample without a conversation, expected one: data.image_field names it"
        raise BadSample(Reason.BAD_RECORD, f"{message} (of {_extensions(group)})")
    return several


def _image(source: TarSource, group: Group, options: Options) -> Content:
    """The picture of a sample: the member that `image_field` names, if it is set. Raises BadSample."""
    if options.image_field is None:
        found = find_picture(source, group)
    else:
        name = options.image_field.lower().encode()
        parts = {extension: extension.rpartition(b".") for extension in group.contents}
        same = [extension for extension, (stem, _, kind) in parts.items() if stem == name and kind in PICTURES]
        found = group.contents.get(name) or next((group.contents[extension] for extension in same), None)
    if found is None:
        wanted = "image" if options.image_field is None else f".{options.image_field}"
        raise BadSample(Reason.MISSING_IMAGE, f"no {wanted} among {_extensions(group)}")
    return found


def _followed(source: TarSource, content: Content) -> Content:
    """The content, if it is no link that leads nowhere. Raises BadSample."""
    if content.member.target:
        name = clean_name(content.member.name.rpartition(b"/")[2])[:64]
        why = "no file of this archive" if isinstance(source, FileSource) else "not followed in a gzipped tar"
        raise BadSample(
            Reason.BAD_RECORD,
            f"{name} is stored as a link to {clean_name(content.member.target)[:128]}, which is {why}",
        )
    return content


def _members(source: TarSource, group: Group, options: Options, line: bytes | None) -> tuple[Member, ...]:
    """line: the JSON, where it is another one."""
    if not options.keeps_members:
        return ()
    limit = options.max_record_bytes

    def blob(extension: bytes, content: Content) -> Blob:
        if line is not None and extension == talks.JSON:
            return Blob(path="", data=line)
        return source.blob(_followed(source, content), limit_bytes=limit)

    return tuple(
        Member(extension=clean_name(extension), blob=blob(extension, content))
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
    size = _followed(source, content).member.size
    if size > options.max_record_bytes:
        raise BadSample(Reason.OVERSIZED_TEXT, f"{size} bytes, the limit is {options.max_record_bytes}")
    return source.bytes_of(content)


def _extensions(group: Group) -> str:
    names = [f".{clean_name(extension)}" for extension in group.contents]
    return ", ".join(name[:32] for name in names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")

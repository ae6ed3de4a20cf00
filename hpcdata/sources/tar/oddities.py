"""What an archive has against it: found while it is scanned, mended by a rule where one helps, else said once.

The rules go into the plan with the scan (`Rules`): an archive without oddities has none, and reads as it always did.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import logging
import posixpath
import re
from collections.abc import Iterable

from hpcdata.media import kinds
from hpcdata.sources.base import OLDER_EXTENSIONS, TEXT_EXTENSIONS, InputFile, Options, clean_name
from hpcdata.sources.tar.groups import Content, Group, Rules, TarSource
from hpcdata.sources.tar.headers import BLOCK, Damage, Member, members

logger = logging.getLogger(__name__)

IMAGES = frozenset(extension.encode() for extension in OLDER_EXTENSIONS)
PICTURES = frozenset(extension.encode() for extension in kinds.IMAGE_EXTENSIONS)
_TEXTS = frozenset(extension.encode() for extension in (*TEXT_EXTENSIONS, "json"))
NUMBER = re.compile(rb"(?:(?:image|img)s?[._-]?(?=[0-9]{1,2}\Z))?([0-9]{1,6})")
"""What stands before the last dot of one of several pictures: `0`, `image_0`; `image_512` is a size."""
_MOST_HOPS = 8
_MOST_BESIDE = 8
"""Names of pictures that are said to be left out."""


def find_picture(source: TarSource, group: Group) -> Content | None:
    """The first member with the ending of a picture; by the rule for pictures also by its first bytes."""
    found = next((content for extension, content in group.contents.items() if extension in IMAGES), None)
    return found or (_other_picture(source, group) if source.rules.pictures else None)


MOST_NAME_BYTES = 1 << 16
"""Of a member, far beyond what file systems have: a sample with a longer one is a reject."""


def name_of(group: Group) -> str:
    """The sample's name as a label: it cannot lead out of a folder, whatever the archive says, and is not huge."""
    prefix = group.prefix.lstrip(b"/")
    if len(prefix) > MOST_NAME_BYTES:
        return f"{clean_name(prefix[:64])}~{hashlib.blake2b(prefix, digest_size=16).hexdigest()}".replace("..", "__")
    name = clean_name(prefix)
    if ".." in name:
        name = "/".join("__" if part == ".." else part for part in name.split("/"))
    return name


class Oddities:
    """What makes good pictures and texts into rejects by the hundred."""

    def __init__(self, source: TarSource, options: Options) -> None:
        self._source, self._options = source, options
        self._num_apart = self._num_fused = 0
        self._apart = self._fused = ""
        self._alone = set[bool]()
        self.has_talk = False
        """Set by who looks into `json` members."""
        self.has_several = False
        """Set by who knows the pictures of a sample."""
        self._has_dotted = self._has_extra = self._has_pictures = False
        self._beside = set[bytes]()

    def add(self, group: Group, is_repeated: bool) -> None:
        extensions = group.contents.keys()
        has_image, has_text = (not known.isdisjoint(extensions) for known in (IMAGES, _TEXTS))
        if not has_image and not self._has_pictures:
            self._has_pictures = _other_picture(self._source, group) is not None
        if has_image != has_text:  # a picture without text, or a text without picture
            self._alone.add(has_image)
            if is_repeated:
                self._num_apart, self._apart = self._num_apart + 1, self._apart or name_of(group)
        dotted = _dotted_stems(extensions)
        if has_image and self._options.image_field is None and len(self._beside) < _MOST_BESIDE:
            self._beside.update(
                stem for stem, roles in dotted.items() if "image" in roles and not NUMBER.fullmatch(stem)
            )
        if has_image or has_text:
            self._has_extra |= bool(dotted)
        elif whole := [stem for stem, roles in dotted.items() if roles >= self._needed()]:
            self._has_dotted = True
            if len(whole) > 1:
                self._num_fused = self._num_fused + 1
                self._fused = self._fused or ", ".join(f"{name_of(group)}.{clean_name(stem)}" for stem in whole[:2])

    def rules(self, file: InputFile) -> Rules:
        """What the archive is to be scanned and read by."""
        chosen = self._options.text_field or self._options.image_field
        rules = Rules(
            last_dot=self._has_dotted and not self._has_extra and not chosen,
            with_links=self._source.links.count > 0,
            pictures=self._has_pictures,
            talks=self.has_talk,
            several=self.has_several,
        )
        if rules.with_links and file.format == "tar":
            rules = dataclasses.replace(rules, links=_find_links(self._source))
        return rules

    def warn(self, file: InputFile, last: Group | Damage | None, num_samples: int) -> None:
        """One line for each kind."""
        source = self._source
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
        if source.rules.last_dot:
            logger.info("%s: names have dots, so the last one ends a name", file.label)
        if self._beside and self._options.needs_image:
            logger.info(
                "%s: pictures beside others are left out, those called %s: data.image_field chooses one",
                file.label,
                ", ".join(f".{clean_name(stem)[:32]}" for stem in sorted(self._beside)[:_MOST_BESIDE]),
            )
        if lost := source.links.count - len(source.rules.links):
            logger.warning(
                "%s: %d members are stored as links that cannot be followed in it: pack it again with tar "
                "--dereference --hard-dereference",
                file.label,
                lost,
            )
        if isinstance(last, Group) and last.is_complete and _end(last) >= source.length():
            logger.warning(
                "%s has no end mark: its writer was stopped, and samples may be missing behind the %d that it holds",
                file.label,
                num_samples,
            )

    def _needed(self) -> set[str]:
        needed = {"image"} if self._options.needs_image else set()
        return needed | ({"text"} if self._options.needs_text else set()) or {"image", "text"}


def _other_picture(source: TarSource, group: Group) -> Content | None:
    for extension, content in group.contents.items():
        if extension in PICTURES:
            return content
    for extension, content in group.contents.items():
        is_open = kinds.says_nothing(extension.decode("utf-8", "replace")) and b"." not in extension
        if is_open and content.is_complete and kinds.is_picture(source.head(content, kinds.BEGINNING_BYTES)):
            return content
    return None


def _dotted_stems(extensions: Iterable[bytes]) -> dict[bytes, set[str]]:
    """What stands before the last dot of pictures and texts: of `05.png`, `05.txt`, `06.png` it is 05 and 06."""
    found: dict[bytes, set[str]] = {}
    for stem, dot, kind in (extension.rpartition(b".") for extension in extensions):
        role = "image" if kind in PICTURES else "text" if kind in _TEXTS else ""
        if dot and role:
            found.setdefault(stem, set()).add(role)
    return found


def _find_links(source: TarSource) -> dict[int, tuple[int, int]]:
    """Where links lead, by their starts: those that end at a file of this archive."""
    links: dict[bytes, bytes] = {}
    starts: list[tuple[int, bytes]] = []
    for item in members(source, with_links=True):
        if isinstance(item, Member) and item.target:
            links[_clean(item.name)] = target = _target(item)
            starts.append((item.start, target))
    ends = {start: _followed(target, links) for start, target in starts}
    wanted = set(ends.values())
    places: dict[bytes, list[Member]] = {}
    for item in members(source):
        if isinstance(item, Member) and not item.is_sparse and (name := _clean(item.name)) in wanted:
            places.setdefault(name, []).append(item)
    found = {}
    for start, end in ends.items():
        if at := places.get(end):
            member = at[max(bisect.bisect_left(at, start, key=lambda member: member.start) - 1, 0)]
            if member.offset + member.size <= source.length():
                found[start] = (member.offset, member.size)
    return found


def _target(link: Member) -> bytes:
    if link.is_symbolic:
        return _clean(posixpath.join(posixpath.dirname(link.name), link.target))
    return _clean(link.target)


def _followed(name: bytes, links: dict[bytes, bytes]) -> bytes:
    for _ in range(_MOST_HOPS):
        if name not in links:
            break
        name = links[name]
    return name


def _clean(name: bytes) -> bytes:
    """A name for comparing: an absolute one and one that leads out of the archive stay what they are."""
    return posixpath.normpath(name)


def _end(group: Group) -> int:
    """Where the next header stands, or the end mark."""
    end = max(content.end for content in group.contents.values())
    return end + -end % BLOCK

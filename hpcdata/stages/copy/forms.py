"""A record as it is written: members of a tar, or a JSON line with its files."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpcdata.base import digest
from hpcdata.samples import BadSample, Reason, Sample
from hpcdata.shards.schema import FILES, RECORDS
from hpcdata.sources.base import TEXT_EXTENSIONS, TEXT_FIELDS, decoded_text
from hpcdata.sources.parsing import load_exact
from hpcdata.sources.pictures.fields import IMAGE_FIELDS, TALKS
from hpcdata.sources.pictures.numbered import numbered
from hpcdata.sources.pictures.turns import without_names
from hpcdata.stages.copy.members import is_picture

_IMAGE_FIELDS = ("image_path", "image")
"""Those that are taken out of a record whose pictures are files of their own, where older plans say so."""
_FILES = FILES.removeprefix(f"{RECORDS}/")
"""As a line names it, which lies beside that folder."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """One sample as it goes to disk."""

    index: int
    key: str
    data: bytes
    """What is appended to the stream of the shard."""
    files: tuple[tuple[str, bytes], ...] = ()
    """Files of its own: name, content."""
    num_pictures: int = 0
    is_fixed: bool = False
    """Counted, and not stored: whether its record got markers of its pictures."""

    def content(self) -> int:
        """What it adds to the content digest: BLAKE2b-256 of key, data, and names and bytes of its files."""
        hasher = hashlib.blake2b(digest_size=32)
        files = [piece for name, data in self.files for piece in (name.encode(), data)]
        for piece in (self.key.encode(), self.data, *files):
            digest.feed(hasher, len(piece).to_bytes(8, "little") + piece)
        return int.from_bytes(hasher.digest(), "little")


def as_tar(sample: Sample, index: int, members: Mapping[str, bytes]) -> Written:
    from hpcdata.stages.copy.tars import sample_bytes

    data = sample_bytes(_tar_key(sample, index), members)
    return Written(index=index, key=sample.key, data=data, num_pictures=sum(map(is_picture, members)))


def as_json_line(sample: Sample, index: int, members: Mapping[str, bytes]) -> Written:
    """The fields of its JSON, its text, and the names of its files: pictures in `image`, others by extension."""
    record, files = fields_of(members), []
    for extension, data in members.items():
        if extension == "json" or extension in TEXT_EXTENSIONS:
            continue
        files.append((f"{index:09d}.{extension}", data))
    pictures = [f"{_FILES}/{name}" for name, _ in files if is_picture(name)]
    if pictures:
        is_by_fields = any(member.blob.place is not None for member in sample.members)
        for field in _fields_read(record) if is_by_fields else _IMAGE_FIELDS:
            record.pop(field, None)
        record["image"] = pictures[0] if len(pictures) == 1 else pictures
        if is_by_fields:
            for field in TALKS:  # or the turns would name the files of before
                if field in record:
                    record[field] = without_names(record[field])
    if others := {name.split(".", 1)[1]: f"{_FILES}/{name}" for name, _ in files if not is_picture(name)}:
        record["files"] = others
    line = json.dumps({"key": sample.key, **record}, ensure_ascii=False) + "\n"
    return Written(index=index, key=sample.key, data=line.encode(), files=tuple(files), num_pictures=len(pictures))


def _fields_read(record: Mapping[str, Any]) -> list[str]:
    """Fields that name the pictures of a record, or would be read in place of `image`; others of these names stay."""
    others = numbered(record)
    families = [[field, *others.get(field, ())] for field in IMAGE_FIELDS]
    last = IMAGE_FIELDS.index("image")
    read = next((family for family in families if any(map(record.get, family))), [])
    return [*itertools.chain(*families[: last + 1]), *read]


def fields_of(members: Mapping[str, bytes]) -> dict[str, Any]:
    """Those of its JSON, with its text in `text`. Raises BadSample."""
    record = load_exact(members["json"]) if "json" in members else {}
    if not isinstance(record, dict):
        raise BadSample(Reason.BAD_RECORD, "its JSON is no object")
    text = next((extension for extension in TEXT_EXTENSIONS if extension in members), None)
    if text is not None:
        for field in TEXT_FIELDS:
            record.pop(field, None)
        record["text"] = decoded_text(members[text], what=f".{text}")
    return record


def _tar_key(sample: Sample, index: int) -> str:
    """The sample's own name in its archive; its number in the plan where names have no place for one, as in lines.

    Where the tar holds samples of several inputs, names of one may come again in another: the input's label precedes.
    """
    _, slash, name = sample.key.partition("/")
    if not slash or "." in name.rpartition("/")[2]:
        return f"{index:09d}"
    return sample.key if sample.source else name

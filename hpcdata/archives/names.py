"""A member's name -> a path inside of the folder, or why there is none."""

from __future__ import annotations

import os
import re

from hpcdata.sources.base import clean_name

OWN = ".hpcdata"
"""What the names of our own folders begin with."""
_MOST_BYTES, _MOST_IN_ALL, _MOST_FOLDERS = 255, 3000, 100
_DRIVE = re.compile(rb"[A-Za-z]:")


class Unfit(Exception):
    """The member is not unpacked: its reason."""


def path_of(name: bytes) -> str:
    """Relative, with `/`, without `.` and empty parts. Raises Unfit."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if name.startswith(b"/") or b".." in parts or (parts and _DRIVE.fullmatch(parts[0])):
        raise Unfit("outside")
    if not parts or b"\0" in name or any(part.startswith(os.fsencode(OWN)) for part in parts):
        raise Unfit("bad_name")
    if len(name) > _MOST_IN_ALL or any(len(part) > _MOST_BYTES for part in parts) or len(parts) > _MOST_FOLDERS:
        raise Unfit("long_name")
    return "/".join(map(os.fsdecode, parts))


def label_of(name: bytes) -> str:
    """A member's name as it is shown and noted: of one that is too long for any path, how it begins."""
    if len(name) <= _MOST_IN_ALL:
        return clean_name(name)
    return f"{clean_name(name[:_MOST_BYTES])}... ({len(name)} bytes)"

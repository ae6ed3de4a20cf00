"""Archives of pictures that lie in the folder of a set, unpacked below `image/`: once each, and safely.

    TARGET/SET/image/...                          the files, whole or not there
    TARGET/SET/.unpacked/images_00.tar.gz.json    how many members are durable; `is_done` at the end

After a kill it goes on at the member where it was. A member that leads out of the folder, a link or a device is
refused. A tar that is cut short between two members does not show it: pictures are missing, which relinking sees.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hpcdata.base import files, sealed
from hpcdata.base.errors import Failed
from hpcdata.catalogue.unpacking import archives

BEGINNING = "image"
"""Of the names of archives that hold pictures: `images_part_0.tar.gz`, `image.zip`."""
_NOTES = ".unpacked"
_SYNC_AFTER = 256


def archives_of(folder: Path) -> list[Path]:
    """The archives of pictures of a set, by name."""
    names = sorted(os.listdir(folder))
    return [folder / name for name in names if name.startswith(BEGINNING) and name.endswith(archives.ENDINGS)]


@dataclass(kw_only=True)
class _Progress:
    path: Path
    archive: dict[str, Any]
    """What it is known by: size and time of change."""
    members: int = 0
    is_done: bool = False

    def read(self) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = sealed.read_json(self.path)
            if values["archive"] == self.archive:
                self.members, self.is_done = int(values["members"]), values["is_done"] is True

    def write(self, members: int, unsure: list[Path], *, is_done: bool = False) -> None:
        """After the files are durable."""
        for path in unsure:
            files.sync_file(path)
        for folder in {path.parent for path in unsure}:
            files.sync_folder(folder)
        unsure.clear()
        self.members, self.is_done = members, is_done
        values = {"archive": self.archive, "members": members, "is_done": is_done}
        files.write_atomic(self.path, sealed.to_json(values))


def unpack(archive: Path, target: Path, image_folder: str, *, say: Callable[[str], None]) -> int:
    """How many files were written. target: the folder of the set. Raises UserError, Failed for a damaged archive."""
    notes = target / _NOTES
    notes.mkdir(parents=True, exist_ok=True)
    stat = archive.stat()
    known = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    progress = _Progress(path=notes / f"{archive.name}.json", archive=known)
    progress.read()
    if progress.is_done:
        return 0
    temporary, number, num_before, unsure = (
        notes / f"{archive.name}.{os.getpid()}.tmp",
        0,
        progress.members,
        list[Path](),
    )
    try:
        with archives.opened(archive) as members:
            for member in members:
                number += 1
                if number <= num_before:
                    continue
                place = target / image_folder / PurePosixPath(member.name)
                archives.write(member, temporary, place)
                unsure.append(place)
                if len(unsure) >= _SYNC_AFTER:
                    progress.write(number, unsure)
    except archives.DAMAGED as error:
        raise Failed(f"{archive} is damaged behind its member {number}: {error}; fetch it again") from None
    finally:
        temporary.unlink(missing_ok=True)
    progress.write(number, unsure, is_done=True)
    say(f"{target.name}/{archive.name}: {number - num_before} files")
    return number - num_before

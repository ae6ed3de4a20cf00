"""Where the records of raw files stand: made by reading the files once, kept in memory or in a folder.

    index.json         sealed: the files as they were found, each with what its scan says of single records
    offsets.memmap     [num_records] int64: where each record begins in its (unpacked) file; a row, of Parquet
    inputs/            listings of folders, JSON arrays as lines, unpacked files

A folder that holds an index is opened without looking at the files: they are checked when they are read. Of what is
read from a listing, what that was made from is looked at when the index is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.base import files, sealed
from hpcdata.base.errors import Failed, UserError
from hpcdata.base.typed import checked
from hpcdata.sources import InputFile, Options, Scan, prepare
from hpcdata.sources.at_random import Listed, places, unpacked
from hpcdata.sources.base import refusing_faults
from hpcdata.sources.others import OtherFile, other_files

FORMAT = "hpcdata-records-1"
INDEX, OFFSETS, INPUTS = "index.json", "offsets.memmap", "inputs"
_SMALL_BYTES = 64 * 2**20
"""Below this the start of processes would take longer than reading."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordIndex:
    files: tuple[Listed, ...]
    offsets: np.ndarray
    """[num_records] int64."""
    asked: dict[str, Any]
    """What was asked for: paths and options."""
    origins: tuple[OtherFile, ...] = ()
    """What the listings that it holds were made from."""

    @property
    def ends(self) -> np.ndarray:
        """[num_files] int64: records up to the end of each file."""
        return np.cumsum([listed.scan.num_samples for listed in self.files], dtype=np.int64)

    def identity(self) -> list[list[Any]]:
        """Of the files, by names and sizes."""
        return [
            [item.file.label, item.file.format, item.size, item.scan.num_samples]
            + ([item.file.take, item.file.take_seed] if item.file.take else [])
            + ([item.file.settings] if item.file.settings else [])
            for item in self.files
        ]


def build(
    listed: Sequence[InputFile], options: Options, folder: Path, asked: dict[str, Any], *, num_processes: int | None
) -> RecordIndex:
    """Reads the files, in processes where that pays. Raises UserError."""
    tasks = [_Task(file=file, options=options, folder=str(folder)) for file in listed]
    total = sum(os.path.getsize(file.path) for file in listed if os.path.isfile(file.path))
    number = min(len(tasks), num_processes or (os.cpu_count() or 1))
    if number < 2 or total < _SMALL_BYTES:
        found = list(map(_listed, tasks))
    else:
        with ProcessPoolExecutor(number, multiprocessing.get_context("spawn")) as pool:
            found = list(pool.map(_listed, tasks))
    offsets = np.concatenate([np.zeros(0, np.int64), *(seeks for _, seeks, _ in found)])
    origins = tuple(item for *_, origins in found for item in origins)
    return RecordIndex(files=tuple(item for item, *_ in found), offsets=offsets, asked=asked, origins=origins)


@dataclass(frozen=True, kw_only=True)
class _Task:
    file: InputFile
    options: Options
    folder: str


def _listed(task: _Task) -> tuple[Listed, np.ndarray, tuple[OtherFile, ...]]:
    """(the file, where its records begin, what it was made from if it is not what the user named)."""
    inputs = Path(task.folder) / INPUTS
    origins = (OtherFile.at(task.file.path), *other_files(task.file))
    file = unpacked(prepare(task.file, inputs), inputs)
    before = os.stat(file.path)
    scan, seeks = places(file, task.options)
    after = os.stat(file.path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UserError(f"{file.path} changed while it was read: try again when nothing writes to it")
    found = Listed(file=file, scan=scan, size=after.st_size, mtime_ns=after.st_mtime_ns)
    return found, seeks, origins if file.path != task.file.path else ()


def save(index: RecordIndex, folder: Path) -> None:
    """Durably, the description last."""
    index.offsets.astype("<i8").tofile(folder / OFFSETS)
    files.sync_file(folder / OFFSETS)
    values = {"format": FORMAT, "asked": index.asked, "num_records": len(index.offsets)}
    if index.origins:
        values["origins"] = [dataclasses.asdict(item) for item in index.origins]
    rows = [dataclasses.asdict(_relative(item, folder)) for item in index.files]
    files.write_atomic(folder / INDEX, sealed.to_json({**values, "files": rows}))


def load(folder: Path, asked: dict[str, Any]) -> RecordIndex | None:
    """None where there is none. Raises UserError: one of something else, or a damaged one."""
    path = folder / INDEX
    if not path.exists():
        return None
    remedy = f"remove {folder}, it is made again"
    try:
        values = sealed.read_json(path)
        if values.get("format") != FORMAT:
            raise UserError(f"{path} has format {values.get('format')!r}, expected {FORMAT}: {remedy}")
        if values["asked"] != asked:
            differing = [name for name in asked if values["asked"].get(name) != asked[name]]
            raise UserError(
                f"{folder} is an index of something else ({', '.join(differing)} differs): name another folder"
            )
        found = tuple(_from_mapping(row, folder) for row in values["files"])
        origins = tuple(OtherFile(**item) for item in values.get("origins", ()))
        number = sum(item.scan.num_samples for item in found)
        offsets = np.memmap(folder / OFFSETS, "<i8", "r", shape=(number,)) if number else np.zeros(0, np.int64)
        if (folder / OFFSETS).stat().st_size != 8 * number:
            raise ValueError(f"{OFFSETS} has another size")
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failed(f"{path} is damaged ({error}): {remedy}") from None
    for item in origins:
        with refusing_faults(item.path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not item.is_as_it_was():
                raise UserError(f"{item.path} has changed since it was indexed in {folder}: restore it, or {remedy}")
    return RecordIndex(files=found, offsets=offsets, asked=asked, origins=origins)


@contextlib.contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder to make an index in, which is published as `folder`; one that another process made first stays."""
    if folder.exists() and not (folder / INDEX).exists() and any(folder.iterdir()):
        raise UserError(f"{folder} holds something else than an index: name another folder")
    made = folder.with_name(f".{folder.name}.building.{secrets.token_hex(4)}")
    with files.removed_on_error(made):
        made.mkdir(parents=True)
        yield made
        with contextlib.suppress(OSError):
            folder.rmdir()  # an empty one
        if not files.publish_folder(made, folder):
            shutil.rmtree(made, ignore_errors=True)


def _relative(item: Listed, folder: Path) -> Listed:
    path = Path(item.file.path)
    if not path.is_relative_to(folder):
        return item
    return dataclasses.replace(item, file=dataclasses.replace(item.file, path=str(path.relative_to(folder))))


def _from_mapping(values: dict[str, Any], folder: Path) -> Listed:
    file = InputFile(**{**values["file"], "roots": tuple(values["file"]["roots"])})
    file = checked(dataclasses.replace(file, path=str(folder / file.path)))
    return Listed(file=file, scan=Scan.from_mapping(values["scan"]), size=values["size"], mtime_ns=values["mtime_ns"])

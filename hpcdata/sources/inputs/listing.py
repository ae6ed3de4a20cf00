"""Which files a run reads, in which order, under which labels and formats. Resolved once, into the plan."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TypedDict

from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of
from hpcdata.sources.base import InputFile, Scan, clean_name, refusing_faults
from hpcdata.sources.folder import is_below
from hpcdata.sources.inputs.formats import TABLE
from hpcdata.sources.inputs.looking import FoundFile, Look
from hpcdata.sources.mixes import parts
from hpcdata.sources.patterns import expand_paths
from hpcdata.sources.sets.settings import SOURCES as SETS

logger = logging.getLogger(__name__)

_FOLDERS = ("folder", "documentfolder")
_OF_RECORDS = ("jsonl", "array", "text", "textarray", "parquet", "csv", "table", "urls", "arrow", *SETS)


def list_inputs(
    raw_data_dir: str | Sequence[str],
    source: str,
    *,
    without: str = "",
    image_root: str | None = None,
    allows_outside: bool = False,
    as_older: bool = False,
    listed: Collection[str] | None = None,
    seed: int = 0,
    mapping: str = "",
    made: str = "",
) -> list[InputFile]:
    """All inputs in order. Raises UserError if one is missing, is of no known kind, or there is none.

    without: a folder that is never looked into, of a run that writes into the folder of its inputs. image_root: where
    pictures of records lie, None for the folder of each file. allows_outside: also anywhere else. as_older: chooses
    as plans did that have no `found`, by names alone and with notes on a data set (`state.json`) among the inputs.
    listed: folders whose documents are one input, a listing, as a plan says; None: where there are many of them. seed:
    what entries `random:N` of mixes draw by. mapping: as in `Options`; by it files of any fields are inputs.
    made: what is made of annotations, as `sets.settings.settings_line` says it.
    """
    root = image_root and os.path.abspath(image_root)
    if root:
        with refusing_faults(root):
            if kind_of(root) != "folder":
                raise UserError(f"data.image_root={image_root} is no folder")
    look = Look(source=source, without=without, as_older=as_older, listed=listed, seed=seed, mapping=mapping)
    paths = [path for path in expand_paths(raw_data_dir) if not is_below(path, without)]
    found = [file for path in paths for file in look.found(path)]
    if not found:
        raise UserError(f"no inputs in {raw_data_dir}")
    unique = _without_repeats(found)
    parent = os.path.commonpath([os.path.dirname(file.path) for file in unique])
    return [
        InputFile(
            path=file.path,
            label=label,
            format=file.format,
            num_declared=file.num_declared,
            take=file.take,
            take_seed=file.take_seed,
            settings=mapping if file.format.startswith(TABLE) else made if file.format in SETS else "",
            **_places(file, root, allows_outside),
        )
        for file, label in zip(unique, _labels(unique, parent), strict=True)
    ]


def _labels(files: Sequence[FoundFile], parent: str) -> Iterator[str]:
    """Names below a folder. Behind that of a file of which a part is taken stands which; numbers tell repeats apart."""
    seen: Counter[str] = Counter()
    for file in files:
        label = clean_name(os.fsencode(os.path.relpath(file.path, parent)))
        label += f"@{file.take}" if file.take not in ("", parts.ALL) else ""
        seen[label] += 1
        yield f"{label}@{seen[label]}" if seen[label] > 1 else label


class _Places(TypedDict):
    base: str
    roots: tuple[str, ...]


def _places(file: FoundFile, root: str | None, allows_outside: bool) -> _Places:
    """Where the pictures of its records lie, and may lie."""
    if not file.format.startswith(_OF_RECORDS):
        return _Places(base=file.path if file.format in _FOLDERS else os.path.dirname(file.path), roots=())
    base = root or (file.path if os.path.isdir(file.path) else os.path.dirname(file.path))
    return _Places(base=base, roots=("/",) if allows_outside else (base,))


def warn_of_differences(files: Sequence[InputFile], scans: Sequence[Scan]) -> int:
    """Logs the files that hold another number of samples than their wids index says; returns how many do."""
    differing = [
        (file, scan)
        for file, scan in zip(files, scans, strict=True)
        if file.num_declared is not None and file.num_declared != scan.num_samples
    ]
    for file, scan in differing:
        logger.warning("%s has %d samples, its index says %d", file.label, scan.num_samples, file.num_declared)
    return len(differing)


def _without_repeats(found: list[FoundFile]) -> list[FoundFile]:
    """A mix may list a file several times: each time has a seed of its own."""
    unique: dict[tuple[str, str, int], FoundFile] = {}
    for file in found:
        first = unique.setdefault((os.path.realpath(file.path), file.take, file.take_seed), file)
        if first is not file:
            logger.warning("input %s is given twice (first as %s): it is read once", file.path, first.path)
    return list(unique.values())

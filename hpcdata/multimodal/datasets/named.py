"""Sets of the catalogue that are here, opened by their names: `get_dataset("chart_qa", split="validation")`."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpcdata.base.command import quoted
from hpcdata.base.errors import UserError
from hpcdata.catalogue import listing, record
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.registry import Catalogue, key_of, matcher
from hpcdata.catalogue.settings import FOLDERS, find_data_dir, find_folders
from hpcdata.catalogue.states import fetch_line, folder_of, names_below, read_state
from hpcdata.multimodal.datasets.base import Dataset
from hpcdata.sources.base import refusing_faults


class NoReader(UserError):
    """The set is here, and only a class of the user's own can open it."""


_SPLITS = {"val": "validation", "valid": "validation", "dev": "validation", "training": "train"}


def find(name: str) -> Entry | None:
    return _catalogue(os.environ.get(FOLDERS, "")).find(name)


def nearest(name: str) -> list[str]:
    """Names of sets that come near to one that is none."""
    catalogue = _catalogue(os.environ.get(FOLDERS, ""))
    return [item for item in catalogue.nearest(name) if catalogue.find(item) is not None]


def open_named(name: str, entry: Entry, split: str | None, *, data_dir: str | None = None, **options: Any) -> Dataset:
    """options: of `SourceDataset` or `TableDataset`. Raises UserError for a set that is not here, a split that it does
    not have, and one that hpcdata cannot read.
    """
    root = find_data_dir(data_dir)
    folder = folder_of(entry, root)
    if not any(names_below(folder)):
        raise UserError(f"{entry.name} is not in {folder}: {read_state(entry, root).remedy}")
    if entry.reader is None or key_of(name) in map(key_of, entry.variants):
        more = f" ({entry.note})" if entry.note and entry.reader is None else ""
        raise NoReader(
            f"{name} lies in {folder}, and hpcdata has no reader for it: a class of your own reads it, see "
            f"hpcdata.multimodal.register{more}"
        )
    if entry.urls:
        return _of_urls(entry, folder, split, options)
    return _of_files(entry, folder, split_of(entry, split or "train"), options)


def split_of(entry: Entry, split: str) -> str:
    """As the entry names it. Raises UserError for one that it has not."""
    known = next((item for item in (split, _SPLITS.get(split, split)) if item in entry.splits), None)
    if known is None:
        raise UserError(f"{entry.name} has no split {split}: it has {', '.join(entry.splits) or 'none'}")
    return known


def files_of(entry: Entry, folder: Path, split: str) -> tuple[list[str], list[str]]:
    """(the files of a split that are here, those that belong to it and are not), sorted. The listing says what belongs
    to it; where there is none, as nobody has listed the set, names such as `train-00000-of-00003.parquet` do.
    """
    patterns, listed = entry.splits[split], listing.load(folder)
    fits = matcher(patterns).fullmatch
    of_listing = [] if listed is None else [item.path for item in listed.files if fits(item.path)]
    with refusing_faults(str(folder)):
        names: Iterable[str] = of_listing or _with_others(filter(fits, names_below(folder)))
    if not any(mark in pattern for pattern in patterns for mark in "*?"):
        names = patterns
    paths = [os.path.join(folder, name) for name in sorted(names)]
    here = [path for path in paths if os.path.isfile(path)]
    return here, sorted(set(paths) - set(here)) if here or of_listing else []


def _with_others(names: Iterable[str]) -> set[str]:
    """Names, and those of the other shards that they are counted with."""
    found = set(names)
    for name in list(found):
        if (counted := _COUNTED.fullmatch(name)) is not None and int(counted[3]) <= _MOST_SHARDS:
            start, number, total, end = counted.groups()
            found.update(f"{start}{shard:0{len(number)}}-of-{total}{end}" for shard in range(int(total)))
    return found


_COUNTED = re.compile(r"(.*?)(\d+)-of-(\d+)(\.[^/]*)")
_MOST_SHARDS = 100_000


def _of_files(entry: Entry, folder: Path, split: str, options: dict[str, Any]) -> Dataset:
    files, missing = files_of(entry, folder, split)
    if missing:
        raise UserError(
            f"{entry.name}, split {split}: {len(missing)} of {len(files) + len(missing)} files are not here, such as "
            f"{missing[0]}: hpcdata download {quoted(entry.name)}"
        )
    if not files:
        raise UserError(
            f"{entry.name}, split {split}: no file of {', '.join(entry.splits[split])} is in {folder}: "
            f"hpcdata download --check {quoted(entry.name)}"
        )
    reader = entry.reader
    assert reader is not None
    files = _listed(entry, folder, split, files) if reader.ids else files
    if reader.kind == "rows":
        from hpcdata.multimodal.datasets.tables import TableDataset

        of_all: dict[str, Any] = {"each": reader.each, "style": reader.style, "constants": reader.constants}
        return TableDataset(files, reader.fields, **of_all, **options)
    fields = dict(reader.fields)
    roots = {name: fields.pop(name) for name in list(fields) if name.startswith("image_root")}
    if (image_root := roots.get(f"image_root.{split}", roots.get("image_root"))) is not None:
        is_beside = image_root.startswith("{folder}")
        fields["image_root"] = image_root if is_beside else os.path.join(folder, image_root)
    if reader.kind == "questions":
        from hpcdata.multimodal.datasets.questions import QuestionsDataset

        root = fields.pop("image_root", os.fspath(folder))
        layout = {"image_root": root, "list_name": reader.list_name, "words": reader.words, "without": reader.without}
        places = {"index_dir": record.Record(folder).own / "questions"}
        given = {**layout, **places, "style": reader.style, "constants": reader.constants, **options}
        return QuestionsDataset(files, fields, **given)
    from hpcdata.multimodal.datasets.sources import SourceDataset

    return SourceDataset(files, None, **{"style": reader.style, **fields, **options})


def _listed(entry: Entry, folder: Path, split: str, files: list[str]) -> list[str]:
    """Those that a list of ids says are of the split. Raises UserError for one that is not here, or of other files."""
    assert entry.reader is not None
    ids = {name: _ids(entry, folder / path) for name, path in entry.reader.ids.items()}
    stems = {os.path.basename(file).partition(".")[0]: file for file in files}
    for name, known in ids.items():
        if not known & stems.keys():
            raise UserError(f"{entry.name}: no line of {folder / entry.reader.ids[name]} is the name of a file of it")
    wanted = ids[split] if split in ids else stems.keys() - set[str]().union(*ids.values())
    return [file for stem, file in stems.items() if stem in wanted]


def _ids(entry: Entry, path: Path) -> set[str]:
    """The names in a list, one a line, without endings."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"{path}, which says what belongs to a split, cannot be read: {error.strerror}; "
            f"hpcdata download {quoted(entry.name)}"
        ) from None
    return {line.strip().strip('"').partition(".")[0] for line in lines if line.strip()}


def _of_urls(entry: Entry, folder: Path, split: str | None, options: dict[str, Any]) -> Dataset:
    """What the stage `fetch` has made of the tables."""
    from hpcdata.multimodal.datasets.fetched import FetchedDataset

    run = folder / entry.urls[0].folder
    if not (run / "dataset").is_dir():
        raise UserError(f"the pictures of {entry.name} are not in {run}: {fetch_line(entry, folder)}")
    files = matcher(entry.splits[split_of(entry, split or "train")])
    reader = entry.reader
    assert reader is not None
    given = {"style": reader.style, "constants": reader.constants, **options}
    return FetchedDataset(run, reader.fields, url=entry.urls[0].url, files=files, **given)


@functools.cache
def _catalogue(folders: str) -> Catalogue:
    """folders: the variable's value, so that a change of it is seen."""
    return Catalogue(find_folders([], {FOLDERS: folders}))

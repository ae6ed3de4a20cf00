"""Named sets looked at: does every split that is here open, how many examples has it, and can they be decoded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.catalogue import listing
from hpcdata.catalogue.entry import Entry
from hpcdata.catalogue.states import ABSENT, folder_of, read_state
from hpcdata.multimodal.datasets.base import Dataset, Example
from hpcdata.multimodal.datasets.named import NoReader, files_of, open_named
from hpcdata.multimodal.formatting.fields import pictures_of
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.samples import BadSample


@dataclass
class SplitReport:
    """num_looked examples were made and their pictures decoded. problem: why it does not open at all."""

    name: str
    split: str
    num_examples: int = 0
    num_looked: int = 0
    num_pictures: int = 0
    expected: int | None = None
    num_missing: int = 0
    """Rows of a list of addresses whose pictures did not come: no fault of what is here."""
    num_left_out: int = 0
    """Questions that its reader leaves out, as its entry says."""
    faults: Counter[str] = field(default_factory=Counter)
    first: str = ""
    """The first example that is none, and why."""
    problem: str = ""
    is_checked: bool = True
    """Whether `hpcdata download` has brought the files, or read them through."""
    unread: str = ""
    """Why nobody has opened it, though nothing is wrong with it: hpcdata has no reader for the set."""

    def is_good(self) -> bool:
        return not (self.problem or self.faults or self.is_short())

    def is_short(self) -> bool:
        """Other than the entry says."""
        return self.expected is not None and self.expected != self.num_examples


def is_here(entry: Entry, root: Path) -> bool:
    """Whether there is something of it to look at."""
    if read_state(entry, root).name not in _NOT_FETCHED:
        return True  # a person may have the others all the same
    return any(any(files_of(entry, folder_of(entry, root), split)) for split in entry.splits)


_NOT_FETCHED = (ABSENT, "manual", "gated", "private", "not published", "script only")


def look_at(entry: Entry, root: Path, *, most: int | None, num_threads: int) -> Iterator[SplitReport]:
    """A report of each split. most: examples of each that are made, evenly spread; None: all."""
    folder = folder_of(entry, root)
    is_checked = listing.load(folder) is not None
    splits = [split for split in entry.splits if any(files_of(entry, folder, split))]
    if not splits:
        yield SplitReport(entry.name, "-", problem=f"no file of its splits is in {folder}")
    for split in splits:
        expected = None if entry.urls else entry.rows.get(split)
        report = SplitReport(entry.name, split, expected=expected, is_checked=is_checked)
        try:
            dataset = open_named(entry.name, entry, split, data_dir=os.fspath(root))
            report.num_examples, report.num_missing = len(dataset), getattr(dataset, "num_missing", 0)
            report.num_left_out = getattr(dataset, "num_left_out", 0)
            if not (report.num_examples or report.num_missing or report.expected == 0):
                report.problem = "its files are here, and have no example"
            _look(dataset, report, most, num_threads)
        except NoReader as error:
            report.unread = str(error)
        except UserError as error:
            report.problem = str(error)
        yield report


def _look(dataset: Dataset, report: SplitReport, most: int | None, num_threads: int) -> None:
    size = len(dataset)
    wanted = range(size) if most is None else np.unique(np.linspace(0, size - 1, min(most, size)).astype(int)).tolist()
    with ThreadPoolExecutor(num_threads) as pool:
        for item, (num_pictures, fault, detail) in zip(
            wanted, pool.map(lambda item: _one(dataset, item), wanted), strict=True
        ):
            report.num_looked += 1
            report.num_pictures += num_pictures
            if fault:
                report.faults[fault] += 1
                report.first = report.first or f"example {item}: {detail}"


def _one(dataset: Dataset, item: int) -> tuple[int, str, str]:
    """(pictures, reason, message) of an example; a reason where it is none."""
    try:
        pictures = list(_pictures(dataset[item]))
        for picture in pictures:
            picture.decode()
        return len(pictures), "", ""
    except BadSample as error:
        return 0, error.reason.value, str(error)
    except OSError as error:
        return 0, "unreadable", str(error)


def _pictures(example: Example) -> Iterator[PictureFile]:
    for image in pictures_of(example):
        if isinstance(image, PictureFile):
            yield image
        elif isinstance(image, str | bytes | os.PathLike):
            yield PictureFile(image)

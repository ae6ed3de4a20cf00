"""SourceDataset: anything that hpcdata reads as a dataset, in any order.

    SourceDataset("/data/llava.json")        tars, JSON lines and arrays, Parquet, folders of pictures, texts
    SourceDataset("RUN")                     the raw inputs of a run, as its plan has them
    SourceDataset("COPY/dataset")            what the stage `copy` has written

A path that hpcdata has to read through first is read when the dataset is made, in several processes; `index_dir` keeps
what was found, so that the next time it opens at once. `stage=measure` does the same as a job, see `MeasuredDataset`.
"""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.datasets import index
from hpcdata.multimodal.datasets.base import Dataset, Example, fingerprint_of
from hpcdata.multimodal.datasets.examples import example_of, options_for
from hpcdata.multimodal.datasets.index import RecordIndex
from hpcdata.samples import Record
from hpcdata.sources import Options, list_inputs
from hpcdata.sources.at_random import RecordReader
from hpcdata.sources.custom.mapping import read_mapping
from hpcdata.sources.mixes.entries import digest_of, is_mix
from hpcdata.sources.pictures.placeholders import KEEP, POLICIES
from hpcdata.sources.sets.settings import SOURCES, settings_line

_OF_CONTENT = ("placeholders", "mapping")
"""Options by which no record stands elsewhere."""
_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test")


class SourceDataset(Dataset):
    """One example a record: those that cannot become one raise BadSample when they are asked for.

    Safe in several threads and in workers of a DataLoader.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Sequence[str],
        split: str | None = None,
        *,
        source: str = "auto",
        text_field: str | None = None,
        image_field: str | None = None,
        image_root: str | None = None,
        outside_images: str = "reject",
        needs_text: bool = True,
        needs_image: bool = True,
        placeholders: Literal["keep", "fix", "reject"] = "keep",
        mapping: str | os.PathLike[str] | None = None,
        tasks: Sequence[str] | None = None,
        coordinates: str = "llava",
        seed: int = 0,
        style: str | None = None,
        sample: int | None = None,
        index_dir: str | os.PathLike[str] | None = None,
        num_processes: int | None = None,
    ) -> None:
        """path: as `data.raw_data_dir` takes it; source, text_field, image_field, image_root, outside_images,
        placeholders, mapping, tasks, coordinates and seed as in `data`. split: of the files of a folder, those of this
        name (`train/`, `train-00000.parquet`), and a file or its folder must name it, unless it is `train`; None: all.
        needs_text, needs_image: False leaves a side out, and records without it are none the worse. style: of every
        example. sample: only so many of the first. index_dir: a folder that keeps where the records are.

        Raises UserError.
        """
        self.path, self.split, self.style, self.placeholders = path, split, style, placeholders
        self._mapped_by = mapped_by = read_mapping(os.path.expanduser(os.fspath(mapping))) if mapping else ""
        options = options_for(
            text_field=text_field,
            image_field=image_field,
            needs_text=needs_text,
            needs_image=needs_image,
            placeholders=placeholders,
            mapping=mapped_by,
        )
        if placeholders not in POLICIES:
            raise UserError(f"placeholders={placeholders!r}: expected {', '.join(POLICIES)}")
        where = {name: value for name, value in vars(options).items() if name not in _OF_CONTENT}
        given = [path] if isinstance(path, str | os.PathLike) else path
        paths = [os.path.expanduser(os.fspath(item)) for item in given]
        asked: dict[str, Any] = {"paths": [os.path.abspath(item) for item in paths], "split": split, "source": source}
        asked |= {"image_root": image_root, "outside_images": outside_images, "options": where}
        made_of = settings_line(tasks, coordinates)
        if source in SOURCES:
            asked["made"] = made_of
        if mapped_by:
            asked["mapping"] = mapped_by
        if mixes := [digest_of(name) for name in paths if os.path.isfile(name) and is_mix(name)]:
            asked |= {"mixes": mixes, "seed": seed}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

        def made(folder: Path) -> RecordIndex:
            found = _index_of_ours(paths, split, options, folder, asked, num_processes)
            if found is not None:
                return found
            listed = list_inputs(
                _of_split(paths, split),
                source,
                image_root=image_root,
                allows_outside=outside_images == "read",
                seed=seed,
                mapping=mapped_by,
                made=made_of,
            )
            return index.build(listed, options, folder, asked, num_processes=num_processes)

        self._index = self._kept(Path(index_dir).absolute(), asked, made) if index_dir else self._held(made)
        self._set_up(options, sample)

    def _kept(self, folder: Path, asked: dict[str, Any], made: Any) -> RecordIndex:
        found = index.load(folder, asked)
        if found is None:
            with index.building(folder) as building:
                index.save(made(building), building)
            found = index.load(folder, asked)
            assert found is not None
        return found

    def _held(self, made: Any) -> RecordIndex:
        """In memory; listings and unpacked files are in a folder that is gone with the dataset."""
        self._temporary = tempfile.TemporaryDirectory(prefix="hpcdata-")
        found: RecordIndex = made(Path(self._temporary.name))
        if not os.listdir(self._temporary.name):
            self._temporary.cleanup()
            self._temporary = None
        return found

    def _set_up(self, options: Options, sample: int | None) -> None:
        self._ends = self._index.ends
        self._size = len(self._index.offsets) if sample is None else min(sample, len(self._index.offsets))
        self._reader = RecordReader(self._index.files, options)

    def __len__(self) -> int:
        return self._size

    def record(self, item: int) -> Record:
        """The record as its source reads it: a sample, or why it is none."""
        if not 0 <= item < self._size:
            raise IndexError(f"record {item} of {self._size}")
        which = int(np.searchsorted(self._ends, item, side="right"))
        begin = int(self._ends[which - 1]) if which else 0
        offsets = self._index.offsets
        end = int(offsets[item + 1]) if item + 1 < self._ends[which] else self._index.files[which].size
        return self._reader.record(which, position=item - begin, seek=int(offsets[item]), end=end)

    def get(self, item: int, rng: np.random.RandomState) -> Example:
        which = int(np.searchsorted(self._ends, item, side="right"))
        example = example_of(self.record(item), source=self._index.files[which].file.label)
        return example if self.style is None else {**example, "style": self.style}

    def fingerprint(self) -> str:
        """By the names and sizes of the files and by their numbers of records."""
        others: list[str] = [] if self.placeholders == KEEP else [self.placeholders]
        others += [self._mapped_by] if self._mapped_by else []
        return fingerprint_of("SourceDataset", self._index.identity(), self._size, self.style, *others)

    def __repr__(self) -> str:
        return f"SourceDataset({self.path}, {self._size} records of {len(self._index.files)} files)"

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are not forked: they use the files of this one, which stays with the process that has it."""
        return {**self.__dict__, "_temporary": None}


def _index_of_ours(
    paths: list[str],
    split: str | None,
    options: Options,
    folder: Path,
    asked: dict[str, Any],
    num_processes: int | None,
) -> RecordIndex | None:
    """Of a run or of what it has written; None where the path is no such folder."""
    if len(paths) != 1 or not os.path.isdir(paths[0]):
        return None
    from hpcdata.multimodal.datasets import runs

    if (rows := runs.row_files(Path(paths[0]))) is not None:
        listed_rows = list_inputs([glob.escape(name) for name in rows], "auto")
        return index.build(listed_rows, options, folder, asked, num_processes=num_processes)
    files = runs.copied(Path(paths[0]))
    if files is not None:
        listed, offsets = files
        return RecordIndex(files=tuple(listed), offsets=offsets, asked=asked)
    planned = runs.raw_inputs(Path(paths[0]))
    if planned is None:
        return None
    if split is not None and split != "train":
        raise UserError(f"{paths[0]} is a run, and has no split {split}")
    found = index.build([item.file for item in planned], options, folder, asked, num_processes=num_processes)
    return runs.limited(found, planned)


def _of_split(paths: list[str], split: str | None) -> list[str]:
    """What of the paths belongs to a split. A folder whose entries name no split at all is `train`."""
    if split is None:
        return paths
    found = list[str]()
    for path in paths:
        if not os.path.isdir(path):
            words = re.split(r"[^a-z0-9]+", os.path.join(*Path(path).parts[-2:]).lower())
            if split != "train" and not _same(split) & set(words):
                raise UserError(f"{path} names no split {split}: leave the split out, or give the files of {split}")
            found.append(path)
            continue
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
        its = [os.path.join(path, name) for name in names if _names_split(name, split)]
        others = sorted({known for name in names for known in _SPLITS if _names_split(name, known)})
        if not its and (others or split != "train"):
            raise UserError(f"{path} has no split {split}: it has {', '.join(others) or 'no splits, only train'}")
        found += its or [path]
    return found


def _same(split: str) -> set[str]:
    return set(_SPLITS[2:6]) if split in _SPLITS[2:6] else {split.lower()}


def _names_split(name: str, split: str) -> bool:
    return re.fullmatch(rf"{re.escape(split)}([-_.].*)?", name) is not None

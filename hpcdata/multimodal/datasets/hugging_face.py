"""Datasets of Hugging Face: by their id, saved by `save_to_disk`, or Parquet files. The one place of that library.

    class Captions(HfDataset):
        PATH = "owner/name"

Pictures are not decoded when a row is read: they come as `PictureFile`s. `self.dataset` is the library's own object.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.datasets.base import Dataset, Example, fingerprint_of
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.samples import BadSample
from hpcdata.sources.pictures.fields import TALKS, turns_in

_LISTS = ("points", *TALKS)
_SAVED, _SAVED_SPLITS = ("state.json", "dataset_info.json"), "dataset_dict.json"


class HfDataset(Dataset):
    """Rows as examples, by the names of their columns."""

    PATH: ClassVar[str] = ""
    """An id of the hub (also what `HF_HOME` has of it), a folder of `save_to_disk`, Parquet: a file, folder, glob."""

    def __init__(
        self, split: str = "train", keep_in_memory: bool = True, *, path: str | None = None, **options: Any
    ) -> None:
        """options: of `datasets.load_dataset`, such as `name` (its configuration), `revision`, `cache_dir`.
        Raises UserError for a path or split that is not there.
        """
        self.split, self._path = split, os.path.expanduser(path or self.PATH)
        if not self._path:
            raise UserError(f"{type(self).__name__} has no PATH: set it, or give path=...")
        self.dataset = _load(self._path, split, keep_in_memory, options)
        self._rows = self.dataset.with_format("arrow")
        self._pictures = {name for name, feature in self.dataset.features.items() if _holds_pictures(feature)}

    def __len__(self) -> int:
        return len(self.dataset)

    def get(self, item: int, rng: np.random.RandomState) -> Example:
        (row,) = self._rows[item : item + 1].to_pylist()
        found = {name: with_pictures(value) if name in self._pictures else value for name, value in row.items()}
        return {**found, **{name: _listed(found[name], name) for name in _LISTS if name in found}}

    def fingerprint(self) -> str:
        """By the features, sizes and stored files that the library knows, not by where they are."""
        info = self.dataset.info
        return fingerprint_of(type(self).__qualname__, self.split, len(self), str(info.features), info.config_name)

    @classmethod
    def download(cls, n_procs: int = 1) -> None:
        """Fetches all splits of the hub into its cache; a folder or file of one's own is there already."""
        if not cls.PATH or os.path.exists(cls.PATH):
            return
        import datasets

        datasets.load_dataset_builder(cls.PATH).download_and_prepare(num_proc=n_procs if n_procs > 1 else None)


def is_saved(path: str) -> bool:
    """Whether a folder is one of `save_to_disk`."""
    if os.path.isfile(os.path.join(path, _SAVED_SPLITS)):
        return True
    return all(os.path.isfile(os.path.join(path, name)) for name in _SAVED)


def _load(path: str, split: str, keep_in_memory: bool, options: Mapping[str, Any]) -> Any:
    import datasets

    try:
        if is_saved(path):
            return _of_split(datasets.load_from_disk(path, keep_in_memory=keep_in_memory), path, split)
        files = sorted(glob.glob(path)) if glob.has_magic(path) else [path] if path.endswith(".parquet") else []
        if files:
            return datasets.load_dataset(
                "parquet", data_files={split: files}, split=split, keep_in_memory=keep_in_memory, **options
            )
        return datasets.load_dataset(path, split=split, keep_in_memory=keep_in_memory, **options)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}, split {split}: {' '.join(str(error).split())}") from None
    except (FileNotFoundError, ConnectionError) as error:  # what is not here, and on the hub as far as it is reached
        raise UserError(
            f"{path} is neither a folder of save_to_disk nor Parquet, and no data set of the hub that can be reached "
            f"or is in its cache: {' '.join(str(error).split())[:200]}"
        ) from None


def _of_split(found: Any, path: str, split: str) -> Any:
    if hasattr(found, "keys"):
        if split not in found:
            raise UserError(f"{path} has no split {split}: it has {', '.join(found)}")
        return found[split]
    saved = found.split
    if saved is not None and str(saved) != split:
        raise UserError(f"{path} is the split {saved}, not {split}")
    return found


def _holds_pictures(feature: Any) -> bool:
    import datasets

    if isinstance(feature, datasets.Image):
        return True
    if isinstance(feature, Mapping):
        return any(map(_holds_pictures, feature.values()))
    if isinstance(feature, list | tuple):
        return any(map(_holds_pictures, feature))
    inner = getattr(feature, "feature", None)
    return inner is not None and _holds_pictures(inner)


def with_pictures(value: Any) -> Any:
    """A stored value with its pictures, `{"bytes": ..., "path": ...}`, as what can be opened, and with points and
    turns as lists, which older libraries store as `{"x": [...], "y": [...]}`.
    """
    if isinstance(value, Mapping):
        if value.keys() == {"bytes", "path"}:
            source = value["path"] if value["bytes"] is None else value["bytes"]
            return None if source is None else PictureFile(source)
        return {name: with_pictures(_listed(item, name)) for name, item in value.items()}
    return [with_pictures(item) for item in value] if isinstance(value, list) else value


def _listed(value: Any, name: str) -> Any:
    if name in TALKS:
        with contextlib.suppress(BadSample):
            return turns_in(value, name)
    return _points(value) if name == "points" else value


def _points(points: Any) -> Any:
    if not isinstance(points, Mapping) or points.keys() != {"x", "y"}:
        return points
    x, y = points["x"], points["y"]
    if not (isinstance(x, list) and isinstance(y, list)):
        return points
    return [{"x": its, "y": other} for its, other in itertools.zip_longest(x, y)]

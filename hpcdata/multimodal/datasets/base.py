"""What a dataset is: so many examples, each made with its own randomness. And the one that holds all of them.

    class MyDataset(DatasetBase):
        def load(self):
            return json.load(open(f"{self.data_dir}/annotations.json"))

        def get(self, item, rng):
            return {"image": f"{self.data_dir}/{self.data[item]['image']}", "text": self.data[item]["caption"]}

An example is a dictionary: `image` (a path, bytes, `PictureFile`, PIL image, uint8 array, or a list of these), and what
is said of it: `messages`, `message_list`, `text`, `question` with `answer`, `points` ..., with `metadata` and `weight`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import operator
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.formatting.fields import picture_fields
from hpcdata.multimodal.image_files import PictureFile
from hpcdata.order.seeding import NUM_SEEDS
from hpcdata.samples import BadSample

Example = dict[str, Any]
ROOT = "MOLMO_DATA_DIR"
"""The environment variable that says where data sets lie."""
_BELOW = ("", "torch_datasets", "video_datasets")


class Dataset:
    """So many examples. A class of one's own has `__len__` and `get`."""

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} has no __len__")

    def get(self, item: int, rng: np.random.RandomState) -> Example:
        """Example `item`, from 0; all that is drawn for it comes from `rng`. Raises BadSample for one that is none."""
        raise NotImplementedError(f"{type(self).__name__} has no get")

    def __getitem__(self, item: SupportsIndex) -> Example:
        """Example `item`, with randomness that is the same every time: see `DeterministicDataset` for others."""
        place = index_of(item, len(self), type(self).__name__)
        return self.get(place, np.random.RandomState(place % NUM_SEEDS))

    def __iter__(self) -> Iterator[Example]:
        return (self[item] for item in range(len(self)))

    def fingerprint(self) -> str:
        """What a loader's state remembers of it: other data have another one. Here its class and size."""
        return fingerprint_of(type(self).__qualname__, len(self))

    @classmethod
    def download(cls, n_procs: int = 1) -> None:
        """Brings here what the dataset consists of, if it has to be brought; the others do nothing."""

    def preload(self) -> Dataset:
        """Reads ahead what examples refer to: the files of their pictures, whole. Examples that are none are left.

        They are then in the memory of the system, as far as it has room. Returns the dataset.
        """
        for item in range(len(self)):
            with contextlib.suppress(BadSample):
                for picture in _files(self[item]):
                    picture.read()
        return self


class DatasetBase(Dataset):
    """A dataset that `load` reads into memory: `self.data`, a list."""

    data_dir: str

    def __init__(self, split: str = "train", sample: int | None = None, *, data_dir: str | None = None) -> None:
        """sample: only so many of its first examples. data_dir: the folder of its files; by default the attribute of
        its class, else the folder of its name in $MOLMO_DATA_DIR, else that one itself.
        """
        self.split, self.sample = split, sample
        found = data_dir or getattr(type(self), "data_dir", None) or _find_data_dir(type(self).__name__)
        if found is not None:
            self.data_dir = os.fspath(found)
        data = self.load()
        self.data: Sequence[Any] = data if sample is None else data[:sample]

    def load(self) -> Sequence[Any]:
        """All examples, or what `get` makes them of."""
        raise NotImplementedError(f"{type(self).__name__} has no load")

    def __len__(self) -> int:
        return len(self.data)

    def get(self, item: int, rng: np.random.RandomState) -> Example:
        found = self.data[item]
        if not isinstance(found, Mapping):
            raise UserError(
                f"{type(self).__name__}.load gives {type(found).__name__} and no dictionaries: it needs a method get"
            )
        return dict(found)

    def fingerprint(self) -> str:
        """Also of what it holds; a class whose own `__init__` holds nothing in `data` is its class and size."""
        if "data" not in self.__dict__:
            return super().fingerprint()
        return fingerprint_of(type(self).__qualname__, self.__dict__.get("split"), list(self.data))

    def __getattr__(self, name: str) -> str:
        if name == "data_dir":
            raise AttributeError(
                f"{type(self).__name__} has no data_dir: give data_dir=..., or set the attribute of its class, or the "
                f"environment variable {ROOT}"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name}")


def index_of(item: SupportsIndex, size: int, what: str) -> int:
    """From 0; a negative one counts from the end. Raises IndexError, or TypeError for what is no number."""
    place = operator.index(item)
    place += size if place < 0 else 0
    if not 0 <= place < size:
        raise IndexError(f"example {item} of {what}, which has {size}")
    return place


def fingerprint_of(*values: object) -> str:
    """Of plain values, arrays, bytes and paths; of others counts only what they are."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=_plain).encode()).hexdigest()[:32]


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    return os.fspath(value) if isinstance(value, os.PathLike) else type(value).__qualname__


def snake_case(name: str) -> str:
    """`PixMoCap` -> `pix_mo_cap`, `MyDataset` -> `my_dataset`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _find_data_dir(name: str) -> str | None:
    root = os.environ.get(ROOT)
    if not root:
        return None
    names = (name, snake_case(name), snake_case(name).replace("_", ""))
    folders = [os.path.join(root, below, item) for below in _BELOW for item in names]
    return next((folder for folder in folders if os.path.isdir(folder)), root)


def _files(example: Example) -> Iterator[PictureFile]:
    """Its pictures that are not decoded yet."""
    values = [example[field] for field in picture_fields(example)]
    for image in [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]:
        if isinstance(image, PictureFile):
            yield image
        elif isinstance(image, str | os.PathLike):
            yield PictureFile(image)

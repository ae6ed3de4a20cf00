"""Datasets by name.

    register("captions", Captions)              a class, or a function of split and options
    @register("captions")                       the same as a decorator
    get_dataset("captions", split="train")

Names are told apart by letters and digits alone: `pixmo_cap`, `PixMoCap` and `pixmo-cap` are one. Sets of the catalogue
that `hpcdata download` has brought have theirs. A path is a name as well: of anything that hpcdata reads, of a data set
that `measure` has measured, or of one that Hugging Face has saved.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from hpcdata.base.errors import UserError
from hpcdata.multimodal.datasets.base import Dataset

Factory = Callable[..., Dataset]
F = TypeVar("F", bound=Factory)
_MOST_NAMES = 30
_PATHS = ("/", "./", "../", "~")


@dataclass(frozen=True)
class _Entry:
    name: str
    make: Factory


_ENTRIES: dict[str, _Entry] = {}


@overload
def register(name: str) -> Callable[[F], F]: ...
@overload
def register(name: str, make: F) -> F: ...
def register(name: str, make: Factory | None = None) -> Any:
    """Gives a dataset a name: `make(split=..., **options)` is called for it. Raises UserError for one that is taken.

    The same thing may be registered again, as a module that is reloaded does.
    """

    def add(made: F) -> F:
        key = _key(name)
        if not key:
            raise UserError(f"{name!r} is no name of a dataset: it has no letter and no digit")
        known = _ENTRIES.get(key)
        if known is not None and _identity(known.make) != _identity(made):
            raise UserError(f"the name {name} is taken, by {_described(known)}: choose another one")
        _ENTRIES[key] = _Entry(name, made)
        return made

    return add if make is None else add(make)


def registered() -> list[str]:
    """All names, sorted."""
    return sorted(entry.name for entry in _ENTRIES.values())


def get_dataset(name: str | os.PathLike[str], split: str | None = "train", **options: Any) -> Dataset:
    """The dataset of a name or a path. options: of its class. Raises UserError for a name that nothing has."""
    entry = _ENTRIES.get(_key(os.fspath(name)))
    if entry is not None and not _is_path(os.fspath(name)):
        return entry.make(split=split, **options)
    if os.path.exists(os.path.expanduser(name)):
        return _open(os.fspath(name), split, options)
    from hpcdata.multimodal.datasets import named

    if not os.fspath(name).startswith(_PATHS) and (known := named.find(os.fspath(name))) is not None:
        return named.open_named(os.fspath(name), known, split, **options)
    if _is_path(os.fspath(name)):
        return _open(os.fspath(name), split, options)
    raise UserError(_unknown(os.fspath(name), named.nearest(os.fspath(name))))


def _open(path: str, split: str | None, options: dict[str, Any]) -> Dataset:
    path = os.path.expanduser(path)
    from hpcdata.multimodal.datasets import hugging_face

    if hugging_face.is_saved(path):
        return hugging_face.HfDataset(split or "train", path=path, **options)
    from hpcdata.multimodal.datasets import runs

    if os.path.isdir(path) and runs.stage_of(Path(path)) == "measure":
        from hpcdata.multimodal.datasets.measured import MeasuredDataset

        if split not in (None, "train"):
            raise UserError(f"{path} is a run, and has no split {split}")
        return MeasuredDataset(path, **options)
    from hpcdata.multimodal.datasets.sources import SourceDataset

    return SourceDataset(path, split, **options)


def _is_path(name: str) -> bool:
    return name.startswith(_PATHS) or "/" in name or any(mark in name for mark in "*{[")


def _key(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def _identity(make: Factory) -> tuple[str, str]:
    return getattr(make, "__module__", ""), getattr(make, "__qualname__", repr(make))


def _described(entry: _Entry) -> str:
    return ".".join(part for part in _identity(entry.make) if part)


def _unknown(name: str, of_catalogue: list[str]) -> str:
    near = [_ENTRIES[key].name for key in difflib.get_close_matches(_key(name), _ENTRIES, n=5, cutoff=0.5)]
    if near := list(dict.fromkeys([*near, *of_catalogue])):
        return f"there is no dataset {name}: did you mean {', '.join(near)}?"
    names = registered()
    known = f"known are {', '.join(names[:_MOST_NAMES])}{', ...' if len(names) > _MOST_NAMES else ''} and those of"
    return (
        f"there is no dataset {name}: {known if names else 'there are those of'} hpcdata download --list; a path of "
        f"data is a name too, and there is no file {name}"
    )

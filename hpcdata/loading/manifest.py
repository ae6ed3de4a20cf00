"""A dataset's manifest: its parts, account and identities, as `manifest.json` beside `parts/`.

Combine writes it, loaders, verify and export read it; both sides use these dataclasses. Reading costs one small
file, whatever the number of samples: the files of a part are looked at when the part is opened.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import orjson

from hpcdata import files
from hpcdata.counts import Counts
from hpcdata.errors import UserError
from hpcdata.identities import ImageIdentity, TextIdentity
from hpcdata.plan import Plan
from hpcdata.typed import checked

FORMAT = "hpcdata-dataset-1"
FILE_NAME = "manifest.json"
_MAX_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Part:
    """One folder of column files, with the rows of its tables. `path` is relative to the dataset folder."""

    path: str
    shard: int
    samples: int
    spans: int
    tokens: int
    key_bytes: int
    content_digest: str
    may_grow: bool = False
    """Of an unfinished run: its files can be longer than these rows. Never stored."""


_PART_FIELDS = ("path", "shard", "samples", "spans", "tokens", "key_bytes", "content_digest")
_PART_KEYS = frozenset(_PART_FIELDS)


@dataclass(frozen=True, kw_only=True)
class LayoutDefaults:
    """What the run was configured with, as defaults for layouts. Nothing of it is baked into the stored ids."""

    img_token_shift: int | None = None
    text_vocab_size: int | None = None
    block_size: int | None = None
    resolution: int | None = None

    @classmethod
    def of(cls, plan: Plan) -> LayoutDefaults:
        data = plan.config.data
        return cls(
            img_token_shift=data.img_token_shift,
            text_vocab_size=plan.config.model.text_vocab_size,
            block_size=data.block_size,
            resolution=data.resolution if plan.image else None,
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    fingerprint: str
    """Of the plan."""
    id_dtype: str
    """"uint16" or "int32"."""
    parts: tuple[Part, ...]
    counts: Counts
    content_digest: str
    text: TextIdentity | None = None
    image: ImageIdentity | None = None
    layout: LayoutDefaults = LayoutDefaults()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other top-level entries, kept as they are."""
    folder: Path = Path()
    """Where it was read from: not part of the file."""

    @property
    def num_samples(self) -> int:
        return sum(part.samples for part in self.parts)

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`."""
        body = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "id_dtype": self.id_dtype,
            "parts": [{name: vars(part)[name] for name in _PART_FIELDS} for part in self.parts],
            "counts": self.counts.to_mapping(),
            "content_digest": self.content_digest,
            "text": dataclasses.asdict(self.text) if self.text else None,
            "image": dataclasses.asdict(self.image) if self.image else None,
            "layout": dataclasses.asdict(self.layout),
        }
        return files.to_json({**self.extra, **body})


def read_manifest(path: str | Path) -> Manifest:
    """The manifest of a dataset folder, or of a run folder that contains `dataset/`. Raises UserError."""
    folder = _dataset_folder(Path(path))
    file = folder / FILE_NAME
    if file.stat().st_size > _MAX_BYTES:
        raise UserError(f"{file} is larger than {_MAX_BYTES} bytes: not a manifest")
    return parse_manifest(file.read_bytes(), folder)


def parse_manifest(data: bytes, folder: Path = Path()) -> Manifest:
    """The inverse of `Manifest.to_json`; `folder` is named in errors and kept for opening parts."""
    where = folder / FILE_NAME
    with _without_collection():
        manifest = _parse(data, folder, where)
    _check(manifest, where)
    return manifest


def _parse(data: bytes, folder: Path, where: Path) -> Manifest:
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error}): run hpcdata.combine again") from None
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise UserError(f"{where} has format {found!r}, this version of hpcdata reads {FORMAT!r}")
    try:
        manifest = _from_values(values, folder)
        for item in (manifest.counts, manifest.text, manifest.image, manifest.layout):
            if item is not None:
                checked(item)
        return manifest
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where} is damaged ({type(error).__name__}: {error}): run hpcdata.combine again") from None


@contextmanager
def _without_collection() -> Iterator[None]:
    """Ten thousand new dicts make the collector walk over everything that torch has imported: 60 ms for nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _dataset_folder(path: Path) -> Path:
    for folder in (path, path / "dataset"):
        if (folder / FILE_NAME).is_file():
            return folder
    if not path.exists():
        raise UserError(f"{path} does not exist: expected a dataset folder or the output folder of a combined run")
    if (path / "plan.json").is_file():
        raise UserError(
            f"{path} is a run that is not combined yet: run python -m hpcdata.combine {path}, "
            "or open what is there with allow_tmp=True"
        )
    raise UserError(f"{path} is not a dataset: it has neither {FILE_NAME} nor dataset/{FILE_NAME}")


def _from_values(values: dict[str, Any], folder: Path) -> Manifest:
    own = {item.name for item in dataclasses.fields(Manifest)} | {"format"}
    return Manifest(
        fingerprint=values["fingerprint"],
        id_dtype=values["id_dtype"],
        parts=tuple(map(_part, values["parts"])),
        counts=Counts.from_mapping(values["counts"]),
        content_digest=values["content_digest"],
        text=TextIdentity(**values["text"]) if values.get("text") else None,
        image=ImageIdentity(**values["image"]) if values.get("image") else None,
        layout=LayoutDefaults(**values.get("layout", {})),
        extra={name: value for name, value in values.items() if name not in own},
        folder=folder,
    )


def _part(values: dict[str, Any]) -> Part:
    """Part(**values), three times as fast: a dataset may have ten thousand."""
    if values.keys() != _PART_KEYS:
        return Part(**values)  # says what is wrong
    part = object.__new__(Part)
    object.__setattr__(part, "__dict__", values)
    return part


def _check(manifest: Manifest, where: Path) -> None:
    if manifest.id_dtype not in ("uint16", "int32"):
        raise UserError(f"{where}: id_dtype is {manifest.id_dtype!r}, expected uint16 or int32")
    of_parts = zip(*map(attrgetter(*_PART_FIELDS), manifest.parts), strict=True)  # of ten thousand parts
    columns = dict(zip(_PART_FIELDS, of_parts, strict=True)) if manifest.parts else dict.fromkeys(_PART_FIELDS, ())
    for name, values in columns.items():
        if set(map(type, values)) - {str if name in ("path", "content_digest") else int}:
            raise UserError(
                f"{where} is damaged: a part has no path, digest or numbers of rows: run hpcdata.combine again"
            )
    for path in columns["path"]:
        if path[:1] == "/" or (".." in path and ".." in path.split("/")):
            raise UserError(f"{where}: part {path!r} is outside the dataset folder")
    for name in ("shard", "samples", "spans", "tokens", "key_bytes"):
        if min(columns[name], default=0) < 0:
            path = columns["path"][columns[name].index(min(columns[name]))]
            raise UserError(f"{where}: part {path!r} has a negative number of rows")
    if manifest.num_samples != manifest.counts.written:
        raise UserError(
            f"{where} is damaged: its parts hold {manifest.num_samples} samples, its account says "
            f"{manifest.counts.written} were written: run hpcdata.combine again"
        )

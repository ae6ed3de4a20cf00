"""A dataset's manifest: its parts, account and identities, as `manifest.json` beside `parts/`.

Combine writes it, loaders, verify and export read it; both sides use these dataclasses. Reading costs one small
file, whatever the number of samples: the files of a part are looked at when the part is opened.
"""

from __future__ import annotations

import dataclasses
import gc
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hpcdata.base import sealed
from hpcdata.base.command import to_type
from hpcdata.base.errors import Failed, UserError
from hpcdata.base.typed import checked
from hpcdata.config import values as configuration
from hpcdata.dataset.baked.record import Baked, records
from hpcdata.dataset.partlist import NUMBERS, Part, Parts, parse
from hpcdata.runs.identities import ImageIdentity, TextIdentity
from hpcdata.runs.plan import Plan, arithmetic
from hpcdata.shards.counts import Counts
from hpcdata.shards.shard import ShardSummary

FORMAT = "hpcdata-dataset-1"
_MOST_INPUTS = 50
"""That are named."""
FILE_NAME = "manifest.json"
_MAX_BYTES = 2**30


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
            resolution=data.resolution if plan.image and data.sizes is None else None,
        )


def planned_facts(plan: Plan) -> dict[str, Any]:
    """What a manifest says of the plan beside its identities."""
    return {
        **({"stage": plan.config.stage} if not plan.has_tokens else {}),
        "plan_code_version": plan.code_version,
        "arithmetic": arithmetic(plan),
        "config": configuration.to_mapping(plan.config),
        "inputs": [
            {"path": item.origin, "label": item.file.label, "size": item.size, "mtime_ns": item.mtime_ns}
            | {"samples": item.scan.num_samples}
            | ({"take": item.file.take, "left_out_by_sampling": item.num_left_out} if item.file.take else {})
            for item in plan.inputs
        ],
        **({"found": dataclasses.asdict(plan.found)} if plan.found else {}),
        "not_read": [dataclasses.asdict(item) for item in plan.not_read],
    }


def part_of(name: str, summary: ShardSummary) -> Part:
    """What a manifest says of one part."""
    return Part(
        path=f"parts/{name}",
        shard=summary.header.shard,
        samples=summary.sizes["samples"],
        spans=summary.sizes.get("spans", 0),
        tokens=summary.sizes.get("tokens", 0),
        key_bytes=summary.sizes.get("keys", 0),
        content_digest=summary.content_digest,
    )


class Group(NamedTuple):
    """Consecutive parts of one dataset."""

    folder: Path
    first: int
    stop: int
    is_joined: bool
    """Whether their columns are joined (`hpcdata.dataset.joined`)."""
    baked: tuple[Baked, ...] = ()
    """The layouts that are baked."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    fingerprint: str
    """Of the plan."""
    id_dtype: str
    """"uint16" or "int32"; empty where a stage other than `tokenize` wrote no tokens."""
    parts: Parts
    counts: Counts
    content_digest: str
    text: TextIdentity | None = None
    image: ImageIdentity | None = None
    layout: LayoutDefaults = LayoutDefaults()
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Other top-level entries, kept as they are."""
    folder: Path = Path()
    """Where it was read from: not part of the file."""
    groups: tuple[Group, ...] = ()
    """Of several datasets, their parts: not part of the file."""
    target: Path | None = None
    """Where combine has laid it out for another system: not part of the file."""

    @property
    def num_samples(self) -> int:
        return sum(self.parts.samples)

    def named_inputs(self) -> dict[str, Any]:
        """`inputs`: label, samples and size of the first ones, without paths; `num_inputs`, `num_samples`: of all."""
        found = self.extra.get("inputs")
        items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
        shown = [{name: item.get(name) for name in ("label", "samples", "size")} for item in items[:_MOST_INPUTS]]
        samples = sum(number for item in items if isinstance(number := item.get("samples"), int))
        return {"num_inputs": len(items), "num_samples": samples, "inputs": shown}

    @property
    def stage(self) -> str | None:
        """The stage that wrote something else than tokens; None for tokens."""
        found = self.extra.get("stage")
        return found if isinstance(found, str) else None

    @property
    def joined(self) -> dict[str, str]:
        """path -> sha256 of the columns that are joined (`hpcdata.dataset.joined`); of few parts none is."""
        found = self.extra.get("joined")
        return found if isinstance(found, dict) else {}

    @property
    def baked(self) -> tuple[Baked, ...]:
        """The layouts that are baked (`hpcdata.dataset.baked`). Raises UserError."""
        found = self.extra.get("baked")
        return records(found, self.folder / FILE_NAME) if isinstance(found, list) else ()

    def all_baked(self) -> list[tuple[Path, tuple[Baked, ...]]]:
        """Of each dataset, its folder and the layouts that are baked."""
        return [(group.folder, group.baked) for group in self.groups] or [(self.folder, self.baked)]

    def to_json(self) -> bytes:
        """The bytes of `manifest.json`."""
        body = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "id_dtype": self.id_dtype,
            "parts": self.parts.stored(),
            "counts": self.counts.to_mapping(),
            "content_digest": self.content_digest,
            "text": dataclasses.asdict(self.text) if self.text else None,
            "image": dataclasses.asdict(self.image) if self.image else None,
            "layout": dataclasses.asdict(self.layout),
        }
        return sealed.to_json({**self.extra, **body})


def read_manifest(path: str | Path, *, even_if_changed: bool = False) -> Manifest:
    """The manifest of a dataset folder, or of a run folder that contains `dataset/`. Raises UserError.

    even_if_changed: reads it although its bytes are not those that combine wrote, for `verify`, which says more.
    """
    folder = _dataset_folder(Path(path))
    file = folder / FILE_NAME
    if file.stat().st_size > _MAX_BYTES:
        raise UserError(f"{file} is larger than {_MAX_BYTES} bytes: not a manifest")
    data = file.read_bytes()
    if not even_if_changed and (fault := sealed.fault_of(data)) is not None:
        raise Failed(f"{file}: {fault}; restore it, or combine its run again")
    return parse_manifest(data, folder)


def parse_manifest(data: bytes, folder: Path = Path()) -> Manifest:
    """The inverse of `Manifest.to_json`; `folder` is named in errors and kept for opening parts."""
    where = folder / FILE_NAME
    with _without_collection():
        manifest = _parse(data, folder, where)
    _check(manifest, where)
    return manifest


def _parse(data: bytes, folder: Path, where: Path) -> Manifest:
    try:
        values = sealed.without_seal(parse(data))
    except ValueError as error:
        raise Failed(f"{where} is not JSON ({error}): combine its run again") from None
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise UserError(f"{where} has format {found!r}, this version of hpcdata reads {FORMAT!r}")
    try:
        manifest = _from_values(values, folder)
        for item in (manifest.counts, manifest.text, manifest.image, manifest.layout):
            if item is not None:
                checked(item)
        return manifest
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Failed(f"{where} is damaged ({type(error).__name__}: {error}): combine its run again") from None


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
            f"{path} is a run that is not combined yet: run {to_type('combine', path)}, "
            "or open what is there with allow_tmp=True"
        )
    missing = f"it has neither {FILE_NAME} nor dataset/{FILE_NAME}"
    raise UserError(f"{path} is not a dataset: {missing}; hpcdata launch makes one of raw data")


def _from_values(values: dict[str, Any], folder: Path) -> Manifest:
    own = {item.name for item in dataclasses.fields(Manifest)} | {"format"}
    return Manifest(
        fingerprint=values["fingerprint"],
        id_dtype=values["id_dtype"],
        parts=Parts.of_values(values["parts"]),
        counts=Counts.from_mapping(values["counts"]),
        content_digest=values["content_digest"],
        text=TextIdentity(**values["text"]) if values.get("text") else None,
        image=ImageIdentity(**values["image"]) if values.get("image") else None,
        layout=LayoutDefaults(**values.get("layout", {})),
        extra={name: value for name, value in values.items() if name not in own},
        folder=folder,
    )


def _check(manifest: Manifest, where: Path) -> None:
    if manifest.id_dtype not in ("uint16", "int32") and not (manifest.stage and not manifest.id_dtype):
        raise UserError(f"{where}: id_dtype is {manifest.id_dtype!r}, expected uint16 or int32")
    parts = manifest.parts
    paths = "\n" + "\n".join(parts.path)
    if "\n/" in paths or ".." in paths:
        for path in parts.path:
            if path[:1] == "/" or ".." in path.split("/"):
                raise UserError(f"{where}: part {path!r} is outside the dataset folder")
    for name in NUMBERS:
        column: array[int] = vars(parts)[name]
        if min(column, default=0) < 0:
            raise UserError(f"{where}: part {parts.path[column.index(min(column))]!r} has a negative number of rows")
    if manifest.num_samples != manifest.counts.written:
        raise Failed(
            f"{where} is damaged: its parts hold {manifest.num_samples} samples, its account says "
            f"{manifest.counts.written} were written: combine its run again"
        )

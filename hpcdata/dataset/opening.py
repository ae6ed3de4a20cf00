"""Finding what a path holds: a dataset, one committed shard, or a run that is not finished yet.

Shards and checkpoints are parts like those of a combined dataset, so a manifest is made for them in memory and
everything else stays the same. A checkpoint counts as far as its progress.json vouches for it: what an array task
appends meanwhile is not seen. `counts.missing` and `extra["gaps"]` say what is not there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcdata.base import digest
from hpcdata.base.errors import Unfinished, UserError
from hpcdata.dataset.manifest import FILE_NAME, LayoutDefaults, Manifest, read_manifest
from hpcdata.dataset.partlist import Part, Parts
from hpcdata.runs.inputs.planned import ShardSpec
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan, load_plan
from hpcdata.shards import shard
from hpcdata.shards.counts import Counts
from hpcdata.shards.schema import Sizes
from hpcdata.shards.shard import Progress, ShardSummary


def open_manifest(path: str | Path, *, allow_tmp: bool = False) -> Manifest:
    """The manifest of a dataset, a run, or a committed shard. Raises UserError when there is none.

    `allow_tmp`: of a run that is not complete, take the shards and checkpoints that are there.
    """
    path = Path(path)
    if (path / shard.SHARD).is_file() and not (path / FILE_NAME).exists():
        return _shard_manifest(path)
    if allow_tmp and (path / "plan.json").is_file():
        complete = RunPaths(path).complete_dataset()
        return read_manifest(complete) if complete else _run_manifest(path)
    return read_manifest(path)


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """What there is of one shard, and in which folder."""

    folder: Path
    shard: int
    sizes: Sizes
    counts: Counts
    content_digest: str
    may_grow: bool = False

    @classmethod
    def of(cls, folder: Path, number: int, found: ShardSummary | Progress, *, may_grow: bool = False) -> _Piece:
        return cls(
            folder=folder,
            shard=number,
            sizes=found.sizes,
            counts=found.counts,
            content_digest=found.content_digest,
            may_grow=may_grow,
        )

    def part(self, root: Path) -> Part:
        return Part(
            path=self.folder.relative_to(root).as_posix(),
            shard=self.shard,
            samples=self.sizes["samples"],
            spans=self.sizes.get("spans", 0),
            tokens=self.sizes.get("tokens", 0),
            key_bytes=self.sizes.get("keys", 0),
            content_digest=self.content_digest,
            may_grow=self.may_grow,
        )


def _run_manifest(root: Path) -> Manifest:
    plan, paths = load_plan(root), RunPaths(root)
    found = [(spec, _find(plan, paths, spec)) for spec in plan.shards()]
    gaps = list(_gaps(found))
    missing = sum(gap["missing"] for gap in gaps)
    pieces = [piece for _, piece in found if piece is not None]
    if not any(piece.sizes["samples"] for piece in pieces):
        raise Unfinished(f"{root}: no shard of {plan.num_shards} holds a sample yet, try again after a checkpoint")
    counts = sum((piece.counts for piece in pieces), Counts()) + Counts(inputs=missing, missing=missing)
    return _manifest(
        root,
        pieces,
        plan.fingerprint,
        plan.id_dtype,
        counts=counts,
        text=plan.text,
        image=plan.image,
        layout=LayoutDefaults.of(plan),
        extra={"gaps": gaps},
    )


def _shard_manifest(folder: Path) -> Manifest:
    """One shard alone; identities and layout come from the plan or manifest that stands where it belongs."""
    try:
        summary = shard.read_summary(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not a readable shard: {error}") from None
    header = summary.header
    piece = _Piece.of(folder, header.shard, summary)
    made = _manifest(folder.parent, [piece], header.fingerprint, header.id_dtype, counts=summary.counts)
    context = _context(folder.absolute().parent.parent)
    if context is None or context.fingerprint != header.fingerprint:
        return made
    return dataclasses.replace(made, text=context.text, image=context.image, layout=context.layout)


def _context(folder: Path) -> Manifest | None:
    """The run (shards/X) or dataset (parts/X) that a shard belongs to."""
    if (folder / FILE_NAME).is_file():
        return read_manifest(folder)
    return _run_manifest(folder) if (folder / "plan.json").is_file() else None


def _find(plan: Plan, paths: RunPaths, spec: ShardSpec) -> _Piece | None:
    folder = paths.find_shard(spec.name)
    if folder is not None:
        return _Piece.of(folder, spec.shard, shard.read_summary(folder))
    header = plan.header(spec)
    found = [(shard.valid_progress(old, header), old) for old in shard.list_attempts(paths.shards, spec.name)]
    valid = [(progress, old) for progress, old in found if progress is not None]
    if not valid:
        return None
    progress, old = max(valid, key=lambda pair: pair[0].samples_read)
    return _Piece.of(old, spec.shard, progress, may_grow=True)


def _gaps(found: list[tuple[ShardSpec, _Piece | None]]) -> Iterator[dict[str, Any]]:
    """The ends of shards that are not there, as combine --allow_tmp records them."""
    for spec, piece in found:
        missing = spec.count - (piece.counts.inputs if piece else 0)
        if missing:
            first = spec.source_index + spec.first + spec.count - missing
            yield {"shard": spec.name, "first_missing": first, "missing": missing}


def _manifest(
    root: Path, pieces: list[_Piece], fingerprint: str, id_dtype: str, *, counts: Counts, **context: Any
) -> Manifest:
    content = digest.add(*(digest.from_hex(piece.content_digest) for piece in pieces))
    return Manifest(
        fingerprint=fingerprint,
        id_dtype=id_dtype,
        parts=Parts.of(piece.part(root) for piece in pieces),
        counts=counts,
        content_digest=digest.to_hex(content),
        folder=root,
        **context,
    )

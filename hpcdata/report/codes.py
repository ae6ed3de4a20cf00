"""How a run uses its codebook, counted in the codes of some committed shards, drawn evenly over the run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from hpcdata.dataset.manifest import read_manifest
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.plan import Plan
from hpcdata.samples import Kind
from hpcdata.shards import shard

_T = TypeVar("_T")
MAX_SHARDS = 16
MAX_CODES = 2**22


@dataclass(frozen=True, kw_only=True)
class CodebookUse:
    num_shards: int
    """That were looked at."""
    counts: np.ndarray
    """[codebook_size] int64: how often each code occurs in them."""

    @property
    def num_codes(self) -> int:
        return int(self.counts.sum())

    @property
    def num_used(self) -> int:
        return int(np.count_nonzero(self.counts))

    @property
    def perplexity(self) -> float:
        """2 to the entropy: as many codes, used equally often, would be as hard to guess."""
        shares = self.counts[self.counts > 0] / max(1, self.num_codes)
        return math.exp(-float(shares @ np.log(shares)))


def count_codes(plan: Plan, paths: RunPaths) -> CodebookUse | None:
    """None for a run without images, or as long as no shard with images is committed."""
    if plan.image is None:
        return None
    counts = np.zeros(plan.image.codebook_size, np.int64)
    num_shards = 0
    for folder, id_dtype in _folders(plan, paths):
        codes = _codes(folder, id_dtype, MAX_CODES // MAX_SHARDS)
        if codes is not None:
            counts += np.bincount(codes, minlength=len(counts))[: len(counts)]
            num_shards += 1
    return CodebookUse(num_shards=num_shards, counts=counts) if counts.any() else None


def _folders(plan: Plan, paths: RunPaths) -> Iterator[tuple[Path, str]]:
    """Folders of shards or of a dataset's parts, and the dtype of their ids."""
    dataset = paths.complete_dataset()
    if dataset is not None:
        manifest = read_manifest(dataset)
        yield from ((manifest.folder / part.path, manifest.id_dtype) for part in _drawn(list(manifest.parts)))
        return
    committed = sorted(paths.list_names()[0] & set(plan.shard_names))
    for name in _drawn(committed):
        if folder := paths.find_shard(name):
            yield folder, shard.read_summary(folder).header.id_dtype


def _drawn(items: list[_T]) -> list[_T]:
    picked = np.unique(np.linspace(0, len(items) - 1, min(MAX_SHARDS, len(items))).astype(int)) if items else ()
    return [items[index] for index in picked]


def _codes(folder: Path, id_dtype: str, limit: int) -> np.ndarray | None:
    """The first codes of a folder of columns; None when it has none or is being moved."""
    try:
        lengths = np.fromfile(folder / "spans/length.memmap", "<i4", limit)
        kinds = np.fromfile(folder / "spans/kind.memmap", "u1", limit)
        ids = np.memmap(folder / "tokens/ids.memmap", np.dtype(id_dtype).newbyteorder("<"), "r")
    except (OSError, ValueError):
        return None
    num_spans = int(np.searchsorted(np.cumsum(lengths), min(limit, len(ids)), "right"))
    is_code = np.repeat(kinds[:num_spans] == Kind.IMAGE, lengths[:num_spans])
    return np.asarray(ids[: len(is_code)])[is_code]

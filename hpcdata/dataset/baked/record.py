"""What a manifest says of baked rows, and whether the files are those that were written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcdata.base import units
from hpcdata.base.digest import sha256_file
from hpcdata.base.errors import Failed
from hpcdata.base.typed import checked

FOLDER = "baked"
ROWS, FACTS_FILE, RUNS = "rows.memmap", "facts.memmap", "runs.memmap"
FACTS = (
    *("first_run", "num_runs", "index", "text_tokens"),
    *("image_tokens", "truncated_texts", "left_out_images", "skipped_samples"),
)
"""Of each row: where its runs begin and how many there are, the sample's index in the plan, its account. One line of
the processor's cache."""
VALID, IMAGE, TRAINED, COLUMN_BITS = 1, 2, 4, 3
"""A run is the column behind its last, shifted by COLUMN_BITS, and what is true of its columns."""

_BYTES = {"uint16": 2, "int32": 4}


@dataclass(frozen=True, kw_only=True)
class Baked:
    """One layout of one dataset."""

    layout: str
    """As it was asked for: its name, and options that are not those of the dataset: `text:max_length=1024`."""
    digest: str
    """Of all its options."""
    folder: str
    """Below that of the dataset."""
    dtype: str
    """"uint16", or "int32" where its ids do not fit."""
    width: int
    samples: int
    runs: int
    sha256: Mapping[str, str]
    """Of each file."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            ROWS: self.samples * self.width * _BYTES[self.dtype],
            FACTS_FILE: self.samples * 8 * len(FACTS),
            RUNS: self.runs * 4,
        }

    @property
    def num_bytes(self) -> int:
        return sum(self.sizes().values())

    def describe(self) -> str:
        """`t2i: 1,000 rows of 1,280 columns, 2.4 GiB`."""
        rows = f"{units.counted(self.samples, 'row')} of {units.counted(self.width, 'column')}"
        return f"{self.layout}: {rows}, {units.size(self.num_bytes)}"

    def to_mapping(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def records(values: Sequence[Mapping[str, Any]], where: Path) -> tuple[Baked, ...]:
    """The inverse of `to_mapping`, of all layouts of a dataset. Raises UserError."""
    try:
        found = tuple(checked(Baked(**value)) for value in values)
    except TypeError as error:
        raise Failed(f"{where} is damaged (baked: {error}): combine its run again") from None
    for baked in found:
        if baked.folder.startswith("/") or ".." in baked.folder.split("/") or baked.dtype not in _BYTES:
            raise Failed(f"{where} is damaged (baked: {baked.folder!r} of {baked.dtype!r}): combine its run again")
    return found


def problems_of(dataset: Path, found: Sequence[Baked], num_samples: int) -> Iterator[str]:
    """Where files of baked rows are not those that were written for so many samples."""
    for baked in found:
        if baked.samples != num_samples:
            yield f"{baked.folder} has rows of {baked.samples} samples, there are {num_samples}"
        for name, size in baked.sizes().items():
            path = dataset / baked.folder / name
            if not path.exists():
                yield f"{baked.folder}/{name} is missing"
            elif path.stat().st_size != size:
                yield f"{baked.folder}/{name} has {path.stat().st_size} bytes, the manifest says {size}"
            elif sha256_file(path) != baked.sha256.get(name):
                yield f"{baked.folder}/{name} does not have the sha256 in manifest.json"

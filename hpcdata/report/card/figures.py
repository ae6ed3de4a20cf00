"""Sizes of samples and pictures in a few figures: of all parts where there are few, of some that are spread evenly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from hpcdata.base import units
from hpcdata.base.errors import UserError
from hpcdata.dataset.manifest import Manifest
from hpcdata.report.card.model import Table
from hpcdata.samples import Kind
from hpcdata.shards.shard import read_summary
from hpcdata.shards.stored import read_columns

MOST_PARTS = 32
NUM_BINS = 24
_SHARES = (0, 0.05, 0.5, 0.95, 1)
COLUMNS = ("", "mean", "least", "5 %", "median", "95 %", "most")


def sizes_of(manifest: Manifest) -> tuple[Table | None, str]:
    """The figures, and a word on what they are of; None where the columns are not those of a dataset in parts."""
    paths = list(manifest.parts.path)
    chosen = paths if len(paths) <= MOST_PARTS else [paths[int(i)] for i in np.linspace(0, len(paths) - 1, MOST_PARTS)]
    found: dict[str, list[np.ndarray]] = defaultdict(list)
    for path in chosen:
        folder = manifest.folder / path
        try:
            summary = read_summary(folder)
            columns = read_columns(folder, summary.header.schema, summary.sizes)
        except (UserError, OSError, ValueError):
            continue
        for name, values in _measured(columns, has_files=summary.header.schema.has_files).items():
            found[name].append(np.asarray(values, np.int64))
    rows, bars = [], list[Sequence[int]]()
    for name, pieces in found.items():
        values = np.concatenate(pieces)
        if values.size and values.max() > 0:
            rows.append([name, *_row(values, is_bytes="bytes" in name)])
            bars.append(_bars(values))
    if not rows:
        return None, ""
    of = "" if len(chosen) == len(paths) else f"Of {len(chosen)} of {units.counted(len(paths), 'part')}, spread evenly."
    return Table(columns=COLUMNS, rows=rows, bars=bars), of


def _measured(columns: Mapping[str, np.ndarray], *, has_files: bool) -> dict[str, np.ndarray]:
    """What a stage's columns say of sizes, by name."""
    if "samples/num_bytes.memmap" in columns:
        return {"bytes of a line" if has_files else "bytes of a sample": columns["samples/num_bytes.memmap"]}
    if "spans/size.memmap" in columns:
        return _of_measures(columns)
    if "spans/length.memmap" in columns:
        return _of_tokens(columns)
    return {}


def _of_tokens(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    of, num = _samples_of_spans(columns)
    kind, length = columns["spans/kind.memmap"], np.asarray(columns["spans/length.memmap"], np.int64)
    text, image = (np.where(kind == wanted, length, 0) for wanted in (Kind.TEXT, Kind.IMAGE))
    return {
        "text ids of a sample": np.bincount(of, text, num),
        "image codes of a sample": np.bincount(of, image, num),
        "pictures of a sample": np.bincount(of, kind == Kind.IMAGE, num),
    }


def _of_measures(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    of, num = _samples_of_spans(columns)
    kind, size = columns["spans/kind.memmap"], np.asarray(columns["spans/size.memmap"], np.int64)
    pictures = size[kind == Kind.IMAGE]
    return {
        "text ids of a sample": np.bincount(of, np.where(kind == Kind.TEXT, size[:, 0], 0), num),
        "pictures of a sample": np.bincount(of, kind == Kind.IMAGE, num),
        "height of a picture": pictures[:, 0],
        "width of a picture": pictures[:, 1],
    }


def _samples_of_spans(columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, int]:
    """The sample of each span, and how many samples there are."""
    number = columns["samples/num_spans.memmap"]
    return np.repeat(np.arange(len(number)), number), len(number)


def _row(values: np.ndarray, *, is_bytes: bool) -> list[str]:
    def shown(value: float) -> str:
        return units.size(value) if is_bytes else units.count(value)

    mean = float(values.mean())
    quantiles = np.quantile(values, _SHARES, method="inverted_cdf")
    return [shown(mean) if is_bytes or mean >= 10 else f"{mean:.2f}", *(shown(float(value)) for value in quantiles)]


def _bars(values: np.ndarray) -> list[int]:
    counts, _ = np.histogram(values, min(NUM_BINS, int(values.max() - values.min()) + 1))
    return [int(count) for count in counts]

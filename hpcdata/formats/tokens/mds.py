"""Shards of MosaicML Streaming (MDS, version 2), written as its format says, without its library.

    index.json             all shards: columns, sizes, rows, sha256
    shard.00000.mds        u32 n | u32[n + 1] offsets | the columns as JSON | rows: u32 sizes, then the values

Ids are arrays of one dimension (`ndarray:uint16`, `ndarray:int32`), so a row without ids has no place: it is a reject.
The column of ids is `tokens`, as LLM Foundry reads it. `StreamingDataset(local=OUT)` opens it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats.arranging import Building
from hpcdata.formats.tokens import settling
from hpcdata.formats.tokens.base import Context, ExportedPart, Written
from hpcdata.formats.tokens.packed_items import Packed, files_of, item_of, values_of
from hpcdata.formats.tokens.rows import Rows, Sequences
from hpcdata.samples import Reason

_ABLE = ("input_ids", "modality", "loss_mask", "key", "text", "spans")
_NAMES = {"input_ids": "tokens"}
_SHAPES = ((2**8, "<u1"), (2**16, "<u2"), (2**32, "<u4"))


class Mds:
    name = "mds"
    keys = ("columns", *settling.SEQUENCE_KEYS)
    ending, has_stream, has_files, piece_bytes, columns = ".mds", False, True, None, ()

    def settle(self, export: ExportConfig, manifest: Manifest) -> ExportConfig:
        export = settling.settled_ids(export, manifest, eod=False, dtypes=("uint16", "int32", "int64"))
        return settling.settled_columns(export, manifest, able=_ABLE)

    def bytes_a_row(self, export: ExportConfig, manifest: Manifest) -> float:
        return settling.bytes_a_row(export, manifest)

    def open(self, context: Context) -> _Writer:
        return _Writer(context.export)

    def arrange(
        self, export: ExportConfig, manifest: Manifest, parts: Sequence[ExportedPart], building: Building
    ) -> Mapping[str, Any]:
        shards, config = list[dict[str, Any]](), _config(export)
        for part in parts:
            for file, rows in zip(part.files(), part.columns["pieces/num_rows.memmap"].tolist(), strict=True):
                name = f"shard.{len(shards):05d}.mds"
                building.link(file.path, name, file.sha256)
                raw = {"basename": name, "bytes": file.size, "hashes": {"sha256": file.sha256}}
                shards.append({**config, "samples": rows, "raw_data": raw, "zip_data": None})
        building.write("index.json", json.dumps({"version": 2, "shards": shards}, sort_keys=True).encode())
        return settling.facts_of(export, manifest)


class _Writer:
    def __init__(self, export: ExportConfig) -> None:
        self._export, self._rule = export, settling.rule_of(export)
        self._header = json.dumps(_config(export), sort_keys=True).encode()

    def write(self, rows: Rows) -> Written:
        sequences = rows.sequences(self._rule)
        empty = np.flatnonzero(sequences.lengths == 0).tolist()
        rejects = [(number, Reason.EMPTY_SEQUENCE, "no ids, and MDS has no empty arrays") for number in empty]
        columns = [_column(name, rows, sequences) for name in sorted(self._export.columns or (), key=_named)]
        gone = set(empty)
        items = [
            (number, item_of([column(number) for column in columns]))
            for number in range(len(rows))
            if number not in gone
        ]
        packed = files_of(items, self._export.file_bytes, before=self._header)
        return _written(packed, [*rejects])


def _written(packed: Packed, rejects: list[tuple[int, Reason, str]]) -> Written:
    return Written(files=packed.files, rejects=sorted([*rejects, *packed.rejects]))


def _column(name: str, rows: Rows, sequences: Sequences) -> Callable[[int], bytes]:
    """Row number -> the value as MDS stores it."""
    return _spans(rows) if name == "spans" else values_of(name, rows, sequences, array=_array)


def _spans(rows: Rows) -> Callable[[int], bytes]:
    columns, first = {name: values.tolist() for name, values in rows.span_columns().items()}, rows.first_span.tolist()

    def spans_of(number: int) -> bytes:
        some = slice(first[number], first[number + 1])
        return json.dumps({name: values[some] for name, values in columns.items()}).encode()

    return spans_of


def _array(data: memoryview, length: int) -> bytes:
    """One dimension: how wide its size is, its size, its values."""
    width, dtype = next((place, dtype) for place, (most, dtype) in enumerate(_SHAPES) if length < most)
    return bytes([1 << 2 | width]) + np.array(length, dtype).tobytes() + data


def _config(export: ExportConfig) -> dict[str, Any]:
    """What a shard and the index say of the columns."""
    names = sorted(export.columns or (), key=_named)
    return {
        "version": 2,
        "format": "mds",
        "compression": None,
        "hashes": ["sha256"],
        "size_limit": export.file_bytes,
        "column_names": [_named(name) for name in names],
        "column_encodings": [_encoding(name, export) for name in names],
        "column_sizes": [None] * len(names),
    }


def _named(name: str) -> str:
    return _NAMES.get(name, name)


def _encoding(name: str, export: ExportConfig) -> str:
    if name == "input_ids":
        return f"ndarray:{export.dtype}"
    return {"key": "str", "text": "str", "spans": "json"}.get(name, "ndarray:uint8")


FORMAT = Mds()

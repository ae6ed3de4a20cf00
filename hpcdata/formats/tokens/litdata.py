"""Chunks of litData, written as its format says, without its library (0.2.76; an extra is not needed).

    index.json           all chunks, and how items are stored
    chunk-0-0.bin        u32 n | u32[n + 1] offsets | items: u32 sizes, then the values

Each row is an item {"input_ids": array, "modality": array, ...} for `StreamingDataset(OUT)`. With `block_size` the ids
of a chunk stand end to end for `StreamingDataset(OUT, item_loader=TokensLoader(block_size))`, which delivers blocks
across rows and never across chunks: so the last block of a chunk is filled with `eod`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats.arranging import Building
from hpcdata.formats.tokens import settling
from hpcdata.formats.tokens.base import Context, ExportedPart, Written
from hpcdata.formats.tokens.packed_items import files_of, item_of, values_of
from hpcdata.formats.tokens.rows import Rows, Sequences
from hpcdata.samples import Reason
from hpcdata.shards.schema import Column

_NUMPY = {"uint8": 4, "uint16": 5, "int32": 2, "int64": 3}
_TORCH = {"uint16": 20, "int32": 16, "int64": 18}
"""Its numbers of dtypes."""
_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
_PROTOCOL = 1


class LitData:
    name = "litdata"
    keys = ("columns", "block_size", *settling.SEQUENCE_KEYS)
    ending, has_stream, has_files, piece_bytes = ".bin", False, True, None
    columns = (
        Column(table="pieces", name="num_ids", dtype="int64"),
        Column(table="pieces", name="num_added", dtype="int64"),
    )

    def settle(self, export: ExportConfig, manifest: Manifest) -> ExportConfig:
        size = export.block_size
        if size is None:
            export = settling.settled_ids(export, manifest, eod=False, dtypes=("uint16", "int32", "int64"))
            return settling.settled_columns(
                export, manifest, able=("input_ids", "modality", "loss_mask", "key", "text")
            )
        if size < 1:
            raise UserError(f"export.block_size={size}: expected a number above 0")
        if export.columns not in (None, ["input_ids"]):
            raise UserError("export.columns: with export.block_size there are input_ids alone")
        export = settling.settled_ids(export, manifest, eod=True, dtypes=("int32", "uint16", "int64"))
        if not isinstance(export.eod, int):
            raise UserError("export.block_size needs export.eod: it divides rows, and fills the last block of a chunk")
        return dataclasses.replace(export, columns=["input_ids"])

    def bytes_a_row(self, export: ExportConfig, manifest: Manifest) -> float:
        return settling.bytes_a_row(export, manifest)

    def open(self, context: Context) -> _Writer:
        return _Writer(context.export)

    def arrange(
        self, export: ExportConfig, manifest: Manifest, parts: Sequence[ExportedPart], building: Building
    ) -> Mapping[str, Any]:
        chunks, added = list[dict[str, Any]](), 0
        for part in parts:
            pieces = [part.columns[f"pieces/{name}.memmap"].tolist() for name in ("num_rows", "num_ids", "num_added")]
            for file, rows, ids, more in zip(part.files(), *pieces, strict=True):
                name, dim = f"chunk-0-{len(chunks)}.bin", ids if export.block_size else None
                building.link(file.path, name, file.sha256)
                chunks.append({"chunk_bytes": file.size, "chunk_size": rows, "dim": dim, "filename": name})
                added += more
        index = {"chunks": chunks, "config": _config(export), "updated_at": "0"}
        building.write("index.json", json.dumps(index, sort_keys=True).encode())
        facts = settling.facts_of(export, manifest)
        return {**facts, "block_size": export.block_size, "added_eod_ids": added} if export.block_size else facts


class _Writer:
    def __init__(self, export: ExportConfig) -> None:
        self._export, self._rule = export, settling.rule_of(export)

    def write(self, rows: Rows) -> Written:
        sequences = rows.sequences(self._rule)
        empty = np.flatnonzero(sequences.lengths == 0).tolist()
        rejects = [(number, Reason.EMPTY_SEQUENCE, "no ids, and litData has no empty arrays") for number in empty]
        kept = np.delete(np.arange(len(rows)), empty)
        if self._export.block_size:
            return self._blocks(sequences, kept, rejects)
        columns = [
            values_of(name, rows, sequences, array=lambda data, length: bytes(data))
            for name in self._export.columns or ()
        ]
        packed = files_of([(row, item_of([column(row) for column in columns])) for row in kept.tolist()], self._limit)
        return self._written(packed.files, [*rejects, *packed.rejects], np.zeros(len(packed.files), np.int64))

    def _blocks(self, sequences: Sequences, kept: np.ndarray, rejects: list[tuple[int, Reason, str]]) -> Written:
        """Items of plain ids; the last one of each file is filled up to a whole block."""
        size, ids = sequences.ids.itemsize, sequences.ids
        items = [(row, sequences.of_row(ids, row).tobytes()) for row in kept.tolist()]
        whole = self._export.block_size or 1
        files, added, more = [], [], []
        packed = files_of(items, self._limit)
        for number, data in packed.files:
            head = 4 * (number + 2)
            lacking = -((len(data) - head) // size) % whole
            files.append((number, _filled(data, number, np.full(lacking, self._rule.eod, ids.dtype).tobytes())))
            added.append(lacking)
            more.append((len(data) - head) // size + lacking)
        written = self._written(files, [*rejects, *packed.rejects], np.array(more, np.int64))
        written.columns["pieces/num_added.memmap"][:] = added
        return written

    @property
    def _limit(self) -> int:
        return self._export.file_bytes

    @staticmethod
    def _written(files: Sequence[tuple[int, bytes]], rejects: list, num_ids: np.ndarray) -> Written:
        columns = {"pieces/num_ids.memmap": num_ids, "pieces/num_added.memmap": np.zeros(len(files), np.int64)}
        return Written(files=files, rejects=sorted(rejects), columns=columns)


def _filled(data: bytes, number: int, more: bytes) -> bytes:
    """A file of `number` items whose last one has `more` bytes."""
    end = 4 * (number + 1)
    return data[:end] + np.array(len(data) + len(more), "<u4").tobytes() + data[end + 4 :] + more


def _config(export: ExportConfig) -> dict[str, Any]:
    names = list(export.columns or ())
    if export.block_size:
        data_format, spec = [f"no_header_tensor:{_TORCH[export.dtype]}"], _LEAF
        types: Any = "tensor"
    else:
        kinds = {name: _NUMPY[export.dtype if name == "input_ids" else "uint8"] for name in names}
        data_format = ["str" if name in ("key", "text") else f"no_header_numpy:{kinds[name]}" for name in names]
        context = json.dumps(names)
        spec = {"type": "builtins.dict", "context": context, "children_spec": [_LEAF] * len(names)}
        types = {name: "str" if name in ("key", "text") else "json" for name in names}
    return {
        "chunk_bytes": export.file_bytes,
        "chunk_size": None,
        "compression": None,
        "compression_batch_size": None,
        "compression_level": None,
        "data_format": data_format,
        "data_spec": json.dumps([_PROTOCOL, spec]),
        "encryption": None,
        "ipc_compression": None,
        "item_loader": "TokensLoader" if export.block_size else "PyTreeLoader",
        "types": types,
    }


FORMAT = LitData()

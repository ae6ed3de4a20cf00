"""Megatron-LM's indexed data: `tokens.bin`, the ids of all rows end to end, and `tokens.idx`, where each begins.

    .bin    ids, little-endian: uint16 where all are below 65,500, as Megatron has it, else int32
    .idx    "MMIDIDX\\0\\0" | u64 version | u8 dtype | u64 sequences | u64 documents + 1 | int32[] lengths
            | int64[] offsets | int64[] documents: their first sequences, and the end | int8[] modes, if wanted

A row is a document of one sequence, with `eod` behind it unless `export.eod=none`. With `export.modes` each run of
texts or pictures is a sequence, of mode 0 or 1; control ids belong to the run that they stand at. All shards fill one
file: where a batch begins follows from the lengths of the rows before it, so processes write side by side, and what is
written twice is the same. `--data-path OUT/tokens`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hpcdata.base.disk.filled import FilledFile
from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats.arranging import Building
from hpcdata.formats.target import Piece as TargetPiece
from hpcdata.formats.tokens import settling
from hpcdata.formats.tokens.base import Context, ExportedPart, Piece, Written
from hpcdata.formats.tokens.rows import Order, Rows, Sequences, bytes_of
from hpcdata.native.arrays import totals_before
from hpcdata.samples import Kind, Reason
from hpcdata.shards.schema import Column

_MAGIC, _VERSION = b"MMIDIDX\x00\x00", 1
_CODES = {"int32": 4, "int64": 5, "uint16": 8}
_LARGEST_VOCABULARY = 65500
"""Their rule: uint16 below it."""
MOST_IDS = 2**31 - 1
"""Of a sequence: lengths are int32."""
_ROWS_AT_ONCE, _BLOCK_BYTES = 2**20, 2**20
_PREFIX = "tokens"


class Megatron:
    name = "megatron"
    keys = ("modes", *settling.SEQUENCE_KEYS)
    ending, has_stream, has_files, piece_bytes = ".bin", False, False, 2**24
    columns = (
        Column(table="samples", name="num_sequences", dtype="int32"),
        Column(table="sequences", name="length", dtype="int32"),
        Column(table="sequences", name="first_byte", dtype="int64"),
        Column(table="sequences", name="mode", dtype="uint8"),
        Column(table="pieces", name="first_byte", dtype="int64"),
    )

    def settle(self, export: ExportConfig, manifest: Manifest) -> ExportConfig:
        dtypes: tuple[settling.Dtype, ...] = ("uint16", "int32", "int64")
        if export.dtype == "auto" and settling.num_ids(export, manifest) >= _LARGEST_VOCABULARY:
            dtypes = ("int32", "int64")
        return settling.settled_ids(export, manifest, eod=True, dtypes=dtypes)

    def bytes_a_row(self, export: ExportConfig, manifest: Manifest) -> float:
        return settling.ids_a_row(export, manifest) * settling.bytes_an_id(export)

    def open(self, context: Context) -> _Writer:
        return _Writer(context)

    def arrange(
        self, export: ExportConfig, manifest: Manifest, parts: Sequence[ExportedPart], building: Building
    ) -> Mapping[str, Any]:
        building.link(parts[0].whole, f"{_PREFIX}.bin", "", pieces=list(_pieces(parts)))
        sizes = [part.summary.sizes for part in parts]
        num_sequences, num_rows = (sum(size[table] for size in sizes) for table in ("sequences", "samples"))
        with building.open(f"{_PREFIX}.idx") as file:
            file.append(_MAGIC + struct.pack("<QBQQ", _VERSION, _CODES[export.dtype], num_sequences, num_rows + 1))
            for name, dtype in (("length", "<i4"), ("first_byte", "<i8")):
                for part in parts:
                    file.append(_as(part.columns[f"sequences/{name}.memmap"], dtype))
            file.append(np.zeros(1, "<i8"))
            done = 0
            for part in parts:
                ends = done + np.cumsum(part.columns["samples/num_sequences.memmap"], dtype="<i8")
                file.append(_as(ends, "<i8"))
                done = int(ends[-1]) if len(ends) else done
            for part in parts if export.modes else ():
                file.append(_as(part.columns["sequences/mode.memmap"], "<i1"))
        facts = settling.facts_of(export, manifest)
        return {**facts, "sequences": num_sequences, "documents": num_rows, "modes": export.modes}


class _Writer:
    def __init__(self, context: Context) -> None:
        self._context, self._rule = context, settling.rule_of(context.export)
        self._item = np.dtype(self._rule.dtype).itemsize
        self._begins = self._find_begins()
        context.whole.parent.mkdir(exist_ok=True)
        self._file = FilledFile(context.whole, int(self._begins[-1]) * self._item)

    def write(self, rows: Rows) -> Written:
        """Writes the whole batch where it belongs, and says of the rows that are kept where they are."""
        whole = rows.whole()
        lengths = self._lengths(whole)
        long = np.flatnonzero(lengths > MOST_IDS).tolist()
        held = whole.without(long)
        sequences = held.sequences(self._rule)
        begin = int(self._begins[self._batch(rows.start)]) * self._item
        kept = np.isin(held.position, rows.position)
        piece = self._write(sequences, begin, int(kept.sum()))
        too_long = [
            (number, Reason.TOO_LONG, f"{int(lengths[place])} ids, a sequence has at most {MOST_IDS}")
            for place in long
            for number in np.flatnonzero(rows.position == whole.position[place]).tolist()
        ]
        return Written(rejects=too_long, pieces=[piece], columns=self._columns(sequences, kept, begin))

    def _write(self, sequences: Sequences, begin: int, num_rows: int) -> Piece:
        size, hasher, stretch = 0, hashlib.sha256(), self._file.stretch(begin)

        def room(num_ids: int) -> np.ndarray:
            return np.ndarray((num_ids,), self._rule.dtype, stretch.room(num_ids * self._item))

        for ids in sequences.blocks(_BLOCK_BYTES, room):  # hashed and written while the processor has it near
            hasher.update(bytes_of(ids))
            stretch.add(ids.nbytes)
            size += ids.nbytes
        stretch.sync()
        return Piece(num_rows=num_rows, size=size, sha256=hasher.digest())

    def _columns(self, sequences: Sequences, kept: np.ndarray, begin: int) -> dict[str, np.ndarray]:
        """kept: [num_rows] bool, of the rows of the batch that is written."""
        if self._context.export.modes:
            row, length, mode = sequences.runs()
        else:
            row, length = np.arange(len(kept)), sequences.lengths
            mode = np.zeros(len(kept), np.uint8)
        first = totals_before(length)[:-1]
        wanted = kept[row]
        return {
            "samples/num_sequences.memmap": np.bincount(row, minlength=len(kept))[kept].astype("<i4"),
            "sequences/length.memmap": length[wanted].astype("<i4"),
            "sequences/first_byte.memmap": (begin + first[wanted] * self._item).astype("<i8"),
            "sequences/mode.memmap": mode[wanted].astype("u1"),
            "pieces/first_byte.memmap": np.array([begin], "<i8"),
        }

    def _lengths(self, rows: Rows) -> np.ndarray:
        """[num_rows] int64: ids of each, control ids too."""
        rule = self._rule
        lengths = rows.num_ids + int(rule.bos is not None) + int(rule.eod is not None)
        around = int(rule.image_begin is not None) + int(rule.image_end is not None)
        if around:
            is_image = rows.table.kind == Kind.IMAGE
            lengths = lengths + around * np.bincount(rows.table.row, is_image, len(rows)).astype(np.int64)
        return lengths

    def _batch(self, position: int) -> int:
        """The number of the batch that begins at `position`."""
        size, a_shard = self._context.batch_size, -(-self._context.shard_size // self._context.batch_size)
        return position // self._context.shard_size * a_shard + position % self._context.shard_size // size

    def _find_begins(self) -> np.ndarray:
        """[batches + 1] int64: how many ids stand before each, by the lengths of all rows; and of all."""
        context = self._context
        order = Order(dataset=context.dataset, seed=context.export.shuffle_seed)
        totals = np.zeros(self._batch(context.num_rows - 1) + 1, np.int64)
        for start in range(0, context.num_rows, _ROWS_AT_ONCE):
            positions = np.arange(start, min(start + _ROWS_AT_ONCE, context.num_rows))
            lengths = self._lengths(order.rows(positions, start=start, count=len(positions)))
            lengths[lengths > MOST_IDS] = 0
            shard, within = np.divmod(positions, context.shard_size)
            batch = shard * -(-context.shard_size // context.batch_size) + within // context.batch_size
            low = int(batch[0])
            found = np.zeros(int(batch[-1]) - low + 1, np.int64)
            np.add.at(found, batch - low, lengths)
            totals[low : low + len(found)] += found
        return totals_before(totals)


def _pieces(parts: Sequence[ExportedPart]) -> Iterator[TargetPiece]:
    """Of the whole file, in order: those of retries are among them already."""
    end = 0
    for part in parts:
        names = ("first_byte", "num_bytes", "sha256")
        first, sizes, digests = (part.columns[f"pieces/{name}.memmap"] for name in names)
        for begin, size, sha256 in zip(first.tolist(), sizes.tolist(), digests, strict=True):
            if begin == end and size:
                yield TargetPiece(size=size, sha256=sha256.tobytes().hex())
                end += size


def _as(values: np.ndarray, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(values).astype(dtype, copy=False)


FORMAT = Megatron()

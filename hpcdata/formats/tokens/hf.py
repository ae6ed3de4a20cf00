"""A folder that `datasets.load_from_disk` opens, of datasets 2.21 and 5: one Arrow stream a shard.

input_ids    list of ids          modality    list of 0 (text) and 1 (image)       loss_mask    list of 0 and 1
key          its key              text        the text that was kept (text.keep_raw)
spans        span_length, span_kind (0 text, 1 image), span_height, span_width, span_role, span_loss: lists
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats import arrow
from hpcdata.formats.arranging import Building
from hpcdata.formats.tokens import settling
from hpcdata.formats.tokens.base import Context, ExportedPart, Written
from hpcdata.formats.tokens.rows import SPAN_COLUMNS, Rows, Sequences
from hpcdata.native.arrays import totals_before
from hpcdata.samples import Reason

if TYPE_CHECKING:
    import pyarrow as pa


class HuggingFace:
    name = "hf"
    keys = ("columns", *settling.SEQUENCE_KEYS)
    ending, has_stream, has_files, piece_bytes, columns = ".arrow", True, False, None, ()

    def settle(self, export: ExportConfig, manifest: Manifest) -> ExportConfig:
        export = settling.settled_ids(export, manifest, eod=False, dtypes=("int32", "uint16", "int64"))
        return settling.settled_columns(export, manifest, able=settling.COLUMNS)

    def bytes_a_row(self, export: ExportConfig, manifest: Manifest) -> float:
        return settling.bytes_a_row(export, manifest)

    def open(self, context: Context) -> _Writer:
        return _Writer(context)

    def arrange(
        self, export: ExportConfig, manifest: Manifest, parts: Sequence[ExportedPart], building: Building
    ) -> Mapping[str, Any]:
        streams = [stream for part in parts if (stream := part.stream) is not None]
        fingerprint = f"{export.source}"
        arrow.write_folder(building, _features(export), streams, fingerprint=fingerprint)
        return settling.facts_of(export, manifest)


class _Writer:
    def __init__(self, context: Context) -> None:
        self._export, self._rule = context.export, settling.rule_of(context.export)
        self._schema, self._shard_size = arrow.schema_of(_features(context.export)), context.shard_size

    def write(self, rows: Rows) -> Written:
        sequences = rows.sequences(self._rule)
        sizes = {"ids": sequences.lengths} | self._texts(rows)
        long = np.flatnonzero(np.maximum.reduce(list(sizes.values())) > arrow.MOST_IN_BATCH).tolist()
        if long:
            rejects = [(number, Reason.TOO_LONG, _too_long(number, sizes)) for number in long]
            written = self.write(rows.without(long))
            return Written(stream=written.stream, rejects=rejects)
        head = [arrow.head(self._schema)] if rows.start % self._shard_size == 0 else []
        return Written(stream=[*head, *map(arrow.body, self._batches(rows, sequences, list(sizes.values())))])

    def _texts(self, rows: Rows) -> dict[str, np.ndarray]:
        """Bytes of each row's text, where there is a column of them."""
        if "text" not in (self._export.columns or ()):
            return {}
        return {"bytes of text": np.array([len(text.encode()) for text in rows.texts], np.int64)}

    def _batches(self, rows: Rows, sequences: Sequences, sizes: Sequence[np.ndarray]) -> Iterator[pa.RecordBatch]:
        """sizes: [num_rows] each, of the columns that can grow beyond what a batch holds."""
        import pyarrow as pa

        arrays = [array for name in self._export.columns or () for array in _arrays(name, rows, sequences)]
        firsts, start = [totals_before(size) for size in sizes], 0
        while start < len(rows):
            reaches = ((first, int(first[start]) + arrow.MOST_IN_BATCH) for first in firsts)
            stop = min(int(np.searchsorted(first, reach, side="right")) - 1 for first, reach in reaches)
            yield pa.RecordBatch.from_arrays([array(start, stop) for array in arrays], schema=self._schema)
            start = stop


def _too_long(number: int, sizes: Mapping[str, np.ndarray]) -> str:
    what, size = next((what, size[number]) for what, size in sizes.items() if size[number] > arrow.MOST_IN_BATCH)
    return f"{size} {what}, a list holds less" if what == "ids" else f"{size} {what}, a column holds less"


def _arrays(name: str, rows: Rows, sequences: Sequences) -> Iterator[Callable[[int, int], pa.Array]]:
    """(first row, end) -> their values, of each column."""
    import pyarrow as pa

    if name in ("key", "text"):
        texts = rows.keys() if name == "key" else rows.texts
        yield lambda start, stop: pa.array(texts[start:stop], pa.string())
    elif name == "spans":
        for column in rows.span_columns().values():
            yield partial(_lists, rows.first_span, column)
    else:
        yield partial(_lists, sequences.first, sequences.ids if name == "input_ids" else getattr(sequences, name))


def _lists(first: np.ndarray, values: np.ndarray, start: int, stop: int) -> pa.Array:
    import pyarrow as pa

    begin, end = int(first[start]), int(first[stop])
    return pa.ListArray.from_arrays(
        pa.array((first[start : stop + 1] - begin).astype(np.int32)), pa.array(values[begin:end])
    )


def _features(export: ExportConfig) -> dict[str, Any]:
    features: dict[str, Any] = {}
    for name in export.columns or ():
        if name == "spans":
            features |= {column: [arrow.value(dtype)] for column, dtype in SPAN_COLUMNS.items()}
        elif name in ("key", "text"):
            features[name] = arrow.value("string")
        else:
            features[name] = [arrow.value(export.dtype if name == "input_ids" else "uint8")]
    return features


FORMAT = HuggingFace()

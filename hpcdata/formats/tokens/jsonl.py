"""JSON lines of tokens, one file a shard, in one of three styles.

ids      {"key": ..., "input_ids": [...], "modality": [...]}: a row as one sequence; modality if there are pictures
spans    {"key": ..., "spans": [{"kind": "text", "ids": [...], "role": "user", "loss": true}, {"kind": "image", ...}]}
liquid   {"data_type": "image_text", "text": ..., "vq_code": [...]}: Liquid's map-style data set. Codes are
         unshifted; the text is the one that was kept (text.keep_raw). Rows of several pictures are rejects.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats.arranging import Building
from hpcdata.formats.tokens import settling
from hpcdata.formats.tokens.base import Context, ExportedPart, Written
from hpcdata.formats.tokens.rows import Rows
from hpcdata.formats.tokens.strings import json_list
from hpcdata.samples import Example, Kind, Reason, Role, Span

_BYTES_AN_ID = 6


class JsonLines:
    name = "jsonl"
    keys = ("style", "columns", *settling.SEQUENCE_KEYS)
    ending, has_stream, has_files, piece_bytes, columns = ".jsonl", True, False, None, ()

    def settle(self, export: ExportConfig, manifest: Manifest) -> ExportConfig:
        export = dataclasses.replace(export, style="ids" if export.style == "auto" else export.style)
        if export.style == "liquid":
            settling.require_texts(manifest, "style liquid")
        if export.style != "ids":
            return settling.without(export, ("columns", *settling.SEQUENCE_KEYS), f"style {export.style}")
        export = settling.settled_ids(export, manifest, eod=False, dtypes=("int64",))
        return settling.settled_columns(export, manifest, able=("input_ids", "modality", "loss_mask", "key"), key=True)

    def bytes_a_row(self, export: ExportConfig, manifest: Manifest) -> float:
        return settling.ids_a_row(export, manifest) * _BYTES_AN_ID + 40

    def open(self, context: Context) -> _Writer:
        return _Writer(context.export)

    def arrange(
        self, export: ExportConfig, manifest: Manifest, parts: Sequence[ExportedPart], building: Building
    ) -> Mapping[str, Any]:
        for number, part in enumerate(parts):
            if (stream := part.stream) is not None:
                building.link(stream.path, f"{number:05d}-of-{len(parts):05d}.jsonl", stream.sha256)
        return {"style": export.style, **(settling.facts_of(export, manifest) if export.style == "ids" else {})}


class _Writer:
    def __init__(self, export: ExportConfig) -> None:
        self._export = export
        self._columns = export.columns or ()

    def write(self, rows: Rows) -> Written:
        if self._export.style == "ids":
            return Written(stream=[_lines(self._as_ids(rows))])
        if self._export.style == "spans":
            return Written(stream=[_lines(_as_spans(example) for example in rows.examples())])
        return _as_liquid(rows)

    def _as_ids(self, rows: Rows) -> Iterator[bytes]:
        sequences = rows.sequences(settling.rule_of(self._export))
        keys = rows.keys() if "key" in self._columns else []
        arrays = {
            name: getattr(sequences, "ids" if name == "input_ids" else name) for name in self._columns if name != "key"
        }
        for number in range(len(rows)):
            key = {"key": keys[number]} if keys else {}
            yield _object(key | {name: sequences.of_row(values, number) for name, values in arrays.items()})


def _lines(objects: Iterable[bytes]) -> bytes:
    return b"".join([item + b"\n" for item in objects])


def _object(values: Mapping[str, Any]) -> bytes:
    """JSON as `json.dumps` spells it. values: arrays of integers, objects that are made, or what JSON has."""
    return b"{%b}" % b", ".join([b'"%b": %b' % (name.encode(), _spelled(value)) for name, value in values.items()])


def _spelled(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return json_list(value)
    return value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()


def _as_spans(example: Example) -> bytes:
    spans = b"[%b]" % b", ".join([_object(_span(span)) for span in example.spans])
    return _object({"key": example.key, "spans": spans})


def _span(span: Span) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": span.kind.name.lower(), "ids": span.ids}
    if span.kind == Kind.IMAGE:
        values |= {"height": span.height, "width": span.width}
    return values | ({"role": span.role.name.lower()} if span.role != Role.NONE else {}) | {"loss": span.loss}


def _as_liquid(rows: Rows) -> Written:
    lines, rejects = [], []
    for number, example in enumerate(rows.examples()):
        images = [span for span in example.spans if span.kind == Kind.IMAGE]
        if len(images) > 1:
            rejects.append((number, Reason.TOO_MANY_IMAGES, f"{len(images)} pictures, a line of Liquid has one"))
            continue
        text = "\n".join(text.text for text in example.texts)
        codes: np.ndarray | list[int] = images[0].ids if images else []
        kind = "image_text" if images else "text_pretrain"
        lines.append(_object({"data_type": kind, "text": text, "vq_code": codes}))
    return Written(stream=[_lines(lines)], rejects=rejects)


FORMAT = JsonLines()

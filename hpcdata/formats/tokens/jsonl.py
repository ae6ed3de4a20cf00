"""JSON lines of tokens, one file a shard, in one of three styles.

ids      {"key": ..., "input_ids": [...], "modality": [...]}: a row as one sequence; modality if there are pictures
spans    {"key": ..., "spans": [{"kind": "text", "ids": [...], "role": "user", "loss": true}, {"kind": "image", ...}]}
liquid   {"data_type": "image_text", "text": ..., "vq_code": [...]}: Liquid's map-style data set. Codes are
         unshifted; the text is the one that was kept (text.keep_raw). Rows of several pictures are rejects.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hpcdata.config.schema import ExportConfig
from hpcdata.dataset.manifest import Manifest
from hpcdata.formats.arranging import Building
from hpcdata.formats.tokens import settling
from hpcdata.formats.tokens.base import Context, ExportedPart, Written
from hpcdata.formats.tokens.rows import Rows
from hpcdata.samples import Example, Kind, Reason, Role, Span

_BYTES_AN_ID = 6


class JsonLines:
    name = "jsonl"
    words = "JSON lines: ids, spans, or Liquid's data_type, text and vq_code"
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
            return Written(stream=[b"".join(_lines(self._as_ids(rows)))])
        if self._export.style == "spans":
            return Written(stream=[b"".join(_lines(_as_spans(example) for example in rows.examples()))])
        return _as_liquid(rows)

    def _as_ids(self, rows: Rows) -> Any:
        sequences = rows.sequences(settling.rule_of(self._export))
        keys = rows.keys() if "key" in self._columns else []
        arrays = {
            name: getattr(sequences, "ids" if name == "input_ids" else name) for name in self._columns if name != "key"
        }
        for number in range(len(rows)):
            line: dict[str, Any] = {"key": keys[number]} if keys else {}
            yield line | {name: sequences.of_row(values, number).tolist() for name, values in arrays.items()}


def _lines(values: Any) -> list[bytes]:
    return [f"{json.dumps(value, ensure_ascii=False)}\n".encode() for value in values]


def _as_spans(example: Example) -> dict[str, Any]:
    return {"key": example.key, "spans": [_span(span) for span in example.spans]}


def _span(span: Span) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": span.kind.name.lower(), "ids": span.ids.tolist()}
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
        codes = images[0].ids.tolist() if images else []
        lines.append({"data_type": "image_text" if images else "text_pretrain", "text": text, "vq_code": codes})
    return Written(stream=[b"".join(_lines(lines))], rejects=rejects)


FORMAT = JsonLines()

"""A record as a row of an Arrow table, as Hugging Face's datasets read it, and rows as bytes of an Arrow stream.

    pairs      key, image, text, metadata
    records    key, images, text, conversations, metadata, files: holds any record

`metadata` is JSON: the fields of the record that have no column. A picture is its bytes, as they were, and a name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcdata.formats import arrow
from hpcdata.samples import BadSample, Reason, Sample
from hpcdata.shards.shard import ShardSummary, read_summary
from hpcdata.shards.stored import read_columns
from hpcdata.sources.base import TEXT_EXTENSIONS, TEXT_FIELDS
from hpcdata.sources.pictures.fields import BYTES_FIELDS, IMAGE_FIELDS, TALKS, talk_in
from hpcdata.sources.pictures.numbered import base_of
from hpcdata.sources.pictures.turns import turns_of
from hpcdata.stages.copy.forms import Written, fields_of
from hpcdata.stages.copy.members import is_picture

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
_STRING, _BINARY, _IMAGE = arrow.value("string"), arrow.value("binary"), {"_type": "Image"}
_TURN = ("from", "value")
FEATURES: dict[str, dict[str, Any]] = {
    "pairs": {"key": _STRING, "image": _IMAGE, "text": _STRING, "metadata": _STRING},
    "records": {
        "key": _STRING,
        "images": [_IMAGE],
        "text": _STRING,
        "conversations": [dict.fromkeys(_TURN, _STRING)],
        "metadata": _STRING,
        "files": [{"name": _STRING, "data": _BINARY}],
    },
}
"""`copy.columns` -> the columns, as `datasets` spell them."""
_IMAGE_FIELDS = ("bytes", "path")
_OF_PICTURES = frozenset((*IMAGE_FIELDS, *BYTES_FIELDS))
_LARGEST_ROW = 2**30


@dataclass(frozen=True, kw_only=True, eq=False)
class WrittenRow(Written):
    """One sample as it goes to disk: its columns. `data` and `files` are what its content digest covers."""

    row: Row


def as_pair(sample: Sample, index: int, members: Mapping[str, bytes]) -> Written:
    """Raises BadSample for what is no picture, text, or both."""
    record, pictures, others = _split(index, members)
    talk = next((name for name in TALKS if record.get(name) is not None), None)
    odd = f"has {len(pictures)} pictures" if len(pictures) > 1 else ""
    odd = f"holds a conversation ({talk})" if talk else f"holds {others[0]['name']}" if others else odd
    if odd:
        raise BadSample(Reason.BAD_RECORD, f"it {odd}, which no pair does: copy.columns=records takes it")
    text = _text(record)
    image = pictures[0] if pictures else None
    row = {"key": sample.key, "image": image, "text": text, "metadata": _metadata(record)}
    return _written(index, row)


def as_record(sample: Sample, index: int, members: Mapping[str, bytes]) -> Written:
    record, pictures, others = _split(index, members)
    turns = _turns(record)
    columns = {"text": _text(record), "conversations": turns, "metadata": _metadata(record), "files": others}
    return _written(index, {"key": sample.key, "images": pictures, **columns})


def _written(index: int, row: Row) -> WrittenRow:
    data, files = _pieces(row)
    return WrittenRow(index=index, key=row["key"], row=row, data=data, files=files, num_pictures=len(_pictures(row)))


def _split(index: int, members: Mapping[str, bytes]) -> tuple[Row, list[Row], list[Row]]:
    """(its fields, pictures, other files). Raises BadSample."""
    record, pictures, others = fields_of(members), list[Row](), list[Row]()
    for extension, data in members.items():
        if is_picture(extension):
            pictures.append({"bytes": data, "path": f"{index:09d}.{extension}"})
        elif extension != "json" and extension not in TEXT_EXTENSIONS:
            others.append({"name": extension, "data": data})
    if (size := sum(map(len, members.values()))) > _LARGEST_ROW:
        raise BadSample(Reason.OVERSIZED_RECORD, f"{size} bytes, the limit of a row is {_LARGEST_ROW}")
    for name in [name for name in record if base_of(name) in _OF_PICTURES] if pictures else ():
        del record[name]
    return record, pictures, others


def _text(record: Row) -> str | None:
    """Takes it out of the record."""
    name = next((name for name in TEXT_FIELDS if isinstance(record.get(name), str)), None)
    return None if name is None else record.pop(name)


_FROM = {1: "system", 2: "human", 3: "gpt"}


def _turns(record: Row) -> list[Row] | None:
    """Takes them out of the record where columns hold all of them; `<image>` where turns name pictures."""
    talk = talk_in(record)
    if talk is None:
        return None
    name, turns = talk
    found, _ = turns_of(turns, name)
    assert isinstance(turns, list)
    if all(set(turn) in ({"from", "value"}, {"role", "content"}) for turn in turns):
        del record[name]
    return [dict(zip(_TURN, (_FROM[role], text), strict=True)) for role, text in found]


def _metadata(record: Row) -> str:
    return json.dumps(record, ensure_ascii=False) if record else "{}"


def _pieces(row: Row) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """The row as JSON with the names of its files, and the files."""
    held = [(item["path"], item["bytes"]) for item in _pictures(row)]
    held += [(item["name"], item["data"]) for item in row.get("files") or ()]
    plain = {name: value for name, value in row.items() if name not in ("image", "images", "files")}
    return json.dumps({**plain, "held": [name for name, _ in held]}, ensure_ascii=False).encode(), tuple(held)


def _pictures(row: Row) -> list[Row]:
    if "images" in row:
        return row["images"]
    return [row["image"]] if row["image"] else []


def head(columns: str) -> bytes:
    """How a stream of rows begins."""
    return arrow.head(arrow.schema_of(FEATURES[columns]))


def bodies(columns: str, samples: Sequence[WrittenRow]) -> list[memoryview]:
    """What rows add to a stream: one record batch, or several where they are large."""
    schema = arrow.schema_of(FEATURES[columns])
    return [arrow.body(_batch(some, schema)) for some in _cut(samples)]


def _batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    """What `RecordBatch.from_pylist` makes, in half the time."""
    import pyarrow as pa

    def column(field: pa.Field) -> pa.Array:
        values = [row[field.name] for row in rows]
        if not pa.types.is_struct(field.type) or None in values:
            return pa.array(values, field.type)
        inner = [pa.array([value[name] for value in values], field.type.field(name).type) for name in _IMAGE_FIELDS]
        return pa.StructArray.from_arrays(inner, fields=list(field.type))

    return pa.RecordBatch.from_arrays([column(field) for field in schema], schema=schema)


def _cut(samples: Sequence[WrittenRow]) -> Iterator[list[Row]]:
    """Runs of rows whose bytes fit into one record batch."""
    some, size = list[Row](), 0
    for sample in samples:
        own = len(sample.data) + sum(len(content) for _, content in sample.files)
        if some and size + own > arrow.MOST_IN_BATCH:
            yield some
            some, size = [], 0
        some.append(sample.row)
        size += own
    if some:
        yield some


class StoredRows:
    """The rows of a committed shard, read back in order, or one by one."""

    def __init__(self, folder: Path, summary: ShardSummary | None = None) -> None:
        """Raises ValueError when the shard is damaged."""
        summary = summary or read_summary(folder)
        schema = summary.header.schema
        self._path = folder / next(stream.path for stream in schema.streams)
        self.index = np.asarray(read_columns(folder, schema, summary.sizes)["samples/index.memmap"])

    def samples(self) -> Iterator[Written]:
        row = 0
        for batch in self._batches():
            for values in batch.to_pylist():
                yield self._sample(row, values)
                row += 1

    def sample(self, row: int) -> Written:
        first = 0
        for batch in self._batches():
            if row < first + batch.num_rows:
                return self._sample(row, batch.slice(row - first, 1).to_pylist()[0])
            first += batch.num_rows
        raise ValueError(f"{self._path.name} has {first} rows, and row {row} was asked for")

    def _batches(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        if not len(self.index):
            return
        try:
            with pa.memory_map(str(self._path)) as file, pa.ipc.open_stream(file) as stream:
                yield from stream
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self._path.name}: {error}") from None

    def _sample(self, row: int, values: Row) -> Written:
        if row >= len(self.index):
            raise ValueError(f"{self._path.name} has more rows than its columns say")
        return _written(int(self.index[row]), values)

"""Folders that `datasets.load_from_disk` opens: streams of Arrow record batches, and the JSON files beside them.

Features are spelled as datasets 2.21 and 5 both read them: a list is `[inner]`. pyarrow alone makes the bytes, and a
stream grows by one record batch at a time: `head`, then any number of `body`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcdata.formats.arranging import Building

if TYPE_CHECKING:
    import pyarrow as pa

MOST_IN_BATCH = 2**30
"""Bytes or items of a column in one record batch: offsets are 32 bits wide."""


def value(dtype: str) -> dict[str, str]:
    """A feature of plain values."""
    return {"dtype": dtype, "_type": "Value"}


def schema_of(features: Mapping[str, Any]) -> pa.Schema:
    """features: name -> `value(...)`, a list of one feature, a mapping of them (a struct), or `{"_type": "Image"}`."""
    import pyarrow as pa

    info = json.dumps({"info": {"features": features}})
    return pa.schema([(name, _type(feature)) for name, feature in features.items()], metadata={"huggingface": info})


def head(schema: pa.Schema) -> bytes:
    """How a stream begins."""
    return schema.serialize().to_pybytes()


def body(batch: pa.RecordBatch) -> memoryview:
    """What a record batch adds to it."""
    return memoryview(batch.serialize())


def write_folder(
    building: Building,
    features: Mapping[str, Any],
    streams: Sequence[Any],
    *,
    fingerprint: str,
    below: str = "",
) -> None:
    """The streams as `data-00000-of-00001.arrow` and on, by hard links, with dataset_info.json and state.json.

    fingerprint: hexadecimal digits that depend on the content; below: a folder in the target, such as `train/`.
    """
    names = [f"data-{number:05d}-of-{max(1, len(streams)):05d}.arrow" for number in range(max(1, len(streams)))]
    for name, stream in zip(names, streams, strict=False):
        building.link(stream.path, below + name, stream.sha256)
    if not streams:
        building.write(below + names[0], head(schema_of(features)))
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    building.write(f"{below}dataset_info.json", json.dumps(info, indent=2).encode())
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": fingerprint[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    building.write(f"{below}state.json", json.dumps(state, indent=2).encode())


def _type(feature: Any) -> pa.DataType:
    import pyarrow as pa

    if isinstance(feature, list):
        return pa.list_(_type(feature[0]))
    if feature.get("_type") == "Value":
        return pa.type_for_alias(feature["dtype"])
    if feature.get("_type") == "Image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.struct([(name, _type(inner)) for name, inner in feature.items()])

"""Tables as LLaVA's sets are: Parquet with pictures and conversations, in their old and new forms."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TURN = pa.struct([("from", pa.string()), ("value", pa.string())])
SCHEMA = pa.schema(
    [("id", pa.string()), ("image", IMAGE), ("conversations", pa.list_(TURN)), ("data_source", pa.string())]
)
Row = dict[str, Any]


def picture(seed: int = 0, kind: str = "JPEG", size: tuple[int, int] = (24, 16), mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").rotate(37 * seed).resize(size).convert(mode).save(out, kind)
    return out.getvalue()


def talk(question: str = "<image>\nWhat is it?", answer: str = "A gradient.") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def row(number: object, data: bytes | None, turns: object = None, **more: object) -> Row:
    """data: of its picture; None: it has none."""
    image = None if data is None else {"bytes": data, "path": None}
    return {"id": number, "image": image, "conversations": talk() if turns is None else turns, **more}


def write(
    path: Path, rows: Sequence[Row], schema: pa.Schema | None = SCHEMA, *, group: int = 4, **options: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path, row_group_size=group, **options)
    return path

"""What Liquid's training does with its folders, as far as a folder can be wrong for it, on the real `datasets`.

Several folders are joined by `^^`. Of each the first int(rows * share) rows are taken; all must have equal columns to
be concatenated; then they are shuffled. A row becomes a sequence of ids: `image_text` has its codes in the column of
the resolution, all else is text, which must not be `no`.
"""

from __future__ import annotations

import json
from typing import Any

from datasets import Dataset, concatenate_datasets, load_from_disk

COLUMNS = ["data_type", "text", "length", "vqcode_512", "vqcode_multi768", "width", "height"]


def read(paths: str, percentage: str = "", seed: int = 42) -> Dataset:
    """paths: folders, joined by `^^`; percentage: a share of each, joined likewise."""
    folders = paths.split("^^")
    shares = [float(share) for share in percentage.split("^^")] if percentage else [1.0] * len(folders)
    parts = []
    for folder, share in zip(folders, shares, strict=True):
        rows = load_from_disk(folder)
        assert rows.column_names == COLUMNS
        assert [rows.features[name].dtype for name in COLUMNS] == ["string", "string", "int64", *["string"] * 4]
        parts.append(rows.select(range(int(len(rows) * share))))
    together = concatenate_datasets(parts)
    return together.shuffle(seed=seed) if seed else together


def collate(row: dict[str, Any], resolution: str = "512", *, num_text_ids: int = 256_000) -> dict[str, Any]:
    """The kind, the text, and the ids of codes behind those of texts; with the line on its size of a picture of one."""
    if row["data_type"] not in ["image_text"]:
        assert row["text"] != "no"
        return {"kind": "text", "text": row["text"], "codes": []}
    codes = json.loads(row[f"vqcode_{resolution}"])
    assert all(0 <= code < 8192 for code in codes)
    prompt = ""
    if resolution.startswith("multi"):
        width, height = int(row["width"]), int(row["height"])
        assert len(codes) == width // 16 * (height // 16)
        prompt = f"{width} x {height}: "
    else:
        assert len(codes) == 1024
    return {"kind": "pair", "text": prompt + row["text"], "codes": [code + num_text_ids for code in codes]}

"""Synthetic dataset folders for tests, written from lists of examples by an independent, plain writer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpcdata.samples import Example, Kind, Role, Span
from hpcdata.shards.columns import RAW_TEXTS, columns

TEXT = {
    "engine": "made",
    "vocab_size": 32001,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": None,
    "unk_id": 0,
    "image_token_id": 32000,
    "sha256": "aa",
}
IMAGE = {"preset": "made", "codebook_size": 16384, "downsample": 16, "sha256": "bb", "precision": "fp32"}
LAYOUT = {"img_token_shift": 32001, "text_vocab_size": 32001, "block_size": 16, "resolution": 64}
PART_SIZES = (7, 0, 1, 30, 12)
"""Uneven, with an empty part."""


def text(*ids: int, role: Role = Role.NONE, loss: bool = True) -> Span:
    return Span(kind=Kind.TEXT, ids=np.array(ids, np.int64), role=role, loss=loss)


def image(*ids: int, height: int = 0, width: int = 0) -> Span:
    side = round(len(ids) ** 0.5)
    return Span(kind=Kind.IMAGE, ids=np.array(ids, np.int64), height=height or side, width=width or side)


def pairs(
    num_samples: int, *, grid: int = 4, max_text: int = 20, vocab_size: int = 16384, seed: int = 0
) -> list[Example]:
    """Text-image pairs with plan indices 0, 3, 6...: every third image is of zeros only, some texts are empty."""
    rng = np.random.default_rng(seed)
    examples = []
    for row in range(num_samples):
        codes = np.zeros(grid * grid, np.int64) if row % 3 == 0 else rng.integers(0, vocab_size, grid * grid)
        ids = rng.integers(0, min(vocab_size, 32000), rng.integers(0, max_text + 1))
        examples.append(Example(index=3 * row, key=f"dir/schlüssel-{row}-鍵", spans=(text(*ids), image(*codes))))
    return examples


def split(examples: Sequence[Example], sizes: Sequence[int] = PART_SIZES) -> list[list[Example]]:
    """Cut into parts of these sizes; what remains is one more part."""
    edges = [0, *np.cumsum(sizes).tolist(), len(examples)]
    return [list(examples[start:stop]) for start, stop in itertools.pairwise(edges)]


def make_dataset(
    folder: Path, parts: Sequence[Sequence[Example]], *, id_dtype: str = "uint16", **manifest: Any
) -> Path:
    """Writes a dataset folder of these parts; other arguments replace entries of the manifest."""
    entries = []
    for part_index, examples in enumerate(parts):
        path = f"parts/{part_index:05d}-of-{len(parts):05d}"
        sizes = _write_part(folder / path, examples, id_dtype)
        entries.append({"path": path, "shard": part_index, "content_digest": f"{part_index:064x}", **sizes})
    examples = [example for part in parts for example in part]
    spans = [span for example in examples for span in example.spans]
    num_tokens = {kind: sum(len(span.ids) for span in spans if span.kind == kind) for kind in Kind}
    body = {
        "format": "hpcdata-dataset-1",
        "fingerprint": "f" * 64,
        "id_dtype": id_dtype,
        "parts": entries,
        "counts": {
            "inputs": len(examples) + 2,
            "written": len(examples),
            "rejected": {"unreadable_image": 2},
            "duplicate": 0,
            "missing": 0,
            "truncated_texts": 0,
            "text_tokens": num_tokens[Kind.TEXT],
            "image_tokens": num_tokens[Kind.IMAGE],
            "images": sum(span.kind == Kind.IMAGE for span in spans),
        },
        "content_digest": "c" * 64,
        "text": TEXT,
        "image": IMAGE,
        "layout": LAYOUT,
        **manifest,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(body))
    return folder


def _write_part(folder: Path, examples: Sequence[Example], id_dtype: str) -> dict[str, int]:
    rows: dict[str, list[Any]] = {column.path: [] for column in columns(id_dtype)}
    num_tokens = num_spans = num_key_bytes = 0
    for example in examples:
        key = example.key.encode()
        rows["samples/index.memmap"].append(example.index)
        rows["samples/first_token.memmap"].append(num_tokens)
        rows["samples/first_span.memmap"].append(num_spans)
        rows["samples/num_spans.memmap"].append(len(example.spans))
        rows["samples/first_key.memmap"].append(num_key_bytes)
        rows["keys/bytes.memmap"].extend(key)
        for span in example.spans:
            rows["tokens/ids.memmap"].extend(span.ids.tolist())
            rows["spans/length.memmap"].append(len(span.ids))
            rows["spans/kind.memmap"].append(int(span.kind))
            rows["spans/grid.memmap"].append((span.height, span.width))
            rows["spans/flags.memmap"].append(span.flags)
            num_tokens += len(span.ids)
        num_spans += len(example.spans)
        num_key_bytes += len(key)
    if any(example.texts for example in examples):
        rows |= _text_rows(examples)
    for column in (*columns(id_dtype), *RAW_TEXTS):
        if rows.get(column.path):
            (folder / column.path).parent.mkdir(parents=True, exist_ok=True)
            np.array(rows[column.path], column.dtype).tofile(folder / column.path)
    return {"samples": len(examples), "spans": num_spans, "tokens": num_tokens, "key_bytes": num_key_bytes}


def _text_rows(examples: Sequence[Example]) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {column.path: [] for column in RAW_TEXTS}
    for example in examples:
        rows["samples/first_text.memmap"].append(len(rows["texts/place.memmap"]))
        rows["samples/num_texts.memmap"].append(len(example.texts))
        for text in example.texts:
            rows["texts/first_byte.memmap"].append(len(rows["raw/bytes.memmap"]))
            rows["texts/num_bytes.memmap"].append(len(text.data))
            rows["texts/place.memmap"].append(text.place)
            rows["texts/flags.memmap"].append(text.flags)
            rows["raw/bytes.memmap"].extend(text.data)
    return rows

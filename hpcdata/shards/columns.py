"""The example tables of a shard of tokens: which column files there are, their dtypes and shapes.

    tokens/ids.memmap            [num_tokens]      uint16 or int32, the narrowest that holds both vocabularies
    spans/length.memmap          [num_spans]       int32, ids in the span
    spans/kind.memmap            [num_spans]       uint8, samples.Kind
    spans/grid.memmap            [num_spans, 2]    int32, (height, width) in codes, zeros for text
    spans/flags.memmap           [num_spans]       uint8, role in bits 0-2, loss in bit 3
    samples/index.memmap         [num_samples]     int64, index in the plan, strictly increasing
    samples/first_token.memmap   [num_samples]     int64, offset into tokens
    samples/first_span.memmap    [num_samples]     int64, offset into spans
    samples/num_spans.memmap     [num_samples]     int32
    samples/first_key.memmap     [num_samples]     int64, offset into keys/bytes
    keys/bytes.memmap            [num_key_bytes]   uint8, the UTF-8 keys end to end

All little-endian, row-major, without headers: a column is appended to, and `TensorDict.load_memmap` opens the
directory because each table has the `meta.json` that tensordict writes. A table without rows has no files. With
`text.keep_raw` there are the columns of `raw_texts`, too.
"""

from __future__ import annotations

from hpcdata.shards.schema import Column, Schema

RAW_TEXTS = (
    Column(table="samples", name="first_text", dtype="int64"),
    Column(table="samples", name="num_texts", dtype="int32"),
    Column(table="texts", name="first_byte", dtype="int64"),
    Column(table="texts", name="num_bytes", dtype="int64"),
    Column(table="texts", name="place", dtype="int32"),
    Column(table="texts", name="flags", dtype="uint8"),
    Column(table="raw", name="bytes", dtype="uint8"),
)
"""With `text.keep_raw`, see `raw_texts.columns`."""


def columns(id_dtype: str) -> tuple[Column, ...]:
    """All columns of a shard whose ids are stored as `id_dtype` ("uint16" or "int32")."""
    return (
        Column(table="tokens", name="ids", dtype=id_dtype),
        Column(table="spans", name="length", dtype="int32"),
        Column(table="spans", name="kind", dtype="uint8"),
        Column(table="spans", name="grid", dtype="int32", width=2),
        Column(table="spans", name="flags", dtype="uint8"),
        Column(table="samples", name="index", dtype="int64"),
        Column(table="samples", name="first_token", dtype="int64"),
        Column(table="samples", name="first_span", dtype="int64"),
        Column(table="samples", name="num_spans", dtype="int32"),
        Column(table="samples", name="first_key", dtype="int64"),
        Column(table="keys", name="bytes", dtype="uint8"),
    )


def token_schema(id_dtype: str) -> Schema:
    return Schema(columns=columns(id_dtype))


def id_dtype_for(vocab_size: int) -> str:
    """The narrowest dtype that holds ids in [0, vocab_size)."""
    if not 0 < vocab_size <= 2**31:
        raise ValueError(f"vocabulary of {vocab_size} ids: expected 1 to 2^31")
    return "uint16" if vocab_size <= 2**16 else "int32"

"""Attention that keeps the samples of packed rows apart, in three ways that give the same.

python -m tests.examples.attention
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.functional import scaled_dot_product_attention

from hpcdata import TokenLoader
from hpcdata.loading.attention import dense_mask, flex_mask, varlen
from hpcdata.loading.layouts.named import Interleaved
from tests.loading import made

HEADS, SIZE, COLUMNS = 2, 16, 128


def flash_attn_varlen_func(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, cu_seqlens_q: torch.Tensor, causal: bool, **_: Any
) -> torch.Tensor:
    """What the function of this name computes: q, k, v are [ids, heads, size]."""
    out = torch.empty_like(q)
    for start, stop in itertools.pairwise(cu_seqlens_q.tolist()):
        part = (x[start:stop].transpose(0, 1)[None] for x in (q, k, v))
        out[start:stop] = scaled_dot_product_attention(*part, is_causal=causal)[0].transpose(0, 1)
    return out


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = made.make_dataset(Path(folder), made.split(made.pairs(100, grid=2, max_text=40)))
        loader = TokenLoader(
            dataset,
            global_batch_size=4,
            layout=Interleaved(max_length=COLUMNS),
            packing="bestfit",
            consumer="torch",
        )
        batch = next(iter(loader))
    q, k, v = torch.randn(3, 4, HEADS, COLUMNS, SIZE)
    dense = scaled_dot_product_attention(q, k, v, attn_mask=dense_mask(batch))
    flex = flex_attention(q, k, v, block_mask=flex_mask(batch))
    flat = (x.transpose(1, 2).reshape(-1, HEADS, SIZE) for x in (q, k, v))
    flash = flash_attn_varlen_func(*flat, **varlen(batch), causal=True)
    flash = flash.view(4, COLUMNS, HEADS, SIZE).transpose(1, 2)
    print(f"samples in a row    {batch['segment_ids'].max(dim=1).values.tolist()}")
    print(f"sdpa against flex   {float((dense - flex).abs().max()):.1e}")
    print(f"sdpa against varlen {float((dense - flash).abs().max()):.1e}")


if __name__ == "__main__":
    main()

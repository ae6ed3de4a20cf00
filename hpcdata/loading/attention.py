"""What attention needs to keep the samples of a packed row apart. All of it is made of a batch, where it is wanted.

    transformers    model(**batch), batches made with consumer="hf"
    sdpa            scaled_dot_product_attention(q, k, v, attn_mask=dense_mask(batch))
    flex            flex_attention(q, k, v, block_mask=flex_mask(batch))
    flash-attn      flash_attn_varlen_func(q, k, v, **varlen(batch), causal=True)    # q: [rows * columns, heads, size]

tests/examples/attention.py runs the last three. Padding is a sample of its own: nothing is without anything to attend
to, so there is no NaN, and it has no labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpcdata.base.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask


def dense_mask(batch: Mapping[str, torch.Tensor], *, is_causal: bool = True) -> torch.Tensor:
    """[rows, 1, columns, columns] bool, of queries and keys: True where one may attend to the other."""
    segments = _segments(batch)
    mask = segments[:, None, :, None] == segments[:, None, None, :]
    return mask.tril() if is_causal else mask


def flex_mask(batch: Mapping[str, torch.Tensor], *, is_causal: bool = True) -> BlockMask:
    """The same for flex_attention, on the batch's device. It is made anew for each batch: compile `create_block_mask`
    where that takes long.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    segments = _segments(batch)
    rows, columns = segments.shape

    def may_attend(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        is_same = segments[row, query] == segments[row, key]
        return is_same & (query >= key) if is_causal else is_same

    return create_block_mask(may_attend, rows, None, columns, columns, device=str(segments.device))


def varlen(batch: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The arguments of flash-attn's varlen functions: edges int32 in the flat batch, and the longest segment."""
    if "cu_seqlens" not in batch:
        raise UserError("the batch has no cu_seqlens: it is not packed, or the layout's keys leave it out")
    edges, longest = batch["cu_seqlens"], int(batch["max_seqlen"])
    return {"cu_seqlens_q": edges, "cu_seqlens_k": edges, "max_seqlen_q": longest, "max_seqlen_k": longest}


def _segments(batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    if "segment_ids" not in batch:
        raise UserError("the batch has no segment_ids: it is not packed, or the layout's keys leave it out")
    return batch["segment_ids"]

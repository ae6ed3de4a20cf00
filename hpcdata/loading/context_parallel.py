"""Context parallel: the ranks of a group share each sequence, and each gets its part of every batch.

    loader = TokenLoader("/out", packing=BestFit(length=8192, multiple=2 * cp_size), mesh=mesh, ...)
    for batch in loader:                                         # the same on all ranks of the group
        part = split_context(batch, cp_rank, cp_size, pad_id=loader.layout.pad_id)

A sequence is cut into 2 x cp_size equal chunks, and rank r gets chunk r and the r-th from the end: so the causal mask
gives all ranks the same work. In packed batches each sample is a sequence by itself, padded to a multiple of
2 x cp_size (the `multiple` of BestFit and Concat leaves room for that), and so is the padding behind the last.
Positions are those of the whole sequence. At the edge of a chunk the next id is another rank's, so labels are shifted
before the cut: `shift_labels[t]` is what follows id t. Losses of transformers take them by this name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hpcdata.base.errors import UserError
from hpcdata.native.arrays import IGNORED_LABEL

if TYPE_CHECKING:
    import torch

_OF_IDS = ("input_ids", "labels", "position_ids", "segment_ids", "modality", "attention_mask", "loss_mask")
"""Keys with a value for each id."""


def split_context(
    batch: Mapping[str, torch.Tensor], rank: int, size: int, *, pad_id: int = 0
) -> dict[str, torch.Tensor]:
    """The part of `rank` of `size`: [rows, columns / size] each.

    `cu_seqlens` and `max_seqlen` stay those of the whole, padded batch. Raises UserError where the columns are no
    multiple of 2 x size, or have no room for the padding of samples, or the batch does not say where samples are.
    """
    import torch

    if not 0 <= rank < size:
        raise UserError(f"rank {rank} of {size} that share a sequence: expected 0 <= rank < size")
    rows, columns = batch["input_ids"].shape
    num_chunks = 2 * size
    if columns % num_chunks:
        raise UserError(
            f"{columns} columns cannot be cut into 2 x {size} chunks: pack into a multiple of {num_chunks}, or pass "
            f'pad="to_{num_chunks}" to the layout'
        )
    if "cu_seq_lens_q" in batch:
        raise UserError(
            "the packed batch is for model(**batch), it does not say where samples are: make the loader with "
            'consumer="torch"'
        )
    if "loss_mask" in batch:
        raise UserError("the batch has 16-bit ids: call widen(batch) before split_context")
    whole = dict(batch)
    if "labels" in whole:
        labels = whole.pop("labels")
        whole["shift_labels"] = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    lengths = torch.full((rows,), columns)
    if "cu_seqlens" in whole:
        whole, lengths = _padded(whole, num_chunks, pad_id)
    at = _chunks(lengths // num_chunks, rank, size).to(whole["input_ids"].device)
    for key in (*_OF_IDS, "shift_labels"):
        if key in whole:
            whole[key] = whole[key].reshape(-1)[at].reshape(rows, columns // size)
    return whole


def _padded(batch: dict[str, torch.Tensor], multiple: int, pad_id: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Each sample of a packed batch with padding behind it; the lengths of all segments."""
    import torch

    if "segment_ids" not in batch:
        raise UserError("split_context needs segment_ids beside cu_seqlens: add them to the layout's keys")
    rows, columns = batch["input_ids"].shape
    edges = batch["cu_seqlens"].cpu().long()
    start, length = edges[:-1], edges.diff()
    row, is_sample = start // columns, batch["segment_ids"].cpu().reshape(-1)[start] > 0
    start, length, row = start[is_sample], length[is_sample], row[is_sample]
    room = -(-length // multiple) * multiple
    used = torch.zeros(rows, dtype=torch.long).index_add_(0, row, room)
    if used.max() > columns:
        raise UserError(
            f"a row has {columns} columns, its samples padded to multiples of {multiple} need {int(used.max())}: use "
            f"BestFit(length=..., multiple={multiple}), or Concat with that"
        )
    before = room.cumsum(0) - room
    first_of_row = torch.cat([torch.zeros(1, dtype=torch.long), used.cumsum(0)])[row]
    place = row * columns + before - first_of_row
    within = torch.arange(int(length.sum())) - torch.repeat_interleave(length.cumsum(0) - length, length)
    source, target = torch.repeat_interleave(start, length) + within, torch.repeat_interleave(place, length) + within
    found, device = dict(batch), batch["input_ids"].device
    fill = {"input_ids": pad_id, "shift_labels": IGNORED_LABEL}
    for key in (*_OF_IDS, "shift_labels"):
        if key in batch:
            out = torch.full_like(batch[key], fill.get(key, 0)).reshape(-1)
            out[target.to(device)] = batch[key].reshape(-1)[source.to(device)]
            found[key] = out.reshape(rows, columns)
    rest = torch.arange(rows) * columns + used
    starts = torch.cat([place, rest[used < columns], torch.tensor([rows * columns])]).sort().values
    found["cu_seqlens"] = starts.to(batch["cu_seqlens"])
    found["max_seqlen"] = starts.diff().max()
    if "position_ids" in found or "segment_ids" in found:
        _continue(found, starts, torch.repeat_interleave(place, room), room, device)
    return found, starts.diff()


def _continue(
    batch: dict[str, torch.Tensor], starts: torch.Tensor, place: torch.Tensor, room: torch.Tensor, device: torch.device
) -> None:
    """Positions and segments go on in the padding of a sample."""
    import torch

    at = place + torch.arange(len(place)) - torch.repeat_interleave(room.cumsum(0) - room, room)
    for key in ("position_ids", "segment_ids"):
        if key in batch:
            flat = batch[key].reshape(-1)
            values = at - place if key == "position_ids" else flat[place.to(device)]
            flat[at.to(device)] = values.to(flat)


def _chunks(chunk: torch.Tensor, rank: int, size: int) -> torch.Tensor:
    """Where the ids of a rank are in the flat batch. chunk: [num_segments], ids of a chunk of each."""
    import torch

    first = 2 * size * (chunk.cumsum(0) - chunk)
    begins = torch.stack([first + rank * chunk, first + (2 * size - 1 - rank) * chunk], dim=1).reshape(-1)
    lengths = torch.repeat_interleave(chunk, 2)
    within = torch.arange(int(lengths.sum())) - torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    return torch.repeat_interleave(begins, lengths) + within

"""MMCollator: preprocessed examples -> one batch of tensors.

    collator = MMCollator(sequence_length=2048, pad_mode="to_128")
    batch = collator([preprocessor(example, rng) for example in examples])

A row of a batch is an example, or a list of examples that are packed (nobody attends to another's tokens). For B rows
of L columns, with P crops a row at most:

    input_ids           [B, L] int64
    labels              [B, L] int64
    attention_mask      [B, L] int64       1, and 0 on padding; not in packed batches
    position_ids        [B, L] int64       of each example, or of each branch, from 0
    images              [B, P, ...]        float32 or uint8, as the preprocessor makes them
    image_masks         [B, P, patches] float32
    image_input_idx     [B, P] or [B, P, cells] int64   columns of the row, -1: none
    image_grid_thw      [B, P, 3] int64    of Qwen's pictures, a row each; 0 behind the last
    pooled_patches_idx  [B, T, patches of a cell] int64   patches of all crops of the row, -1: none
    segment_ids         [B, L] int32       of packed batches: 1, 2... for the examples of a row, 0 on padding
    subsegment_ids      [B, L] int32       where an example has branches, see hpcdata.multimodal.loading.masks

A key is there if an example of the batch has it, or if `empty_pictures` says what it is: then all ranks have the same.

consumer="hf", the default: `model(**batch)` of transformers, which shifts labels by itself. `labels` are input_ids
where something is learned, else -100; an example has its last target as one more column. Packed batches have
`cu_seq_lens_q` and so on; branches become a mask of four dimensions. Weights other than 0 and 1 come as `loss_masks`.

consumer="molmo": what the three generations of Molmo deliver. `labels` are the next tokens, with `loss_masks` [B, L]
float32, `metadata` (a list), -1 on all padding (0 in pictures of uint8), and no attention mask.

What is longer than `sequence_length` is cut, but never a picture, and never all that is learned: that is a ValueError,
as in Molmo. The loader knows lengths before, and never comes here with such an example.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.multimodal.loading.buffers import Buffers
from hpcdata.multimodal.loading.masks import branch_mask

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

Prepared = Mapping[str, Any]
"""An example as a preprocessor makes it."""

IGNORED_LABEL = -100
CONSUMERS = ("hf", "molmo")
_BRANCHES_OF_EXAMPLE = 100_000
"""Molmo's distance between the subsegment ids of two examples of a row."""
_OF_PICTURES = ("images", "image_masks", "image_input_idx", "pooled_patches_idx", "image_grid_thw")


class Shape(NamedTuple):
    """What a batch is padded to at least: the largest row of a global batch, which other ranks may have."""

    columns: int = 0
    crops: int = 0
    pooled: int = 0
    trees: int = 0
    """Examples with several branches: if there is any, `subsegment_ids` are there."""


class MMCollator:
    """See the module. Equal examples make equal batches, in any process."""

    def __init__(
        self,
        sequence_length: int | None = None,
        pad_mode: str | None = "batch_max",
        *,
        consumer: str = "hf",
        max_crops: int | None = None,
        max_pooled: int | None = None,
        pad_id: int = 0,
        patches_a_crop: int | None = None,
        image_token_ids: Sequence[int] = (),
        empty_pictures: Mapping[str, np.ndarray] | None = None,
        include_metadata: bool | None = None,
    ) -> None:
        """`pad_mode`: `max_len` (Molmo says `to_max`): every row has `sequence_length` columns; `batch_max` (Molmo:
        `truncate`): as many as the longest of the batch; `to_128`, or any number: rounded up to a multiple of it;
        None: as `batch_max`, and nothing is cut. `max_crops`, `max_pooled`: pictures are padded to these, always.
        `patches_a_crop`: where `images` are not cut into patches, for `pooled_patches_idx` of packed examples.
        `image_token_ids`: the ids that stand for pictures, which must not be cut. `MolmoPreprocessorConfig` knows all
        of these. `empty_pictures`: pictures of an example that has none, [0, ...] each: with them every batch has the
        same keys, of texts too. `include_metadata`: by default where the consumer is molmo.
        """
        if consumer not in CONSUMERS:
            raise UserError(f"consumer={consumer!r}, expected one of {', '.join(CONSUMERS)}")
        self.consumer, self.sequence_length, self.pad_mode, self.pad_id = consumer, sequence_length, pad_mode, pad_id
        self.max_crops, self.max_pooled, self.patches_a_crop = max_crops, max_pooled, patches_a_crop
        self._empty_pictures = dict(empty_pictures or {})
        self._image_token_ids = np.array(sorted(image_token_ids), np.int64)
        self.include_metadata = consumer == "molmo" if include_metadata is None else include_metadata
        self._multiple = _multiple_of(pad_mode)
        self._buffers = Buffers()
        if pad_mode in ("max_len", "to_max", "truncate") and sequence_length is None:
            raise UserError(f"pad_mode={pad_mode} needs a sequence_length")

    def settings(self) -> dict[str, Any]:
        """What batches depend on."""
        names = ("consumer", "sequence_length", "pad_mode", "max_crops", "max_pooled", "pad_id")
        return {name: getattr(self, name) for name in names}

    @property
    def num_more(self) -> int:
        """Columns that an example has beside its input ids."""
        return 1 if self.consumer == "hf" else 0

    def columns(self, longest: int) -> int:
        """Of a batch whose longest row has so many ids."""
        limit = self.sequence_length if self.pad_mode is not None else None
        if self.pad_mode in ("max_len", "to_max"):
            assert limit is not None
            return limit
        rounded = -(-longest // self._multiple) * self._multiple
        return rounded if limit is None else min(rounded, limit)

    def __call__(self, examples: Sequence[Prepared | Sequence[Prepared] | None], shape: Shape | None = None) -> Tensors:
        """examples: of one row each, or lists of those that share a row. None is a row without an example."""
        import torch

        is_packed = any(row is not None and not isinstance(row, Mapping) for row in examples)
        rows = [[row] if isinstance(row, Mapping) else list(row or ()) for row in examples]
        arrays = self._texts(rows, is_packed=is_packed, least=shape or Shape())
        arrays |= self._pictures(rows, least=shape or Shape())
        batch: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if self.consumer == "hf":
            _finish_for_hf(batch, is_packed=is_packed)
        if self.include_metadata:
            found = [[example.get("metadata", {}) for example in row] for row in rows]
            batch["metadata"] = found if is_packed else [row[0] if row else {} for row in found]
        return batch

    def _texts(self, rows: list[list[Prepared]], *, is_packed: bool, least: Shape) -> dict[str, np.ndarray]:
        is_hf = self.consumer == "hf"
        read = [[_for_hf(example) if is_hf else _as_molmo(example) for example in row] for row in rows]
        longest = max((sum(len(text["input_ids"]) for text in row) for row in read), default=0)
        width = self.columns(max(longest, least.columns, 1))
        has_branches = least.trees > 0
        has_branches |= any("subsegment_ids" in text for row in read for text in row)
        pads = {"input_ids": self.pad_id, "labels": IGNORED_LABEL, "position_ids": 0, "loss_masks": 0.0}
        pads = pads if is_hf else dict.fromkeys(pads, -1)
        arrays = {
            name: np.full((len(rows), width), pad, np.float32 if name == "loss_masks" else np.int64)
            for name, pad in pads.items()
        }
        arrays["segment_ids"] = np.zeros((len(rows), width), np.int32)
        if has_branches:
            arrays["subsegment_ids"] = np.full((len(rows), width), 0 if is_hf else -1, np.int32)
        for at, row in enumerate(read):
            end = 0
            for number, text in enumerate(row):
                start, end = end, end + len(text["input_ids"])
                if end > width:
                    self._check_cut(text, max(0, width - start))
                kept = max(0, min(end, width) - start)
                for name in pads:
                    arrays[name][at, start : start + kept] = text[name][:kept]
                arrays["segment_ids"][at, start : start + kept] = number + 1
                if has_branches:
                    ids = text.get("subsegment_ids", np.full(kept, 0 if is_packed else 1))[:kept]
                    arrays["subsegment_ids"][at, start : start + kept] = ids + (number * _BRANCHES_OF_EXAMPLE)
        if not is_packed and not is_hf:
            del arrays["segment_ids"]
        return arrays

    def _pictures(self, rows: list[list[Prepared]], *, least: Shape) -> dict[str, np.ndarray]:
        arrays = dict[str, np.ndarray]()
        for name in _OF_PICTURES:
            found = [self._of_row(row, name) for row in rows]
            some = next((values for row in found for values in row), self._empty_pictures.get(name))
            if some is None:
                continue
            most = max(sum(map(len, row)) for row in found)
            if name == "pooled_patches_idx":
                self._check_most("max_pooled", self.max_pooled, most)
                rest = max(least.pooled, self.max_pooled or 0)
            elif name == "image_grid_thw":  # as many as crops: how many pictures rows of other ranks have is not known
                rest = arrays["images"].shape[1] if "images" in arrays else least.crops
            else:
                self._check_most("max_crops", self.max_crops, most)
                rest = max(least.crops, self.max_crops or 0)
            arrays[name] = self._padded(found, some, max(most, rest), name)
        return arrays

    @staticmethod
    def _check_most(name: str, limit: int | None, number: int) -> None:
        if limit is not None and number > limit:
            what = "crops" if name == "max_crops" else "patch tokens"
            raise UserError(f"a row of the batch has {number} {what}, more than {name}={limit} of the collator")

    def _of_row(self, row: list[Prepared], name: str) -> list[np.ndarray]:
        """The arrays of the examples of a row that have some; places count from the beginning of the row."""
        found, columns, patches = [], 0, 0
        for example in row:
            values = np.asarray(example.get(name, ()))
            if len(values):
                shift = {"image_input_idx": columns, "pooled_patches_idx": patches}.get(name, 0)
                found.append(np.where(values >= 0, values + shift, values) if shift else values)
            columns += len(example["input_ids"]) + (self.num_more if _is_learned(example) else 0)
            patches += self._num_patches(example)
        return found

    def _padded(self, rows: list[list[np.ndarray]], some: np.ndarray, number: int, name: str) -> np.ndarray:
        """Each value is written once: pictures of a batch are hundreds of megabytes."""
        is_place = name in ("image_input_idx", "pooled_patches_idx")
        dtype, inner = np.dtype(np.int64) if is_place else some.dtype, some.shape[1:]
        if name == "pooled_patches_idx":
            inner = (max((values.shape[1] for row in rows for values in row), default=inner[0]),)
        is_zero = not is_place and (self.consumer == "hf" or dtype == np.uint8 or name == "image_grid_thw")
        shape = (len(rows), number, *inner)
        padded = self._buffers.empty(shape, dtype)
        for place, row in zip(padded, rows, strict=True):
            end = 0
            for values in row:
                start, end = end, end + len(values)
                if values.shape[1:] == inner:
                    place[start:end] = values
                elif name == "pooled_patches_idx":
                    place[start:end, : values.shape[1]], place[start:end, values.shape[1] :] = values, -1
                else:
                    raise UserError(f"{name} of one example is {list(values.shape[1:])}, of another {list(inner)}")
            place[end:] = 0 if is_zero else -1
        return padded

    def _num_patches(self, example: Prepared) -> int:
        """All patches of its crops, which is what places in `pooled_patches_idx` count."""
        shape = np.shape(example.get("images", ()))
        if len(shape) == 3:
            return shape[0] * shape[1]
        if shape[0] and "pooled_patches_idx" in example and self.patches_a_crop is None:
            raise UserError("packed examples with pooled_patches_idx and whole crops need patches_a_crop")
        return shape[0] * (self.patches_a_crop or 0)

    def _check_cut(self, text: Mapping[str, np.ndarray], kept: int) -> None:
        """Raises ValueError where what is behind `kept` must not be lost."""
        ids, learned = text["input_ids"], text["loss_masks"] > 0
        what = None
        if np.isin(ids[kept:], self._image_token_ids).any():
            what = "an image"
        elif learned.any() and not learned[:kept].any():
            what = "all that is learned"
        if what is not None:
            raise ValueError(
                f"{what} would have been cut: there is room for {kept} of {len(ids)} ids; use a longer "
                "sequence_length, or `truncation` of the preprocessor, which knows what it may drop"
            )


def _multiple_of(pad_mode: str | None) -> int:
    if pad_mode in ("max_len", "to_max", "batch_max", "truncate", None):
        return 1
    match = re.fullmatch(r"to_([1-9]\d*)", pad_mode)
    if not match:
        raise UserError(f"pad_mode={pad_mode!r}, expected max_len, batch_max, to_128 (any number), or to_max, truncate")
    return int(match[1])


def _is_learned(example: Prepared) -> bool:
    """Whether an example has targets: else it is there for inference."""
    return "labels" in example and bool(np.any(np.asarray(example["loss_masks"]) > 0))


def _as_molmo(example: Prepared) -> dict[str, np.ndarray]:
    ids = np.asarray(example["input_ids"])
    text = {
        "input_ids": ids,
        "labels": np.asarray(example.get("labels", np.full(len(ids), -1))),
        "loss_masks": np.asarray(example.get("loss_masks", np.zeros(len(ids)))),
        "position_ids": np.asarray(example.get("position_ids", np.arange(len(ids)))),
    }
    if "subsegment_ids" in example:
        text["subsegment_ids"] = np.asarray(example["subsegment_ids"])
    return text


def _for_hf(example: Prepared) -> dict[str, np.ndarray]:
    """The same with labels that stand where their tokens do, and the last target as one more column."""
    text = _as_molmo(example)
    if not _is_learned(example):
        text["labels"] = np.full(len(text["input_ids"]), IGNORED_LABEL)
        return text
    targets, weights = text["labels"], text["loss_masks"]
    text["input_ids"] = np.append(text["input_ids"], targets[-1])
    text["labels"] = np.append(IGNORED_LABEL, np.where(weights > 0, targets, IGNORED_LABEL))
    text["loss_masks"] = np.append(0, weights).astype(np.float32)
    text["position_ids"] = np.append(text["position_ids"], text["position_ids"][-1] + 1)
    if "subsegment_ids" in text:
        text["subsegment_ids"] = np.append(text["subsegment_ids"], text["subsegment_ids"][-1])
    return text


def _finish_for_hf(batch: dict[str, Any], *, is_packed: bool) -> None:
    """Keys as models of transformers take them."""
    import torch

    segments, weights = batch["segment_ids"], batch.pop("loss_masks")
    if bool(((weights != 0) & (weights != 1)).any()):
        batch["loss_masks"] = weights
    if "subsegment_ids" in batch:
        batch["attention_mask"] = branch_mask(batch)
    elif is_packed:
        starts = torch.ones_like(segments, dtype=torch.bool)
        starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
        edges = torch.cat([starts.reshape(-1).nonzero()[:, 0], torch.tensor([segments.numel()])]).to(torch.int32)
        longest = int((edges[1:] - edges[:-1]).max())
        batch |= {"cu_seq_lens_q": edges, "cu_seq_lens_k": edges, "max_length_q": longest, "max_length_k": longest}
        batch["use_cache"] = False
    else:
        batch["attention_mask"] = (segments > 0).to(torch.int64)
    if not is_packed:
        del batch["segment_ids"]

"""The ids of `<image>` and padding that UniDisc has, in an export."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.dataset.dataset import SpanTable
from hpcdata.dataset.manifest import Manifest
from hpcdata.encoders.text.special_ids import UNIDISC_IMAGE_ID, Choice, unidisc_pad


@dataclass(frozen=True, kw_only=True)
class Marker:
    """The id of `<image>` in the dataset, and in the export."""

    stored: int
    written: int
    is_piece: bool
    """The stored id is a word piece, too: it is `<image>` only right before an image."""

    def rename(self, ids: np.ndarray, is_text: np.ndarray, images: SpanTable, start: np.ndarray) -> None:
        """ids, is_text: [num_rows, width]; start: [num_images], the columns where images begin."""
        found = is_text & (ids == self.stored)
        if self.is_piece:
            before, its_row = start[start > 0] - 1, images.row[start > 0]
            is_before = np.zeros_like(found)
            is_before[its_row, before] = True
            found &= is_before
        ids[found] = self.written


def find_marker(manifest: Manifest, chosen: Choice) -> Marker | None:
    """What the dataset's `<image>` becomes; None: it stays. Raises UserError."""
    text = manifest.text
    if chosen is None:
        return None
    if text is None or text.image_token_id is None:
        raise UserError("--image-token-id: the texts of the dataset have no <image>, make it with data.add_image_token")
    written = chosen if isinstance(chosen, int) else UNIDISC_IMAGE_ID
    if written < 0:
        raise UserError(f"--image-token-id {written}: expected an id from 0 on")
    is_piece = text.image_token_id < _own_vocabulary(manifest)
    return Marker(stored=text.image_token_id, written=written, is_piece=is_piece)


def padding(manifest: Manifest) -> int:
    """The id of UniDisc's `[PAD]` with the text tokenizer of a dataset."""
    return unidisc_pad(_own_vocabulary(manifest), manifest.text.pad_id if manifest.text else None)


def _own_vocabulary(manifest: Manifest) -> int:
    """The ids of the text tokenizer without `<image>` and padding behind them, 0 without a text tokenizer."""
    text = manifest.text
    size = text.vocab_size if text else 0
    while text and size - 1 in (text.image_token_id, text.pad_id):
        size -= 1
    return size

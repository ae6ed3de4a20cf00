"""What a notebook shows of a dataset: its account and tokenizers, and some pictures where decoding them is cheap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hpcdata.base import notebook, units
from hpcdata.base.errors import UserError
from hpcdata.dataset.decoding import EMBEDDED, Decoded, DecodedImage, png
from hpcdata.dataset.manifest import Manifest

NUM_PICTURES = 6


def to_html(path: Path, manifest: Manifest, decode: Callable[[int], Decoded]) -> str:
    """decode: gives the example at a row."""
    return notebook.table(f"TokenDataset {path}", _rows(manifest)) + notebook.pictures(
        list(_pictures(manifest, decode))
    )


def _rows(manifest: Manifest) -> Iterator[tuple[str, str]]:
    counts, text, image = manifest.counts, manifest.text, manifest.image
    yield "samples", f"{units.count(manifest.num_samples)} in {units.counted(len(manifest.parts), 'part')}"
    yield "account", counts.describe()
    if text:
        made = f"{units.count(text.vocab_size)} ids ({text.engine})"
        yield "text", f"{units.counted(counts.text_tokens, 'token')} of {made}"
    if image:
        made = f"{units.count(image.codebook_size)}, one for {image.downsample} x {image.downsample} pixels"
        codes = units.counted(counts.image_tokens, "code")
        yield "images", f"{units.count(counts.images)}, {codes} of {made} ({image.preset})"
    yield "stored as", manifest.id_dtype


def _pictures(manifest: Manifest, decode: Callable[[int], Decoded]) -> Iterator[tuple[bytes, str]]:
    """Samples spread over the dataset, where the tokenizer that comes with hpcdata made them."""
    last = manifest.num_samples - 1
    if manifest.image is None or manifest.image.preset != EMBEDDED or last < 0:
        return
    for row in np.unique(np.linspace(0, last, NUM_PICTURES).astype(int)).tolist():
        try:
            decoded = decode(row)
        except UserError:  # such as text whose tokenizer is not here
            return
        found = next((span for span in decoded.spans if isinstance(span, DecodedImage)), None)
        if found:
            yield png(found.pixels, 128), " ".join(decoded.texts)

"""What a tokenizer is, as far as a plan or a dataset must remember it: equal identities give equal ids."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextIdentity:
    """A text tokenizer."""

    engine: str
    """`tokenizers` or `sentencepiece`."""
    vocab_size: int
    """Ids lie in [0, vocab_size), the added image token included."""
    sha256: str
    """Of the tokenizer file."""
    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    unk_id: int | None
    image_token_id: int | None


@dataclass(frozen=True, kw_only=True)
class ImageIdentity:
    """An image tokenizer. The device and the number of threads are recorded apart."""

    preset: str
    codebook_size: int
    downsample: int
    sha256: str
    """Of the weight file."""
    precision: str

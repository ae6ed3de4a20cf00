"""The ids of `<image>` and of padding: the tokenizer's own, chosen ones, or those that UniDisc has.

UniDisc puts `<image>` at id 811 whatever the tokenizer, which is a word piece, too, and its `[PAD]` behind the
vocabulary where the tokenizer has none: 32000 with Llama-2. Its packing ends a sample at the first id of `[PAD]`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from hpcdata.base.errors import UserError

Choice = int | Literal["unidisc"] | None
UNIDISC = "unidisc"
UNIDISC_IMAGE_ID = 811


class SpecialIds(NamedTuple):
    vocab_size: int
    """Ids of texts, of `<image>` and a chosen padding lie in [0, vocab_size)."""
    image: int | None
    pad: int | None


def choose(
    vocab_size: int,
    *,
    own_image: int | None,
    own_pad: int | None,
    wants_image: bool,
    image: Choice,
    pad: Choice,
    controls: tuple[int | None, ...],
) -> SpecialIds:
    """vocab_size, own_image, own_pad: what the tokenizer has; image, pad: what is chosen (None: the tokenizer's);
    controls: ids that `<image>` cannot be. Raises UserError for ids that mean two things.
    """
    if image is not None and not wants_image:
        raise UserError("data.image_token_id is set, but no <image> stays in the texts: add data.add_image_token=true")
    pad_id, image_id = own_pad, own_image if wants_image else None
    if pad is not None:
        pad_id = pad if isinstance(pad, int) else unidisc_pad(vocab_size, own_pad)
    if image is not None:
        image_id = image if isinstance(image, int) else UNIDISC_IMAGE_ID
    elif wants_image and own_image is None:
        image_id = vocab_size + (pad_id == vocab_size)
    used = [token_id for token_id in (image_id, None if pad is None else pad_id) if token_id is not None]
    if min(used, default=0) < 0:
        raise UserError(f"data.image_token_id={image}, data.pad_id={pad}: expected ids from 0 on")
    if image_id is not None and (image, pad) != (None, None) and image_id in (pad_id, *controls):
        raise UserError(
            f"id {image_id} would be <image> and another special token of the text tokenizer (padding, bos or eos): "
            "choose another data.image_token_id or data.pad_id"
        )
    return SpecialIds(max(vocab_size, *(token_id + 1 for token_id in used), 0), image_id, pad_id)


def unidisc_pad(vocab_size: int, own_pad: int | None) -> int:
    """Padding in UniDisc. vocab_size: of the tokenizer without what was added here."""
    return vocab_size if own_pad is None else own_pad

"""A tokenizer of bytes with the special tokens of Molmo, as the vectors were made with: what a user may hand over."""

from __future__ import annotations

import re

SPECIAL = {
    256: "<|endoftext|>",
    257: "<im_start>",
    258: "<im_end>",
    259: "<im_patch>",
    260: "<im_col>",
    261: "<|image|>",
    262: "<im_low>",
    263: "<pc_start>",
    264: "<pc_patch>",
    265: "<pc_end>",
    266: "<low_res_im_start>",
    267: "<frame_start>",
    268: "<frame_end>",
    269: "<|video|>",
}


class ByteTokenizer:
    """UTF-8 bytes are ids 0-255. Special tokens that a text spells become their ids, as of most tokenizers."""

    bos_token_id = eos_token_id = 256
    chat_template: str | None = None

    def __init__(self, special: dict[int, str] | None = None) -> None:
        self.special = SPECIAL if special is None else special
        self._ids = {token: token_id for token_id, token in self.special.items()}
        self._pattern = re.compile("(" + "|".join(map(re.escape, self._ids)) + ")")

    def __len__(self) -> int:
        return 256 + len(self.special)

    @property
    def special_tokens(self) -> dict[str, int]:
        return dict(self._ids)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        pieces = self._pattern.split(text)
        return [i for n, piece in enumerate(pieces) for i in ([self._ids[piece]] if n % 2 else piece.encode())]

    def decode(self, ids: list[int]) -> str:
        parts = [bytes([i]) if i < 256 else self.special[i].encode() for i in ids]
        return b"".join(parts).decode(errors="replace")

"""The engines that decide what the ids of a text are: of a tokenizer.json and of a SentencePiece model."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from hpcdata.base.errors import UserError
from hpcdata.encoders.text.sentencepiece_rules import charsmap, merges_pairs
from hpcdata.encoders.text.splitting import lies_across, splits_at_spaces

IMAGE_TOKEN = "<image>"
_PART_BYTES = 1 << 20
COMMON_NAMES = {
    "bos": ("<s>", "<|begin_of_text|>", "<bos>", "[BOS]", "[CLS]"),
    "eos": ("</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "[EOS]", "[SEP]"),
    "pad": ("<pad>", "<|pad|>", "[PAD]"),
    "unk": ("<unk>", "[UNK]"),
}
"""Looked for among the special tokens when no tokenizer_config.json beside the tokenizer names them."""

_logger = logging.getLogger(__name__)


class JsonEngine:
    """A tokenizer.json, run by `tokenizers`."""

    name = "tokenizers"
    most_bytes = 1 << 22
    """It takes up to 330 bytes of memory for a byte of text."""

    def __init__(self, data: bytes) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # a forked child would wait for threads it has not
        from tokenizers import Tokenizer

        self.sha256, self._content = hashlib.sha256(data).hexdigest(), orjson.loads(data)
        self.data = _without_dropout(data, self._content)
        self._tokenizer = Tokenizer.from_buffer(self.data)
        self._ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self._has_image_token = False
        self._image_id: tuple[int, int] | None = None
        """The id that the library gives `<image>`, and the one that it is stored as, where they differ."""
        self.vocab_size = max(self._ids.values(), default=-1) + 1
        self._set_up()

    def _set_up(self) -> None:
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        controls = [token for token in self._content["added_tokens"] if token["special"]]
        controls = [token for token in controls if token["content"] != self._unknown_token()]
        self._is_control = np.zeros(self.vocab_size, bool)
        self._is_control[[token["id"] for token in controls]] = True
        literals = sorted((token["content"] for token in controls), key=len, reverse=True)
        self._control_pattern = re.compile("(" + "|".join(map(re.escape, literals)) + ")" if literals else r"(?!)()")

    def literals(self) -> list[str]:
        added = [token["content"] for token in self._content["added_tokens"]]
        return [IMAGE_TOKEN, *added] if self._has_image_token else added

    def normalizer(self) -> dict[str, Any] | None:
        return self._content.get("normalizer")

    def merges_within_words(self) -> bool:
        """See `splitting.Reference`."""
        model, in_bytes = self._content["model"], b'"ByteLevel"' in self.data
        if model["type"] == "BPE":
            return not lies_across(model["vocab"], self.literals(), in_bytes=in_bytes)
        splits = splits_at_spaces(self._content.get("pre_tokenizer"))
        return splits and not lies_across((), self.literals(), in_bytes=in_bytes)

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)

    def special_tokens(self) -> dict[str, int]:
        """Those that a chat template may write."""
        return {token["content"]: token["id"] for token in self._content["added_tokens"]}

    def piece(self, token_id: int) -> str:
        return self._tokenizer.id_to_token(token_id) or ""

    def default_id(self, kind: str) -> int | None:
        if kind == "unk" and (unknown := self._unknown_token()):
            return self._ids.get(unknown)
        specials = {token["content"]: token["id"] for token in self._content["added_tokens"] if token["special"]}
        return next((specials[name] for name in COMMON_NAMES[kind] if name in specials), None)

    def add_image_token(self, image_token_id: int) -> None:
        """From here on `<image>` is that id: content, although the tokenizer may have it as a control token."""
        from tokenizers import AddedToken, Tokenizer

        for token in self._content["added_tokens"]:
            if token["content"] == IMAGE_TOKEN and token["special"]:
                token["special"] = False
                self._tokenizer = Tokenizer.from_str(orjson.dumps(self._content).decode())
        self._tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, normalized=False, special=False)])
        found = self._tokenizer.token_to_id(IMAGE_TOKEN)
        assert found is not None
        if found < self.vocab_size and IMAGE_TOKEN not in self._ids:
            raise UserError(
                f"the text tokenizer's ids have gaps: {IMAGE_TOKEN} would not become {image_token_id}; "
                f"add it to the tokenizer itself, or use data.add_image_token=false"
            )
        self._image_id = None if found == image_token_id else (found, image_token_id)
        self.vocab_size = max(self.vocab_size, found + 1, image_token_id + 1)
        self._has_image_token = True
        self._set_up()

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        parts = [self._encode(part) for part in _parts(texts)]
        ids, offsets = parts[0] if len(parts) == 1 else _end_to_end(parts)
        if self._image_id is not None:
            ids[ids == self._image_id[0]] = self._image_id[1]
        return ids, offsets

    def _encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        ids, offsets = _flat(rows)
        if self._is_control[ids].any():
            ids, offsets = _flat([self._spell_controls(text, row) for text, row in zip(texts, rows, strict=True)])
        return ids, offsets

    def decode(self, ids: Iterable[int]) -> str:
        """An id that is a piece and was chosen for `<image>`, too, is written as the piece."""
        found, stored = self._image_id or (0, -1)
        is_free = self._tokenizer.id_to_token(stored) is None if stored >= 0 else False
        return self._tokenizer.decode([found if is_free and i == stored else i for i in ids], skip_special_tokens=False)

    def _spell_controls(self, text: str, ids: list[int]) -> list[int]:
        """Unigram models find control tokens among their pieces: such letters are encoded one by one."""
        if not self._is_control[ids].any():
            return ids
        pieces = self._control_pattern.split(text)
        parts = [part for index, piece in enumerate(pieces) for part in (piece if index % 2 else (piece,)) if part]
        encodings = self._tokenizer.encode_batch_fast(parts, add_special_tokens=False)
        return [token for encoding in encodings for token in encoding.ids if not self._is_control[token]]

    def _unknown_token(self) -> str | None:
        model = self._content["model"]
        if model.get("unk_id") is not None:
            return model["vocab"][model["unk_id"]][0]
        return model.get("unk_token")


class SentencePieceEngine:
    """A SentencePiece .model; its control pieces are never found in text."""

    name = "sentencepiece"
    most_bytes = 1 << 24
    """It takes up to 60 bytes of memory for a byte of text."""

    def __init__(self, data: bytes) -> None:
        from sentencepiece import SentencePieceProcessor

        self.data, self.sha256 = data, hashlib.sha256(data).hexdigest()
        self._processor = SentencePieceProcessor(model_proto=data)
        self._num_pieces = self._processor.vocab_size() if data else 0
        if not self._num_pieces:
            raise ValueError("no pieces")
        self.added: dict[str, int] = {}
        self._image_token_id: int | None = None

    @property
    def vocab_size(self) -> int:
        return max([self._num_pieces, *(token_id + 1 for token_id in self.added.values())])

    def literals(self) -> list[str]:
        model = self._processor
        kinds = (model.is_control, model.is_unknown)
        pieces = [model.id_to_piece(piece) for piece in range(self._num_pieces) if any(kind(piece) for kind in kinds)]
        return [IMAGE_TOKEN, *pieces, *self.added]

    def merges_within_words(self) -> bool:
        """See `splitting.Reference`."""
        pieces = (self._processor.id_to_piece(piece) for piece in range(self._num_pieces))
        return merges_pairs(self.data) and not lies_across(pieces, self.literals(), in_bytes=False)

    def normalizer(self) -> dict[str, Any] | None:
        return {"type": "Precompiled"} if charsmap(self.data) else None

    def token_id(self, token: str) -> int | None:
        piece = self._processor.piece_to_id(token)
        return piece if self._processor.id_to_piece(piece) == token else self.added.get(token)

    def special_tokens(self) -> dict[str, int]:
        """As above."""
        model = self._processor
        pieces = {model.id_to_piece(piece): piece for piece in range(self._num_pieces) if model.is_control(piece)}
        return pieces | self.added

    def piece(self, token_id: int) -> str:
        return self._processor.id_to_piece(token_id) if token_id < self._num_pieces else ""

    def default_id(self, kind: str) -> int | None:
        token_id = getattr(self._processor, f"{kind}_id")()
        return token_id if token_id >= 0 else None

    def add_image_token(self, image_token_id: int) -> None:
        self._image_token_id = image_token_id

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if self._image_token_id is None or not any(IMAGE_TOKEN in text for text in texts):
            return _flat(self._processor.encode(list(texts), num_threads=1))
        return _flat([self._encode_with_images(text) for text in texts])

    def _encode_with_images(self, text: str) -> list[int]:
        first, *others = self._processor.encode(text.split(IMAGE_TOKEN), num_threads=1)
        return [*first, *(token for ids in others for token in (self._image_token_id, *ids))]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids behind the pieces are written as the tokens they are; a piece that is `<image>`, too, as the piece."""
        names = {token_id: token for token, token_id in self.added.items()}
        image = self._image_token_id
        if image is not None and (image >= self._num_pieces or self._processor.id_to_piece(image) == IMAGE_TOKEN):
            names[image] = IMAGE_TOKEN
        groups = itertools.groupby(ids, key=lambda token: token if token in names else None)
        return "".join(
            self._processor.decode(list(group)) if token is None else names[token] * len(list(group))
            for token, group in groups
        )


def _without_dropout(data: bytes, content: dict[str, Any]) -> bytes:
    """BPE dropout leaves merges out at random while a model trains: stored ids must not depend on chance."""
    model = content.get("model")
    if not isinstance(model, dict) or not model.get("dropout"):
        return data
    _logger.warning(
        "the tokenizer has a BPE dropout of %s: it is not applied, ids are always the same", model["dropout"]
    )
    model["dropout"] = None
    return orjson.dumps(content)


def _flat(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return np.fromiter(itertools.chain.from_iterable(rows), np.int32, count=int(offsets[-1])), offsets


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Texts in turn, so few at a time that their encodings, which are large, are no multiple of the largest one's."""
    start = size = 0
    for number, text in enumerate(texts):
        its_size = len(text) if text.isascii() else 3 * len(text)
        size += its_size
        if size > _PART_BYTES and number > start:
            yield texts[start:number]
            start, size = number, its_size
    yield texts[start:]


def _end_to_end(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = [np.diff(offsets) for _, offsets in parts]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths), dtype=np.int64)])
    return np.concatenate([ids for ids, _ in parts]), offsets

"""Text tokenizers: text -> ids, without control tokens, truncation or padding - those belong to the loader's layout.

Two engines, both without transformers: `tokenizers` reads a tokenizer.json, `sentencepiece` a .model file. A folder as
Hugging Face saves them holds one or both; `data.use_slow_tokenizer` prefers the .model, as the slow classes there do.

What stands in a text is text: the letters `</s>` in a caption never become the id that ends a sequence. The one
exception is `<image>` with `data.add_image_token`: it becomes the tokenizer's own id for it, one new id behind the
vocabulary, or the one that `data.image_token_id` names. (Added tokens that are not marked special, such as Qwen's
`<think>`, are content and keep their ids.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.base.reads import kind_of
from hpcdata.encoders.text import panics, special_ids
from hpcdata.encoders.text.engines import COMMON_NAMES, IMAGE_TOKEN, JsonEngine, SentencePieceEngine
from hpcdata.encoders.text.fast import SpedUp, speed_up
from hpcdata.encoders.text.splitting import Splitting
from hpcdata.runs.identities import TextIdentity
from hpcdata.samples import BadSample, Reason

EMBEDDED = "embedded"

_logger = logging.getLogger(__name__)


class TextTokenizer(Protocol):
    """Made by `build`. Not for several threads at once."""

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """ids: [num_ids] int32, all texts end to end; offsets: [len(texts) + 1] int64. Texts must pass `check_text`."""

    def decode(self, ids: Iterable[int]) -> str:
        """Control tokens are written out."""


def identify(
    tokenizer: str,
    *,
    add_image_token: bool,
    use_slow_tokenizer: bool,
    image_token_id: special_ids.Choice = None,
    pad_id: special_ids.Choice = None,
) -> TextIdentity:
    """Reads the tokenizer's file and what lies beside it. Raises UserError: no such file, not a tokenizer, ids that
    are taken.

    tokenizer: `embedded`, a tokenizer.json, a SentencePiece model, or a folder with one or both. image_token_id,
    pad_id: chosen ids, see `data.image_token_id` and `data.pad_id`.
    """
    path = _find(tokenizer, prefer_slow=use_slow_tokenizer)
    engine = _load(path, tokenizer)
    named = _named_tokens(path, engine)
    own_pad = named["pad"] if named["pad"] is not None or pad_id is None else engine.token_id("[PAD]")
    ids = special_ids.choose(
        engine.vocab_size,
        own_image=engine.token_id(IMAGE_TOKEN),
        own_pad=own_pad,
        wants_image=add_image_token,
        image=image_token_id,
        pad=pad_id,
        controls=(named["bos"], named["eos"]),
    )
    return TextIdentity(
        engine=engine.name,
        vocab_size=ids.vocab_size,
        sha256=engine.sha256,
        bos_id=named["bos"],
        eos_id=named["eos"],
        pad_id=ids.pad,
        unk_id=named["unk"],
        image_token_id=ids.image,
    )


def build(identity: TextIdentity, tokenizer: str, *, engine: str = "reference") -> TextTokenizer:
    """The tokenizer of a plan. Raises UserError if the file is another than the plan's.

    engine: `reference`; `auto` for the fast engine where it gives the same ids, `fast` to insist on it.
    """
    reference = build_reference(identity, tokenizer)
    return Splitting(reference, _engine(reference, engine))


def build_reference(identity: TextIdentity, tokenizer: str) -> JsonEngine | SentencePieceEngine:
    """The engine alone that decides what the ids are, which also knows its special tokens. Raises as `build` does."""
    path = _find(tokenizer, prefer_slow=identity.engine == SentencePieceEngine.name)
    reference = _load(path, tokenizer)
    if (reference.name, reference.sha256) != (identity.engine, identity.sha256):
        raise UserError(
            f"text.tokenizer={tokenizer}: {path.name} ({reference.name}) has sha256 {reference.sha256[:16]}..., the "
            f"plan was made with {identity.sha256[:16]}... ({identity.engine}): restore the file, or use a new output "
            "directory"
        )
    if identity.image_token_id is not None:
        reference.add_image_token(identity.image_token_id)
    return reference


def build_from_json(data: bytes) -> JsonEngine:
    """The engine of a tokenizer.json that is in memory, such as an object of Hugging Face writes."""
    return JsonEngine(data)


def _engine(reference: JsonEngine | SentencePieceEngine, engine: str) -> TextTokenizer:
    if engine == "auto":
        return SpedUp(reference)
    if engine == "reference":
        return reference
    if (fast := speed_up(reference)) is None:
        raise UserError("text.engine=fast: the fast engine cannot be used (see the log), use text.engine=auto")
    return fast


def check_text(text: str) -> None:
    """Raises BadSample UNREADABLE_TEXT for a string that is not Unicode text: half a surrogate pair from bad JSON."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        character = f"U+{ord(text[error.start]):04X}"
        raise BadSample(Reason.UNREADABLE_TEXT, f"lone surrogate {character} at character {error.start}") from None


def _find(tokenizer: str, *, prefer_slow: bool) -> Path:
    """The file to read: a tokenizer.json or a SentencePiece model."""
    if tokenizer == EMBEDDED:
        return embedded.path(embedded.TOKENIZER)
    path = Path(tokenizer)
    if not kind_of(tokenizer):
        hub = "; names of a model hub are not downloaded, pass the folder of a local copy" if "/" in tokenizer else ""
        raise UserError(f"text.tokenizer={tokenizer}: no such file or folder{hub}")
    names = ("tokenizer.model", "tokenizer.json") if prefer_slow else ("tokenizer.json", "tokenizer.model")
    if kind_of(tokenizer) == "folder":
        found = [path / name for name in names if kind_of(str(path / name)) == "file"]
        if not found:
            raise UserError(f"text.tokenizer={tokenizer}: the folder has neither tokenizer.json nor tokenizer.model")
        path = found[0]
    if prefer_slow and path.name == "tokenizer.json":
        _logger.info("data.use_slow_tokenizer has no effect: %s has no SentencePiece model beside it", tokenizer)
    return path


def _load(path: Path, tokenizer: str) -> JsonEngine | SentencePieceEngine:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"text.tokenizer={tokenizer}: {path.name} cannot be read: {error.strerror}") from None
    is_json = data.lstrip()[:1] == b"{"
    try:
        with panics.caught():
            if is_json:
                return JsonEngine(data)
            engine = SentencePieceEngine(data)
            engine.added = _added_tokens(path.parent)
            return engine
    except UserError:
        raise
    except Exception as error:
        expected = "a tokenizer.json of the tokenizers library" if is_json else "a SentencePiece model"
        cause = " ".join(str(error).split())[:120]
        raise UserError(f"text.tokenizer={tokenizer}: {path.name} is not {expected} ({cause})") from None


def _named_tokens(path: Path, engine: JsonEngine | SentencePieceEngine) -> dict[str, int | None]:
    """bos, eos, pad, unk: as the files beside the tokenizer say (null is none), else the engine's own."""
    configured = _read_json(path.parent / "special_tokens_map.json") | _read_json(path.parent / "tokenizer_config.json")
    ids: dict[str, int | None] = {}
    for kind in COMMON_NAMES:
        if (name := f"{kind}_token") not in configured:
            ids[kind] = engine.default_id(kind)
        else:
            token = configured[name]
            token = token.get("content") if isinstance(token, dict) else token
            ids[kind] = engine.token_id(token) if isinstance(token, str) else None
    return ids


def _added_tokens(folder: Path) -> dict[str, int]:
    """Tokens that a Hugging Face folder puts behind a SentencePiece vocabulary."""
    tokens: dict[str, int] = dict(_read_json(folder / "added_tokens.json"))
    decoder = _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {})
    tokens |= {token["content"]: int(token_id) for token_id, token in decoder.items()}
    return tokens


def _read_json(path: Path) -> dict[str, Any]:
    if kind_of(str(path)) != "file":
        return {}
    try:
        content = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        raise UserError(f"{path} is not readable JSON: repair it, or move the tokenizer's own file elsewhere") from None
    return content if isinstance(content, dict) else {}

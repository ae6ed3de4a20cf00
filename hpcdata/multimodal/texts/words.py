"""A tokenizer as the raw path needs it: texts -> ids, and the special tokens around pictures and turns.

Text is text: letters that spell a special token are encoded as letters, whatever the tokenizer would make of them. Only
what the layout itself writes has such an id.

A tokenizer is what `text.tokenizer` accepts (`embedded`, a file, a folder), a tokenizer object of transformers, one of
tokenizers, or an object of one's own with `encode(text)`, `decode(ids)`, `bos_token_id`, `eos_token_id`, its length,
and a dictionary `special_tokens` of names and ids.

The tokens of pictures have Molmo's names, see `PICTURE_TOKENS`. Those that a tokenizer has keep their ids. The others
get ids behind the vocabulary, in the order of that table; with `pad_tokenizer_to` behind that many ids.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from hpcdata.base.errors import UserError
from hpcdata.encoders.text import chat
from hpcdata.encoders.text import tokenizer as tokenizers
from hpcdata.native.forks import ForkLock
from hpcdata.samples import BadSample, Reason

_PROBE = "The quick brown fox, 0123456789 times: jumps over\n\tthe lazy dog? \u00c4\u00e9\u00df \u8c93 \U0001f408"
"""A text that tokenizers split differently."""
PICTURE_TOKENS = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<|image|>", "<im_low>", "<low_res_im_start>")


class Engine(Protocol):
    """A tokenizer of `hpcdata.encoders.text`, or `_Foreign`."""

    @property
    def vocab_size(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def special_tokens(self) -> dict[str, int]: ...

    def piece(self, token_id: int) -> str: ...


class Words:
    """May be used by several threads at once."""

    def __init__(
        self,
        engine: Engine,
        *,
        bos: int | None,
        eos: int | None,
        template: tuple[str, str] | None = None,
        name: str,
        guarded: Iterable[int] = (),
        pad_tokenizer_to: int | None = None,
    ) -> None:
        """bos, eos: what begins a text and ends an answer; each stands in for the other where it is None.
        template: the tokenizer's own chat template and where it stands. name: what settings say of the tokenizer.
        guarded: ids that the engine makes of letters, and that these must not become.
        """
        first, last = (bos if bos is not None else eos), (eos if eos is not None else bos)
        if first is None or last is None:
            raise UserError("the tokenizer has neither a bos nor an eos token: answers could not end")
        self.engine, self.bos, self.eos, self.template, self.name = engine, first, last, template, name
        self._special = dict(engine.special_tokens())
        self.text_vocab_size = max(engine.vocab_size, pad_tokenizer_to or 0)
        missing = [token for token in PICTURE_TOKENS if token not in self._special]
        self._special |= {token: self.text_vocab_size + number for number, token in enumerate(missing)}
        self.vocab_size = max([self.text_vocab_size, *(token_id + 1 for token_id in self._special.values())])
        """Embeddings that a model of these ids needs."""
        controls = {self.bos, self.eos, *guarded, *(self._special[token] for token in PICTURE_TOKENS)}
        self._is_control = np.zeros(self.vocab_size, bool)
        self._is_control[list(controls)] = True
        literals = sorted((token for token, token_id in self._special.items() if token_id in controls), key=len)
        self._literals = re.compile("(" + "|".join(map(re.escape, reversed(literals))) + ")")

        self.puts_spaces = engine.piece(int(self._encode(["a"])[0][0])).startswith("\u2581")
        """Whether a space stands before every text, as tokenizers of SentencePiece have it."""

    def settings(self) -> dict[str, object]:
        return {"tokenizer": self.name, "vocab_size": self.vocab_size, "bos": self.bos, "eos": self.eos}

    def special(self, token: str) -> int:
        """Raises UserError: the tokenizer has no such token."""
        if token not in self._special:
            raise UserError(
                f"the tokenizer has no token {token}: use another message_format, or a tokenizer that has it"
            )
        return self._special[token]

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Of each text its ids, int32, none of which is a special token. Raises BadSample UNREADABLE_TEXT."""
        for text in texts:
            tokenizers.check_text(text)
        if not texts:
            return []
        rows = zip(texts, self._encode(texts), strict=True)
        return [self._spelled(text) if self._is_control[row].any() else row for text, row in rows]

    def decode(self, ids: Iterable[int]) -> str:
        """Special tokens are written out."""
        names = {token_id: token for token, token_id in self._special.items()}
        found: list[str] = []
        run: list[int] = []
        for token_id in map(int, ids):
            if token_id in names:
                found += [self.engine.decode(run) if run else "", names[token_id]]
                run = []
            else:
                run.append(token_id)
        return "".join([*found, self.engine.decode(run) if run else ""])

    def _encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        ids, offsets = self.engine.encode(texts)
        return np.split(np.asarray(ids, np.int32), offsets[1:-1])

    def _spelled(self, text: str) -> np.ndarray:
        """A text that spells special tokens: these are torn apart behind their first letter."""
        pieces = [piece for n, part in enumerate(self._literals.split(text)) for piece in _torn(part, n % 2 == 1)]
        found = np.concatenate([np.zeros(0, np.int32), *self._encode([piece for piece in pieces if piece])])
        if self._is_control[found].any():
            token = self.engine.piece(int(found[self._is_control[found]][0]))
            raise BadSample(
                Reason.BAD_EXAMPLE, f"a text spells the special token {token!r}, which cannot be torn apart"
            )
        return found


def build_words(tokenizer: object, *, pad_tokenizer_to: int | None = None) -> Words:
    """See the head of the module. Raises UserError."""
    if isinstance(tokenizer, Words):
        return tokenizer
    build = _from_path if isinstance(tokenizer, str) or hasattr(tokenizer, "__fspath__") else _from_object
    return build(tokenizer, pad_tokenizer_to)


def _from_path(tokenizer: Any, pad_tokenizer_to: int | None) -> Words:
    path = str(tokenizer)
    identity = tokenizers.identify(path, add_image_token=False, use_slow_tokenizer=False)
    engine = tokenizers.build_reference(identity, path)
    return Words(
        engine,
        bos=identity.bos_id,
        eos=identity.eos_id,
        template=None if path == tokenizers.EMBEDDED else _template_beside(path),
        name=f"{identity.engine} {identity.sha256[:32]}",
        pad_tokenizer_to=pad_tokenizer_to,
    )


def _template_beside(path: str) -> tuple[str, str] | None:
    try:
        return chat.find_template(path)
    except UserError:  # none there: an error only for those who ask for it
        return None


def _from_object(tokenizer: Any, pad_tokenizer_to: int | None) -> Words:
    backend, what = getattr(tokenizer, "backend_tokenizer", tokenizer), type(tokenizer).__name__
    if not hasattr(tokenizer, "encode"):
        raise UserError(f"tokenizer={what}: expected a path, `embedded`, or a tokenizer object with encode(text)")
    engine: Engine
    bos, eos = (getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos"))
    if hasattr(backend, "to_str"):
        engine, guarded = tokenizers.build_from_json(backend.to_str().encode()), set[int]()
        name = f"tokenizers {engine.sha256[:32]}"
        if backend is tokenizer:  # it does not say what they are
            bos, eos = engine.default_id("bos"), engine.default_id("eos")
    else:
        engine = _Foreign(tokenizer)
        name = f"{type(tokenizer).__module__}.{what} {engine.digest()}"
        guarded = {*engine.special_tokens().values()} - {getattr(tokenizer, "unk_token_id", None)}
    template = getattr(tokenizer, "chat_template", None)
    return Words(
        engine,
        bos=bos,
        eos=eos,
        template=(template, f"the tokenizer {what}") if isinstance(template, str) else None,
        name=name,
        guarded=guarded,
        pad_tokenizer_to=pad_tokenizer_to,
    )


class _Foreign:
    """A tokenizer object of somebody else's: used by one thread at a time."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._lock = tokenizer, ForkLock()
        self._adds = "add_special_tokens" in inspect.signature(tokenizer.encode).parameters
        vocab: Mapping[str, int] = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
        added = tokenizer.get_added_vocab() if hasattr(tokenizer, "get_added_vocab") else {}
        names = [*getattr(tokenizer, "all_special_tokens", ()), *PICTURE_TOKENS]
        self._special = {token: int(vocab[token]) for token in names if token in vocab}
        self._special |= added | dict(getattr(tokenizer, "special_tokens", {}))
        size = len(tokenizer) if hasattr(tokenizer, "__len__") else int(tokenizer.vocab_size)
        self.vocab_size = max([size, *(token_id + 1 for token_id in self._special.values())])

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        encode: Callable[..., Any] = self._tokenizer.encode
        options = {"add_special_tokens": False} if self._adds else {}
        with self._lock:
            rows = [np.asarray(encode(text, **options), np.int32) for text in texts]
        return np.concatenate(rows), np.concatenate([[0], np.cumsum([len(row) for row in rows])])

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._tokenizer.decode(list(ids)))

    def special_tokens(self) -> dict[str, int]:
        return self._special

    def piece(self, token_id: int) -> str:
        return self.decode([token_id])

    def digest(self) -> str:
        """Of what it makes of a text, and of its special tokens: there is no file to take one of."""
        ids = self.encode([_PROBE])[0].tolist()
        return hashlib.sha256(repr((self.vocab_size, sorted(self._special.items()), ids)).encode()).hexdigest()[:32]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=ForkLock())


def _torn(part: str, is_literal: bool) -> tuple[str, ...]:
    return (part[0], part[1:]) if is_literal else (part,)

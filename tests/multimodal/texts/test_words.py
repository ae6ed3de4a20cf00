"""Text is text, whatever special tokens it spells.   pytest tests/multimodal/texts/test_words.py"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.multimodal.texts.words import PICTURE_TOKENS, Words, build_words
from hpcdata.samples import BadSample, Reason
from tests.multimodal.byte_tokenizer import SPECIAL, ByteTokenizer


class Wrapped:
    """What is looked at of a fast tokenizer of Hugging Face."""

    bos_token_id, eos_token_id, chat_template = 0, 1, None

    def __init__(self, backend: Any) -> None:
        self.backend_tokenizer, self.encode = backend, backend.encode


@functools.cache
def words(kind: str) -> Words:
    if kind in ("hugging face", "tokenizers"):
        from tokenizers import Tokenizer

        backend = Tokenizer.from_file(str(embedded.path(embedded.TOKENIZER)))
        backend.add_tokens(["<im_patch>"])  # not special: the library finds it in texts
        backend.add_special_tokens(["<im_start>"])
        return build_words(Wrapped(backend) if kind == "hugging face" else backend)
    return build_words("embedded" if kind == "embedded" else ByteTokenizer())


KINDS = ["embedded", "hugging face", "tokenizers", "bytes"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(
    pieces=st.lists(st.sampled_from([*PICTURE_TOKENS, "<s>", "</s>", "<|endoftext|>", "a ", "<", "é貓"]), max_size=6)
)
def test_no_text_becomes_a_special_token_and_all_of_it_comes_back(kind: str, pieces: list[str]) -> None:
    ours, text = words(kind), "".join(pieces)
    (ids,) = ours.encode([text])
    controls = [ours.special(token) for token in PICTURE_TOKENS]
    assert not np.isin(ids, [ours.bos, ours.eos, *controls]).any()
    assert ids.dtype == np.int32
    assert ours.decode(ids) == text


def test_tokens_of_pictures_are_the_tokenizers_own_or_stand_behind_the_vocabulary() -> None:
    named = {SPECIAL[token_id]: token_id for token_id in SPECIAL}
    ours = words("bytes")
    assert all(ours.special(token) == named[token] for token in PICTURE_TOKENS)
    assert ours.vocab_size == len(ByteTokenizer())
    small = build_words(ByteTokenizer({256: "<|endoftext|>", 257: "<im_col>"}), pad_tokenizer_to=300)
    assert [small.special(token) for token in PICTURE_TOKENS] == [300, 301, 302, 257, 303, 304, 305]
    assert small.vocab_size == 306
    assert small.decode([104, 105, 300, 302]) == "hi<im_start><im_patch>"
    ours = words("embedded")
    assert [ours.special(token) - 4096 for token in PICTURE_TOKENS] == list(range(7))


def test_settings_tell_tokenizers_apart() -> None:
    class Other(ByteTokenizer):
        def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
            return [token_id ^ 1 for token_id in super().encode(text)]

    Other.__module__, Other.__qualname__, Other.__name__ = ByteTokenizer.__module__, "ByteTokenizer", "ByteTokenizer"
    one, same, other = (build_words(kind()).settings() for kind in (ByteTokenizer, ByteTokenizer, Other))
    assert one == same != other
    assert words("embedded").settings() != words("hugging face").settings()


def test_threads_encode_at_once() -> None:
    texts = [f"text {number} <im_patch>" for number in range(50)]
    expected = [words("embedded").encode([text])[0].tolist() for text in texts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: words("embedded").encode([text])[0].tolist(), texts * 4))
    assert found == expected * 4


def test_what_is_no_tokenizer_and_what_is_no_text_are_refused() -> None:
    with pytest.raises(UserError, match="tokenizer=int: expected a path"):
        build_words(3)
    with pytest.raises(UserError, match="no such file"):
        build_words("nowhere/at/all")
    endless = ByteTokenizer()
    endless.bos_token_id = endless.eos_token_id = None  # type: ignore[assignment]
    with pytest.raises(UserError, match="neither a bos nor an eos"):
        build_words(endless)
    with pytest.raises(BadSample) as caught:
        words("bytes").encode(["a\ud800"])
    assert caught.value.reason is Reason.UNREADABLE_TEXT


@pytest.mark.slow  # imports transformers
def test_an_object_of_transformers_is_its_own_file() -> None:
    from transformers import PreTrainedTokenizerFast

    file = str(embedded.path(embedded.TOKENIZER))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<im_start>"]})
    ours, plain = build_words(tokenizer), words("embedded")
    assert (ours.bos, ours.eos, ours.special("<im_start>")) == (plain.bos, plain.eos, 4096)
    text = "a cat </s> <im_start> sits"
    assert ours.encode([text])[0].tolist() == plain.encode([text])[0].tolist()

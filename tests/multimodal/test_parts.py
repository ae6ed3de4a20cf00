"""One picture and one conversation by themselves.   pytest tests/multimodal/test_parts.py"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpcdata.multimodal import ImagePreprocessor, InterleavedTextPreprocessor
from hpcdata.samples import BadSample
from tests.multimodal.byte_tokenizer import ByteTokenizer

MESSAGES = [
    {"role": "user", "content": "<image> or <|image|>?"},
    {"role": "assistant", "content": "The <image>."},
]


def test_a_picture_becomes_a_normalised_tensor() -> None:
    image = np.full((30, 60, 3), 255, np.uint8)
    found = ImagePreprocessor()(image, np.random.RandomState(0))
    assert found.shape == (3, 336, 336)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[:, 168, 168].numpy(), [1.9303, 2.0749, 2.1459], atol=1e-3)
    np.testing.assert_allclose(found[:, 0, 0].numpy(), [-1.7923, -1.7521, -1.4802], atol=1e-3)
    small = ImagePreprocessor(vision="siglip", base_image_input_size=[56, 56])(image, np.random.RandomState(0))
    assert small.shape == (3, 56, 56)
    assert torch.equal(small, torch.ones_like(small))


def test_a_conversation_becomes_ids_with_one_for_each_picture() -> None:
    tokenizer = ByteTokenizer()
    ids = InterleavedTextPreprocessor()(MESSAGES, tokenizer)
    assert isinstance(ids, list)
    assert tokenizer.decode(ids) == ("<|endoftext|>User: <|image|> or <|image|>? Assistant: The <image>.<|endoftext|>")
    assert ids.count(261) == 2
    asked = InterleavedTextPreprocessor()(MESSAGES[:1], tokenizer)
    assert tokenizer.decode(asked).endswith("Assistant:")


def test_a_conversation_that_is_too_long_loses_its_last_turns() -> None:
    tokenizer, talk = ByteTokenizer(), ["a", "b", "c", "d"]
    whole = InterleavedTextPreprocessor()(talk, tokenizer)
    assert InterleavedTextPreprocessor(max_length=len(whole))(talk, tokenizer) == whole
    short = InterleavedTextPreprocessor(max_length=len(whole) - 1)(talk, tokenizer)
    assert short == InterleavedTextPreprocessor()(talk[:2], tokenizer)
    with pytest.raises(BadSample):
        InterleavedTextPreprocessor(max_length=len(short) - 1)(talk, tokenizer)

"""Ids, labels, weights, positions and branches, beside what Molmo makes.   pytest tests/multimodal/texts

vectors/texts.json.gz: made by allenai/molmo (v1), its robot fork and allenai/molmo2 (two), see `byte_tokenizer`.
"""

from __future__ import annotations

import functools
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcdata.multimodal.texts.encoding import Encoded, encode
from hpcdata.multimodal.texts.formats import Spoken
from hpcdata.multimodal.texts.layout import SHARED, Texts, Weighting, lay_out
from hpcdata.multimodal.texts.limits import Limits, decide
from hpcdata.multimodal.texts.words import Words, build_words
from hpcdata.multimodal.values import Branch, Slot, Turn
from tests.multimodal.byte_tokenizer import ByteTokenizer

VECTORS = json.loads(gzip.decompress((Path(__file__).parent.parent / "vectors" / "texts.json.gz").read_bytes()))
CASES = [(generation, name) for generation in VECTORS for name in VECTORS[generation]]
DIFFERENT = {
    ("fork", "marker_without_image"): "it crashes; here the formatter decides, and text without a slot is text",
    ("fork", "more_markers_than_images"): "it crashes; the formatter rejects it",
    ("two", "more_markers_than_images"): "it crashes; the formatter rejects it",
    ("v1", "more_markers_than_images"): "it crashes; the formatter rejects it",
    ("fork", "special_text_in_answer"): "it refuses a text that spells a special token (defect 7); here it is text",
    ("two", "special_text_in_answer"): "as the fork",
    ("v1", "special_text_in_answer"): "it trains on the special token (defect 7)",
    ("v1", "branches_no_image"): "it does not shift texts without a picture, and has no bos (defect 1)",
    ("v1", "marker_without_image"): "the same",
    ("two", "marker_without_image"): "the letters become the id of the marker (defect 7); here they are text",
}
"""Vectors that show a defect, and what is made here instead."""


@functools.cache
def words() -> Words:
    return build_words(ByteTokenizer())


def branches_of(messages: list[Any], num_pictures: int) -> list[Branch]:
    """As a formatter would make them: markers in what a user says are slots."""
    branches = messages if isinstance(messages[0], list) else [messages]
    return [tuple(turn(n, text, num_pictures) for n, text in enumerate(branch)) for branch in branches]


def turn(number: int, text: str, num_pictures: int) -> Turn:
    if number % 2 or not num_pictures:
        return Turn(role="assistant" if number % 2 else "user", parts=(text,))
    parts: list[str | Slot] = []
    for place, piece in enumerate(re.split(r"<\|image\|>", text)):
        parts += [Slot(place - 1), piece] if place else [piece]
    return Turn(role="user", parts=tuple(parts))


def made(case: dict[str, Any], *, ends_inside: bool = False, no_label: int = 0) -> Texts:
    form = Spoken(words(), names_roles=False, starts_with_space=False, spaces=False)
    blocks = [np.array(block, np.int32) for block in case["image_tokens"]]
    options = case["options"]
    encoded = encode(
        branches_of(case["messages"], len(blocks)),
        words(),
        form,
        num_pictures=len(blocks),
        learns_last_only=options.get("last_message_loss_only", False),
    )
    limits = Limits(max_sequence_length=options.get("max_sequence_length"), ends_inside=ends_inside)
    weighting = Weighting(
        root_subsegments=case["root_subsegments"], root_length=case["root_length"], ends_inside=ends_inside
    )
    length = sum(map(len, blocks))
    sizes = [(1, 1)] * len(blocks)
    is_open = encoded.is_open
    cut = decide(encoded.measure(sizes), limits, most_crops=1, picture_tokens=lambda _: length, is_open=is_open)
    return lay_out(encoded, cut, blocks, weight=case["weight"] or 1.0, weighting=weighting, no_label=no_label)


@pytest.mark.parametrize(("generation", "name"), [case for case in CASES if case not in DIFFERENT])
def test_texts_are_what_molmo_makes(generation: str, name: str) -> None:
    case = VECTORS[generation][name]
    is_first = generation == "v1"
    ours, theirs = made(case, ends_inside=is_first, no_label=-1 if is_first else 0), case["out"]
    assert ours.input_ids.tolist() == theirs["input_tokens"]
    assert ours.labels.tolist() == theirs["target_tokens"]
    # of what is asked for, the first Molmo has a weight of -1 behind the last token
    expected = np.maximum(theirs["loss_masks"], 0)
    np.testing.assert_allclose(ours.loss_masks, expected, atol=1e-6)
    assert ours.position_ids.tolist() == theirs["position_ids"]
    segments = None if ours.subsegment_ids is None else ours.subsegment_ids.tolist()
    assert segments == theirs.get("subsegment_ids")
    assert (ours.input_ids.dtype, ours.labels.dtype, ours.position_ids.dtype) == (np.int64,) * 3
    assert ours.loss_masks.dtype == np.float32


def test_markers_without_a_picture_that_come_as_text_are_text() -> None:
    assert set(DIFFERENT) <= set(CASES)
    for generation in VECTORS:
        case = VECTORS[generation]["marker_without_image"]
        assert bytes(made(case).labels[:-1].tolist()) == "".join(case["messages"]).encode()


def test_defect_01_texts_without_pictures_are_shifted() -> None:
    case = VECTORS["v1"]["branches_no_image"]
    ours = made(case, ends_inside=True)
    assert case["out"]["input_tokens"] == case["out"]["target_tokens"]
    assert ours.input_ids[0] == words().bos
    assert ours.labels[:-1].tolist() == ours.input_ids[1:].tolist()
    assert ours.labels.tolist() == case["out"]["target_tokens"]
    assert ours.subsegment_ids is not None
    assert ours.subsegment_ids.tolist() == [SHARED] + [1] * 40 + [2] * 31


def test_defect_07_text_that_spells_a_special_token_is_text() -> None:
    for generation in VECTORS:
        ours = made(VECTORS[generation]["special_text_in_answer"])
        assert bytes(ours.labels[ours.loss_masks > 0][:-1].tolist()) == b" <im_patch>"
        assert (ours.input_ids == words().special("<im_patch>")).sum() == 2


def encoded_of(branches: list[Branch], num_pictures: int) -> Encoded:
    form = Spoken(words(), names_roles=True, starts_with_space=False)
    return encode(branches, words(), form, num_pictures=num_pictures)


def said(*texts: str | tuple[str | Slot, ...]) -> Branch:
    parts = [(text,) if isinstance(text, str) else text for text in texts]
    return tuple(Turn(role="assistant" if n % 2 else "user", parts=part) for n, part in enumerate(parts))


def test_branches_that_begin_alike_share_it_and_others_share_the_picture_alone() -> None:
    alike = encoded_of([said(("Look at ", Slot(0), " now."), "a"), said(("Look at ", Slot(0), " again."), "b")], 1)
    assert [words().decode(part) if isinstance(part, np.ndarray) else part for part in alike.shared] == [
        "<|endoftext|>",
        "User: Look at ",
        Slot(0),
    ]
    other = encoded_of([said(("Look at ", Slot(0), " now."), "a"), said("Who?", "b")], 1)
    assert [part if isinstance(part, Slot) else part.tolist() for part in other.shared] == [[words().bos], Slot(0)]
    assert words().decode(np.concatenate(other.branches[0][0].lead)) == "User: Look at  now. Assistant:"


def test_an_image_stands_where_its_slot_is_and_its_start_is_known() -> None:
    encoded = encoded_of([said(("A ", Slot(0), " and ", Slot(1)), "same")], 2)
    blocks = [np.full(3, 300, np.int32), np.full(5, 301, np.int32)]
    names = [np.array([1, 2], np.int32), np.array([3], np.int32)]
    cut = decide(encoded.measure([(1, 1)] * 2), Limits(), most_crops=1, picture_tokens=lambda _: 11, is_open=False)
    ours = lay_out(encoded, cut, blocks, names)
    first, second = ours.picture_starts
    assert ours.input_ids[first - 2 : first + 3].tolist() == [1, 2, 300, 300, 300]
    assert ours.input_ids[second - 1 : second + 5].tolist() == [3, 301, 301, 301, 301, 301]
    assert not ours.loss_masks[: second + 5].any()

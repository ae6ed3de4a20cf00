"""Records as LLaVA's trainer reads them.   pytest tests/formats/records/test_llava.py"""

from __future__ import annotations

import pytest

from hpcdata.formats.records.llava import llava_record
from hpcdata.samples import BadSample

ASKED = {"from": "human", "value": "<image>\nWhat?"}
SAID = {"from": "gpt", "value": "A cat."}


def made(record: dict, pictures: list[str] | None = None, **options: str) -> dict:
    return llava_record(record, "in.jsonl#3", pictures or [], **{"prompt": "", "placeholders": "keep", **options})  # type: ignore[arg-type]


def test_a_conversation_keeps_its_turns_and_other_fields() -> None:
    record = {
        "key": "k",
        "id": "coco/train/1",
        "image": "files/1.png",
        "conversations": [ASKED, {**SAID, "markdown": 1}],
    }
    assert made({**record, "data_source": "x"}, ["a/1.png"]) == {
        "id": "coco/train/1",
        "image": "a/1.png",
        "data_source": "x",
        "conversations": [ASKED, {**SAID, "markdown": 1}],
    }


def test_chats_become_conversations_with_markers_where_pictures_stand() -> None:
    content = [{"type": "text", "text": "Look: "}, {"type": "image", "image": "x.png"}, {"type": "text", "text": "?"}]
    turns = [{"role": "system", "content": "Be."}, {"role": "user", "content": content}]
    found = made({"messages": [*turns, {"role": "assistant", "content": "A cat."}]}, ["a/1.png"])
    assert found["conversations"] == [
        *({"from": "system", "value": "Be."}, {"from": "human", "value": "Look: <image>?"}, SAID)
    ]
    assert "messages" not in found


@pytest.mark.parametrize("pictures", [[], ["a.png"], ["a.png", "b.png"]])
def test_there_is_never_an_image_that_is_null(pictures: list[str]) -> None:
    found = made(
        {"image": None, "conversations": [{"from": "human", "value": "<image>" * len(pictures) + "hi"}]}, pictures
    )
    assert found.get("image", "absent") == {0: "absent", 1: "a.png", 2: pictures}[len(pictures)]


def test_a_caption_becomes_an_answer() -> None:
    found = made({"caption": "A cat.", "score": 1, "url": "u"}, ["a.png"], prompt="Describe it.")
    assert found["conversations"] == [{"from": "human", "value": "<image>\nDescribe it."}, SAID]
    assert found == {
        "id": "in.jsonl#3",
        "image": "a.png",
        "score": 1,
        "url": "u",
        "conversations": found["conversations"],
    }


@pytest.mark.parametrize(
    ("found", "expected"), [(7, 7), ("a", "a"), ("", "in.jsonl#3"), (None, "in.jsonl#3"), ([], "in.jsonl#3")]
)
def test_an_id_is_always_there(found: object, expected: object) -> None:
    assert made({"id": found, "conversations": [ASKED]}, ["a.png"])["id"] == expected


@pytest.mark.parametrize(
    ("record", "pictures", "reason"),
    [
        ({"text": "a document"}, [], "bad_record"),
        ({}, ["a.png"], "missing_text"),
        ({"conversations": []}, ["a.png"], "bad_record"),
        ({"conversations": [{"from": "nobody", "value": "x"}]}, ["a.png"], "bad_record"),
    ],
)
def test_what_has_no_form_there_is_said(record: dict, pictures: list[str], reason: str) -> None:
    with pytest.raises(BadSample) as raised:
        made(record, pictures)
    assert raised.value.reason == reason


@pytest.mark.parametrize(
    ("num_markers", "num_pictures", "kept", "fixed", "rejected"),
    [
        (1, 1, 1, 1, 1),
        (0, 1, 0, 1, "image_without_marker"),
        (0, 3, 0, 3, "image_without_marker"),
        (2, 1, 2, 2, "marker_without_image"),
        (1, 0, 1, 1, "marker_without_image"),
        (1, 2, 1, 1, "image_without_marker"),
    ],
)
def test_markers_that_do_not_fit_are_kept_mended_or_refused(
    num_markers: int, num_pictures: int, kept: object, fixed: object, rejected: object
) -> None:
    turns = [{"from": "human", "value": "<image>" * num_markers + "What?"}, {"from": "gpt", "value": "an <image>"}]
    for policy, expected in (("keep", kept), ("fix", fixed), ("reject", rejected)):
        assert _markers(turns, num_pictures, policy) == expected
    assert turns[0]["value"].count("<image>") == num_markers


def _markers(turns: list[dict], num_pictures: int, policy: str) -> int | str:
    """How many there are, or why there are none."""
    try:
        found = made({"conversations": turns}, ["a.png"] * num_pictures, placeholders=policy)
    except BadSample as bad:
        return bad.reason.value
    return found["conversations"][0]["value"].count("<image>")

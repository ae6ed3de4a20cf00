"""Markers that are not as many as the pictures of a record.   python -m pytest tests/sources/test_placeholders.py"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.multimodal import MeasuredDataset, SourceDataset
from hpcdata.runs.rejects import rows_of
from hpcdata.samples import BadSample, ImagePart, Reason, Record, Reject, Sample
from hpcdata.sources.pictures.placeholders import placed
from tests.smallruns import small_run
from tests.sources.source_files import json_lines, one_input, read_all, write
from tests.work.test_task import png

ANSWER = {"from": "gpt", "value": "a"}


def said(value: Any, role: str = "human", **others: Any) -> dict[str, Any]:
    return {"from": role, "value": value, **others}


def record(image: Any, *turns: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"id": 1, "image": image, "conversations": list(turns or [said("<image>\nq"), ANSWER]), **others}


def shown(found: Record) -> str:
    """`I` for a picture and its texts, or why it is none."""
    if isinstance(found, Reject):
        return f"{found.reason}: {found.message}"
    assert isinstance(found, Sample)
    return "|".join("I" if isinstance(part, ImagePart) else part.text for part in found.parts)


AS_THE_TRAINER = {
    "one, in front": (record("x.png"), "I|\nq|a"),
    "one, elsewhere": (record("x.png", said("see <image> now"), ANSWER), "see |I| now|a"),
    "two of two": (record(["x.png", "y.png"], said("<image><image>q"), ANSWER), "I|I|q|a"),
    "none": (record("x.png", said("q"), ANSWER), "I|q|a"),
    "null": (record(None, said("q"), ANSWER), "q|a"),
    "absent": ({"conversations": [said("q"), ANSWER]}, "q|a"),
    "role and content": (
        {
            "image": "x.png",
            "messages": [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}],
        },
        "I|q|a",
    ),
    "system first": (record("x.png", said("s", "system"), said("<image>q"), ANSWER), "s|I|q|a"),
    "answer first": (record("x.png", ANSWER, said("<image>q"), ANSWER), "a|I|q|a"),
    "more in a turn": (record("x.png", said("<image>q", markdown=None), ANSWER), "I|q|a"),
    "folders in the id": (record("x.png", id="coco/train2017/0001"), "I|\nq|a"),
}
ELSEWHERE = {
    "two of one": (record("x.png", said("<image><image>q"), ANSWER), "bad_record: 2 <image> markers for 1 images"),
    "a tag in text alone": (record(None), "bad_record: 1 <image> markers for 0 images"),
    "empty": (
        {"image": "x.png", "conversations": []},
        "bad_record: conversations is empty, expected a list of turns",
    ),
    "above": (
        record("../../etc/passwd"),
        "outside_root: ../../etc/passwd lies outside of data.image_root (the folder of the file that names it, unless "
        "it is set); data.outside_images=read allows it",
    ),
}


@pytest.mark.parametrize("name", [*AS_THE_TRAINER, *ELSEWHERE])
def test_every_odd_record_has_its_end(name: str, tmp_path: Path) -> None:
    row, expected = {**AS_THE_TRAINER, **ELSEWHERE}[name]
    path = write(tmp_path / "x.jsonl", json_lines([row]))
    (found,) = read_all(one_input(path))
    assert shown(found) == expected


FIXED = [
    (record("x.png", said("q"), ANSWER), ["<image>\nq", "a"]),
    (record(["x.png", "y.png"], said("q"), ANSWER), ["<image>\n<image>\nq", "a"]),
    (record("x.png", said("s", "system"), ANSWER, said("q"), ANSWER), ["s", "a", "<image>\nq", "a"]),
    (
        record("x.png", said([{"type": "text", "text": "q"}]), ANSWER),
        [[{"type": "image"}, {"type": "text", "text": "q"}], "a"],
    ),
]


@pytest.mark.parametrize(("row", "values"), FIXED)
def test_fix_puts_a_marker_for_each_picture_in_front_of_what_a_user_says_first(row: Any, values: list[Any]) -> None:
    pictures, before = len(row["image"]) if isinstance(row["image"], list) else 1, copy.deepcopy(row)
    found, is_fixed = placed(row, "fix", num_images=pictures)
    assert is_fixed
    assert [turn["value"] for turn in found["conversations"]] == values
    assert row == before, "the record that was given stays as it was"
    assert placed(found, "reject", num_images=pictures) == (found, False)


@pytest.mark.parametrize("policy", ["keep", "fix"])
@pytest.mark.parametrize(
    "turns", [[said("<image> <image>"), ANSWER], [said("<image>"), ANSWER], [ANSWER, said("<image>")]]
)
def test_a_record_with_any_marker_is_never_changed(policy: str, turns: list[dict[str, Any]]) -> None:
    row = record(["x.png"] * 3, *turns)
    assert placed(row, policy, num_images=3) == (row, False)


@pytest.mark.parametrize(
    ("row", "number", "reason"),
    [
        (record("x.png", said("q"), ANSWER), 1, Reason.IMAGE_WITHOUT_MARKER),
        (record("x.png", said("<image><image>"), ANSWER), 1, Reason.MARKER_WITHOUT_IMAGE),
        (record(None), 0, Reason.MARKER_WITHOUT_IMAGE),
    ],
)
def test_reject_takes_no_other_number_of_markers_than_pictures(row: Any, number: int, reason: Reason) -> None:
    with pytest.raises(BadSample) as caught:
        placed(row, "reject", num_images=number)
    assert caught.value.reason is reason
    assert placed(record("x.png"), "reject", num_images=1)[1] is False


def test_fix_rejects_what_has_no_place_for_a_marker() -> None:
    with pytest.raises(BadSample, match="no user speaks"):
        placed(record("x.png", ANSWER), "fix", num_images=1)


def test_where_only_users_show_a_marker_in_an_answer_is_text() -> None:
    row = record("x.png", said("q"), said("<image>", "gpt"))
    assert placed(row, "fix", num_images=1) == (row, False)
    found, is_fixed = placed(row, "fix", num_images=1, only_users_show=True)
    assert is_fixed
    assert found["conversations"][0]["value"] == "<image>\nq"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name in ("x.png", "y.png"):
        write(tmp_path / "in" / name, png(1))
    rows = [record("x.png"), record("x.png", said("q"), ANSWER), record("y.png", said("<image><image>"), ANSWER)]
    return write(tmp_path / "in/x.jsonl", json_lines(rows))


@pytest.mark.parametrize(
    ("stage", "policy", "written", "reasons"),
    [
        ("tokenize", "keep", 2, ["bad_record"]),
        ("tokenize", "fix", 2, ["bad_record"]),
        ("tokenize", "reject", 1, ["image_without_marker", "marker_without_image"]),
        ("measure", "fix", 2, ["marker_without_image"]),
        ("copy", "fix", 3, []),
        ("copy", "reject", 1, ["image_without_marker", "marker_without_image"]),
    ],
)
def test_every_stage_has_the_policy_and_counts_what_it_fixed(
    stage: str, policy: str, written: int, reasons: list[str], source: Path, tmp_path: Path
) -> None:
    settings = [f"stage={stage}", f"data.placeholders={policy}", "data.n_train_samples=null"]
    settings += {"measure": ["image.tokenizer=null"], "copy": ["copy.format=jsonl"]}.get(stage, [])
    run = tmp_path / "run"
    small_run(run, *settings, source=source)
    counts = combine(run, CombineOptions()).counts
    assert (counts.written, counts.fixed_placeholders) == (written, int(policy == "fix"))
    assert sorted(row.reason for row in rows_of(run)) == reasons
    if stage == "copy" and policy == "fix":
        parts = run.glob("dataset/parts/*/records/*.jsonl")
        lines = [json.loads(line) for path in parts for line in path.read_text().splitlines()]
        assert [line["conversations"][0]["value"] for line in lines] == ["<image>\nq", "<image>\nq", "<image><image>"]
    if stage == "measure":
        assert MeasuredDataset(run)[1]["messages"] == SourceDataset(source, placeholders="fix")[1]["messages"]


def test_the_raw_path_shows_a_fixed_picture_where_its_marker_was_put(source: Path) -> None:
    kept, fixed = SourceDataset(source), SourceDataset(source, placeholders="fix")
    assert kept[1]["messages"][0] == {"role": "user", "content": "q"}
    assert fixed[1]["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": "\nq"}]
    assert kept.fingerprint() != fixed.fingerprint() == SourceDataset(source, placeholders="fix").fingerprint()

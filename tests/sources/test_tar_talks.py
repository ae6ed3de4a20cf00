"""Conversations in the `json` of samples of a tar.   python -m pytest tests/sources/test_tar_talks.py"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.manifest import read_manifest
from hpcdata.formats.records.laying_out import export_records
from hpcdata.multimodal import MeasuredDataset, SourceDataset
from hpcdata.samples import Reject, Role, Sample, TextPart
from hpcdata.sources import InputFile, Options, read, scan
from tests.formats.records.made import TARS, copied, parts_of, write_lines
from tests.smallruns import small_run
from tests.sources.source_files import images, one_input, picture, read_all, texts, write_tar
from tests.work.test_task import png


def talk(*said: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]


def packed(path: Path, *samples: tuple[Any, list[str]]) -> InputFile:
    """Of each sample its record and the extensions of its pictures."""
    members = [
        member
        for number, (record, pictures) in enumerate(samples)
        for member in (
            *((f"{number}.{extension}", picture(place)) for place, extension in enumerate(pictures)),
            (f"{number}.json", json.dumps(record).encode()),
        )
    ]
    return one_input(write_tar(path, members))


def reason(record: Any) -> str:
    return record.reason if isinstance(record, Reject) else ""


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_conversations_are_read_with_their_pictures_in_order(suffix: str, tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "<image>?"}]
    file = packed(
        tmp_path / f"x.{suffix}",
        ({"caption": "no conversation"}, ["jpg"]),
        ({"image": "old/name.jpg", "conversations": talk("<image>a<image>b", "c")}, [f"{n}.jpg" for n in (1, 0)]),
        ({"messages": [*chat, {"role": "assistant", "content": "!"}]}, ["png"]),
        ({"conversations": talk("no picture", "none")}, []),
    )
    found = read_all(file)
    assert [texts(record) for record in found] == [
        ["no conversation"],
        ["a", "b", "c"],
        ["S", "?", "!"],
        ["no picture", "none"],
    ]
    assert [images(record) for record in found[1:]] == [[picture(1), picture(0)], [picture(0)], []]
    parts = [part for part in found[2].parts if isinstance(part, TextPart)]  # type: ignore[union-attr]
    assert [(part.role, part.loss) for part in parts] == [
        (Role.SYSTEM, False),
        (Role.USER, False),
        (Role.ASSISTANT, True),
    ]


@pytest.mark.parametrize(
    ("record", "pictures", "expected"),
    [
        ({"conversations": talk("<image><image>", "a")}, ["jpg"], "bad_record"),
        ({"conversations": talk("<image>", "a"), "video": "x.mp4"}, ["jpg"], "unsupported_media"),
        ({"image": "x.jpg", "conversations": talk("a", "b")}, [], "missing_image"),
        ({"conversations": talk("  ", "")}, ["jpg"], "empty_text"),
        ({"conversations": ["a"]}, ["jpg"], "bad_record"),
        ({"conversations": []}, ["jpg"], "missing_text"),
    ],
)
def test_a_conversation_that_is_none_is_one_reject(
    record: Any, pictures: list[str], expected: str, tmp_path: Path
) -> None:
    good = ({"conversations": talk("<image>", "a")}, ["jpg"])
    assert [reason(item) for item in read_all(packed(tmp_path / "x.tar", good, (record, pictures)))] == ["", expected]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_a_plan_that_says_nothing_of_conversations_reads_as_before(suffix: str, tmp_path: Path) -> None:
    record = {"caption": "the caption", "conversations": talk("<image>", "a")}
    file = packed(tmp_path / f"x.{suffix}", (record, ["jpg"]), ({"conversations": talk("a", "b")}, ["jpg"]))
    found = scan(file, every=4, options=Options())
    assert found.rules == ("talks",)
    older = dataclasses.replace(found, rules=())
    first, second = read(file, older, first=0, count=2, options=Options())
    assert (texts(first), reason(second)) == (["the caption"], "missing_text")
    for options in (Options(text_field="caption"), Options(needs_text=False, needs_image=False)):
        assert scan(file, every=4, options=options).rules == ()
    plain = packed(tmp_path / "y.tar", ({"caption": 'says "conversations": ['}, ["jpg"]))
    assert "rules" not in scan(plain, every=4, options=Options()).identity()


SEVERAL = {
    "a conversation": ({"conversations": talk("<image>a<image>b", "c")}, ["1.jpg", "0.jpg"]),
    "by endings": ({"messages": talk("<image><image>a", "c")}, ["jpg", "png"]),
    "one": ({"conversations": talk("a", "b")}, ["jpg"]),
    "no conversation": ({"caption": "a"}, ["0.jpg", "1.png"]),
    "no text": ({}, ["jpg", "png"]),
}


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_where_no_text_is_read_all_pictures_of_a_sample_are(suffix: str, tmp_path: Path) -> None:
    file = packed(tmp_path / f"x.{suffix}", *SEVERAL.values())
    first, second = picture(0), picture(1)
    options = Options(needs_text=False)
    assert [images(record) for record in read_all(file, options)] == [
        [second, first],
        [first, second],
        [first],
        [first, second],
        [first, second],
    ]
    older = dataclasses.replace(scan(file, every=4, options=options), rules=())
    found = list(read(file, older, first=0, count=5, options=options))
    assert [images(record) if isinstance(record, Sample) else record.reason for record in found] == [
        "missing_image",
        [first],
        [first],
        "missing_image",
        [first],
    ]


def test_a_text_beside_several_pictures_is_refused_unless_one_is_chosen(tmp_path: Path) -> None:
    file = packed(tmp_path / "x.tar", SEVERAL["no conversation"], ({"caption": "b"}, ["jpg"]))
    refused, good = read_all(file)
    assert (reason(refused), texts(good)) == ("bad_record", ["b"])
    assert isinstance(refused, Reject)
    assert refused.message == (
        "2 pictures in a sample without a conversation, expected one: data.image_field names it "
        "(of .0.jpg, .1.png, .json)"
    )
    chosen, _ = read_all(file, Options(image_field="1.png"))
    assert (texts(chosen), images(chosen)) == (["a"], [picture(1)])


def test_a_text_member_comes_before_a_conversation(tmp_path: Path) -> None:
    line = json.dumps({"conversations": talk("a", "b")}).encode()
    members = [("0.jpg", picture(0)), ("0.json", line), ("0.txt", b"text"), ("1.jpg", picture(1)), ("1.json", line)]
    assert [texts(record) for record in read_all(one_input(write_tar(tmp_path / "x.tar", members)))] == [
        ["text"],
        ["a", "b"],
    ]


def test_markers_are_put_in_where_it_is_asked_for(tmp_path: Path) -> None:
    file = packed(tmp_path / "x.tar", ({"conversations": talk("a", "b")}, ["jpg"]))
    options = Options(placeholders="fix", keeps_members=True, needs_text=False, needs_image=False)
    (record,) = read_all(file, options)
    assert isinstance(record, Sample)
    assert record.is_fixed
    (line,) = (member.blob.data for member in record.members if member.extension == "json")
    assert json.loads(line or b"")["conversations"][0]["value"].startswith("<image>")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["webdataset", "energon"])
def test_copied_conversations_are_read_again_by_every_stage(form: str, tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(png() + b"%d" % number)
    names = [f"{number}.png" for number in range(11)]
    rows = [
        {"image": names, "conversations": talk("<image>" * 11 + "?", "Eleven.")},
        {
            "images": ["11.png"],
            "messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "ü"}],
        },
        {"image": "0.png", "conversations": talk("<image>", "One.")},
    ]
    source = write_lines(tmp_path / "in.jsonl", rows)
    export_records(copied(tmp_path / "run", *TARS, source=source), tmp_path / "out", form)
    assert parts_of(tmp_path / "out") == parts_of(source)
    measured, tokens = tmp_path / "measured", tmp_path / "tokens"
    small_run(measured, "stage=measure", "image.tokenizer=null", "data.n_train_samples=null", source=tmp_path / "out")
    small_run(tokens, "data.n_train_samples=null", source=tmp_path / "out")
    for folder in (measured, tokens):
        combine(folder, CombineOptions())
        assert read_manifest(folder).counts.images == 13
    found, raw = MeasuredDataset(measured), SourceDataset(tmp_path / "out")
    assert [found.record(item) for item in range(3)] == [raw.record(item) for item in range(3)]

"""Everything that hpcdata reads as a dataset.   pytest tests/multimodal/datasets/test_sources.py"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hpcdata import embedded
from hpcdata.base.errors import UserError
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.multimodal import DataFormatter, PictureFile, SourceDataset, get_dataset
from hpcdata.multimodal.values import Slot
from hpcdata.runs.planning import prepare
from hpcdata.samples import BadSample, Reason
from tests.faulty_runs import CASES, READY
from tests.smallruns import small_config, small_run
from tests.sources.source_files import write, write_tar

FAST = ("tar", "pairs.gz", "pictures", "parquet of pictures")


def png(number: int, *, width: int = 6) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, 4), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def said(role: str, value: str) -> dict[str, str]:
    return {"from": role, "value": value}


LLAVA: list[dict[str, Any]] = [
    {"id": 0, "image": "p/0.png", "conversations": [said("human", "<image>\nWhat?"), said("gpt", "A 0.")]},
    {
        "id": 1,
        "image": ["p/0.png", "p/1.png"],
        "conversations": [
            said("system", "Be kind."),
            said("human", "First <image> then\n<image>."),
            said("gpt", "Two."),
        ],
    },
    {
        "id": 2,
        "conversations": [said("human", "No picture"), said("gpt", "None."), said("human", "?"), said("gpt", "!")],
    },
    {"id": 3, "image": "p/1.png", "conversations": [said("human", "Where?"), said("gpt", "Anywhere.")]},
    {"id": 4, "image": "p/2.png", "conversations": [said("human", "<image>"), said("gpt", "Gone.")]},
]


@pytest.fixture
def llava(tmp_path: Path) -> Path:
    for number in range(2):
        write(tmp_path / f"data/p/{number}.png", png(number))
    return write(tmp_path / "data/llava.json", json.dumps(LLAVA).encode())


def told(example: dict[str, Any]) -> list[object]:
    images = example.get("image", [])
    images = images if isinstance(images, list) else [images]
    return [[np.asarray(image).tolist() for image in images], {**example, "image": None}]


def test_conversations_of_llava_have_places_for_their_pictures(llava: Path) -> None:
    dataset = get_dataset(llava, split="train")
    assert len(dataset) == 5
    first, second, third, fourth = (dataset[number] for number in range(4))
    assert isinstance(first["image"], PictureFile)
    assert first["messages"] == [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhat?"}]},
        {"role": "assistant", "content": "A 0."},
    ]
    assert first["metadata"] == {"key": "llava.json#0", "source": "llava.json"}
    (branch,), _ = DataFormatter(system_prompt="none")(second)
    assert [turn.role for turn in branch] == ["system", "user", "assistant"]
    assert branch[1].parts == ("First ", Slot(0), " then\n", Slot(1), ".")
    assert [image.shape for image in second["image"]] == [(4, 6, 3)] * 2
    assert "image" not in third
    assert [message["content"] for message in third["messages"]] == ["No picture", "None.", "?", "!"]
    assert fourth["messages"][0]["content"] == "Where?"


def test_a_marker_in_an_answer_is_text_and_no_place(tmp_path: Path) -> None:
    write(tmp_path / "p/0.png", png(0))
    talk = [
        said("human", "<image> What is <b>?"),
        said("gpt", "A tag as <image>"),
        said("human", "So?"),
        said("gpt", "Yes"),
    ]
    rows = [
        {"image": "p/0.png", "conversations": talk},
        {"conversations": [said("human", "?"), said("gpt", "<image>")]},
    ]
    write(tmp_path / "x.json", json.dumps(rows).encode())
    first, second = SourceDataset(tmp_path / "x.json")
    assert first["messages"][0]["content"] == [{"type": "image"}, {"type": "text", "text": " What is <b>?"}]
    assert [message["content"] for message in first["messages"][1:]] == ["A tag as <image>", "So?", "Yes"]
    assert second["messages"][1]["content"] == "<image>"
    (branch,), _ = DataFormatter(system_prompt="none")(first)
    assert [turn.parts for turn in branch][:2] == [(Slot(0), " What is <b>?"), ("A tag as <image>",)]


@pytest.mark.parametrize(
    ("value", "names", "reason"),
    [
        ("<image> <image>", ["p/0.png"], Reason.MARKER_WITHOUT_IMAGE),
        ("<image>", [], Reason.MARKER_WITHOUT_IMAGE),
        ("<image>", ["p/0.png", "p/0.png"], Reason.IMAGE_WITHOUT_MARKER),
    ],
)
def test_markers_that_do_not_fit_have_their_own_reasons(
    tmp_path: Path, value: str, names: list, reason: Reason
) -> None:
    write(tmp_path / "p/0.png", png(0))
    talk = [said("human", value), said("gpt", "Yes.")]
    write(tmp_path / "x.json", json.dumps([{"image": names, "conversations": talk}]).encode())
    with pytest.raises(BadSample) as caught:
        SourceDataset(tmp_path / "x.json")[0]
    assert caught.value.reason is reason


def test_a_record_that_is_no_example_says_why_and_is_replaced_by_none(llava: Path) -> None:
    dataset = SourceDataset(llava)
    with pytest.raises(BadSample) as caught:
        np.asarray(dataset[4]["image"])
    assert caught.value.reason is Reason.MISSING_IMAGE
    write(
        llava.parent / "bad.jsonl",
        b'{"caption": "a", "image": "p/0.png"}\nno JSON\n{"caption": "c", "image": "p/1.png"}\n',
    )
    dataset = SourceDataset(llava.parent / "bad.jsonl")
    assert [dataset[number]["text"] for number in (0, 2)] == ["a", "c"]
    with pytest.raises(BadSample, match=r"bad\.jsonl#1: not JSON") as caught:
        dataset[1]
    assert caught.value.reason is Reason.BAD_JSON


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in READY]
)
def test_every_source_is_a_dataset_and_the_same_from_its_index(name: str, tmp_path: Path) -> None:
    make, named = CASES[name]
    make(tmp_path / "in")
    source = tmp_path / "in" / named
    dataset = SourceDataset(source)
    assert len(dataset) == 12
    assert dataset[3].get("text", "").strip() or dataset[3]["messages"]
    if not name.startswith(("lines", "documents")) and name != "parquet":
        assert dataset[5]["image"].size() == np.asarray(dataset[5]["image"]).shape[:2]
    made = [SourceDataset(source, index_dir=tmp_path / "index") for _ in range(2)]
    copied = pickle.loads(pickle.dumps(dataset))
    for place in (11, 0, 7):
        assert told(copied[place]) == told(dataset[place]) == told(made[0][place]) == told(made[1][place])
    assert len({item.fingerprint() for item in (dataset, copied, *made)}) == 1
    assert sorted(path.name for path in (tmp_path / "index").iterdir() if path.name != "inputs") == [
        "index.json",
        "offsets.memmap",
    ]


def test_an_index_is_of_what_was_asked_for_and_says_when_it_is_damaged(llava: Path, tmp_path: Path) -> None:
    SourceDataset(llava, index_dir=tmp_path / "index")
    with pytest.raises(UserError, match=r"is an index of something else \(options differs\)"):
        SourceDataset(llava, index_dir=tmp_path / "index", needs_text=False)
    with pytest.raises(UserError, match="holds something else than an index"):
        SourceDataset(llava, index_dir=llava.parent)
    (tmp_path / "index/offsets.memmap").write_bytes(b"short")
    with pytest.raises(UserError, match=r"is damaged .*remove"):
        SourceDataset(llava, index_dir=tmp_path / "index")


def test_inputs_that_change_are_noticed_when_they_are_read(llava: Path, tmp_path: Path) -> None:
    lines = write(tmp_path / "x.jsonl", b'{"text": "one"}\n' * 3)
    dataset = SourceDataset(lines, source="text", index_dir=tmp_path / "index")
    lines.write_bytes(b'{"text": "two"}\n' * 2)
    with pytest.raises(UserError, match=r"x\.jsonl has changed since"):
        dataset[0]


def test_splits_are_folders_or_beginnings_of_names(tmp_path: Path) -> None:
    for split, number in (("train", 3), ("validation", 2)):
        write_tar(tmp_path / f"tars/{split}/0.tar", [(f"{n}.txt", split.encode()) for n in range(number)])
        write(tmp_path / f"lines/{split}-0.jsonl", b'{"text": "x"}\n' * number)
    for folder in ("tars", "lines"):
        options = {"needs_image": False}
        assert [len(get_dataset(tmp_path / folder, split, **options)) for split in ("train", "validation")] == [3, 2]
        assert len(get_dataset(str(tmp_path / folder), None, **options)) == 5
        with pytest.raises(UserError, match="has no split test: it has train, validation"):
            get_dataset(tmp_path / folder, "test", **options)
    assert len(get_dataset(tmp_path / "tars/train", "train", needs_image=False)) == 3
    with pytest.raises(UserError, match="no splits, only train"):
        get_dataset(tmp_path / "tars/train", "test", needs_image=False)
    assert len(get_dataset(tmp_path / "lines/validation-*.jsonl", "val", needs_image=False)) == 2
    with pytest.raises(UserError, match="names no split test: leave the split out, or give the files of test"):
        get_dataset(tmp_path / "lines/train-0.jsonl", "test", needs_image=False)


def test_a_style_is_of_every_example_and_a_sample_of_the_first(tmp_path: Path) -> None:
    dataset = SourceDataset(embedded.path("quickstart.tar"), style="short_caption", sample=5)
    assert (len(dataset), len([*dataset])) == (5, 5)
    assert dataset[-1]["style"] == "short_caption"
    assert dataset[-1]["image"].shape == np.asarray(dataset[-1]["image"]).shape
    assert dataset.fingerprint() != SourceDataset(embedded.path("quickstart.tar")).fingerprint()


def test_a_plan_gives_its_raw_inputs_as_far_as_it_takes_them(tmp_path: Path) -> None:
    prepare(small_config(tmp_path / "run"))
    dataset = get_dataset(tmp_path / "run")
    whole = SourceDataset(embedded.path("quickstart.tar"))
    assert (len(dataset), len(whole)) == (24, 96)
    assert told(dataset[23]) == told(whole[23])
    with pytest.raises(UserError, match="is a run, and has no split test"):
        get_dataset(tmp_path / "run", "test")


@pytest.mark.slow
def test_rows_that_copy_has_written_are_a_dataset(tmp_path: Path) -> None:
    small_run(tmp_path / "run", "stage=copy", "image.tokenizer=null", "text.tokenizer=null", "copy.format=hf")
    combine(tmp_path / "run", CombineOptions())
    dataset, whole = get_dataset(tmp_path / "run"), SourceDataset(embedded.path("quickstart.tar"))
    assert len(dataset) == 24
    assert told(dataset[13])[0] == told(whole[13])[0]
    assert dataset[13]["text"] == whole[13]["text"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["webdataset", "jsonl"])
def test_what_copy_has_written_is_a_dataset_without_a_scan(form: str, tmp_path: Path, monkeypatch) -> None:
    small_run(tmp_path / "run", "stage=copy", "image.tokenizer=null", "text.tokenizer=null", f"copy.format={form}")
    with pytest.raises(UserError, match="not combined yet"):
        get_dataset(tmp_path / "run")
    combine(tmp_path / "run", CombineOptions())
    monkeypatch.setattr("hpcdata.sources.scan", lambda *_, **__: pytest.fail("scanned"))
    for path in (tmp_path / "run", tmp_path / "run/dataset"):
        dataset = get_dataset(path)
        assert len(dataset) == 24
    monkeypatch.undo()
    whole = SourceDataset(embedded.path("quickstart.tar"))
    for place in (23, 0, 13):
        assert told(dataset[place])[0] == told(whole[place])[0]
        assert dataset[place]["text"] == whole[place]["text"]

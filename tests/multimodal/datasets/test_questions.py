"""pytest tests/multimodal/datasets/test_questions.py"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from hpcdata import verify_datasets
from hpcdata.base import sealed
from hpcdata.base.errors import UserError
from hpcdata.catalogue import listing
from hpcdata.multimodal import DataFormatter, get_dataset
from hpcdata.multimodal.datasets import named
from hpcdata.multimodal.datasets.questions import QuestionsDataset
from hpcdata.samples import BadSample
from hpcdata.sources.json import kept_places, questions
from tests.catalogue.real_sets import picture

FIELDS = {"image": "image_local_name", "question": "question", "answers": "answers"}
ROW = {"questionId": 7, "question": "How many?", "image_local_name": "a.png", "answers": ["3", "three"]}


def write(folder: Path, rows: Any, name: str = "q.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(rows))
    return folder / name


def test_a_question_a_row_and_its_picture_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    rows = [ROW, {**ROW, "answers": None}, {**ROW, "image_local_name": "../a.png"}, {"question": "Which?"}, {}]
    file = write(tmp_path, {"dataset": ["x"], "data": rows, "other": [{"data": [ROW]}]})
    dataset = QuestionsDataset([file], FIELDS, image_root=tmp_path, style="info_qa")
    assert len(dataset) == 5
    assert len(QuestionsDataset([file, file], FIELDS, image_root=tmp_path, sample=7)) == 7
    example = dataset[0]
    assert (example["question"], example["answers"], example["style"]) == ("How many?", ["3", "three"], "info_qa")
    assert example["image"].size() == (41, 61)
    assert "answers" not in dataset[1]
    for item, told in ((2, "is not below"), (3, "has no image_local_name"), (4, "has no question")):
        with pytest.raises(BadSample, match=rf"q\.json: question {item}.* {told}"):
            dataset[item]


@pytest.mark.parametrize(
    ("rows", "list_name", "told"),
    [
        ([ROW], "data", "is no object with a list data"),
        ({"date": []}, "data", "is no object with a list data"),
        ({"data": {}}, "data", "is no object with a list data"),
        ("text", "", "is no list and no object of questions"),
        *(({"data": rows}, "data", "stands what is no object") for rows in ([ROW, "x"], [1, ROW], [ROW, [1], ROW])),
        ([ROW, None], "", "stands what is no object"),
    ],
)
def test_what_is_no_list_of_questions_is_refused(rows: Any, list_name: str, told: str, tmp_path: Path) -> None:
    """As a whole: a question that is left out would be missed by nobody."""
    with pytest.raises(UserError, match=rf"q\.json.* {told}"):
        QuestionsDataset([write(tmp_path, rows)], FIELDS, image_root=tmp_path, list_name=list_name)


@pytest.mark.parametrize(
    ("rows", "list_name", "told"),
    [({"data": [ROW]}, "data", "cut short"), ([ROW], "", "cut short"), ({"1": ROW}, "", "no JSON")],
)
def test_a_file_that_is_cut_short_is_refused(rows: Any, list_name: str, told: str, tmp_path: Path) -> None:
    file = write(tmp_path, rows)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"q\.json.* {told}"):
        QuestionsDataset([file], FIELDS, image_root=tmp_path, list_name=list_name)


@pytest.mark.parametrize(
    ("name", "split", "file", "rows", "image", "expected"),
    [
        (
            "tally_qa",
            "train",
            "train.json",
            [{"image": "VG_100K/7.jpg", "question": "How many?", "answer": 3, "question_id": 1}],
            "VG_100K/7.jpg",
            {"answer": 3, "style": "tally_qa"},
        ),
        (
            "dvqa",
            "val_easy",
            "qa/val_easy_qa.json",
            [{"image": "bar_1.png", "question": "How many?", "answer": "three", "answer_bbox": [1, [2]]}],
            "images/bar_1.png",
            {"answer": "three", "style": "dv_qa"},
        ),
        (
            "figure_qa",
            "train",
            "train1/qa_pairs.json",
            {"qa_pairs": [{"image_index": 0, "question_string": "How many?", "answer": 1}], "total": [0]},
            "train1/png/0.png",
            {"answer": "Yes", "style": "figure_qa"},
        ),
        (
            "plot_qa",
            "validation",
            "val/qa_pairs_V2.json",
            {"qa_pairs": [{"image_index": 5, "question_string": "How many?", "answer": 1.5}]},
            "val/png/5.png",
            {"answer": 1.5, "style": "plot_qa"},
        ),
        (
            "tabwmp",
            "dev",
            "tabmwp/problems_dev.json",
            {"38": {"question": "How many?", "choices": None, "answer": "11", "unit": None}},
            "tabmwp/tables/38.png",
            {"answer": "11", "style": "tabwmp_da"},
        ),
        (
            "a_okvqa",
            "val",
            "aokvqa_v1p0_val.json",
            [
                {"image_id": 9, "question": "How many?", "choices": ["a", "b"], "correct_choice_idx": 0}
                | {"direct_answers": ["a", "a"], "rationales": ["..."]}
            ],
            "val2017/000000000009.jpg",
            {"options": ["a", "b"], "answer_idx": 0, "answers": ["a", "a"], "style": "a_okvqa_mc"},
        ),
    ],
)
def test_sets_of_questions_are_opened_as_they_are_published(
    name: str,
    split: str,
    file: str,
    rows: Any,
    image: str,
    expected: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a question that lost a field is told with the file and the field."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    entry = named.find(name)
    assert entry is not None
    folder = tmp_path / entry.folder
    path, shown = folder / file, folder / image
    for item in (path, shown):
        item.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1))
    shown.write_bytes(picture(1, "JPEG"))
    listed = listing.path_of(folder)
    listed.parent.mkdir()
    listed.write_bytes(sealed.to_json({"sources": listing.sources_of(entry), "files": []}))
    example = get_dataset(name, split)[0]
    assert example["image"].size() == (41, 61)
    assert {key: value for key, value in example.items() if key != "image"} == {"question": "How many?", **expected}
    assert entry.reader is not None
    assert {"splits", "reader"} <= set(entry.unchecked)
    for field in ("image", "question"):
        key = entry.reader.fields[field]
        key = key if "{" not in key else key[key.index("{") + 1 :].split("}")[0].split(":")[0]
        if key != "key":
            path.write_text(json.dumps(rows).replace(f'"{key}":', '"gone":'))
            with pytest.raises(BadSample, match=f"{re.escape(file)}: question 0 has no {key}"):
                get_dataset(name, split)[0]


def test_sets_that_were_placed_by_hand_are_opened_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the guide puts them. A set without a reader is said, and is no damage."""
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    (tmp_path / "info_qa/images").mkdir(parents=True)
    (tmp_path / "info_qa/images/a.png").write_bytes(picture(1))
    write(tmp_path / "info_qa", {"data": [ROW]}, "infographicsVQA_val_v1.0_withQT.json")
    scene = {"question": "Which word?", "file_path": "coco/1.jpg", "answers": ["stop"], "question_id": 1}
    write(tmp_path / "scene_text", {"data": [scene]}, "train_task_3.json")
    (tmp_path / "scene_text/coco").mkdir()
    (tmp_path / "scene_text/coco/1.jpg").write_bytes(picture(2, "JPEG"))
    assert get_dataset("InfoQa", "val")[0]["image"].size() == (41, 61)
    assert get_dataset("scene_text")[0]["answers"] == ["stop"]
    write(tmp_path / "OneVisionMidData", {"a": 1}, "a.json")
    with pytest.raises(UserError, match=r"has no reader for it: a class .* \(folders of JSON .*hpcdata convert sets"):
        get_dataset("OneVisionMidData")
    for name, code in (("OneVisionMidData", 3), ("llava", 0), ("academic", 0)):
        assert verify_datasets.main([name]) == code, capsys.readouterr()


def ai2d(root: Path, *, ids: str = "0\n2.png\n") -> Path:
    """A file of questions a diagram, pictures beside them, and which diagrams are of the test."""
    folder = root / "torch_datasets/ai2d"
    for number in range(4):
        row = {
            "abcLabel": False,
            "answerTexts": ["a leaf", "a root"],
            "correctAnswer": 1,
            "questionId": "0-0",
        }
        rows = {f"What is {number}?": row, "What is C?": {**row, "abcLabel": True, "answerTexts": ["C", "D"]}}
        name = f"{number}.png"
        write(folder / "ai2d/questions", {"imageName": name, "questions": {} if number == 3 else rows}, f"{name}.json")
        (folder / "ai2d/images").mkdir(exist_ok=True)
        (folder / "ai2d/images" / name).write_bytes(picture(number))
    (folder / "ai2d_test_ids.csv").write_text(ids)
    return folder


def test_diagrams_have_a_file_of_questions_each_and_a_list_of_those_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path))
    folder = ai2d(tmp_path)
    test, train = get_dataset("ai2d", "test"), get_dataset("ai2_diagram_v2_mix_transparent", "train")
    assert [example["question"] for example in test] == ["What is 0?", "What is 2?"]
    (example,) = train
    assert example["image"].size() == (41, 61)
    assert {key: value for key, value in example.items() if key != "image"} == {
        "question": "What is 1?",
        "options": ["a leaf", "a root"],
        "answer_idx": 1,
        "style": "ai2_diagram",
    }
    ((asked, answer),), _ = DataFormatter(system_prompt="style")(example)
    assert asked.parts[-1] == "ai2_diagram: What is 1?\nA: a leaf\nB: a root\n"
    assert answer.parts == ("B",)
    assert test.fingerprint() != train.fingerprint()
    assert verify_datasets.main(["ai2d"]) == 0
    out = capsys.readouterr().out
    assert "ai2d, test: 2 examples + 2 that its entry leaves out; 2 made, 2 pictures decoded" in out
    ai2d(tmp_path, ids="image,split\n")
    with pytest.raises(UserError, match=r"no line of .*ai2d_test_ids\.csv is the name of a file of it"):
        get_dataset("ai2d", "train")
    (folder / "ai2d_test_ids.csv").unlink()
    with pytest.raises(UserError, match=r"ai2d_test_ids\.csv, which says what belongs to a split, cannot be read"):
        get_dataset("ai2d", "test")
    write(folder / "ai2d/questions", {"imageName": "0.png", "questions": []}, "0.png.json")
    with pytest.raises(UserError, match=r"0\.png\.json is no object with an object questions of questions by keys"):
        QuestionsDataset([folder / "ai2d/questions/0.png.json"], FIELDS, image_root=folder, list_name="questions.{key}")


def test_where_the_questions_of_a_large_file_stand_is_found_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLMO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(kept_places, "WORTH_BYTES", 1)
    folder = tmp_path / "data/torch_datasets/plot_qa"
    rows = [{"image_index": n, "question_string": f"How many {n}?", "answer": n} for n in range(50)]
    path = write(folder / "val", {"qa_pairs": rows}, "qa_pairs_V2.json")
    first = get_dataset("plot_qa", "validation")
    with monkeypatch.context() as changed:
        changed.setattr(questions, "_records", lambda *_: pytest.fail("it was read through again"))
        again = get_dataset("plot_qa", "validation")
        carried = pickle.loads(pickle.dumps(again))
    assert again.fingerprint() == first.fingerprint() == carried.fingerprint()
    assert len(pickle.dumps(again)) < 2000
    for dataset in (again, carried):
        assert [example["question"] for example in dataset] == [row["question_string"] for row in rows]
    assert len(get_dataset("plot_qa", "validation", sample=3)) == 3

    (folder.parent / "plot_qa").rename(folder.parent / "moved")
    with monkeypatch.context() as changed:
        changed.setattr(questions, "_records", lambda *_: pytest.fail("it was read through again"))
        options = {"index_dir": folder.parent / "moved/.hpcdata/questions", "list_name": "qa_pairs"}
        fields = {"image": "image_index", "question": "question_string"}
        moved = folder.parent / "moved/val" / path.name
        assert len(QuestionsDataset([moved], fields, image_root=tmp_path, **options)) == 50
    moved.write_text(json.dumps({"qa_pairs": rows[:7]}))
    assert len(QuestionsDataset([moved], fields, image_root=tmp_path, **options)) == 7
    (kept,) = options["index_dir"].glob("*.memmap")
    kept.write_bytes(kept.read_bytes()[:-1])
    assert len(QuestionsDataset([moved], fields, image_root=tmp_path, **options)) == 7

    blocked = write(tmp_path, {}, "no_folder")
    assert len(QuestionsDataset([moved], fields, image_root=tmp_path, **{**options, "index_dir": blocked})) == 7

"""pytest tests/multimodal/datasets/test_questions.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcdata import verify_datasets
from hpcdata.base.errors import UserError
from hpcdata.multimodal import get_dataset
from hpcdata.multimodal.datasets.questions import QuestionsDataset
from hpcdata.samples import BadSample
from tests.catalogue.real_sets import picture

FIELDS = {"image": "image_local_name", "question": "question", "answers": "answers"}
ROW = {"questionId": 7, "question": "How many?", "image_local_name": "a.png", "answers": ["3", "three"]}


def write(folder: Path, rows: Any, name: str = "q.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(rows))
    return folder / name


def test_a_question_a_row_and_its_picture_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    rows = [ROW, {**ROW, "answers": None}, {**ROW, "image_local_name": "../a.png"}, "x", {"question": "Which?"}]
    dataset = QuestionsDataset([write(tmp_path, {"data": rows})], FIELDS, image_root=tmp_path, style="info_qa")
    assert len(dataset) == 5
    example = dataset[0]
    assert (example["question"], example["answers"], example["style"]) == ("How many?", ["3", "three"], "info_qa")
    assert example["image"].size() == (41, 61)
    assert "answers" not in dataset[1]
    for item, told in ((2, "is not below"), (3, "expected an object"), (4, "has no image_local_name")):
        with pytest.raises(BadSample, match=told):
            dataset[item]


@pytest.mark.parametrize("rows", [[ROW], {"date": []}, {"data": {}}])
def test_another_object_is_refused(rows: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no object with a list data"):
        QuestionsDataset([write(tmp_path, rows)], FIELDS, image_root=tmp_path)


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
    write(tmp_path / "torch_datasets/ai2d", {"a": 1}, "a.json")
    for name, code in (("ai2d", 3), ("academic", 0)):
        assert verify_datasets.main([name]) == code, capsys.readouterr()

"""Files that inputs are made from beside their own.   python -m pytest tests/runs/test_other_files.py

A plan knows them (`sources.others`), and so does an index of raw records.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hpcdata.base.errors import UserError
from hpcdata.multimodal import SourceDataset
from hpcdata.runs.plan import load_plan
from hpcdata.runs.planning import prepare
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter, small_config
from tests.sources.source_files import json_lines, write
from tests.sources.test_sets import answered, coco, image, vqa


@dataclass(frozen=True, kw_only=True)
class Input:
    """What is given, the file that changes, and what is said then."""

    path: Path
    changed: Path
    settings: tuple[str, ...] = ()
    told: str = "has changed since it was planned"
    change: Callable[[Path], None] = field(default=lambda path: path.write_bytes(path.read_bytes() + b"\n"))


def answers(folder: Path) -> Input:
    questions = [{"question_id": n, "image_id": 9, "question": f"Q{n}?"} for n in range(3)]
    path = vqa(folder, questions, [answered(n, "a", best="b") for n in range(3)])
    return Input(path=path, changed=folder / "v2_mscoco_train2014_annotations.json", settings=("data.source=vqa",))


def annotations(folder: Path) -> Input:
    path = coco(folder / "x.json", [image(9)], [])
    return Input(path=path, changed=path, settings=("data.source=coco",))


def tables(folder: Path) -> Input:
    for name in "ab":
        write(folder / f"{name}.jsonl", json_lines([{"url": f"http://{name}/x.jpg", "text": name}]))
    settings = ("stage=fetch", "text.tokenizer=none", "image.tokenizer=none", "data.source=urls")
    return Input(path=folder, changed=folder / "b.jsonl", settings=settings)


def a_mapping(folder: Path) -> Input:
    path = write(folder / "x.jsonl", json_lines([{"a": "x", "b": "y"}]))
    changed = write(folder / "m.yaml", b"text: a")
    told = r"data\.mapped_by was .*, now"
    return Input(
        path=path,
        changed=changed,
        settings=(f"data.mapping={changed}",),
        told=told,
        change=lambda path: path.write_text("text: b") and None,
    )


def mixed(folder: Path, before: str, after: str, told: str) -> Input:
    for name in "ab":
        write(folder / f"{name}.jsonl", json_lines([{"conversations": [{"from": "gpt", "value": name}]}] * 2))
    mix = write(folder / "mix.yaml", before.encode())
    return Input(path=mix, changed=mix, told=told, change=lambda path: path.write_text(after) and None)


A, B = "datasets:\n- json_path: a.jsonl\n", "- json_path: b.jsonl\n"
INPUTS = {
    "answers of VQA v2": answers,
    "annotations of COCO": annotations,
    "tables of a folder": tables,
    "a mapping": a_mapping,
    "a mix, part": lambda folder: mixed(folder, A + B, f"{A}  sampling_strategy: first:1\n{B}", "a.jsonl is gone"),
    "a mix, order": lambda folder: mixed(folder, A + B, A.replace("a", "b", 3).replace("bl", "al") + B, "order"),
}
INPUTS["a mix, order"] = lambda folder: mixed(
    folder, A + B, "datasets:\n" + B + "- json_path: a.jsonl\n", "the order of the inputs was another"
)
FROZEN = ("a mapping", "a mix, part", "a mix, order")
"""They stand in the plan themselves, and tasks read what it says."""


@pytest.mark.parametrize("name", INPUTS)
def test_a_launch_and_its_tasks_notice_what_changed_since_the_plan(name: str, tmp_path: Path) -> None:
    given = INPUTS[name](tmp_path / "in")

    def plan() -> None:
        settings = ("data.n_train_samples=null", "image.tokenizer=none", *given.settings)
        prepare(small_config(tmp_path / "run", *settings, source=given.path))

    plan()
    write(tmp_path / "run/shards/begun/shard.json", b"{}")
    plan()
    given.change(given.changed)
    with pytest.raises(UserError, match=given.told):
        plan()
    if name not in FROZEN:
        assert run_task(tmp_path / "run", StopAfter()) is TaskOutcome.FAILED  # type: ignore[arg-type]
        ledger = "".join(path.read_text() for path in (tmp_path / "run/ledger").iterdir())
        assert f"({given.changed}) has changed since it was planned" in ledger


def test_the_size_of_answers_is_of_the_data_and_no_other_input_has_more_than_before(tmp_path: Path) -> None:
    given = answers(tmp_path / "in")
    settings = ("data.n_train_samples=null", "image.tokenizer=none", *given.settings)
    (item,) = prepare(small_config(tmp_path / "run", *settings, source=given.path)).inputs
    assert item.identity()[-1] == [os.path.getsize(given.changed)]
    assert load_plan(tmp_path / "run").inputs == (item,)
    values = annotations(tmp_path / "coco")
    (item,) = prepare(small_config(tmp_path / "other", *settings[:2], *values.settings, source=values.path)).inputs
    assert "others" not in item.to_mapping()
    assert len(item.identity()) == 4


@pytest.mark.parametrize("name", ["answers of VQA v2", "annotations of COCO"])
def test_an_index_of_raw_records_notices_it_too(name: str, tmp_path: Path) -> None:
    given = INPUTS[name](tmp_path / "in")
    (source,) = (item.partition("=")[2] for item in given.settings)

    def opened() -> SourceDataset:
        return SourceDataset(given.path, source=source, index_dir=tmp_path / "index")

    assert len(opened()) == len(opened())
    given.change(given.changed)
    with pytest.raises(UserError, match=rf"{given.changed.name} has changed since it was indexed in "):
        opened()
    index = json.loads((tmp_path / "index/index.json").read_text())
    assert str(given.changed) in [item["path"] for item in index["origins"]]
    shutil.rmtree(tmp_path / "index")
    opened()
    given.changed.unlink()
    opened()

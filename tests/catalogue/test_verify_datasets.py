"""What was fetched opens by its name, and `verify-datasets` says what cannot be decoded.

pytest tests/catalogue/test_verify_datasets.py
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcdata import __main__ as command
from hpcdata import download, verify_datasets
from hpcdata.base.errors import UserError
from hpcdata.multimodal import HfDataset, get_dataset
from hpcdata.multimodal.datasets.tables import TableDataset
from hpcdata.samples import BadSample, Reason
from tests.catalogue import real_sets
from tests.catalogue.hub import Hub

ROOT = Path(__file__).parents[2]


def test_a_parquet_set_opens_by_its_name_split_by_split(hub: Hub) -> None:
    real_sets.chart_qa(hub.folder)
    with pytest.raises(UserError, match=r"chart_qa is not in .*: hpcdata download chart_qa"):
        get_dataset("chart_qa")
    assert download.main(["ChartQa"]) == 0
    for split, word in (("train", "train"), ("validation", "val"), ("val", "val"), ("test", "test")):
        dataset = get_dataset("ChartQA", split=split)
        assert isinstance(dataset, TableDataset)
        assert len(dataset) == 5
        example = dataset[3]
        assert example.keys() == {"image", "question", "answers", "style"}
        assert (example["question"], example["answers"]) == (f"How high is bar 3 of {word}?", ["3"])
        assert np.asarray(example["image"]).shape == (43, 63, 3)
    assert len(pickle.loads(pickle.dumps(dataset))) == 5
    assert get_dataset("chart_qa", split="train").fingerprint() != get_dataset("chart_qa", split="test").fingerprint()
    with pytest.raises(UserError, match="chart_qa has no split dev2: it has train, validation, test"):
        get_dataset("chart_qa", split="dev2")
    with pytest.raises(UserError, match=r"chart_qa_exp lies in .*, and hpcdata has no reader for it"):
        get_dataset("chart_qa_exp")


def test_sets_of_conversations_open_whatever_their_folders_are_called(hub: Hub) -> None:
    real_sets.onevision(hub.folder)
    real_sets.cc3m(hub.folder)
    assert download.main(["LLaVA-OneVision-Data", "cc3m"]) == 0
    dataset = get_dataset("lmms-lab/LLaVA-OneVision-Data")
    assert len(dataset) == 6
    assert "GeoQA+(MathV360K) 0" in str(dataset[0])
    assert len(get_dataset("cc3m", split="validation")) == 3


def test_a_picture_without_a_byte_is_rejected_as_what_it_is(tmp_path: Path) -> None:
    pictures = pa.array([{"bytes": b"", "path": None}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    turns = [[{"from": "human", "value": "<image>\nWhich?"}, {"from": "gpt", "value": "This."}]]
    pq.write_table(pa.table({"id": ["a"], "image": pictures, "conversations": turns}), tmp_path / "a.parquet")
    with pytest.raises(BadSample, match="0 bytes") as error:
        get_dataset(tmp_path / "a.parquet")[0]
    assert error.value.reason is Reason.EMPTY_IMAGE


def test_verify_datasets_counts_and_decodes(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """`python scripts/verify_datasets.py`, as the guide has it."""
    real_sets.chart_qa(hub.folder, damaged=2)
    real_sets.onevision(hub.folder)
    assert download.main(["chart_qa", "llava-stage2-1"]) == 3  # LLaVA-NeXT-Data is not on this hub
    capsys.readouterr()
    assert verify_datasets.main([]) == 1
    out = capsys.readouterr().out
    assert "chart_qa, train: 5 examples; 5 made, 4 pictures decoded, 1 truncated (example 2: " in out
    assert "llava_onevision_data, train: 6 examples; 6 made, 6 pictures decoded\n" in out
    assert verify_datasets.main(["chart_qa", "--json"]) == 1
    assert {"truncated": 1} in [report["faults"] for report in json.loads(capsys.readouterr().out)["splits"]]
    assert verify_datasets.main(["OneVisionData", "--all", "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)["splits"]
    assert (report["num_examples"], report["num_looked"], report["problem"]) == (6, 6, "")
    assert verify_datasets.main(["chart_qa", "--sample", "2"]) == 0
    assert verify_datasets.main(["mmmu"]) == 3


def test_a_count_other_than_the_entry_says_is_a_fault(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real_sets.chart_qa(hub.folder)
    text = (ROOT / "hpcdata/catalogue/entries/chart_qa.yaml").read_text()
    (tmp_path / "own").mkdir()
    (tmp_path / "own/chart_qa.yaml").write_text(text + "rows: {train: 5, test: 6}\n")
    words = ["chart_qa", "--catalogue", str(tmp_path / "own")]
    assert download.main(words) == 0
    capsys.readouterr()
    assert verify_datasets.main(words) == 1
    out = capsys.readouterr().out
    assert "train: 5 examples, as its entry says" in out
    assert "test: 5 examples, its entry says 6" in out


def test_pictures_by_address_are_asked_for_by_a_line_that_is_said(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    real_sets.pixmo_cap(hub.folder, lambda path: f"{hub.url}/files/{path}")
    capsys.readouterr()
    assert download.main(["pixmo_cap"]) == 0
    assert "its pictures: hpcdata launch +experiments=fetch" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"the pictures of pixmo_cap are not in .*: hpcdata launch \+experiments=fetch"):
        get_dataset("pixmo_cap")
    capsys.readouterr()
    assert download.main(["--list", "pixmo_cap"]) == 0
    assert "fetch.url_field=image_url" in capsys.readouterr().out


def test_the_command_has_a_hyphen_and_the_script_an_underscore(hub: Hub) -> None:
    assert command.main(["verify-datasets", "mmmu"]) == command.main(["verify_datasets", "mmmu"]) == 3
    line = [sys.executable, "jobs/verify_datasets.py"]
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 of 66 sets are in" in done.stdout


@pytest.mark.slow
def test_pictures_of_a_list_are_fetched_by_the_line_and_then_opened(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hpcdata.catalogue.states import fetch_line
    from hpcdata.multimodal.datasets import named

    real_sets.pixmo_count(hub.folder, lambda path: f"{hub.url}/files/{path}", rows=4)
    (hub.folder / "photos/3.png").unlink()
    assert download.main(["pixmo_count"]) == 0
    entry = named.find("pixmo_count")
    assert entry is not None
    line = fetch_line(entry, tmp_path / "data" / entry.folder)
    line += " fetch.allow_private=true cluster=inline fetch.format=jsonl"
    line = line.replace("hpcdata launch", f"{sys.executable} -m hpcdata.launch")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for split in ("train", "validation", "test"):
        dataset = get_dataset("pixmo_count", split=split)
        assert len(pickle.loads(pickle.dumps(dataset))) == 3
        found = {item["count"]: item for item in dataset}
        assert {n: np.asarray(item["image"]).shape for n, item in found.items()} == {
            n: (40 + n, 60 + n, 3) for n in range(3)
        }
        assert (found[2]["label"], found[2]["style"]) == (f"bars of {split}", "point_count")
        assert found[2]["points"] == [{"x": 10.5, "y": 20.0}, {"x": 11.5, "y": 21.0}]
    assert len({get_dataset("pixmo_count", split=split).fingerprint() for split in ("train", "validation")}) == 2
    with pytest.raises(UserError, match="pixmo_count has no split dev2"):
        get_dataset("pixmo_count", split="dev2")
    assert verify_datasets.main(["pixmo_count"]) == 0
    assert "train: 3 examples + 1 whose picture did not come; 3 made" in capsys.readouterr().out


def test_points_of_a_table_are_a_list_whichever_way_they_are_stored(tmp_path: Path) -> None:
    structs = pa.array([[{"x": 1.0, "y": 2.0}], []])
    columns = pa.array([{"x": [1.0], "y": [2.0]}, {"x": [], "y": []}])
    made = []
    for number, points in enumerate((structs, columns)):
        pq.write_table(pa.table({"points": points}), tmp_path / f"{number}.parquet")
        files = [tmp_path / f"{number}.parquet"]
        made.append(list(TableDataset(files, {"points": "points"}, style="pointing", constants={"point_scale": 100})))
        assert [row["points"] for row in HfDataset(path=str(files[0]))] == [[{"x": 1.0, "y": 2.0}], []]
    assert made[0] == made[1]
    assert made[0][0] == {"points": [{"x": 1.0, "y": 2.0}], "point_scale": 100, "style": "pointing"}


@pytest.mark.parametrize("words", [["--sample", "0"], ["--sample", "-5"], ["--n-proc", "0"]])
def test_looking_at_nothing_is_refused(words: list[str], hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_datasets.main(words) == 2
    assert f"{words[0]} is {words[1]}, expected 1 or more" in capsys.readouterr().err


def test_a_split_of_which_a_part_is_here_is_not_opened_as_if_it_were_whole(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real_sets.onevision(hub.folder)
    hub.misbehave("status", times=9, value=404, part="GeoQA")
    assert download.main(["llava_onevision_data"]) == 1
    told = r"split train: 1 of 2 files are not here, such as .*GeoQA.*: hpcdata download llava_onevision_data"
    with pytest.raises(UserError, match=told):
        get_dataset("LLaVA-OneVision-Data")
    capsys.readouterr()
    assert verify_datasets.main([]) == 1
    assert "1 of 2 files are not here" in capsys.readouterr().out
    hub.behave()
    assert download.main(["llava_onevision_data"]) == 0
    assert len(get_dataset("LLaVA-OneVision-Data")) == 6


def test_files_that_another_has_fetched_open_unchecked(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As by `snapshot_download` into a folder that a group shares. Of shards that are counted none may be missing."""
    real_sets.chart_qa(hub.folder)
    folder = tmp_path / "data/torch_datasets/chartqa"
    shutil.copytree(hub.folder / "HuggingFaceM4/ChartQA", folder)
    assert len(get_dataset("chart_qa", split="test")) == 5
    assert verify_datasets.main([]) == 0
    told = capsys.readouterr().out
    assert "test: 5 examples; 5 made, 5 pictures decoded; nobody has checked its files\n" in told
    assert "to read these through: hpcdata download chart_qa\n" in told
    assert download.main(["--list", "chart_qa"]) == 0
    assert "partial" in capsys.readouterr().out
    (folder / "data/test-00000-of-00001.parquet").rename(folder / "data/test-00000-of-00002.parquet")
    with pytest.raises(UserError, match=r"test: 1 of 2 files are not here, such as .*test-00001-of-00002.parquet: hpc"):
        get_dataset("chart_qa", split="test")
    (folder / "data/test-00000-of-00002.parquet").rename(folder / "data/test-00000-of-00001.parquet")
    assert download.main(["chart_qa"]) == 0
    assert not [item for item in hub.requests if item.sent and item.path.endswith(".parquet")]
    capsys.readouterr()
    assert verify_datasets.main(["chart_qa"]) == 0
    assert "nobody" not in capsys.readouterr().out


def test_files_without_an_example_are_no_split(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real_sets.llava_pretrain(hub.folder)
    assert download.main(["llava_pretrain"]) == 0
    (tmp_path / "data/BLIP558K/blip_laion_cc_sbu_558k.json").write_text("[]")
    capsys.readouterr()
    assert verify_datasets.main(["llava_pretrain"]) == 1
    assert "its files are here, and have no example" in capsys.readouterr().out

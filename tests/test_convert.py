"""The command `hpcdata convert`.   pytest tests/test_convert.py"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdata import convert
from hpcdata.base.command import DONE, REFUSED
from hpcdata.shards.appending import SMALL_BYTES
from tests.llava_tables import picture, row, talk, write
from tests.stopping import kill_after, kill_when_stopped, start_stopping
from tests.trees import sha256_tree

NAME = "ai2d(cauldron,llava_format)"


def test_a_folder_whose_name_has_brackets_and_commas_is_converted_once(tmp_path: Path) -> None:
    source = tmp_path / "OneVisionData" / NAME
    write(source / "train-00000-of-00002.parquet", [row("a", picture()), row("b", None, talk("hi"))])
    write(source / "train-00001-of-00002.parquet", [row("a", picture(1)), row("c", b"nothing")])
    (source / "README.md").write_text("what it is")
    out = tmp_path / "GeoQA+(MathV360K)"
    line = ["llava-parquet", str(source), str(out), "data.shard_size=2"]
    assert convert.main(line) == DONE
    found = json.loads((out / f"{out.name}.json").read_text())
    assert [(record["id"], record.get("image")) for record in found] == [
        *(("a", "image/a.jpg"), ("b", None), ("a", "image/a~2.jpg"))
    ]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert convert.main(line) == DONE
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_glob_and_a_name_of_the_json(tmp_path: Path) -> None:
    write(tmp_path / "in/data/train-0.parquet", [row("a", picture())])
    assert convert.main(["llava-parquet", f"{tmp_path}/in/*/train-*", f"{tmp_path}/out", "--name", "x.jsonl"]) == DONE
    assert json.loads((tmp_path / "out/x.jsonl").read_text())["image"] == "image/a.jpg"


def test_a_folder_that_is_not_ours_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in/x.parquet", [row("a", picture())])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    assert convert.main(["llava-parquet", f"{tmp_path}/in", f"{tmp_path}/out"]) == REFUSED
    assert f"{tmp_path}/out exists already: choose another folder" in capsys.readouterr().err
    assert not (tmp_path / "out.run").exists()
    new = ["llava-parquet", f"{tmp_path}/in", f"{tmp_path}/new"]
    for wrong, message in (
        ([f"--run-dir={tmp_path}/new"], "lies in"),
        ([f"--run-dir={tmp_path}/new/run"], "which is made at once when all is done"),
        (["stage=copy"], "stage=copy: the line says that by its own words"),
    ):
        assert convert.main([*new, *wrong]) == REFUSED
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["llava-parquet", "a", "b", "--mapping=m.csv"], "--mapping has no meaning for convert llava-parquet"),
        (["relink", "a", "b", "data.placeholders=fix"], "data.placeholders=fix has no meaning for convert relink"),
        (["sets", "a", "b", "--name=x.json"], "--name has no meaning for convert sets"),
        (["mix", "1", "b", "--set=x"], "--set has no meaning for convert mix"),
    ],
)
def test_an_option_of_another_form_is_refused(line: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert.main(line) == REFUSED
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_line_that_was_killed_is_typed_again_and_makes_the_same(tmp_path: Path) -> None:
    pictures = [picture(number) + bytes(number % 2 * SMALL_BYTES) for number in range(150)]  # half of them are large
    rows = [row(f"{number % 40}", data) for number, data in enumerate(pictures)]
    source = write(tmp_path / "in/x.parquet", rows, group=20)
    options = ("data.shard_size=30", "data.save_tmp_interval=0.000001")
    arguments = ["-m", "hpcdata.convert", "llava-parquet", str(source), str(tmp_path / "out"), *options]
    pattern = f"{tmp_path}/out.run/shards/tmp_*"
    kill_when_stopped(start_stopping(arguments, pattern, stdout=subprocess.DEVNULL))
    for delay_s in (0.8, 1.2):
        kill_after(delay_s, arguments)
    command = [sys.executable, *arguments]
    assert subprocess.run(command, capture_output=True, check=False).returncode == DONE
    assert convert.main(["llava-parquet", str(source), f"{tmp_path}/other/out"]) == DONE
    for path in (tmp_path / "out", tmp_path / "other/out"):
        (path / "hpcdata.json").unlink()  # it says by which shards it was made
    assert sha256_tree(tmp_path / "out") == sha256_tree(tmp_path / "other/out")


LINES = {
    "ReCap-118K": "coco118k_stage1.5_finetune_w_prompt.json",
    "ReCap-558K": "blip558k_stage1.5_finetune_w_prompt.json",
    "ReCap-CC3M": "cc3m_recap_data_prompt_v2.json",
    "LLaVA-Next": "llava_next_fit_mix_filtered_text_wild_738590.json",
}
"""Those of the document: `python parquet2json-image.py ReCap-118K NAME.json`, in the folder of the sets."""


@pytest.mark.parametrize(("folder", "is_elsewhere"), [*((folder, False) for folder in LINES), ("ReCap-118K", True)])
def test_the_documents_line_makes_the_folders_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, is_elsewhere: bool
) -> None:
    rows = [row("000000033471", picture()), row("damaged", b"no picture"), row("text", None, talk("hi"))]
    write(tmp_path / f"sets/{folder}/data/train-00000-of-00001.parquet", rows)
    monkeypatch.chdir(tmp_path if is_elsewhere else tmp_path / "sets")
    if is_elsewhere:
        monkeypatch.setenv("HPCDATA_DATA_ROOT", f"{tmp_path}/sets")
        monkeypatch.setenv("HPCDATA_TARGET_ROOT", f"{tmp_path}/llava")
    name = LINES[folder]
    monkeypatch.setattr(sys, "argv", ["parquet2json-image.py", folder, name.removesuffix(".json" * is_elsewhere)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(Path(__file__).parents[1] / "jobs/parquet2json-image.py"), run_name="__main__")
    assert caught.value.code == DONE
    made = tmp_path / ("llava" if is_elsewhere else "sets/converted") / folder
    found = json.loads((made / name).read_text())
    assert [(record["id"], record.get("image")) for record in found] == [
        *(("000000033471", f"{folder}/image/000000033471.jpg"), ("text", None))
    ]
    assert (made / "image/000000033471.jpg").read_bytes() == picture()
    header, rejected = (made / "rejects.csv").read_text().splitlines()
    assert (header, rejected.partition(",")[0]) == ("id,reason", "damaged")

"""Folders of sets, by the command and by the document's scripts.   pytest tests/formats/sets/test_running.py"""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from hpcdata import convert
from hpcdata.base.command import DONE, FAILED, REFUSED
from hpcdata.multimodal import SourceDataset
from tests.llava_tables import picture, row
from tests.llava_tables import write as write_table
from tests.sources.source_files import images, write, write_tar

ROOT = Path(__file__).parents[3]
TABLE, PLAIN = "ai2d(cauldron,llava_format)", "ureader_kg"


def talk(image: str) -> dict[str, object]:
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    return {"id": "k", "image": image, "conversations": turns}


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    return sets_at(tmp_path / "OneVisionData")


def sets_at(source: Path) -> Path:
    """A set of Parquet and one of JSON, whose picture is unpacked in the target."""
    write_table(source / TABLE / "train-00000-of-00001.parquet", [row("a", picture()), row("b/c", picture(1))])
    write(source / PLAIN / "kg.json", json.dumps([talk("kg/1.jpg")]).encode())
    write(source / "JSON_Mapping.csv", f'folder_name,json_file\n"{TABLE}",ai2d_2434.json\n'.encode())
    write(source.parent / f"out/{source.name}/{PLAIN}/image/kg/1.jpg", picture(2))
    (source / ".cache").mkdir()
    return source


def script(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(ROOT / "jobs" / name), run_name="__main__")
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (["ov_data_imagenet2backbone.py"], "OneVisionData"),
        (["ov_mid_data_imagenet2backbone.py"], "OneVisionMidData"),
        (["ov_data_imagenet2backbone.py", "--cache-dir", "/nowhere"], "OneVisionData"),
    ],
)
def test_the_documents_line_makes_all_sets_and_a_mix_of_them_trains(
    line: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets_at(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCDATA_TARGET_ROOT", str(tmp_path / "out"))
    assert script(line[0], monkeypatch, *line[1:]) == DONE
    target = tmp_path / "out" / name
    found = json.loads((target / TABLE / "ai2d_2434.json").read_text())
    assert [item["image"] for item in found] == [f"{name}/{TABLE}/image/{key}.jpg" for key in ("a", "b_c")]
    mix = [{"json_path": f"{name}/{TABLE}/ai2d_2434.json"}, {"json_path": f"{name}/{PLAIN}/kg.json"}]
    made = write(tmp_path / "out/mix.yaml", json.dumps({"datasets": mix}).encode())
    dataset = SourceDataset(made, image_root=str(tmp_path / "out"))
    assert len(dataset) == 3
    assert [len(images(dataset.record(item))) for item in range(3)] == [1, 1, 1]


def test_a_mix_of_what_the_scripts_have_made_has_one_folder_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets_at(tmp_path / "OneVisionMidData")
    write_table(tmp_path / "ReCap-118K/data/train-00000-of-00001.parquet", [row("a", picture())])
    monkeypatch.setenv("HPCDATA_TARGET_ROOT", str(tmp_path / "out"))
    monkeypatch.chdir(tmp_path / "ReCap-118K")
    assert script("parquet2json-image.py", monkeypatch, ".", "coco118k.json") == DONE
    monkeypatch.chdir(tmp_path)
    assert script("ov_mid_data_imagenet2backbone.py", monkeypatch) == DONE
    names = (
        "ReCap-118K/coco118k.json",
        f"OneVisionMidData/{TABLE}/ai2d_2434.json",
        f"OneVisionMidData/{PLAIN}/kg.json",
    )
    mix = json.dumps({"datasets": [{"json_path": name} for name in names]}).encode()
    dataset = SourceDataset(write(tmp_path / "out/mix.yaml", mix), image_root=str(tmp_path / "out"))
    assert [len(images(dataset.record(item))) for item in range(len(dataset))] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("name", "words"),
    [("ov_data_imagenet2backbone.py", []), ("parquet2json-image.py", ["OneVisionData", "a.json"])],
)
def test_where_a_script_has_looked_is_said(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert script(name, monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/OneVisionData is no folder" in told
    assert "HPCDATA_DATA_ROOT" in told


def test_a_mapping_that_is_typed_counts_and_not_the_one_that_lies_there(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = write(tmp_path / "mine.csv", f'folder_name,json_file\n"{TABLE}",mine.json\n'.encode())
    words = [f"--source-root={sets}", f"--target-root={tmp_path}/out/{sets.name}", f"--mapping={mine}", "--set", TABLE]
    assert script("ov_data_imagenet2backbone.py", monkeypatch, *words) == DONE
    assert (tmp_path / "out" / sets.name / TABLE / "mine.json").exists()


def test_missing_pictures_are_a_failure_and_what_is_there_is_made(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out/OneVisionData"
    shutil.rmtree(target / PLAIN / "image")
    assert convert.main(["relink", str(sets), str(target), "--set", PLAIN]) == FAILED
    told = capsys.readouterr().out
    assert f"{PLAIN}/kg.json: 1 records, 1 pictures, 1 missing_image: not written" in told
    assert f"1 pictures are missing, see {target}/missing-pictures.csv" in told
    assert convert.main(["relink", str(sets), str(target), "--set", PLAIN, "--write-incomplete"]) == FAILED
    assert (target / PLAIN / "kg.json").exists()
    write(target / PLAIN / "image/kg/1.jpg", picture())
    assert convert.main(["relink", str(sets), str(target), "--set", PLAIN]) == DONE
    assert (target / "missing-pictures.csv").read_text() == "set,record,id,path,reason\n"


def test_what_is_no_folder_of_sets_is_refused(sets: Path, tmp_path: Path) -> None:
    for source, *others in ([tmp_path / "gone"], [sets, "--set", "gone"], [sets / ".cache"]):
        assert convert.main(["sets", str(source), str(tmp_path / "new"), *others]) == REFUSED
    shutil.rmtree(sets / PLAIN)
    assert convert.main(["relink", str(sets), str(tmp_path / "new")]) == REFUSED  # Parquet alone
    assert not (tmp_path / "new").exists()


def test_json_beside_sets_hides_none_of_them(sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the folder of sets made that folder the only set; JSON of a set of Parquet is said to be left out."""
    target = tmp_path / "out/OneVisionData"
    write(sets / "dataset_infos.json", b"{}")
    assert convert.main(["relink", str(sets), str(target)]) == DONE
    assert json.loads((target / PLAIN / "kg.json").read_text())[0]["image"] == f"OneVisionData/{PLAIN}/image/kg/1.jpg"
    write(sets / "stray.json", b"[]")
    assert convert.main(["relink", str(sets), str(target)]) == REFUSED
    assert "has JSON of its own (stray.json) and in its folders" in capsys.readouterr().err
    write(sets / TABLE / "extra.json", b"[]")
    assert convert.main(["sets", str(sets), str(target)]) == DONE
    told = capsys.readouterr().out
    assert all(
        f"{name} is of no set of JSON: not read" in told for name in (sets / "stray.json", sets / TABLE / "extra.json")
    )


def test_what_is_made_may_lie_among_the_sets(sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(sets / f"made/{PLAIN}/image/kg/1.jpg", picture(2))
    for _ in range(2):
        assert convert.main(["sets", str(sets), str(sets / "made")]) == DONE
        assert convert.main(["relink", str(sets), str(sets / "made")]) == DONE
    assert "made: " not in capsys.readouterr().out
    assert (sets / "made" / TABLE / f"{TABLE}.json").exists()


def test_what_is_wrong_with_one_set_is_said_before_others_are_made(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(sets / "deep/below/x.json", b"[]")
    assert convert.main(["sets", str(sets), str(tmp_path / "new")]) == REFUSED
    assert "deep has no JSON in it (in a folder below it none is looked for)" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_archives_of_pictures_are_unpacked_and_relinked_and_a_damaged_one_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [(f"a/{number}.jpg", bytes([number]) * 300) for number in range(30)]
    source, target = tmp_path / "OneVisionMidData/ureader_tr", tmp_path / "out/OneVisionMidData"
    rows = [{"id": n, "image": name, "conversations": []} for n, (name, _) in enumerate(members)]
    write(source / "ureader_tr_sft.json", json.dumps(rows).encode())
    write_tar(source / "images_part_0.tar.gz", members[:15])
    whole = write_tar(source / "images_part_1.tar.gz", members[15:]).read_bytes()
    (source / "images_part_1.tar.gz").write_bytes(whole[: len(whole) // 2])
    write(source / "notes.tar.gz", b"no archive of pictures")
    assert convert.main(["sets", str(source.parent), str(target)]) == FAILED
    told = capsys.readouterr().out
    assert "ureader_tr/images_part_0.tar.gz: 15 members = 15 written\n" in told
    assert "images_part_1.tar.gz: 4 members = 4 written; DAMAGED: the gzip stream is cut short" in told
    (source / "images_part_1.tar.gz").write_bytes(whole)
    monkeypatch.setenv("HPCDATA_DATA_ROOT", str(tmp_path))
    monkeypatch.setenv("HPCDATA_TARGET_ROOT", str(tmp_path / "out"))
    for _ in range(2):
        assert script("ov_mid_data_imagenet2backbone.py", monkeypatch) == DONE
        found = json.loads((target / "ureader_tr/ureader_tr_sft.json").read_text())
        assert found[20]["image"] == "OneVisionMidData/ureader_tr/image/a/20.jpg"
        assert (target.parent / found[20]["image"]).read_bytes() == members[20][1]

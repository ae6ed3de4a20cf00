"""The commands of the documents, as they stand there but for the path of the script.

pytest tests/catalogue/test_download.py
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hpcdata import download
from hpcdata.catalogue.record import FOLDER
from hpcdata.catalogue.settings import find_hub
from tests.catalogue.hub import Hub
from tests.catalogue.sets import REPO, YAML, fill, kept_from_the_web

ROOT = Path(__file__).parents[2]


def put(hub: Hub, repo: str, **files: bytes) -> None:
    for name, data in files.items():
        path = hub.folder / repo / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def own(folder: Path, text: str = YAML) -> str:
    (folder / "entries").mkdir(exist_ok=True)
    (folder / "entries/pairs.yaml").write_text(text)
    return str(folder / "entries")


@pytest.mark.parametrize(
    "line",
    [
        "python scripts/download_data.py ChartQa --n_proc 12",
        "python scripts/download_data.py chart_qa --n_procs 12",
        "python scripts/download_data.py chart_qa --n-proc=12",
        "python scripts/download_data.py chart_qa --n-procs 1 --ignore_errors",
        "python scripts/download_data.py chart_qa",
    ],
)
def test_a_line_of_the_guide_fetches_the_set(
    line: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(hub, "HuggingFaceM4/ChartQA", **{"data__train-0_dot_parquet": b"PAR1 a", "data__val-0_dot_parquet": b"PAR1 b"})
    words = shlex.split(line.replace("python scripts/download_data.py", ""))
    assert download.main(words) == 0
    assert "chart_qa: 2 files = 2 fetched + 0 kept + 0 failed" in capsys.readouterr().out
    assert (tmp_path / "data/torch_datasets/chartqa/data/train-0.parquet").read_bytes() == b"PAR1 a"
    assert download.main(words) == 0
    assert "chart_qa: 2 files = 0 fetched + 2 kept + 0 failed" in capsys.readouterr().out


def test_the_script_of_the_documents_is_there(hub: Hub, tmp_path: Path) -> None:
    """In processes of their own, which a fork makes."""
    fill(hub.folder, num_small=3, big=1000)
    line = [sys.executable, "jobs/download_data.py", "pairs", "--n_proc", "12", "--catalogue", own(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pairs: 7 files = 7 fetched + 0 kept + 0 failed" in done.stdout


@pytest.mark.slow
def test_all_fetches_what_can_be_fetched_and_says_of_the_others_what_to_do(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HuggingFaceM4/ChartQA", "allenai/pixmo-cap", "facebook/textvqa"):
        put(hub, name, README_dot_md=b"a")
    kept_from_the_web(tmp_path / "entries")
    line = ["all", "--n_proc", "12", "--catalogue", str(tmp_path / "entries")]
    assert download.main(line) == 3  # the stand-in has few of them: it says that a person has to ask for access
    out = capsys.readouterr().out
    assert "chart_qa: 1 file = 1 fetched" in out
    assert "pixmo_cap: 1 file = 1 fetched" in out
    assert "info_qa has to be fetched by hand" in out
    assert "    1. Register at https://rrc.cvc.uab.es" in out
    assert "pixmo_clocks: private: AI2 has not published it" in out
    assert "mathv360k_tqa: not published: its makers list it" in out
    assert "text_vqa: 1 file = 1 fetched" in out  # of the revision refs/convert/parquet
    assert "mmmu: http 401" in out


def test_a_set_that_is_placed_by_hand(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python scripts/download_data.py info_qa`, before and after the steps of the guide."""
    assert download.main(["info_qa"]) == 3
    told = capsys.readouterr().out
    assert "there is no images/**, no infographicsVQA_train_v1.0.json" in told
    assert "Place it in" in told
    place = tmp_path / "data/info_qa"  # as the guide says
    (place / "images").mkdir(parents=True)
    (place / "images/1.jpeg").write_bytes(b"\xff\xd8")
    for name in ("train_v1.0", "val_v1.0_withQT", "test_v1.0"):
        (place / f"infographicsVQA_{name}.json").write_text('{"data": []}')
    (place / "infographicsVQA_test_v1.0.json").write_text('{"data": [')
    assert download.main(["info_qa"]) == 1
    assert "infographicsVQA_test_v1.0.json: it is no json" in capsys.readouterr().out
    (place / "infographicsVQA_test_v1.0.json").write_text('{"data": []}')
    assert download.main(["info_qa"]) == 0
    assert "info_qa: 4 files = 1 fetched + 3 kept + 0 failed" in capsys.readouterr().out
    assert download.main(["--check", "info_qa"]) == 0
    written = {path: path.stat().st_mtime_ns for path in (place / FOLDER).iterdir()}
    assert download.main(["info_qa"]) == 0
    assert written == {path: path.stat().st_mtime_ns for path in (place / FOLDER).iterdir()}, "it may be read-only now"
    assert len(hub.requests) == 0
    assert download.main(["--list", "info_qa"]) == 0
    assert "present" in capsys.readouterr().out


def test_what_was_placed_and_is_gone_or_changed_is_no_success(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures may lie on another disk, behind a link. Nothing but --update takes them as they are now."""
    text = YAML.replace("hub: [{repo: lab/pairs}]", "access: manual\nsteps: [ask its maker]\nneeds: ['images/**']")
    words, disk = ["pairs", "--catalogue", own(tmp_path, text)], tmp_path / "large disk"
    disk.mkdir()
    for name in ("1.jpg", "2.jpg"):
        (disk / name).write_bytes(b"\xff\xd8 " + name.encode())
    (tmp_path / "data/torch_datasets/pairs").mkdir(parents=True)
    (tmp_path / "data/torch_datasets/pairs/images").symlink_to(disk)
    (disk / "again").symlink_to(disk)
    assert download.main(words) == 0
    (disk / "1.jpg").unlink()
    (disk / "2.jpg").write_bytes(b"\xff\xd8 2.jqg")
    assert download.main(["--check", *words]) == 1
    for _ in range(2):
        capsys.readouterr()
        assert download.main(words) == 1
        said = capsys.readouterr().out
        assert "2 files = 0 fetched + 0 kept + 2 failed" in said
        assert "1.jpg was placed, and is gone" in said
        assert "2.jpg is not what was placed before: place it again, or take what is there now" in said
    assert download.main(["--update", *words]) == 0
    assert download.main(words) == 0
    assert download.main(["--check", *words]) == 0


def test_a_zip_that_was_placed_is_read_through(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = YAML.replace("hub: [{repo: lab/pairs}]", "access: manual\nsteps: [ask its maker]\nneeds: ['*.zip']")
    folder = tmp_path / "data/torch_datasets/pairs"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.txt", "words" * 100)
    data = bytearray((folder / "a.zip").read_bytes())
    data[60] ^= 1
    (folder / "a.zip").write_bytes(data)
    assert download.main(["pairs", "--catalogue", own(tmp_path, text)]) == 1
    assert "a.zip: its member a.txt is damaged" in capsys.readouterr().out


def test_the_list_says_how_each_set_is(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, folder = fill(hub.folder), own(tmp_path)
    words = ["--catalogue", folder]
    assert download.main(["--list", "pairs", "chart_qa", "mlvu", "info_qa", "koala", "pixmo_clocks", *words]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "absent" in lines["pairs"]
    assert "hpcdata download chart_qa" in lines["chart_qa"]
    assert "gated" in lines["mlvu"]
    assert "export HF_TOKEN" in lines["mlvu"]
    assert "manual" in lines["info_qa"]
    assert "not published" in lines["koala"]
    assert "private" in lines["pixmo_clocks"]
    assert download.main(["pairs", *words]) == 0
    (tmp_path / "data/torch_datasets/pairs/README.md").unlink()
    capsys.readouterr()
    assert download.main(["--list", "pairs", "--json", *words]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["state"], found["splits"]) == ("partial", ["train"])
    assert found["what_to_do"] == f"1 of {len(files)} files are missing: hpcdata download pairs"


def test_check_names_the_damage_and_the_next_download_mends_it(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(hub.folder)
    words = ["pairs", "--catalogue", own(tmp_path)]
    assert download.main(["--check", *words]) == 3
    assert download.main(words) == 0
    path = tmp_path / "data/torch_datasets/pairs/images.zip"
    path.write_bytes(path.read_bytes()[:-1])
    assert download.main(["--check", *words]) == 1
    out = capsys.readouterr().out
    assert "pairs: images.zip: damaged: 1572867 bytes, recorded were 1572868" in out
    assert "9 of 10 files right" in out
    assert download.main(words) == 0
    assert download.main(["--check", *words]) == 0


def test_offline_mode_asks_nobody(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(hub.folder)
    words = ["pairs", "--catalogue", own(tmp_path)]
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    assert download.main(words) == 3
    assert "nothing of pairs is in" in capsys.readouterr().out
    monkeypatch.delenv("HF_DATASETS_OFFLINE")
    assert download.main(words) == 0
    asked = len(hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert download.main(words) == 0
    assert len(hub.requests) == asked


@pytest.mark.parametrize("variable", ["HF_TOKEN", "HF_ACCESS_TOKEN", "home"])
def test_a_gated_set_comes_with_a_token(
    variable: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fill(hub.folder)
    hub.misbehave("gated")
    words = ["pairs", "--catalogue", own(tmp_path)]
    assert download.main(words) == 3
    if variable == "home":
        (tmp_path / "home").mkdir()
        (tmp_path / "home/token").write_text(f"{hub.token}\n")
    else:
        monkeypatch.setenv(variable, hub.token)
    assert download.main(words) == 0
    assert hub.token not in "".join(capfd.readouterr())
    assert hub.token not in repr(find_hub())


def test_what_fails_is_counted_by_reason_and_the_exit_code_says_so(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(hub.folder)
    hub.misbehave("status", times=1000, value=404, part="train-0")
    words = ["pairs", "--catalogue", own(tmp_path)]
    assert download.main(words) == 1
    out = capsys.readouterr().out
    assert "pairs: 10 files = 4 fetched + 0 kept + 6 failed" in out
    assert "http 404: 6: data/train-00000.txt, data/train-00001.txt" in out
    assert "and 1 more" in out
    assert download.main([*words, "--ignore-errors"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name a data set, a group or all"),
        (["chart_qa", "--n-proc", "0"], "--n-proc is 0"),
        (["chart_qa", "--checkpoint-mb", "nan"], "--checkpoint-mb is nan"),
        (["chart_qa", "--patience", "-1"], "--patience is -1"),
        (
            ["nothing_at_all_like_it"],
            "no data set and no group nothing_at_all_like_it: hpcdata download --list has all",
        ),
        (["chart_qa", "--catalogue", "/none"], "/none is no folder"),
    ],
)
def test_a_line_that_is_wrong_is_refused(
    words: list[str], told: str, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download.main(words) == 2
    assert told in capsys.readouterr().err


def test_without_a_place_for_sets_it_says_what_to_export_and_still_lists_them(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MOLMO_DATA_DIR")
    monkeypatch.delenv("HPCDATA_DATA_DIR", raising=False)
    assert download.main(["chart_qa"]) == 2
    assert "export MOLMO_DATA_DIR=/path/to/data" in capsys.readouterr().err
    assert download.main(["--list"]) == 0
    out = capsys.readouterr().out
    assert "export MOLMO_DATA_DIR=/path/to/data" in out
    assert "hpcdata download chart_qa" in out


def test_what_a_person_has_to_do_is_no_success_of_a_set_that_was_named(hub: Hub, tmp_path: Path) -> None:
    """However many names the line has; one of a group is said, and is no failure."""
    fill(hub.folder)
    mine = ["--catalogue", own(tmp_path)]
    assert download.main(["info_qa", "InfoQa"]) == 3
    assert download.main(["pairs", "tests", "info_qa", *mine]) == 3
    assert download.main(["--check", "info_qa", "pairs", *mine]) == 3
    assert download.main(["--check", "academic"]) == 0


def test_a_set_that_cannot_be_looked_at_leaves_the_others_their_line(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(hub.folder)
    (tmp_path / "data/torch_datasets").mkdir(parents=True)
    (tmp_path / "data/torch_datasets/chartqa").write_text("a file")
    assert download.main(["--list", "--json"]) == 0
    states = {row["name"]: (row["state"], row["what_to_do"]) for row in json.loads(capsys.readouterr().out)}
    assert states["chart_qa"][0] == "damaged"
    assert "torch_datasets/chartqa" in states["chart_qa"][1]
    assert states["mmmu"][0] == "absent"


def test_a_set_whose_entry_has_changed_is_not_present(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(hub.folder)
    assert download.main(["pairs", "--catalogue", own(tmp_path)]) == 0
    capsys.readouterr()
    changed = own(tmp_path, YAML.replace("{repo: lab/pairs}", "{repo: lab/others}"))
    assert download.main(["--list", "pairs", "--json", "--catalogue", changed]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["state"] == "partial"
    assert "its entry is another one" in row["what_to_do"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("HF_ENDPOINT", "http://[::1", "HF_ENDPOINT is 'http://[::1'"),
        ("HF_ENDPOINT", "huggingface.co", "HF_ENDPOINT is 'huggingface.co'"),
        ("HF_ENDPOINT", "http://me:geheim@127.0.0.1:9", "HF_ENDPOINT has a password"),
        ("HF_TOKEN", "geheim\u2192", "the token of HF_TOKEN has characters that none has"),
    ],
)
def test_settings_that_no_request_can_carry_are_refused_and_not_shown(
    name: str, value: str, told: str, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert download.main(["chart_qa"]) == 2
    said = "".join(capsys.readouterr())
    assert told in said
    assert "geheim" not in said


@pytest.mark.slow
def test_what_was_fetched_opens_with_the_libraries_of_the_hub(hub: Hub, tmp_path: Path) -> None:
    """And the stand-in is a hub for them: snapshot_download brings the same files."""
    files = fill(hub.folder, big=1000)
    assert download.main(["pairs", "--catalogue", own(tmp_path)]) == 0
    code = (
        "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], repo_type='dataset', local_dir=sys.argv[2])"
    )
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, REPO, str(tmp_path / "other")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name, data in files.items():
        assert (tmp_path / "other" / name).read_bytes() == data
        assert (tmp_path / "data/torch_datasets/pairs" / name).read_bytes() == data
    assert (tmp_path / "data/torch_datasets/pairs" / FOLDER).is_dir()

"""Launching as people type it: local, accelerate, the seed's options, errors.

pytest tests/cluster/test_launching.py
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from hpcdata import TokenDataset
from hpcdata import launch as launch_command
from hpcdata.cluster import launching as launch
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.report.status import read_status
from hpcdata.runs.plan import load_plan
from hpcdata.samples import Kind
from tests.smallruns import long_arguments, small_arguments, small_config, small_run
from tests.trees import sha256_tree

ROOT = Path(__file__).parent.parent.parent


def run(command: list[str], cwd: Path, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s)


@pytest.mark.slow
def test_the_quickstart_makes_a_verified_dataset_and_a_picture_and_says_what_is_next(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpcdata.launch", "+experiments=quickstart"]
    result = run(command, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "96 inputs = 96 written + 0 rejected + 0 duplicate" in result.stdout
    assert "verified" in result.stdout
    assert (tmp_path / "quickstart/preview.png").stat().st_size > 10_000
    assert [line[:2] for line in result.stdout.splitlines()[-3:]] == ["1.", "2.", "3."]
    again = run(command, tmp_path)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_accelerate_with_two_processes_makes_the_same_bytes(tmp_path: Path) -> None:
    small_run(tmp_path / "reference")
    command = shlex.split(f"{sys.executable} -m accelerate.commands.launch --multi_gpu --num_processes 2")
    command += [str(ROOT / "jobs/precompute_tokens.py"), *small_arguments(tmp_path / "run")]
    result = run(command, tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "run/ledger").iterdir())) == 2
    assert sha256_tree(tmp_path / "run/shards") == sha256_tree(tmp_path / "reference/shards")


@pytest.mark.slow
def test_interrupting_a_local_launch_leaves_no_process_and_the_same_line_continues(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hpcdata.launch", *long_arguments(tmp_path, "cluster=local")]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
    while not list((tmp_path / "run").glob("shards/tmp_*")):
        time.sleep(0.02)
        assert launcher.poll() is None
    tasks = psutil.Process(launcher.pid).children()
    assert len(tasks) == 2
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(60) == 130
    assert not any(task.is_running() for task in tasks)
    assert not read_status(tmp_path / "run").is_finished
    assert run(command, tmp_path).returncode == 0
    assert read_status(tmp_path / "run").is_finished


def test_a_launch_in_this_process_finishes_and_says_what_is_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch_command.main(small_arguments(tmp_path / "run")) == 0
    assert f"next      python -m hpcdata.combine {tmp_path / 'run'}" in capsys.readouterr().out
    combine(tmp_path / "run", CombineOptions())
    assert launch_command.main(small_arguments(tmp_path / "run")) == 0
    assert "next" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.raw_data_dir=/nowhere/{000..003}.tar", "/nowhere/"),
        ("data.resolutoin=3", "did you mean data.resolution?"),
        ("data.img_token_shift=7", "image codes would collide with text"),
        ("data.token_output_dir=/proc/nothing", "cannot be made"),
        ("cluster.array=nonsense", "nonsense"),
    ],
)
def test_mistakes_end_with_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    given = [*small_arguments(tmp_path / "run"), "cluster=local"]
    assert (
        launch_command.main([item for item in given if item.split("=")[0] != override.split("=")[0]] + [override]) == 2
    )
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hpcdata: ")]
    assert len(errors) == 1
    assert message in errors[0]


def test_options_without_an_effect_say_why(tmp_path: Path) -> None:
    config = small_config(tmp_path, "+data.use_identity_collate=true", "data.split_dataset=false")
    assert [text.split(" ")[0] for text in launch.notes(config)] == [
        "data.split_dataset=false",
        "data.use_identity_collate",
    ]


def test_a_name_that_unidisc_uses_for_another_range_of_pixels_is_noted(tmp_path: Path) -> None:
    told = launch.notes(small_config(tmp_path, "image.tokenizer=vq16_magvit"))
    assert len(told) == 1
    assert "use image.tokenizer=unidisc_magvit" in told[0]
    assert not launch.notes(small_config(tmp_path, "image.tokenizer=unidisc_magvit"))


def test_add_image_token_keeps_the_marker_in_the_text_as_one_more_id(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    from PIL import Image

    Image.new("RGB", (32, 32)).save(picture)
    turns = [{"from": "human", "value": "look: <image> what?"}, {"from": "gpt", "value": "black"}]
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": "x", "image": "a.png", "conversations": turns}) + "\n")
    ids = {}
    chosen = ["data.add_image_token=true", "data.image_token_id=unidisc", "data.pad_id=unidisc"]
    options = {"true": ["+data.add_image_token=true"], "false": ["data.add_image_token=false"], "unidisc": chosen}
    for value, settings in options.items():
        folder = tmp_path / value
        small_run(folder, *settings, "data.n_train_samples=null", source=tmp_path / "in.jsonl")
        combine(folder, CombineOptions())
        example = TokenDataset(folder)[0]
        assert [span.kind for span in example.spans] == [Kind.TEXT, Kind.IMAGE, Kind.TEXT, Kind.TEXT]
        ids[value] = [int(number) for span in example.spans if span.kind == Kind.TEXT for number in span.ids]
    plan = load_plan(tmp_path / "true")
    assert plan.text is not None
    assert plan.text.image_token_id == plan.text.vocab_size - 1 == 4096
    assert ids["true"].count(4096) == 1
    assert max(ids["false"]) < 4096
    assert ids["unidisc"] == [811 if number == 4096 else number for number in ids["true"]]
    text = TokenDataset(tmp_path / "unidisc").manifest.text
    assert text is not None
    assert (text.image_token_id, text.pad_id, text.vocab_size) == (811, 2, 4096)


def test_options_of_the_seed_are_recorded_for_loaders_and_never_baked_in(tmp_path: Path) -> None:
    plain, shifted = tmp_path / "plain", tmp_path / "shifted"
    small_run(plain)
    small_run(shifted, "+model.text_vocab_size=5000", "data.img_token_shift=5000")
    for folder in (plain, shifted):
        combine(folder, CombineOptions())
    assert TokenDataset(plain).manifest.content_digest == TokenDataset(shifted).manifest.content_digest
    layout = TokenDataset(shifted).manifest.layout
    assert (layout.img_token_shift, layout.text_vocab_size) == (5000, 5000)


@pytest.mark.slow
def test_prompts_never_appear_in_logs(tmp_path: Path) -> None:
    result = run([sys.executable, "-m", "hpcdata.launch", *small_arguments(tmp_path / "run")], tmp_path)
    dataset_text = "strawberry"
    assert dataset_text not in result.stdout + result.stderr
    assert all(dataset_text not in path.read_text() for path in (tmp_path / "run/ledger").iterdir())


def test_nothing_is_left_in_shared_memory_or_temporary_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others work on this machine meanwhile, so the temporary folders are those of this test."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    before = set(Path("/dev/shm").glob("*hpcdata*"))
    small_run(tmp_path / "run")
    assert set(Path("/dev/shm").glob("*hpcdata*")) == before
    assert list((tmp_path / "tmp").glob("*hpcdata*")) == []

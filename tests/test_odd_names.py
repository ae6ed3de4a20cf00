"""File names that are not UTF-8: they work, or are refused by name; nothing ends in a traceback.

pytest tests/test_odd_names.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdata import TokenDataset, embedded
from hpcdata.base import files
from hpcdata.base.errors import UserError
from hpcdata.cluster.sbatch import require_log_names
from hpcdata.config.compose import compose
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.dataset.verifying import verify
from hpcdata.formats.unidisc import ExportOptions, export_unidisc
from hpcdata.history.outcome import Outcome, read_outcome, write_outcome
from hpcdata.report.status import read_status
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.planning import prepare
from hpcdata.work.task import TaskOutcome, run_task
from tests.smallruns import StopAfter

ODD = os.fsdecode(b"a\xffb")
STRICT = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
"""As in a terminal of the usual locales."""


def texts(folder: Path) -> Path:
    path = folder / f"{ODD}.jsonl"
    path.write_text("".join(f'{{"text": "the text {number}"}}\n' for number in range(5)))
    return path


def arguments(source: Path | str, output_dir: Path, *overrides: str) -> list[str]:
    given = [f"data.raw_data_dir={source}", f"data.token_output_dir={output_dir}", "text.tokenizer=embedded"]
    return [*given, "finish.combine=true", "cluster.claim_timeout_s=5", *overrides]


def run(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    result = subprocess.run(
        [sys.executable, "-m", *(os.fspath(word) for word in command)], env=STRICT, capture_output=True, timeout=300
    )
    assert b"Traceback" not in result.stderr, result.stderr.decode(errors="replace")
    return result


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_what_is_written_as_json_is_read_back(text: str) -> None:
    assert files.parse_json(files.to_json({"a": text}), "it") == {"a": text}
    assert files.parse_lenient(files.to_json({"a": text})) == {"a": text}


def test_a_run_of_such_files_in_such_a_folder_is_made_and_read(tmp_path: Path) -> None:
    folder = tmp_path / f"{ODD} out"
    prepare(compose(arguments(f"{texts(tmp_path).parent}/*.jsonl", folder, "data.source=text")))
    assert run_task(folder, StopAfter()) is TaskOutcome.FINISHED  # type: ignore[arg-type]
    combine(folder, CombineOptions())
    status = read_status(folder)
    assert (status.samples_done, status.damaged_ledgers) == (5, {})
    assert [report.problems for report in verify(folder)] == [[], []]
    dataset = TokenDataset(folder)
    assert dataset[0].key == "a\\xffb.jsonl#0"
    (entry,) = dataset.manifest.extra["inputs"]
    assert entry["path"] == str(tmp_path / f"{ODD}.jsonl")


def test_what_is_printed_can_be_typed(tmp_path: Path) -> None:
    result = run("hpcdata.status", tmp_path / ODD)
    assert result.returncode != 0
    assert os.fsencode(tmp_path / ODD) + b" does not exist: expected the output directory of a run" in result.stderr
    (tmp_path / f"{ODD}.tar").write_bytes(embedded.path("quickstart.tar").read_bytes())
    index = tmp_path / f"{ODD}.json"
    result = run("hpcdata.index", tmp_path / f"{ODD}.tar", "-o", index, "--workers=1")
    assert (result.returncode, result.stdout.partition(b": ")[0]) == (0, os.fsencode(index))
    assert json.loads(index.read_bytes())["shardlist"][0]["url"] == str(tmp_path / f"{ODD}.tar")


def test_a_report_names_them(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    write_outcome(paths, Outcome(outcome="stopped", reason=f"{ODD} is gone", next_step=None))
    read = read_outcome(paths)
    assert read is not None
    assert read.reason == f"{ODD} is gone"
    assert "a\\udcffb is gone" in paths.report.with_suffix(".txt").read_text()


def test_slurm_is_given_no_such_folder() -> None:
    with pytest.raises(UserError, match=r"token_output_dir='/out/a\\udcffb' has '\\udcff' in it"):
        require_log_names(Path("/out", ODD))


@pytest.mark.slow
def test_every_command_works_or_refuses_by_name(tmp_path: Path) -> None:
    source, folder = tmp_path / f"{ODD}.tar", tmp_path / f"{ODD}run"
    source.write_bytes(embedded.path("quickstart.tar").read_bytes())
    given = ["image.tokenizer=embedded", "data.resolution=32", "data.block_size=16", "data.n_train_samples=10"]
    assert run("hpcdata.launch", *arguments(source, folder, *given, f"finish.preview={ODD}.png")).returncode == 0
    assert (folder / f"{ODD}.png").stat().st_size
    commands = ["status", "status --json", "logs", "rejects", "rejects --retry", "verify", "verify --prove 2"]
    for command in [*commands, "combine", "combine --compact", "resume"]:
        name, *options = command.split()
        assert run(f"hpcdata.{name}", folder, *options).returncode == 0, command
    page = tmp_path / f"{ODD}.html"
    assert run("hpcdata.status", folder, "--html", page).returncode == 0
    assert page.stat().st_size
    assert run("hpcdata.combine", folder, "--output-dir", tmp_path / f"{ODD}data").returncode == 0
    assert run("hpcdata.export", folder, tmp_path / "export", "--format", "unidisc").returncode == 0
    with pytest.raises(UserError, match=r"is not UTF-8, and torch opens no such file: choose another name"):
        export_unidisc(folder, tmp_path / ODD, ExportOptions())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

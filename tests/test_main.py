"""One command: what it lists, what it passes on, and how commands end.   pytest tests/test_main.py"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hpcdata import __main__ as hpcdata_command
from hpcdata import cancel, combine, launch, resume, status, verify
from hpcdata.base.command import Options, Parser, require_command
from hpcdata.history import submissions
from hpcdata.runs.paths import RunPaths
from tests import made
from tests.slurm.fakes import FakeSlurm
from tests.smallruns import small_arguments

ROOT = Path(__file__).parent.parent
COMMANDS = list(hpcdata_command.commands())
HEAVY = ("torch", "numpy", "hydra", "transformers", "submitit", "PIL", "pyarrow")
HELP_OF_ALL = """
import sys
from hpcdata.__main__ import commands, main
for arguments in ([], ["--version"], *([name, "--help"] for name in commands())):
    try:
        main(arguments)
    except SystemExit as ended:
        assert ended.code == 0, arguments
print(sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_every_command_is_listed_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert hpcdata_command.main([]) == hpcdata_command.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"launch", "resume", "status", "verify", "completion"} <= set(COMMANDS)
    for name, text in hpcdata_command.commands().items():
        assert text[-1].isalpha() or text[-1] == "`"
        assert sum(line.split() == [name, *text.split()] for line in lines) == 2
    assert "    130  stopped by Ctrl-C (128 + N: by signal N, after a checkpoint)" in lines


def test_commands_get_the_rest_of_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.run(tmp_path / "run")
    assert hpcdata_command.main(["verify", str(tmp_path / "run"), "--json"]) == 0
    assert verify.main([str(tmp_path / "run"), "--json"]) == 0
    one, other = capsys.readouterr().out.split("]\n[")
    assert one.strip("[] \n") == other.strip("[] \n")


def test_an_unknown_command_ends_with_a_suggestion_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert hpcdata_command.main(["lanch", "+experiments=quickstart"]) == 2
    assert "did you mean hpcdata launch?" in capsys.readouterr().err
    assert hpcdata_command.main(["samples"]) == 2


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("work.retry", "run python -m hpcdata.rejects OUT --retry"),
        ("report.status", "run python -m hpcdata.status OUT"),
        ("samples", "hpcdata --help lists the commands"),
    ],
)
def test_a_module_that_does_nothing_says_what_to_run(
    module: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        require_command(["python", "-u", "-m", f"hpcdata.{module}", "OUT"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"hpcdata: hpcdata.{module} does nothing by itself: {told}\n"


@pytest.mark.parametrize(
    "words", [["-m", "hpcdata.status"], ["-m", "hpcdata"], ["-m", "json.tool"], ["-c", ""], ["-m"]]
)
def test_what_is_a_command_or_is_not_ours_is_left_alone(words: list[str]) -> None:
    require_command(["python", *words])


def test_a_module_that_does_nothing_is_told_when_it_is_started() -> None:
    done = subprocess.run([sys.executable, "-m", "hpcdata.work.retry", "OUT"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_also_a_module(name: str) -> None:
    require_command(["python", "-m", f"hpcdata.{name.replace('-', '_')}", "--help"])


def test_names_that_people_try_lead_to_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("retry", "stop", "prove"):
        assert hpcdata_command.main([name, "/out"]) == 2
    assert "it is hpcdata rejects OUT --retry;" in capsys.readouterr().err


def test_help_waits_for_no_library() -> None:
    done = subprocess.run([sys.executable, "-c", HELP_OF_ALL], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = done.stderr.splitlines()[-1]
    assert not [name for name in HEAVY if f"'{name}'" in loaded]


@pytest.mark.parametrize("name", ["status", "logs", "cancel", "rejects", "combine", "verify"])
def test_commands_about_a_run_wait_for_no_network_of_ours(tmp_path: Path, name: str) -> None:
    made.run(tmp_path / "run")
    code = f"import sys; from hpcdata import {name}; {name}.main([sys.argv[1]]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "False"


SLOW_HELP = [pytest.param(f"{name} --help", marks=pytest.mark.slow) for name in COMMANDS if name != "launch"]


@pytest.mark.parametrize("arguments", ["launch --help", "--help", *SLOW_HELP])
def test_a_reader_that_has_seen_enough_gets_no_traceback(arguments: str) -> None:
    line = f"{sys.executable} -m hpcdata {arguments} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[1:] == ["0"]
    assert done.stderr == ""


def understood(parser: Parser, *arguments: str) -> Options:
    found: list[Options] = []
    assert parser.run(arguments, lambda options: found.append(options) or 0) == 0
    return found[0]


def test_options_may_stand_anywhere_and_have_underscores() -> None:
    options = understood(launch.parser(), "data.resolution=32", "--json", "cluster=local")
    assert (options.json, options.overrides) == (True, ["data.resolution=32", "cluster=local"])
    options = understood(resume.parser(), "/out", "--json", "cluster.array=0-3")
    assert (options.run, options.overrides) == ("/out", ["cluster.array=0-3"])
    options = understood(combine.parser(), "--move_files", "/out", "--output_dir=/a_b")
    assert (options.run, options.move_files, options.output_dir) == ("/out", True, "/a_b")


def test_lines_to_type_can_be_typed_when_a_path_has_spaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my $HOME's run"
    made.run(folder, unfinished={1: 3})
    assert status.main([str(folder)]) == 3
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("rejects"))
    assert shlex.split(line.partition("; ")[2]) == ["python", "-m", "hpcdata.rejects", str(folder)]
    assert verify.main([str(folder.parent)]) == 2
    capsys.readouterr()
    for arguments in (
        ["replay", str(folder), "--global-batch-size", "2"],
        ["export", str(folder), "x", "--format=unidisc"],
    ):
        assert hpcdata_command.main(arguments) == 2
        told = capsys.readouterr().err.partition("run python ")[2].partition(", or")[0]
        assert shlex.split(told) == ["-m", "hpcdata.combine", str(folder)]


def test_a_configuration_can_be_printed_and_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = small_arguments(tmp_path / "run")
    assert launch.main([*given, "--cfg"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "config.json").write_text(printed)
    assert launch.main(["--config", str(tmp_path / "config.json"), "--cfg", "data.resolution=64"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["data"].pop("resolution") == 64
    wanted = json.loads(printed)
    assert wanted["data"].pop("resolution") == 32
    assert read == wanted
    (tmp_path / "config.json").write_text("nonsense")
    assert launch.main(["--config", str(tmp_path / "config.json")]) == 2
    assert "expected what --cfg prints" in capsys.readouterr().err


def test_json_says_what_was_submitted_kept_and_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(*arguments: str) -> dict:
        assert hpcdata_command.main([*arguments, "--json"]) == 0
        values = json.loads(capsys.readouterr().out)
        assert isinstance(values, dict)
        return values

    folder = tmp_path / "my run"
    fake = FakeSlurm(tmp_path / "bin", monkeypatch)
    launched = answer("launch", *small_arguments(folder, "cluster=slurm", "cluster.array=0-9"))
    assert (launched["submitted"]["job_ids"], launched["submitted"]["num_tasks"]) == (["4242"], 4)
    assert (launched["submitted"]["finish_id"], launched["next"], launched["run"]) == ("4243", None, str(folder))
    assert answer("preflight", *small_arguments(folder, "cluster=slurm"))["lines"]
    fake.program("squeue", "echo '4242|RUNNING|'; echo '4243|PENDING|'")
    kept = answer("resume", str(folder))
    assert (kept["kept"], kept["submitted"], kept["status"]["num_shards"]) == (["4242"], None, 4)
    moved = answer("resume", str(folder), "cluster.array=0")
    assert (moved["replaced"], moved["submitted"]["job_ids"]) == (["4242", "4243"], ["4244"])
    fake.program("squeue", f"[[ -e {tmp_path}/gone ]] || echo '4244|RUNNING|'")
    fake.program("scancel", f"touch {tmp_path}/gone")
    cancelled = answer("cancel", str(folder))
    assert (cancelled["cancelled"], cancelled["samples_done"], cancelled["num_samples"]) == (["4244"], 0, 24)
    assert shlex.split(cancelled["next"]) == ["python", "-m", "hpcdata.resume", str(folder)]
    assert submissions.read(RunPaths(folder)).is_cancelled


def test_cancel_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeSlurm(tmp_path / "bin", monkeypatch)
    made.run(tmp_path / "a run", unfinished={1: 3})
    assert cancel.main([str(tmp_path / "a run")]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"next      python -m hpcdata.resume '{tmp_path}/a run'"

"""Completion as shells do it: the scripts are loaded and asked.   pytest tests/test_completion.py"""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcdata import completion

ASK_BASH = r"""
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
read -ra COMP_WORDS <<<"$2"
COMPREPLY=()
_hpcdata
printf '%s\n' "${COMPREPLY[@]}"
"""


def script(shell: str, folder: Path) -> Path:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}: apt-get install {shell}")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert completion.main([shell]) == 0
    path = folder / f"completion.{shell}"
    path.write_text(out.getvalue())
    return path


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return script("bash", tmp_path_factory.mktemp("bash"))


def ask(bash: Path, line: str) -> list[str]:
    command = ["bash", "--norc", "-c", ASK_BASH, "bash", str(bash), line]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=bash.parent)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hpcdata comb", "combine"),
        ("hpcdata  comp", "completion"),
        ("hpcdata combine /out --move", "--move-files"),
        ("hpcdata export --format we", "webdataset"),
        ("hpcdata completion z", "zsh"),
        ("hpcdata launch data.resol", "data.resolution="),
        ("hpcdata launch data.source=w", "webdataset"),  # readline takes `data.source` and `=` for words of their own
        ("hpcdata launch data.jpeg_draft=", "true false"),
        ("hpcdata launch +exp", "+experiments="),
        ("hpcdata launch +experiments=qui", "quickstart"),
        ("hpcdata launch +experiments=[webdataset,toke", "[webdataset,tokenize"),
        ("hpcdata launch a=1 cluster=sl", "slurm"),
        ("hpcdata resume /out cluster.arr", "cluster.array="),
        ("hpcdata resume /out data.resol", ""),  # changes what is written
        ("hpcdata launch data.raw_data_dir=completion.", "completion.bash"),
        ("hpcdata status completion.", "completion.bash"),
        ("hpcdata index -o completion.", "completion.bash"),
    ],
)
def test_bash(bash: Path, line: str, expected: str) -> None:
    assert ask(bash, line) == expected.split()


def test_every_command_and_option_is_completed(bash: Path) -> None:
    from hpcdata.__main__ import commands

    assert {*commands()} < {*ask(bash, "hpcdata ")}
    for name in commands():
        assert "--help" in ask(bash, f"hpcdata {name} --")


def test_fish(tmp_path: Path) -> None:
    path = script("fish", tmp_path)

    def ask_fish(line: str) -> list[str]:
        command = f"source {path}; complete -C {shlex.quote(line)}"
        done = subprocess.run(["fish", "--no-config", "-c", command], capture_output=True, text=True, check=True)
        return [item.partition("\t")[0] for item in done.stdout.splitlines()]

    assert ask_fish("hpcdata comb") == ["combine"]
    assert ask_fish("hpcdata launch --js") == ["--json"]
    assert ask_fish("hpcdata launch data.resol") == ["data.resolution="]
    assert "+experiments=quickstart" in ask_fish("hpcdata launch +experiments=")


def test_zsh_can_read_its_script(tmp_path: Path) -> None:
    path = script("zsh", tmp_path)
    loads = f"autoload -U compinit; compinit -u -d {tmp_path}/dump; source {path}; print $_comps[hpcdata]"
    done = subprocess.run(["zsh", "-f", "-c", loads], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("_hpcdata\n", "")

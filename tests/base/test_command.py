"""What commands share: endings, and lines that can be typed.   pytest tests/base/test_command.py"""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcdata import unpack
from hpcdata.__main__ import commands
from hpcdata.base import command
from hpcdata.base.errors import Failed, Unfinished, UserError
from tests.selection import examples


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("no such run: launch it"), 2, "hpcdata: no such run: launch it\n"),
        (Failed("shard 3 is damaged"), 1, "hpcdata: shard 3 is damaged\n"),
        (Unfinished("3 shards are missing"), 3, "hpcdata: 3 shards are missing\n"),
        (OSError("full"), 1, "hpcdata: full\n"),
        (
            PermissionError(13, "Permission denied", "/shared/out"),
            1,
            "hpcdata: /shared/out: Permission denied; have its mode or owner changed, or name another place\n",
        ),
        (KeyboardInterrupt(), 130, "hpcdata: interrupted\n"),
    ],
)
def test_endings(error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise error

    assert command.run(fail) == code
    assert capsys.readouterr().err == told


def test_our_own_mistakes_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        command.run(lambda: 1 // 0)


def test_a_line_that_is_not_understood_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    parser = command.Parser("status", "Status.")
    parser.add_run()
    with pytest.raises(SystemExit) as ended:
        parser.run(["--nonsense"], lambda options: 0)
    assert ended.value.code == command.REFUSED
    assert "usage: hpcdata status" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["run", "--splt", "80"], "unrecognized arguments: --splt 80; for --splt, did you mean --split?\n"),
        (["--input_pairs=a"], "are required: --input-pair; for --input_pairs, did you mean --input-pair?\n"),
        (["run", "--input-pair=a", "--nothing-like-it"], "unrecognized arguments: --nothing-like-it\n"),
    ],
)
def test_an_option_that_is_misspelled_is_told_with_the_one_that_is_near(
    line: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = command.Parser("export", "Export.")
    parser.add_run()
    parser.add_argument("--split")
    parser.add_argument("--input-pair", required="--splt" not in line)
    with pytest.raises(SystemExit):
        parser.run(line, lambda options: 0)
    assert capsys.readouterr().err.endswith(told)


def test_what_may_be_left_out_is_not_called_required(capsys: pytest.CaptureFixture[str]) -> None:
    parser = command.Parser("resume", "Resume.")
    parser.add_run()
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    with pytest.raises(SystemExit):
        parser.run([], lambda options: 0)
    assert capsys.readouterr().err.endswith("the following arguments are required: run\n")


PATHS = {"run", "path", "src", "out", "dataset", "tars", "output", "output_dir", "state"}
"""Names of arguments that are paths, beside those with such a metavar."""


@pytest.mark.parametrize("name", sorted(commands()))
def test_paths_that_are_typed_in_quotes_are_expanded_by_every_command(name: str) -> None:
    parser = importlib.import_module(f"hpcdata.{name.replace('-', '_')}").parser()
    found = [item for item in parser._actions if item.dest in PATHS or item.metavar in ("DIR", "FILE", "FOLDER", "CSV")]
    wrong = [item.dest for item in found if item.type is not command.path]
    assert not wrong


def test_a_path_in_quotes_is_what_a_shell_would_have_made_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert [command.path(typed) for typed in ("~/x", "$HOME/a (b,c) [d]", "./~", "/a~")] == [
        *("/home/me/x", "/home/me/a (b,c) [d]", "./~", "/a~")
    ]
    (tmp_path / "$HOME").mkdir()
    assert command.path(f"{tmp_path}/$HOME") == f"{tmp_path}/$HOME"  # as commands print it
    with pytest.raises(SystemExit):
        unpack.main(["$NOT_SET_HERE/x", "out"])
    assert "$NOT_SET_HERE/x: the variable NOT_SET_HERE is not set" in capsys.readouterr().err


NAMES = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=8).filter(lambda name: set(name) != {"."})


@settings(max_examples=examples(100), deadline=None)
@given(NAMES.filter(str.isprintable), st.lists(st.text().filter(str.isprintable)))
def test_what_a_shell_makes_of_a_line_to_type_is_what_was_meant(name: str, words: list[str]) -> None:
    wanted = ["python", "-m", "hpcdata.combine", f"/runs/{name}", *words]
    assert shlex.split(command.to_type("combine", f"/runs/{name}", *words)) == wanted


def test_what_cannot_be_printed_is_typed_as_escapes() -> None:
    names = ["\x1b[31m", "a\nb", "\t'\\", "\u2028 \u00a0", "'\x7f0\"$"]
    line = " ".join(command.quoted(name) for name in names)
    assert line.isprintable()
    names.append("\udcff' \udc80")  # its bytes are printed as they are
    line += f" {command.quoted(names[-1])}"
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(name) for name in names]


def test_a_path_to_type_means_the_same_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.to_type("status", "-x") == f"python -m hpcdata.status {tmp_path}/-x"


def test_foreign_text_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> int:
        command.say("a\tb\n\x1b]0;title\x07 \x9b31m")
        raise UserError("no \x1b[2J file: \ud800\r")

    assert command.run(refuse) == command.REFUSED
    shown = capsys.readouterr()
    assert shown.out == "a\tb\n\\x1b]0;title\\x07 \\x9b31m\n"
    assert shown.err == "hpcdata: no \\x1b[2J file: \\ud800\\r\n"

"""What commands share: endings, and lines that can be typed.   pytest tests/base/test_command.py"""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcdata.base import command
from hpcdata.base.errors import Failed, Unfinished, UserError


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UserError("no such run: launch it"), 2, "hpcdata: no such run: launch it\n"),
        (Failed("shard 3 is damaged"), 1, "hpcdata: shard 3 is damaged\n"),
        (Unfinished("3 shards are missing"), 3, "hpcdata: 3 shards are missing\n"),
        (OSError("full"), 1, "hpcdata: full\n"),
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


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_what_a_shell_makes_of_a_line_to_type_is_what_was_meant(words: list[str]) -> None:
    assert shlex.split(command.to_type("combine", *words)) == ["python", "-m", "hpcdata.combine", *words]

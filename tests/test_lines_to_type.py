"""Every line that is printed to be typed can be typed, whatever the path.   pytest tests/test_lines_to_type.py"""

from __future__ import annotations

import dataclasses
import html
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcdata import cancel, combine, export, logs, rejects, replay, resume, status, verify
from hpcdata.api.showing import to_html
from hpcdata.base.errors import UserError
from hpcdata.cluster import describing
from hpcdata.cluster.launching import Launched
from hpcdata.cluster.runs import Submitted
from hpcdata.config.schema import RunConfig
from hpcdata.history.outcome import Outcome, write_outcome
from hpcdata.report.status import read_status
from hpcdata.report.summary import warnings
from hpcdata.runs import reject_limit
from hpcdata.runs.paths import RunPaths
from hpcdata.runs.planning import prepare
from hpcdata.shards.counts import Counts
from tests import made
from tests.slurm.fakes import FakeSlurm
from tests.smallruns import small_config

ODD = "a0 '\"$`\\;&|<>(){}[]*?!#~=%^:,.-_äç漢字🙂"
NAMES = st.text(st.sampled_from(ODD), min_size=1, max_size=10).filter(lambda name: set(name) != {"."})
MARK = "python -m hpcdata."
_ENDS = ("", ";", ",", ":", ".", ")")
"""What a sentence may put behind a line."""


def lines_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command, all that a shell makes of the rest of the text line) of each line to type."""
    for line in text.splitlines():
        for piece in line.split(MARK)[1:]:
            lexer = shlex.shlex(MARK + piece, posix=True, punctuation_chars=False)
            lexer.whitespace_split, lexer.commenters = True, ""
            words = [word for _ in range(4) if (word := lexer.get_token()) is not None]
            yield words[2].removeprefix("hpcdata."), words[3:]


def require(text: str, run: Path, *commands: str) -> None:
    """All lines of the text name the run; among them are these commands."""
    found = list(lines_in(text))
    assert {command for command, _ in found} >= set(commands), text
    for _, words in found:
        assert words[0] in {f"{run}{end}" for end in _ENDS}, text


def told(function: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        function()
    return str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Holds one run, under any name."""
    root = tmp_path_factory.mktemp("odd")
    made.run(root / "runs/run", unfinished={1: 3})
    with pytest.MonkeyPatch.context() as monkeypatch:
        FakeSlurm(root / "bin", monkeypatch)
        yield root / "runs"


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return small_config(Path("/out"), "cluster=slurm", "data.max_rejected=0")


FEW = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FEW
@given(name=NAMES)
def test_lines_of_commands_about_a_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (old,) = folder.iterdir()
    run = old.rename(folder / name)
    paths = RunPaths(run)
    write_outcome(paths, Outcome(outcome="stopped", reason="the budget is spent", next_step=None))

    def printed(command: object, *arguments: str) -> str:
        command.main([str(run), *arguments])  # type: ignore[attr-defined]
        shown = capsys.readouterr()
        return shown.out + shown.err

    require(printed(status), run, "rejects")
    require(printed(combine), run, "resume", "combine")
    require(printed(cancel), run, "resume")
    require(printed(logs, "--task", "7"), run, "status")
    require(printed(export, f"{folder}/x", "--format=unidisc"), run, "combine")
    require(printed(replay, "--global-batch-size=2"), run, "combine")
    require(printed(verify), run)
    require(printed(rejects), run)
    paths.combined.write_text("{")
    require(printed(status), run, "combine")
    paths.combined.unlink()


@FEW
@given(name=NAMES)
def test_lines_of_a_launch_and_of_its_end(folder: Path, config: RunConfig, name: str) -> None:
    (old,) = folder.iterdir()
    look, run = dataclasses.replace(read_status(old), task_states={"failed": 1}, stopped=None), Path("/r") / name
    launched = Launched(output_dir=run, config=config, status=look)
    submitted = Submitted(job_ids=("7",), num_tasks=1, finish_id=None, problem=None, logs=run / "logs")
    text = describing.describe(dataclasses.replace(launched, submitted=submitted))
    require(text, run, "status", "combine", "cancel")
    require("\n".join(warnings(look, run)), run, "logs")
    require(describing.next_step(launched) or "", run, "resume")
    too_many = reject_limit.too_many(Counts.from_mapping(look.counts), config, run)
    require(too_many or "", run, "rejects", "resume")
    require(html.unescape(re.sub("<.*?>", "\n", to_html(run, look))), run, "resume")


def test_lines_of_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "-my $HOME's run;x"
    config = small_config(tmp_path / "out")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, token_output_dir=str(run)))
    prepare(config)
    (run / "claims").mkdir(exist_ok=True)
    (run / "claims/00000-of-00004").write_text("")
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, resolution=64))
    require(told(lambda: prepare(other)), run, "cancel")
    assert resume.main([str(run), "data.resolution=64"]) == 2
    require(capsys.readouterr().err, run)

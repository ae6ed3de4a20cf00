"""Messages say what was wrong with what was typed, and what to type.   pytest tests/test_messages.py"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hpcdata import T2I, TokenDataset, TokenLoader, launch, replay, resume
from hpcdata.base.errors import UserError
from hpcdata.cluster.describing import describe
from hpcdata.cluster.finish import Finished
from hpcdata.cluster.launching import Launched
from hpcdata.config.compose import compose
from hpcdata.dataset.combining import CombineOptions, combine
from hpcdata.report import summary
from hpcdata.report.status import read_status
from tests import made
from tests.smallruns import small_arguments


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("+experiments=a,b", "several are a list in brackets: +experiments='[a,b]'"),
        (
            "+experiments=[quickstart,tokenise]",
            "experiments=tokenise: there is no such preset: did you mean tokenize?",
        ),
        (
            "+experiments=tokenise",
            "tokenise: there is no such preset: did you mean tokenize? there are chameleon, ",
        ),
        ("cluster=slrum", "did you mean slurm? there are inline, local, slurm"),
        ("+experiment=quickstart", "unknown configuration key experiment: did you mean +experiments?"),
        ("data.cambrian_path=/x", "unknown configuration key data.cambrian_path: known keys are data.raw_data_dir, "),
        ("data.resolutoin=3", "did you mean data.resolution?"),
        ("nonsense.x=1", "unknown configuration key nonsense.x: python -m hpcdata.launch --help lists all"),
        ("loader.batch_size={1,2}", "loader.batch_size={1,2}: the value cannot be read; put quotes around what has "),
    ],
)
def test_what_was_typed_is_explained_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: str, told: str
) -> None:
    given = [item for item in small_arguments(tmp_path) if not item.startswith(typed.partition("=")[0] + "=")]
    assert launch.main([*given, typed]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert told in error
    assert not [word for word in ("viable", "multirun", "hydra", "sweep") if word in error]


def test_a_list_of_inputs_may_have_braces(tmp_path: Path) -> None:
    given = [item for item in small_arguments(tmp_path) if not item.startswith("data.raw_data_dir=")]
    config = compose([*given, "data.raw_data_dir=[/a/{0,1}.tar, /b c/{00..03}.tar]"])
    assert str(config.data.raw_data_dir) == "['/a/{0,1}.tar', '/b c/{00..03}.tar']"


def test_a_folder_that_is_no_run_is_not_to_be_launched_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert resume.main([str(tmp_path / "nope")]) == 2
    assert capsys.readouterr().err.endswith("nope does not exist: expected the output directory of a run\n")
    (tmp_path / "nope").mkdir()
    assert resume.main([str(tmp_path / "nope")]) == 2
    assert capsys.readouterr().err.endswith("nope has no plan.json: it is not the output directory of a run\n")
    made.run(tmp_path / "run")
    for content in (None, "{"):
        if content:
            (tmp_path / "run/runtime.json").write_text(content)
        assert resume.main([str(tmp_path / "run")]) == 1
        assert "launch with the line of the first launch, which writes it again" in capsys.readouterr().err


def test_replay_blames_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err == "hpcdata: the size of a batch is not known: pass --global-batch-size, or --state\n"
    )
    assert replay.main([str(tmp_path), "--layout", "t3i", "--global-batch-size=2"]) == 2
    assert "--layout is 't3i', expected one of " in capsys.readouterr().err


def test_a_row_that_is_too_short_is_told_in_what_the_layout_has(tmp_path: Path) -> None:
    made.run(tmp_path)
    combine(tmp_path, CombineOptions())
    with pytest.raises(UserError, match=r"does not fit into 16 ids .* use longer rows, such as packing=4096") as caught:
        next(iter(TokenLoader(TokenDataset(tmp_path), global_batch_size=2, layout=T2I(block_size=8), packing=16)))
    assert "max_length" not in str(caught.value)


def test_nothing_is_said_of_a_picture_that_was_not_made(tmp_path: Path) -> None:
    made.run(tmp_path)
    launched = Launched(output_dir=tmp_path, config=compose(small_arguments(tmp_path)))
    finished = Finished(manifest=combine(tmp_path, CombineOptions()), loader="1 batch")
    assert "picture" not in describe(dataclasses.replace(launched, finished=finished))
    finished = dataclasses.replace(finished, picture=tmp_path / "preview.png")
    assert "1. look at the picture" in describe(dataclasses.replace(launched, finished=finished))


def test_goodput_of_a_short_run_alarms_nobody(tmp_path: Path) -> None:
    made.run(tmp_path)
    look = dataclasses.replace(read_status(tmp_path), goodput=0.03, useful_s=2.0, overhead_s=58.0)
    assert "goodput" not in summary.describe(look, "/out")
    assert "goodput 3.0 %" in summary.describe(dataclasses.replace(look, overhead_s=6000.0), "/out")
